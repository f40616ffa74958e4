"""Which models may answer a request, in which order, and why: one test for each rule, and for their order."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

import pytest

from ccproxy.anthropic import MessagesRequest
from ccproxy.config.schema import Model
from ccproxy.errors import NotFound
from ccproxy.routing import Decision, decide, has_images
from ccproxy.translate.effort import thinking_intent
from support import make_config

PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
SEARCH = {"type": "web_search_20250305", "name": "web_search"}
CUSTOM = {"name": "Read", "input_schema": {}}
MODELS = ("main", "small", "thinker", "long", "eyes", "searcher")
ROUTERS = {
    "ROUTER_DEFAULT": "main",
    "ROUTER_BACKGROUND": "small",
    "ROUTER_THINK": "thinker",
    "ROUTER_LONG_CONTEXT": "long",
    "ROUTER_IMAGE": "eyes",
    "ROUTER_WEB_SEARCH": "searcher",
}


def entry(model_id: str, **more: Any) -> Dict[str, Any]:
    return {"model_id": model_id, "api_base": "http://p.test/v1", **more}


def request(model: str = "claude-sonnet-4-5", content: Any = "Hi", **fields: Any) -> MessagesRequest:
    messages = fields.pop("messages", [{"role": "user", "content": content}])
    return MessagesRequest.from_dict({"model": model, "max_tokens": 1, "messages": messages, **fields})


def route(
    asked: MessagesRequest,
    env: Optional[Dict[str, str]] = None,
    models: Optional[Sequence[Any]] = None,
    tokens: int = 10,
    **more: Any,
) -> Decision:
    """The decision with these settings; ``models`` are entries or plain names."""
    rows = [row if isinstance(row, dict) else entry(row) for row in (MODELS if models is None else models)]
    return decide(asked, make_config(ROUTERS if env is None else env, rows), lambda _: tokens, **more)


def chosen(decision: Decision) -> Any:
    return decision.rule, [model.model_id for model in decision.models]


ADAPTIVE = {"thinking": {"type": "adaptive"}}


def effort(level: str) -> Dict[str, Any]:
    return {**ADAPTIVE, "output_config": {"effort": level}}


RULES = [
    (request(), 10, ("default", ["main"])),
    (request("claude-haiku-4-5"), 10, ("background", ["small"])),
    (request("claude-3-5-haiku-20241022"), 10, ("background", ["small"])),
    (request("small"), 10, ("override", ["small"])),
    (request("small[1m]"), 10, ("override", ["small"])),
    (request("custom/small"), 10, ("override", ["small"])),
    (request("claude-small"), 10, ("override", ["small"])),  # the alias of the model list
    (request("openai/gpt-5"), 10, ("override", ["openai/gpt-5"])),
    (request("no-such-model"), 10, ("default", ["main"])),
    (request("default:small"), 10, ("default", ["main"])),  # what Claude Code is told to say: the rule counts
    (request("background:main"), 10, ("background", ["small"])),
    (request("background:main", **effort("max")), 10, ("think", ["thinker"])),
    (request("default:openrouter/anthropic/claude-haiku-4.5"), 10, ("default", ["main"])),
    (request("sonnet[1m]"), 10, ("default", ["main"])),
    (request(thinking={"type": "enabled", "budget_tokens": 2000}), 10, ("think", ["thinker"])),
    (request(**effort("xhigh")), 10, ("think", ["thinker"])),
    (request(**effort("max")), 10, ("think", ["thinker"])),
    (request(**effort("high")), 10, ("default", ["main"])),
    (request(**ADAPTIVE), 10, ("default", ["main"])),
    (request(thinking={"type": "disabled"}, output_config={"effort": "max"}), 10, ("default", ["main"])),
    (request(thinking={"type": "between_tools"}), 10, ("default", ["main"])),
    (request(tools=[SEARCH]), 10, ("web_search", ["searcher"])),
    (request(tools=[SEARCH, CUSTOM]), 10, ("default", ["main"])),
    (request(), 128_001, ("long_context", ["long"])),
    (request(), 128_000, ("default", ["main"])),
    # the order: length, search, thinking, what was asked for, background
    (request("claude-haiku-4-5", tools=[SEARCH], thinking={"type": "enabled"}), 128_001, ("long_context", ["long"])),
    (request("small"), 128_001, ("long_context", ["long"])),
    (request("small", tools=[SEARCH], thinking={"type": "enabled"}), 10, ("web_search", ["searcher"])),
    (request("small", thinking={"type": "enabled"}), 10, ("think", ["thinker"])),
    (request("claude-haiku-4-5", thinking={"type": "enabled"}), 10, ("think", ["thinker"])),
]


@pytest.mark.parametrize(("asked", "tokens", "expected"), RULES)
def test_the_first_rule_that_fires_decides(asked: MessagesRequest, tokens: int, expected: Any) -> None:
    """With every router set."""
    decision = route(asked, tokens=tokens)
    assert chosen(decision) == expected
    assert decision.reason


@pytest.mark.parametrize(
    ("asked", "tokens", "words"),
    [
        (request(), 150_000, ["150000", "128000"]),
        (request(tools=[SEARCH]), 10, ["web search"]),
        (request(thinking={"type": "enabled", "budget_tokens": 2000}), 10, ["thinking", "2000"]),
        (request(**effort("max")), 10, ["max", "xhigh"]),
        (request("small"), 10, ["small"]),
        (request("claude-haiku-4-5"), 10, ["claude-haiku-4-5", "haiku"]),
    ],
)
def test_every_decision_has_a_reason(asked: MessagesRequest, tokens: int, words: List[str]) -> None:
    """In words, with the values that decided."""
    reason = route(asked, tokens=tokens).reason
    assert [word for word in words if word not in reason] == []


@pytest.mark.parametrize(("asked", "tokens", "expected"), [row for row in RULES if row[2][0] != "override"])
def test_an_unset_rule_falls_through(asked: MessagesRequest, tokens: int, expected: Any) -> None:
    """With ``ROUTER_DEFAULT`` alone every rule ends there, unless the client named a model."""
    wanted = ("override", ["small"]) if asked.model == "small" else ("default", ["main"])
    assert chosen(route(asked, {"ROUTER_DEFAULT": "main"}, tokens=tokens)) == wanted


def test_the_window_of_the_chosen_model_counts_too() -> None:
    """A prompt beyond it is a long context, whatever the threshold."""
    models = [entry("main", max_input_tokens="32k"), "long"]
    routers = {"ROUTER_DEFAULT": "main", "ROUTER_LONG_CONTEXT": "long"}
    assert chosen(route(request(), routers, models, tokens=32_001)) == ("long_context", ["long"])
    assert chosen(route(request(), routers, models, tokens=32_000)) == ("default", ["main"])


def test_the_threshold_is_a_setting() -> None:
    """``k`` is a thousand."""
    assert chosen(route(request(), {**ROUTERS, "LONG_CONTEXT_THRESHOLD": "60k"}, tokens=60_001))[0] == "long_context"


@pytest.mark.parametrize(
    ("tokens", "expected", "word"),
    [
        (60_001, "long_context", "the long_context_threshold of main: 60000"),
        (60_000, "default", ""),
    ],
)
def test_a_model_may_have_its_own_threshold(tokens: int, expected: str, word: str) -> None:
    """It replaces the setting when that model would answer, and only then."""
    rows = [entry("main", long_context_threshold="60k"), *MODELS[1:]]
    decision = route(request(), models=rows, tokens=tokens)
    assert decision.rule == expected
    assert word in decision.reason
    assert route(request("small"), models=rows, tokens=60_001).rule == "override"


def test_a_model_may_have_a_larger_threshold_than_the_setting() -> None:
    """But never one beyond its window."""
    rows = [entry("main", long_context_threshold="180k", max_input_tokens="200k"), *MODELS[1:]]
    assert route(request(), models=rows, tokens=180_000).rule == "default"
    assert route(request(), models=rows, tokens=180_001).rule == "long_context"
    rows[0] = entry("main", long_context_threshold="300k", max_input_tokens="200k")
    assert route(request(), models=rows, tokens=200_001).rule == "long_context"


# --- a conversation stays where its cache is -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last_rule", "tokens", "expected"),
    [
        ("long_context", 128_000, "long_context"),
        ("long_context", 115_201, "long_context"),
        ("long_context", 115_200, "default"),  # a tenth less than the threshold
        ("default", 128_000, "default"),
        ("think", 128_000, "default"),
        ("default", 128_001, "long_context"),
    ],
)
def test_a_conversation_does_not_hop_at_the_threshold(last_rule: str, tokens: int, expected: str) -> None:
    """Once above it, it stays until it is clearly below."""
    last = route(request(), tokens=150_000 if last_rule == "long_context" else 10)
    last = Decision(last.models, last_rule, last.reason)
    assert route(request(), tokens=tokens, last=last).rule == expected


def test_why_it_stays_is_told() -> None:
    """With the numbers that decide when it leaves."""
    last = route(request(), tokens=150_000)
    reason = route(request(), tokens=120_000, last=last).reason
    assert [word for word in ("120000", "128000", "115200", "stays", "cache") if word not in reason] == []


def test_it_also_stays_when_the_window_was_the_limit() -> None:
    """The limit is whichever is less."""
    rows = [entry("main", max_input_tokens="32k"), *MODELS[1:]]
    last = route(request(), models=rows, tokens=40_000)
    assert route(request(), models=rows, tokens=30_000, last=last).rule == "long_context"
    assert route(request(), models=rows, tokens=28_800, last=last).rule == "default"


def test_without_a_model_for_long_contexts_it_goes_on_as_usual() -> None:
    """A configuration that changed meanwhile wins over the memory."""
    last = route(request(), tokens=150_000)
    assert route(request(), {"ROUTER_DEFAULT": "main"}, tokens=120_000, last=last).rule == "default"


# --- the header ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("small", ["small"]),
        ("custom/small", ["small"]),
        ("openai/gpt-5", ["openai/gpt-5"]),
        (" small , eyes ", ["small", "eyes"]),
    ],
)
@pytest.mark.parametrize("tokens", [10, 500_000])
def test_the_header_passes_all_rules(named: str, expected: List[str], tokens: int) -> None:
    """Also that of the length; several are a fallback order."""
    decision = route(request("main", [PNG], thinking={"type": "enabled"}), tokens=tokens, named=named)
    assert chosen(decision) == ("header", expected)
    assert named in decision.reason


@pytest.mark.parametrize("named", ["nowhere", "small,nowhere", "nowhere/gpt", ","])
def test_an_unknown_model_in_the_header_is_refused(named: str) -> None:
    """A script that names a model on purpose is not answered by another one."""
    with pytest.raises(NotFound, match=r"x-ccproxy-model: no such model: (nowhere|,)"):
        route(request(), named=named)


@pytest.mark.parametrize(
    ("least", "level", "rule"), [("low", "low", "think"), ("high", "medium", "default"), ("high", "high", "think")]
)
def test_the_effort_from_which_adaptive_thinking_counts(least: str, level: str, rule: str) -> None:
    """``low`` is always."""
    assert route(request(**effort(level)), {**ROUTERS, "ROUTER_THINK_EFFORT": least}).rule == rule


def test_nothing_is_counted_in_vain() -> None:
    """Without a model for long contexts a count cannot change anything."""

    def count(model: Model) -> int:
        raise AssertionError("counted")

    config = make_config({"ROUTER_DEFAULT": "main"}, [entry("main")])
    assert decide(request(), config, count).rule == "default"


@pytest.mark.parametrize(
    ("env", "window", "most", "is_counted"),
    [
        ({"LONG_CONTEXT_THRESHOLD": "1000"}, "32k", 1000, False),
        ({"LONG_CONTEXT_THRESHOLD": "1000"}, "32k", 1001, True),
        ({"LONG_CONTEXT_THRESHOLD": "64k"}, "32k", 32_000, False),
        ({"LONG_CONTEXT_THRESHOLD": "64k"}, "32k", 32_001, True),
    ],
)
def test_what_cannot_be_long_is_not_counted(env: Dict[str, str], window: str, most: int, is_counted: bool) -> None:
    """A body whose bytes reach neither the threshold nor the window has no more tokens than they allow."""
    counted: List[str] = []

    def count(model: Model) -> int:
        counted.append(model.model_id)
        return 10

    rows = [entry("main", max_input_tokens=window), entry("long")]
    config = make_config({"ROUTER_DEFAULT": "main", "ROUTER_LONG_CONTEXT": "long", **env}, rows)
    assert decide(request(), config, count, lambda _, limit: most <= limit).rule == "default"
    assert counted == (["main"] if is_counted else [])


# --- the default ---------------------------------------------------------------------------------------------


def test_without_a_default_anthropic_answers() -> None:
    """With its key, under the requested name."""
    decision = route(request("claude-sonnet-4-5"), {"ANTHROPIC_API_KEY": "k"})
    assert chosen(decision) == ("default", ["anthropic/claude-sonnet-4-5"])
    assert decision.models[0].direct
    assert decision.models[0].name == "claude-sonnet-4-5"


def test_without_a_default_the_first_model_with_a_key_answers() -> None:
    """Of models.yaml, in its order."""
    models = [entry("a", api_key_name="A_KEY"), entry("b", api_key_name="B_KEY"), entry("c")]
    assert chosen(route(request(), {"B_KEY": "k"}, models)) == ("default", ["b"])


def test_without_anything_the_demo_answers() -> None:
    """So the first request of a newcomer works."""
    assert chosen(route(request(), {}, [])) == ("default", ["demo/echo"])
    assert chosen(route(request(), {}, [entry("a", api_key_name="A_KEY")])) == ("default", ["demo/echo"])


# --- fallbacks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("default", "models", "expected"),
    [
        ("a,b", ["a", "b"], ["a", "b"]),
        (" b , a ", ["a", "b"], ["b", "a"]),
        ("a", [entry("a", fallbacks=["b"]), "b"], ["a", "b"]),
        ("a,b", [entry("a", fallbacks=["c"]), "b", "c"], ["a", "b", "c"]),
        ("a,b", [entry("a", fallbacks=["b", "a"]), "b"], ["a", "b"]),  # each once
        ("a,openai/gpt-5", ["a"], ["a", "openai/gpt-5"]),
    ],
)
def test_a_route_is_models_in_order(default: str, models: Any, expected: List[str]) -> None:
    """The list of the router, then the fallbacks of its models."""
    assert chosen(route(request(), {"ROUTER_DEFAULT": default}, models)) == ("default", expected)


def test_a_model_asked_for_by_name_brings_its_fallbacks() -> None:
    """The client's choice first."""
    models = [entry("a", fallbacks=["b"]), "b", "main"]
    assert chosen(route(request("a"), {"ROUTER_DEFAULT": "main"}, models)) == ("override", ["a", "b"])


