"""How much thinking: what each provider is sent for what a request asks."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

import pytest

from ccproxy.anthropic import MessagesRequest
from ccproxy.translate.effort import effort_fields
from sent import model_of, user

Json = Dict[str, Any]
LIMIT = 32_000
TOOL = {"name": "Read", "input_schema": {"type": "object"}}


def fields(
    dialect: str, name: str, *, limit: int = LIMIT, has_tools: bool = False, entry: Any = None, **asked: Any
) -> Json:
    """What a model is sent for a request."""
    model = model_of(dialect, model_name=name, **(entry or {}))
    request = MessagesRequest.from_dict({"model": "m", "max_tokens": 1, "messages": user("Hi"), **asked})
    return effort_fields(request, model, has_tools, limit)


def manual(tokens: int) -> Json:
    """Thinking by a budget."""
    return {"thinking": {"type": "enabled", "budget_tokens": tokens}}


def google(**config: Any) -> Json:
    """Google's extension."""
    return {"extra_body": {"google": {"thinking_config": config}}}


def effort(word: str) -> Json:
    """OpenAI's field."""
    return {"reasoning_effort": word}


THOUGHTS = {"include_thoughts": True}
DISABLED: Json = {"thinking": {"type": "disabled"}}
LOW, MAX = ({"output_config": {"effort": word}} for word in ("low", "max"))
ROWS: List[Tuple[str, str, Any, Json, Json]] = [
    ("openai", "gpt-6-astra", effort("low"), effort("low"), effort("max")),
    ("openai", "gpt-5.1", effort("none"), effort("low"), effort("high")),
    ("openai", "gpt-5.1-codex-max", effort("none"), effort("low"), effort("xhigh")),
    ("openai", "gpt-5.2", effort("none"), effort("low"), effort("xhigh")),
    ("openai", "gpt-5.3-codex", effort("none"), effort("low"), effort("xhigh")),
    ("openai", "gpt-5.4", effort("none"), effort("low"), effort("xhigh")),
    ("openai", "gpt-5-codex", effort("low"), effort("low"), effort("high")),
    ("openai", "gpt-5-mini", effort("minimal"), effort("low"), effort("high")),
    ("openai", "o3", effort("low"), effort("low"), effort("high")),
    ("openai", "gpt-4.1", {}, {}, {}),
    (
        "gemini",
        "gemini-2.5-flash",
        google(thinking_budget=0),
        google(thinking_budget=2048, **THOUGHTS),
        google(thinking_budget=24576, **THOUGHTS),
    ),
    (
        "gemini",
        "gemini-3-pro",
        {},
        google(thinking_level="low", **THOUGHTS),
        google(thinking_level="high", **THOUGHTS),
    ),
    (
        "deepseek",
        "deepseek-chat",
        DISABLED,
        {"thinking": {"type": "enabled"}, **effort("low")},
        {"thinking": {"type": "enabled"}, **effort("max")},
    ),
    (
        "openrouter",
        "anthropic/claude-sonnet-4.5",
        {"reasoning": {"effort": "none"}},
        {"reasoning": {"max_tokens": 2048}},
        {"reasoning": {"max_tokens": 24576}},
    ),
    (
        "openrouter",
        "openai/gpt-5",
        {"reasoning": {"effort": "none"}},
        {"reasoning": {"effort": "low"}},
        {"reasoning": {"effort": "xhigh"}},
    ),
    ("xai", "grok-4.6", {}, effort("low"), effort("high")),
    ("xai", "grok-4.20", {}, {}, {}),
    ("moonshot", "kimi-k3", {}, effort("low"), effort("max")),
    ("moonshot", "kimi-k2.5", DISABLED, *[{"thinking": {"type": "enabled", "keep": "all"}}] * 2),
    ("zai", "glm-4.6", DISABLED, *[{"thinking": {"type": "enabled", "clear_thinking": False}}] * 2),
    (
        "qwen",
        "qwen3-max",
        {"enable_thinking": False},
        {"enable_thinking": True, "thinking_budget": 2048},
        {"enable_thinking": True},
    ),
    (
        "llamacpp",
        "qwen3-8b",
        {"chat_template_kwargs": {"enable_thinking": False}, "thinking_budget_tokens": 0},
        {"chat_template_kwargs": {"enable_thinking": True}, "thinking_budget_tokens": 2048},
        {"chat_template_kwargs": {"enable_thinking": True}, "thinking_budget_tokens": -1},
    ),
    ("vllm", "qwen3-8b", *[{"chat_template_kwargs": {"enable_thinking": on}} for on in (False, True, True)]),
    ("groq", "qwen3-32b", effort("none"), effort("default"), effort("default")),
    ("ollama", "gpt-oss:20b", effort("none"), effort("low"), effort("max")),
]


@pytest.mark.parametrize(("dialect", "name", "off", "low", "most"), ROWS, ids=[f"{row[0]}-{row[1]}" for row in ROWS])
def test_each_provider_has_its_own_field(dialect: str, name: str, off: Json, low: Json, most: Json) -> None:
    """Without thinking, with little and with all of it; nothing where nothing is asked."""
    assert [fields(dialect, name, **asked) for asked in (DISABLED, LOW, MAX, {})] == [off, low, most, {}]


