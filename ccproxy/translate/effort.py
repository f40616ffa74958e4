"""How much thinking: a request's intent to the field that each dialect has for it, as one table.

Rows are facts about models and age fastest of all; the first row whose pattern is found in the model's name decides.
A model in no row is sent nothing: its own default is better than a refused field.
"""

from __future__ import annotations

import re
from dataclasses import field
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

from ..anthropic import MessagesRequest
from ..config.schema import EFFORTS, Model
from ..encoded import Json
from ..frozen import frozen

OFF, UNSET = "off", "unset"
_BUDGETS = ((4_096, "low"), (16_000, "medium"), (31_999, "high"))


def thinking_intent(request: MessagesRequest) -> str:
    """Return how much thinking a request asks for: ``off``, ``unset`` or an effort.

    A budget of manual thinking counts as the effort it buys. Adaptive thinking without an effort is Anthropic's
    default, ``high``. The last system message that sets an effort wins over the request's own.
    """
    kind = request.thinking.get("type")
    if kind in ("disabled", "between_tools"):
        return OFF
    effort = _effort(request)
    if effort is not None:
        return effort
    if kind == "enabled":
        budget = request.thinking.get("budget_tokens")
        if not isinstance(budget, int):
            return "high"
        return next((name for limit, name in _BUDGETS if budget < limit), "xhigh")
    return "high" if kind == "adaptive" else UNSET


def _effort(request: MessagesRequest) -> Optional[str]:
    configs = [message.raw.get("output_config") for message in reversed(request.messages) if message.role == "system"]
    for config in [*configs, request.output_config]:
        effort = config.get("effort") if isinstance(config, dict) else None
        if effort in EFFORTS:
            return str(effort)
    return None


@frozen
class Row:
    """One dialect's models: the fields without thinking (None: they cannot), and what makes those of an effort."""

    pattern: str
    off: Optional[Json]
    build: Callable[[Any], Json]
    words: Mapping[str, Any] = field(default_factory=dict)
    """The dialect's word, or number of tokens, for each effort that it calls otherwise."""
    with_tools: Optional[Json] = None
    """Replaces all beside tools."""


_THREE: Dict[str, Any] = {"xhigh": "high", "max": "high"}
_LOW_HIGH_MAX: Dict[str, Any] = {"medium": "high", "xhigh": "high"}
_TOKENS: Dict[str, Any] = {"low": 2048, "medium": 8192, "high": 16384, "xhigh": 24576, "max": 24576}
_LEAST_TOKENS = 1024
"""Claude refuses to think with fewer."""


def _word(value: Any) -> Json:
    return {"reasoning_effort": value}


def _thinking(kind: str, **more: Any) -> Json:
    return {"thinking": {"type": kind, **more}}


def _google(**config: Any) -> Json:
    """Over plain HTTP Google's extension is the body key ``extra_body``; it excludes ``reasoning_effort``."""
    return {"extra_body": {"google": {"thinking_config": config}}}


def _google_budget(tokens: int) -> Json:
    return _google(thinking_budget=tokens, include_thoughts=True)


def _google_level(word: str) -> Json:
    return _google(thinking_level=word, include_thoughts=True)


def _deepseek(word: str) -> Json:
    return {**_thinking("enabled"), "reasoning_effort": word}


def _template(is_on: bool, **more: Any) -> Json:
    return {"chat_template_kwargs": {"enable_thinking": is_on}, **more}