# --- images --------------------------------------------------------------------------------------------------

BLIND = [entry("main", supports_images=False), "eyes", "small", entry("long", supports_images=False)]
IMAGE_ROUTERS = {"ROUTER_DEFAULT": "main", "ROUTER_IMAGE": "eyes", "ROUTER_LONG_CONTEXT": "long"}
IN_RESULT = [
    {"role": "assistant", "content": [{"type": "tool_use", "id": "i", "name": "T", "input": {}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "i", "content": [PNG]}]},
]


@pytest.mark.parametrize(
    ("asked", "tokens", "expected"),
    [
        (request(content=[PNG]), 10, ("image", ["eyes"])),
        (request(messages=IN_RESULT), 10, ("image", ["eyes"])),
        (request(content=[PNG]), 150_000, ("image", ["eyes"])),  # also after another rule
        (request("small", [PNG]), 10, ("override", ["small"])),  # it sees
        (request(), 10, ("default", ["main"])),
    ],
)
def test_images_go_to_a_model_that_sees(asked: MessagesRequest, tokens: int, expected: Any) -> None:
    """When the chosen model cannot, and one is set that can."""
    assert chosen(route(asked, IMAGE_ROUTERS, BLIND, tokens)) == expected


def test_without_an_image_model_the_route_stays() -> None:
    """The images become a note."""
    assert chosen(route(request(content=[PNG]), {"ROUTER_DEFAULT": "main"}, BLIND)) == ("default", ["main"])


