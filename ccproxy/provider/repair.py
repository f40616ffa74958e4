"""Requests a provider refuses for one field: mended once, and remembered per model, so that one request pays for it.

A repair is a pure function of the request body. Texts are those that providers were seen to answer with status 400.
"""

from __future__ import annotations

import re
import threading
from typing import Callable, Dict, List, Match, Optional, Tuple

from ..encoded import Json
from ..translate.ids import SHORT_ID, provider_tool_id
from ..translate.messages import UNDERSTOOD
from ..translate.reasoning import FILLER, SKIP_SIGNATURE
from ..translate.schema import clean_schema

Repair = Callable[[Json], Json]

_DROPPABLE = "temperature|top_p|top_k|stop|parallel_tool_calls|stream_options|reasoning_effort|response_format|thinking"
_DROPPABLE += (
    "|prompt_cache_key|safety_identifier|chat_template_kwargs|tool_stream|thinking_budget|enable_thinking|reasoning"
)
_REFUSED = (
    r"not support|unsupported|unrecogni[sz]ed|extra inputs|extra_forbidden|unknown|not permitted|invalid|does not allow"
)


def _without(*names: str) -> Repair:
    return lambda body: {key: value for key, value in body.items() if key not in names}


def _renamed(old: str, new: str) -> Repair:
    return lambda body: {(new if key == old else key): value for key, value in body.items()}


def clamped(most: int) -> Repair:
    """Return the repair that asks for no more output than so many tokens."""
    return lambda body: {**body, **{name: min(limit, most) for name, limit in _output_limits(body)}}


def _raised(least: int) -> Repair:
    return lambda body: {**body, **{name: max(limit, least) for name, limit in _output_limits(body)}}


def _output_limits(body: Json) -> List[Tuple[str, int]]:
    names = ("max_tokens", "max_completion_tokens", "max_output_tokens")
    return [(name, body[name]) for name in names if name in body]


def _each_message(mend: Callable[[Json], Json]) -> Repair:
    return lambda body: {**body, "messages": [mend(message) for message in body["messages"]]}


def _without_reasoning(message: Json) -> Json:
    dropped = ("reasoning_content", "reasoning", "reasoning_text", "reasoning_details", "reasoning_opaque")
    return {key: value for key, value in message.items() if key not in dropped}


def _with_reasoning(message: Json) -> Json:
    if message["role"] != "assistant" or message.get("reasoning_content"):
        return message
    return {**message, "reasoning_content": FILLER}


def _with_signature(message: Json) -> Json:
    calls = message.get("tool_calls")
    if not calls or "extra_content" in calls[0]:
        return message
    signed = {**calls[0], "extra_content": {"google": {"thought_signature": SKIP_SIGNATURE}}}
    return {**message, "tool_calls": [signed, *calls[1:]]}


def _without_images(message: Json) -> Json:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    note = {"type": "text", "text": "[image omitted: this model has no image input]"}
    return {**message, "content": [note if part.get("type") == "image_url" else part for part in content]}


def _with_short_ids(message: Json) -> Json:
    """Give calls the ids of Mistral's models, whoever serves them."""
    changed: Json = {}
    if message.get("tool_calls"):
        calls = message["tool_calls"]
        changed["tool_calls"] = [{**call, "id": provider_tool_id(call["id"], SHORT_ID)} for call in calls]
    if "tool_call_id" in message:
        changed["tool_call_id"] = provider_tool_id(message["tool_call_id"], SHORT_ID)
    return {**message, **changed}


def _with_turns_after_tools(body: Json) -> Json:
    messages: List[Json] = []
    for message in body["messages"]:
        if message["role"] == "user" and messages and messages[-1]["role"] == "tool":
            messages.append({"role": "assistant", "content": UNDERSTOOD})
        messages.append(message)
    return {**body, "messages": messages}


def _harder_schemas(body: Json) -> Json:
    tools = []
    for tool in body.get("tools") or []:
        function = tool["function"]
        cleaned = clean_schema(function.get("parameters") or {}, "gemini")
        tools.append({**tool, "function": {**function, "parameters": cleaned}})
    return {**body, "tools": tools} if tools else body


def _without_effort(match: Match[str]) -> Repair:
    if "none" in match.string:
        return lambda body: {**body, "reasoning_effort": "none"}
    return _without("reasoning_effort")


