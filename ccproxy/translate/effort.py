"""How much thinking: a request's intent to the field that each dialect has for it, as one table.

Rows are facts about models and age fastest of all; the first row whose pattern is found in the model's name decides.
A model in no row is sent nothing: its own default is better than a refused field.
"""

from __future__ import annotations

import re
from typing import Any, Dict, Mapping, Optional, Tuple

from ..anthropic import MessagesRequest
from ..config.schema import EFFORTS, Model
from ..frozen import frozen

Json = Dict[str, Any]

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
    """One dialect's models. ``levels`` gives the fields per intent; ``with_tools`` replaces it beside tools."""

    pattern: str
    levels: Mapping[str, Json]
    with_tools: Optional[Mapping[str, Json]] = None


def _levels(off: Optional[Json], build: Any, **names: Any) -> Dict[str, Json]:
    """Return a level table; ``names`` maps each effort to the dialect's word for it."""
    levels = {effort: build(names.get(effort, effort)) for effort in EFFORTS}
    return {**levels, OFF: off} if off is not None else levels


def _word(value: Any) -> Json:
    return {"reasoning_effort": value}


_THREE: Dict[str, Any] = {"xhigh": "high", "max": "high"}
_LOW_HIGH_MAX: Dict[str, Any] = {"medium": "high", "xhigh": "high"}
_BUDGET_TOKENS: Dict[str, Any] = {"low": 2048, "medium": 8192, "high": 16384, "xhigh": 24576, "max": 24576}
_NONE: Mapping[str, Json] = {}


def _thinking(kind: str, **more: Any) -> Json:
    return {"thinking": {"type": kind, **more}}


def _google(config: Json) -> Json:
    """Over plain HTTP Google's extension is the body key ``extra_body``; it excludes ``reasoning_effort``."""
    return {"extra_body": {"google": {"thinking_config": {**config, "include_thoughts": True}}}}


def _deepseek(word: str) -> Json:
    return {**_thinking("enabled"), "reasoning_effort": word}


def _template(**more: Any) -> Json:
    return {"chat_template_kwargs": {"enable_thinking": True}, **more}


_NO_TEMPLATE_THINKING: Json = {"chat_template_kwargs": {"enable_thinking": False}}

ROWS: Dict[str, Tuple[Row, ...]] = {
    "openai": (
        # Function tools on chat completions: these models must be told "none", or must not be told anything.
        Row(
            r"^gpt-(5\.6|6-sol|6-luna|6\.1-terra)",
            _levels(_word("none"), _word),
            dict.fromkeys((OFF, UNSET, *EFFORTS), _word("none")),
        ),
        Row(r"^gpt-6", _levels(_word("low"), _word)),
        Row(r"^gpt-5\.[45]", _levels(_word("none"), _word, max="xhigh"), _NONE),
        Row(r"^gpt-5\.[1-3]", _levels(_word("none"), _word, **_THREE)),
        Row(r"^gpt-5-codex", _levels(_word("low"), _word, **_THREE)),
        Row(r"^gpt-5(?!.*chat)", _levels(_word("minimal"), _word, **_THREE)),
        Row(r"^o\d", _levels(_word("low"), _word, **_THREE)),
    ),
    "gemini": (
        Row(
            r"2\.5-flash",
            _levels(
                {"extra_body": {"google": {"thinking_config": {"thinking_budget": 0}}}},
                lambda tokens: _google({"thinking_budget": tokens}),
                **_BUDGET_TOKENS,
            ),
        ),
        Row(r"2\.5-pro", _levels(None, lambda n: _google({"thinking_budget": n}), **{**_BUDGET_TOKENS, "max": 32768})),
        Row(r"gemini-[3-9]", _levels(None, lambda word: _google({"thinking_level": word}), **_THREE)),
    ),
    "deepseek": (
        Row(r"v4|v3\.2|deepseek-(chat|reasoner)$", _levels(_thinking("disabled"), _deepseek, **_LOW_HIGH_MAX)),
    ),
    "openrouter": (
        # Models that think by a budget take it better than a word.
        Row(
            r"claude|gemini-2\.5",
            _levels({"reasoning": {"effort": "none"}}, lambda n: {"reasoning": {"max_tokens": n}}, **_BUDGET_TOKENS),
        ),
        Row(r"", _levels({"reasoning": {"effort": "none"}}, lambda word: {"reasoning": {"effort": word}}, max="xhigh")),
    ),
    "moonshot": (
        Row(r"k3", _levels(None, _word, **_LOW_HIGH_MAX)),
        Row(r"k2\.[56]", _levels(_thinking("disabled"), lambda _: _thinking("enabled", keep="all"))),
    ),
    "zai": (
        Row(r"glm-5\.3", _levels(_word("low"), _word, **_LOW_HIGH_MAX)),
        Row(r"glm-(4\.[5-9]|5)", _levels(_thinking("disabled"), lambda _: _thinking("enabled", clear_thinking=False))),
    ),
    "qwen": (
        Row(
            r"qwen3|qwen-(plus|turbo|max|flash)",
            _levels(
                {"enable_thinking": False},
                lambda tokens: {"enable_thinking": True, **({"thinking_budget": tokens} if tokens else {})},
                **{**_BUDGET_TOKENS, "xhigh": None, "max": None},
            ),
        ),
    ),
    "doubao": (Row(r"seed|thinking", _levels(_thinking("disabled"), _deepseek, **_THREE)),),
    "xai": (Row(r"grok-3-mini", _levels(None, _word, medium="low", **_THREE)),),
    "groq": (
        Row(r"gpt-oss", _levels(None, _word, **_THREE)),
        Row(r"qwen3", _levels(_word("none"), lambda _: _word("default"))),
    ),
    "mistral": (
        Row(r"mistral-(small|medium)-latest", _levels(_word("none"), _word, low="none", medium="high", **_THREE)),
    ),
    "vllm": (
        Row(r"gpt-oss", _levels(None, _word, **_THREE)),
        Row(r"qwen3|glm", _levels(_NO_TEMPLATE_THINKING, lambda _: _template())),
    ),
    "llamacpp": (
        Row(r"gpt-oss", _levels(None, _word, **_THREE)),
        Row(
            r"qwen3|glm",
            _levels(
                {**_NO_TEMPLATE_THINKING, "thinking_budget_tokens": 0},
                lambda tokens: _template(thinking_budget_tokens=tokens),
                **{**_BUDGET_TOKENS, "xhigh": -1, "max": -1},
            ),
        ),
    ),
    "ollama": (Row(r"gpt-oss|qwen3|deepseek|glm|thinking|r1", _levels(_word("none"), _word, xhigh="high")),),
    "lmstudio": (Row(r"gpt-oss", _levels(None, _word, **_THREE)),),
}


def effort_fields(request: MessagesRequest, model: Model, has_tools: bool) -> Json:
    """Return the fields that ask a model for the request's amount of thinking; models.yaml's effort wins."""
    configured = model.reasoning_effort
    row = next((row for row in ROWS.get(model.dialect.name, ()) if re.search(row.pattern, model.name.lower())), None)
    if row is None:
        return _word(configured) if configured else {}
    # What some models cannot do beside tools they can on the Responses API.
    levels = row.levels if row.with_tools is None or not has_tools or model.api == "responses" else row.with_tools
    intent = OFF if configured == "none" else configured or thinking_intent(request)
    choice = request.tool_choice
    if has_tools and choice and choice.type in ("any", "tool") and not model.dialect.thinks_when_forced:
        intent = OFF
    if intent == "minimal":
        return _word(intent)
    return dict(levels.get(intent, {}))