BUDGETS = [
    ("openrouter", "anthropic/claude-sonnet-4.5", lambda tokens: {"reasoning": {"max_tokens": tokens}}),
    ("gemini", "gemini-2.5-pro", lambda tokens: google(thinking_budget=tokens, **THOUGHTS)),
    ("qwen", "qwen3-max", lambda tokens: {"enable_thinking": True, "thinking_budget": tokens}),
    (
        "llamacpp",
        "qwen3-8b",
        lambda tokens: {"chat_template_kwargs": {"enable_thinking": True}, "thinking_budget_tokens": tokens},
    ),
]


@pytest.mark.parametrize(("dialect", "name", "made"), BUDGETS, ids=[row[0] for row in BUDGETS])
def test_a_budget_is_passed_on(dialect: str, name: str, made: Any) -> None:
    """As the client set it, where the model thinks by one; an effort replaces it, and so does models.yaml's."""
    assert fields(dialect, name, **manual(10_000)) == made(10_000)
    assert fields(dialect, name, **manual(10)) == made(1024)
    assert fields(dialect, name, **manual(10_000), **LOW) == made(2048)
    assert fields(dialect, name, **manual(10_000), entry=effort("low")) == made(2048)


@pytest.mark.parametrize(
    ("name", "has_budget"),
    [
        ("claude-3.7-sonnet:thinking", True),
        ("claude-sonnet-4", True),
        ("claude-opus-4-20250514", True),
        ("claude-4.5-sonnet", True),
        ("claude-haiku-4.5", True),
        ("claude-sonnet-4-5-20250929", True),
        ("claude-opus-4.6", False),
        ("claude-4.7-opus", False),
        ("claude-opus-4-8", False),
        ("claude-sonnet-5", False),
        ("claude-opus-5.5", False),
    ],
)
def test_newer_claude_thinks_by_an_effort(name: str, has_budget: bool) -> None:
    """From 4.6 on it thinks as much as it needs, and OpenRouter lets it have no budget."""
    thought = {"max_tokens": 2048} if has_budget else {"effort": "low"}
    assert fields("openrouter", f"anthropic/{name}", **LOW) == {"reasoning": thought}


@pytest.mark.parametrize(("name", "level"), [("gemini-3-pro-preview", "high"), ("gemini-3.1-pro", "medium")])
def test_the_first_gemini_3_pro_has_two_levels(name: str, level: str) -> None:
    """It refuses to think a medium amount."""
    found = fields("gemini", name, output_config={"effort": "medium"})
    assert found == google(thinking_level=level, **THOUGHTS)


@pytest.mark.parametrize(("asked", "sent"), [(31_999, 24_576), (20_000, 20_000)])
def test_a_budget_is_no_more_than_the_model_has(asked: int, sent: int) -> None:
    """Gemini's Flash refuses more."""
    found = fields("gemini", "gemini-2.5-flash", **manual(asked))
    assert found == google(thinking_budget=sent, **THOUGHTS)


@pytest.mark.parametrize(
    ("limit", "sent"),
    [
        (32_000, {"max_tokens": 16_384}),
        (8192, {"max_tokens": 4096}),
        (2048, {"max_tokens": 1024}),
        (512, {"effort": "none"}),
    ],
)
def test_thinking_leaves_tokens_for_the_answer(limit: int, sent: Json) -> None:
    """It is part of the output: Claude refuses a budget that is all of it, and others would say nothing."""
    found = fields("openrouter", "anthropic/claude-sonnet-4.5", limit=limit, thinking={"type": "adaptive"})
    assert found == {"reasoning": sent}


def test_tools_beside_thinking_on_chat_completions() -> None:
    """Some models refuse both together: the ones are told so, the others nothing; over the Responses API they can."""
    for name, sent in (("gpt-5.6-luna", effort("none")), ("gpt-5.5", {})):
        entry = {"api": "chat"}
        assert fields("openai", name, has_tools=True, entry=entry, **LOW) == sent
        assert fields("openai", name, has_tools=True, entry={"api": "responses"}, **LOW) == effort("low")


def test_a_forced_choice_turns_thinking_off() -> None:
    """Where a provider refuses both together."""
    forced = {"tool_choice": {"type": "any"}, "tools": [TOOL]}
    assert fields("deepseek", "deepseek-chat", has_tools=True, **forced, **LOW) == DISABLED
    for name, sent in (("anthropic/claude-sonnet-4.5", {"effort": "none"}), ("openai/gpt-5", {"effort": "low"})):
        assert fields("openrouter", name, has_tools=True, **forced, **LOW) == {"reasoning": sent}
    assert fields("openai", "gpt-5", has_tools=True, **forced, **LOW) == effort("low")


@pytest.mark.parametrize(("configured", "sent"), [("none", DISABLED), ("minimal", effort("minimal"))])
def test_the_models_own_effort_wins(configured: str, sent: Json) -> None:
    """Over what the client asks for; a model of which nothing is known is sent it as it is."""
    entry = effort(configured)
    assert fields("deepseek", "deepseek-chat", entry=entry, **MAX) == sent
    assert fields("generic", "mine", entry=entry, **MAX) == entry