def _auto_choice(body: Json) -> Json:
    return {**body, "tool_choice": "auto"} if "tool_choice" in body else body


# --- the same for the Responses API ----------------------------------------------------------------------------


def _each_item(mend: Callable[[Json], Json]) -> Repair:
    return lambda body: {**body, "input": [mend(item) for item in body["input"]]}


def _without_reasoning_items(body: Json) -> Json:
    """Leave out reasoning that was made with another key; what comes later with this one is read again."""
    return {**body, "input": [item for item in body["input"] if item["type"] != "reasoning"]}


def _without_summary(body: Json) -> Json:
    """OpenAI gives summaries to verified organisations alone."""
    reasoning = {name: value for name, value in body.get("reasoning", {}).items() if name != "summary"}
    return {**body, "reasoning": reasoning}


def _without_media(item: Json) -> Json:
    field = "output" if item["type"] == "function_call_output" else "content"
    if not isinstance(item.get(field), list):
        return item
    note = {"type": "input_text", "text": "[image omitted: this model has no image input]"}
    return {**item, field: [note if part["type"] == "input_image" else part for part in item[field]]}


def _text_results(item: Json) -> Json:
    if item["type"] != "function_call_output" or isinstance(item["output"], str):
        return item
    return {**item, "output": "\n".join(part.get("text") or "[omitted]" for part in item["output"])}


def _without_phase(item: Json) -> Json:
    return {name: value for name, value in item.items() if name != "phase"}


def _harder_tools(body: Json) -> Json:
    tools = [
        {**tool, "strict": False, "parameters": clean_schema(tool["parameters"] or {}, "gemini")}
        if "parameters" in tool
        else tool
        for tool in body.get("tools") or []
    ]
    return {**body, "tools": tools} if tools else body


_TO_COMPLETION = _renamed("max_tokens", "max_completion_tokens")
_TO_PLAIN = _renamed("max_completion_tokens", "max_tokens")
_LIMIT = r"(?:\[1, ?|at most |less than or equal to |maximum (?:value )?(?:is |of )?|<= ?)[`'\"]?(\d{1,15})"

_NO_IMAGES = r"image input.{0,40}not support"

_LEAST = r"max_(?:\w{1,20}_)?tokens.{0,120}?(?:>=|at least|greater than or equal to) ?[`'\"]?(\d{1,6})\b"