def test_images_are_seen_wherever_they_are() -> None:
    """In messages and in results."""
    assert [has_images(asked) for asked in (request(content=[PNG]), request(messages=IN_RESULT), request())] == [
        True,
        True,
        False,
    ]


# --- thinking intent -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "intent"),
    [
        ({}, "unset"),
        ({"thinking": {"type": "disabled"}}, "off"),
        ({"thinking": {"type": "between_tools"}, "output_config": {"effort": "max"}}, "off"),
        ({"output_config": {"effort": "low"}}, "low"),
        (ADAPTIVE, "high"),
        (effort("medium"), "medium"),
        ({"thinking": {"type": "enabled", "budget_tokens": 4095}}, "low"),
        ({"thinking": {"type": "enabled", "budget_tokens": 4096}}, "medium"),
        ({"thinking": {"type": "enabled", "budget_tokens": 15_999}}, "medium"),
        ({"thinking": {"type": "enabled", "budget_tokens": 16_000}}, "high"),
        ({"thinking": {"type": "enabled", "budget_tokens": 31_998}}, "high"),
        ({"thinking": {"type": "enabled", "budget_tokens": 31_999}}, "xhigh"),
        ({"output_config": {"effort": "of_tomorrow"}}, "unset"),
    ],
)
def test_how_much_thinking_is_asked_for(fields: Any, intent: str) -> None:
    """One intent per request, from ``thinking`` and ``output_config``."""
    assert thinking_intent(request(**fields)) == intent


def test_the_last_system_message_sets_the_effort() -> None:
    """Mid-conversation messages may carry one; the last one wins over the request's own."""
    first, last = ({"role": "system", "output_config": {"effort": level}} for level in ("max", "low"))
    messages = [{"role": "user", "content": "Hi"}, first, last]
    assert thinking_intent(request(messages=messages, **effort("high"))) == "low"