ROWS: Dict[str, Tuple[Row, ...]] = {
    "openai": (
        # Function tools on chat completions: these models must be told "none", or must not be told anything.
        Row(r"^gpt-(5\.6|6-sol|6-luna|6\.1-terra)", _word("none"), _word, with_tools=_word("none")),
        Row(r"^gpt-6", _word("low"), _word),
        Row(r"^gpt-5\.[45]", _word("none"), _word, {"max": "xhigh"}, with_tools={}),
        Row(r"^gpt-5\.([23]|1-codex-max)", _word("none"), _word, {"max": "xhigh"}),
        Row(r"^gpt-5\.1", _word("none"), _word, _THREE),
        Row(r"^gpt-5-codex", _word("low"), _word, _THREE),
        Row(r"^gpt-5(?!.*chat)", _word("minimal"), _word, _THREE),
        Row(r"^o\d", _word("low"), _word, _THREE),
    ),
    "gemini": (
        Row(r"2\.5-flash", _google(thinking_budget=0), _google_budget, _TOKENS),
        Row(r"2\.5-pro", None, _google_budget, {**_TOKENS, "max": 32768}),
        Row(r"gemini-3-pro", None, _google_level, {"medium": "high", **_THREE}),
        Row(r"gemini-[3-9]", None, _google_level, _THREE),
    ),
    "deepseek": (Row(r"v4|v3\.2|deepseek-(chat|reasoner)$", _thinking("disabled"), _deepseek, _LOW_HIGH_MAX),),
    "openrouter": (
        # Models that think by a budget take it better than a word; Claude does so up to 4.5.
        Row(
            r"claude-(?:[23]|(?:\w+-)?4(?:[.-][0-5])?(?:$|:|-\D|-\d{8}))|gemini-2\.5",
            {"reasoning": {"effort": "none"}},
            lambda tokens: {"reasoning": {"max_tokens": tokens}},
            _TOKENS,
        ),
        Row(r"", {"reasoning": {"effort": "none"}}, lambda word: {"reasoning": {"effort": word}}, {"max": "xhigh"}),
    ),
    "moonshot": (
        Row(r"k3", None, _word, _LOW_HIGH_MAX),
        Row(r"k2\.[56]", _thinking("disabled"), lambda _: _thinking("enabled", keep="all")),
    ),
    "zai": (
        Row(r"glm-5\.3", _word("low"), _word, _LOW_HIGH_MAX),
        Row(r"glm-(4\.[5-9]|5)", _thinking("disabled"), lambda _: _thinking("enabled", clear_thinking=False)),
    ),
    "qwen": (
        Row(
            r"qwen3|qwen-(plus|turbo|max|flash)",
            {"enable_thinking": False},
            lambda tokens: {"enable_thinking": True, **({"thinking_budget": tokens} if tokens else {})},
            {**_TOKENS, "xhigh": None, "max": None},
        ),
    ),
    "doubao": (Row(r"seed|thinking", _thinking("disabled"), _deepseek, _THREE),),
    "xai": (
        Row(r"grok-3-mini", None, _word, {"medium": "low", **_THREE}),
        Row(r"grok-4\.[3-9](?!\d)", None, _word, _THREE),  # 4.20 and those before it refuse the field
    ),
    "groq": (
        Row(r"gpt-oss", None, _word, _THREE),
        Row(r"qwen3", _word("none"), lambda _: _word("default")),
    ),
    "mistral": (
        Row(r"mistral-(small|medium)-latest", _word("none"), _word, {"low": "none", "medium": "high", **_THREE}),
    ),
    "vllm": (
        Row(r"gpt-oss", None, _word, _THREE),
        Row(r"qwen3|glm", _template(False), lambda _: _template(True)),
    ),
    "llamacpp": (
        Row(r"gpt-oss", None, _word, _THREE),
        Row(
            r"qwen3|glm",
            _template(False, thinking_budget_tokens=0),
            lambda tokens: _template(True, thinking_budget_tokens=tokens),
            {**_TOKENS, "xhigh": -1, "max": -1},
        ),
    ),
    "ollama": (Row(r"gpt-oss|qwen3|deepseek|glm|thinking|r1", _word("none"), _word, {"xhigh": "high"}),),
    "lmstudio": (Row(r"gpt-oss", None, _word, _THREE),),
}


def effort_fields(request: MessagesRequest, model: Model, has_tools: bool, output_limit: int) -> Json:
    """Return the fields that ask a model for the request's amount of thinking; models.yaml's effort wins.

    Args:
        output_limit: the most output tokens that are asked for; thinking is part of them.
    """
    configured = model.reasoning_effort
    row = next((row for row in ROWS.get(model.dialect.name, ()) if re.search(row.pattern, model.name.lower())), None)
    if row is None:
        return _word(configured) if configured else {}
    if has_tools and row.with_tools is not None and model.api != "responses":
        return row.with_tools  # what these models cannot do beside tools they can on the Responses API
    intent = OFF if configured == "none" else configured or thinking_intent(request)
    is_forced = has_tools and request.tool_choice is not None and request.tool_choice.type in ("any", "tool")
    if is_forced and re.search(model.dialect.unthinking_when_forced, model.name):
        intent = OFF
    if intent == "minimal":
        return _word(intent)
    word = row.words.get(intent, intent)
    if isinstance(word, int) and word > 0:
        tokens = (not configured and _budget(request)) or word
        most = row.words["max"] or 0
        word = _fitting(min(tokens, most) if most > 0 else tokens, output_limit)
    if intent == OFF or word == 0:
        return row.off or {}
    return row.build(word) if intent in EFFORTS else {}


def _budget(request: MessagesRequest) -> Optional[int]:
    """Return the tokens of manual thinking, as far as no effort replaces them."""
    tokens = request.thinking.get("budget_tokens")
    is_manual = request.thinking.get("type") == "enabled" and _effort(request) is None
    return max(tokens, _LEAST_TOKENS) if is_manual and isinstance(tokens, int) else None


def _fitting(tokens: int, output_limit: int) -> int:
    """Return how many tokens may be thought: half of the output where all of it would be; 0 where that is too few."""
    if tokens < output_limit:
        return tokens
    return output_limit // 2 if output_limit // 2 >= _LEAST_TOKENS else 0