# The first pattern found in the provider's text decides.
_REPAIRS: Tuple[Tuple[str, Callable[[Match[str]], Repair]], ...] = (
    (r"max_tokens.{0,200}max_completion_tokens", lambda _: _TO_COMPLETION),
    (r"max_completion_tokens.{0,80}(?:unrecogni|unknown|extra|not supp)", lambda _: _TO_PLAIN),
    (r"max(?:_completion)?_tokens.{0,200}?" + _LIMIT, lambda match: clamped(int(match[1]))),
    (_LEAST, lambda match: _raised(int(match[1]))),
    (r"function tools with reasoning_effort are not supported", _without_effort),
    (r"reasoning_?effort.{0,80}(?:not support|unsupported)", lambda _: _without("reasoning_effort")),
    (r"not support.{0,60}reasoning_?effort", lambda _: _without("reasoning_effort")),
    (r"reasoning_format is not supported", lambda _: _without("reasoning_format")),
    (r"reasoning_content.{0,120}(?:must be passed back|is missing)", lambda _: _each_message(_with_reasoning)),
    (r"tool call ids?\b.{0,120}length (?:of )?9\b", lambda _: _each_message(_with_short_ids)),
    (r"unexpected role .?user.? after role .?tool", lambda _: _with_turns_after_tools),
    (r"thinking.?level.{0,60}not support", lambda _: _without("extra_body")),
    (r"missing a `?thought_signature", lambda _: _each_message(_with_signature)),
    (
        r"reasoning_(?:content|details).{0,120}(?:unsupp|extra|unkn|not supp)",
        lambda _: _each_message(_without_reasoning),
    ),
    (r"(?:unsupp|extra|unkn).{0,120}reasoning_(?:content|details)", lambda _: _each_message(_without_reasoning)),
    (r"property.{0,20}reasoning.{0,40}unsupported", lambda _: _each_message(_without_reasoning)),
    (r"tool_choice.{0,120}(?:incompatible|not support|unsupported|thinking)", lambda _: _auto_choice),
    (r"unknown name.{0,200}function_declarations", lambda _: _harder_schemas),
    (r"function_declarations.{0,200}(?:invalid|unknown)", lambda _: _harder_schemas),
    (r"invalid schema for function", lambda _: _harder_schemas),
    (rf"{_NO_IMAGES}|image_url.{{0,80}}not support", lambda _: _each_message(_without_images)),
    (r"unknown variant .image_url|not a vlm|not support image", lambda _: _each_message(_without_images)),
    (rf"(?:{_REFUSED}).{{0,120}}?\b({_DROPPABLE})\b", lambda match: _without(match[1].lower())),
    (rf"\b({_DROPPABLE})\b.{{0,120}}?(?:{_REFUSED})", lambda match: _without(match[1].lower())),
)
_FIELDS = "temperature|top_p|include|parallel_tool_calls|prompt_cache_key|safety_identifier|max_output_tokens"
_FIELDS += "|max_tool_calls|text|store|instructions|reasoning"
_RESPONSES_REPAIRS: Tuple[Tuple[str, Callable[[Match[str]], Repair]], ...] = (
    (r"max_output_tokens.{0,200}?" + _LIMIT, lambda match: clamped(int(match[1]))),
    (_LEAST, lambda match: _raised(int(match[1]))),
    (r"invalid_encrypted_content|encrypted content.{0,160}could not be", lambda _: _without_reasoning_items),
    (r"reasoning.{0,80}without its required following item", lambda _: _without_reasoning_items),
    (r"item with id.{0,80}not found", lambda _: _without_reasoning_items),
    (r"encrypted content is not supported", lambda _: _without("include")),
    (r"reasoning\.summary|reasoning summar", lambda _: _without_summary),
    (r"reasoning\.effort", lambda _: _without("reasoning")),
    (rf"(?:{_REFUSED}).{{0,120}}?\bphase\b|\bphase\b.{{0,120}}?(?:{_REFUSED})", lambda _: _each_item(_without_phase)),
    (r"tool_choice.{0,120}(?:incompatible|not support|unsupported|thinking)", lambda _: _auto_choice),
    (r"invalid schema for function", lambda _: _harder_tools),
    (r"not support image|image.{0,40}not support|unknown variant .input_image", lambda _: _each_item(_without_media)),
    (r"\boutput\b.{0,80}(?:must be|expected|should be) a? ?(?:valid )?string", lambda _: _each_item(_text_results)),
    (rf"(?:{_REFUSED}).{{0,120}}?\b({_FIELDS})\b", lambda match: _without(match[1].lower())),
    (rf"\b({_FIELDS})\b.{{0,120}}?(?:{_REFUSED})", lambda match: _without(match[1].lower())),
)
_ONCE = (_without_reasoning_items,)
"""Repairs of one conversation, which say nothing about the model."""


def find_repair(status: int, text: str, api: str = "chat") -> Optional[Repair]:
    """Return the repair for a refusal of a request to one of ``config.schema.APIS``, None when nothing would help."""
    is_server_without_eyes = status == 500 and re.search(_NO_IMAGES, text)  # llama.cpp
    if status not in (400, 422) and not is_server_without_eyes:
        return None
    for pattern, make in _RESPONSES_REPAIRS if api == "responses" else _REPAIRS:
        match = re.search(pattern, text, re.IGNORECASE | re.DOTALL)
        if match:
            return make(match)
    return None


MOST_REPAIRS = 8
MOST_MODELS = 1000
"""A client may name any model of a provider: beyond so many, the one known longest is forgotten."""


class Repairs:
    """The repairs each model needed so far; in memory, shared by all threads."""

    def __init__(self) -> None:
        self._known: Dict[Tuple[str, str], List[Repair]] = {}
        self._known_lock = threading.Lock()

    def apply(self, key: Tuple[str, str], body: Json) -> Json:
        """Return the body as the model is known to take it."""
        for repair in self._known.get(key, ()):
            body = repair(body)
        return body

    def remember(self, key: Tuple[str, str], repair: Repair) -> None:
        """Keep a repair that helped, if it will help again."""
        if repair in _ONCE:
            return
        with self._known_lock:
            known = self._known.get(key, [])
            if len(known) < MOST_REPAIRS:
                self._known[key] = [*known, repair]
            if len(self._known) > MOST_MODELS:
                del self._known[next(iter(self._known))]
