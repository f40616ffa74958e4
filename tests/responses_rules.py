"""The rules of requests to the Responses API, checked strictly and without any of ccproxy's code.

`faults` says where a body breaks a rule: one of the `openai` SDK's parameter types, in which keys that nobody knows are
faults, one of OpenAI's OpenAPI document, or one that neither states.
"""

from __future__ import annotations

import json
import re
from typing import Any, Dict, Iterator, List, Sequence

from openai.types.responses.response_create_params import (
    ResponseCreateParamsNonStreaming,
    ResponseCreateParamsStreaming,
)

from openai_format import check, sdk_faults
from request_rules import ANTHROPIC_FIELDS, ATTRIBUTION, ENVELOPE

Json = Dict[str, Any]

FIELDS = frozenset(
    """model instructions input tools store include max_output_tokens max_tool_calls reasoning text tool_choice
    parallel_tool_calls prompt_cache_key safety_identifier temperature top_p stream""".split()  # noqa: SIM905
)
"""All that a request needs; whatever else the API may take, nobody asked for."""
CALL_ID, NAME = r"[\x21-\x7e]{1,64}", r"[a-zA-Z0-9_-]{1,64}"


def faults(body: Json) -> List[str]:
    """Return every rule that a request breaks."""
    schema = {"$ref": "#/components/schemas/CreateResponse"}
    is_newer = body.get("reasoning", {}).get("effort") == "max"  # than the document
    plain = {**body, "reasoning": {**body["reasoning"], "effort": "xhigh"}} if is_newer else body
    return [
        *sdk_faults(body, ResponseCreateParamsNonStreaming, ResponseCreateParamsStreaming),
        *(f"OpenAPI: {fault}" for fault in check(schema, plain, "body")),
        *field_faults(body),
        *item_faults(body["input"]),
        *tool_faults(body),
        *leaks(body),
    ]


def field_faults(body: Json) -> Iterator[str]:
    """Nothing is kept at the provider, and nothing is asked for that a model without reasoning would refuse."""
    yield from (f"unknown field {name}" for name in sorted(set(body) - FIELDS))
    if body.get("store") is not False:
        yield "the provider may keep the answer"
    if not body.get("max_output_tokens", 0) >= 16:
        yield f"max_output_tokens {body.get('max_output_tokens')}"
    if body.get("instructions") == "":
        yield "empty instructions"
    format_ = body.get("text", {}).get("format", {}).get("type")
    if format_ == "json_object" and "json" not in json.dumps([body["input"], body.get("instructions")]).lower():
        yield "JSON mode needs the word json in the prompt"


def item_faults(items: Sequence[Json]) -> Iterator[str]:
    """Calls are answered once, before anything else is said; nothing is empty; reasoning precedes what it led to."""
    open_calls: List[str] = []
    for number, item in enumerate(items):
        kind, where = item["type"], f"input.{number}"
        after = items[number + 1] if number + 1 < len(items) else {"type": "none"}
        if kind == "function_call_output":
            if item["call_id"] not in open_calls:
                yield f"{where}: answers no open call: {item['call_id']!r} of {open_calls}"
            else:
                open_calls.remove(item["call_id"])
            if not item["output"]:
                yield f"{where}: no output"
            continue
        if kind == "message" and open_calls:
            yield f"{where}: calls without an answer before it: {open_calls}"
        if kind == "function_call":
            yield from call_faults(item, where)
            open_calls.append(item["call_id"])
        if kind == "message" and not (item["content"].strip() if isinstance(item["content"], str) else item["content"]):
            yield f"{where}: empty content"
        if kind == "message" and item["role"] == after.get("role") != "system":
            yield f"{where}: two {item['role']} messages in a row"
        if (
            kind == "reasoning"
            and after["type"] not in ("reasoning", "function_call")
            and after.get("role") != "assistant"
        ):
            yield f"{where}: reasoning without what it led to"
    if open_calls:
        yield f"calls without an answer at the end: {open_calls}"
    if not items or items[-1].get("role") == "assistant":
        yield "the conversation ends with the assistant"


def call_faults(item: Json, where: str) -> Iterator[str]:
    """Ids and names are in the alphabet, arguments are an object."""
    if not re.fullmatch(CALL_ID, item["call_id"]):
        yield f"{where}: call_id {item['call_id']!r}"
    if not re.fullmatch(NAME, item["name"]):
        yield f"{where}: name {item['name']!r}"
    if not isinstance(json.loads(item["arguments"]), dict):
        yield f"{where}: arguments are no object"


def tool_faults(body: Json) -> Iterator[str]:
    """Tools differ in their names and are described by object schemas; a choice needs tools to choose from."""
    tools = body.get("tools")
    if tools is None:
        yield from (f"{name} without tools" for name in ("tool_choice", "parallel_tool_calls") if name in body)
        return
    functions = [tool for tool in tools if tool["type"] == "function"]
    names = [str(tool.get("name")) for tool in functions]
    if not tools or len(names) != len(set(names)):
        yield f"tools: {names}"
    yield from (f"tool name {name!r}" for name in names if not re.fullmatch(NAME, name))
    for tool in functions:
        parameters = tool.get("parameters", {})
        if parameters.get("type") != "object" or not isinstance(parameters.get("properties"), dict):
            yield f"{tool.get('name')}: the root of a schema is an object"
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice["type"] == "function" and choice["name"] not in names:
        yield f"tool_choice {choice} of {names}"


def leaks(body: Json) -> Iterator[str]:
    """Nothing of Anthropic's request, of its client or of ours reaches the provider."""
    yield from (f"Anthropic's {name}" for name in sorted(ANTHROPIC_FIELDS & set(body)))
    text = json.dumps(body)
    if ENVELOPE in text:
        yield f"an envelope: ...{text[max(0, text.index(ENVELOPE) - 60) :][:120]}"
    if ATTRIBUTION in body.get("instructions", "")[:200]:
        yield "the attribution line"
