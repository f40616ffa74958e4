"""A request in the words of OpenAI's Responses API: the conversation as items, and the fields renamed.

Tools, choices, lengths and the rest are decided where they are for chat completions, by the dialect; only their
spelling is changed here.
"""

from __future__ import annotations

import re
from typing import Any, List, Mapping, Sequence, Tuple

from ..anthropic import Block, Message, MessagesRequest, TextBlock, ThinkingBlock, ToolUseBlock
from ..encoded import Encoded, Json, dump
from ..responses import ResponsesRequest
from .content import Notes, Target, simplify, words_of
from .ids import ToolNames, provider_tool_id
from .messages import CONTINUE, system_text, user_parts
from .reasoning import own_items
from .turns import translate_turns

# What only a client of chat completions says, or says of its own servers.
_NO_FIELDS = frozenset({"thinking", "extra_body", "enable_thinking", "thinking_budget"})


def responses_request(
    request: MessagesRequest,
    target: Target,
    notes: Notes,
    instructions: Sequence[str],
    tools: Sequence[Json],
    options: Mapping[str, Any],
    stream: bool,
) -> ResponsesRequest:
    """Return the request; ``tools`` and ``options`` are those of chat completions, ``instructions`` end the prompt.

    Nothing is kept at the provider: reasoning comes back encrypted, and the client carries it.
    """
    fields: Json = {"store": False}
    if re.search(target.dialect.encrypts_reasoning, target.model.name):
        fields["include"] = ["reasoning.encrypted_content"]
    for name, value in _fields(options, shows_reasoning=request.thinking.get("display") != "omitted").items():
        fields[name] = [*fields.get(name, []), *value] if name == "include" else value
    if any(tool["type"] != "function" for tool in tools) and fields.get("reasoning", {}).get("effort") == "minimal":
        fields["reasoning"] = {"effort": "low"}  # the least with which a model may search
    return ResponsesRequest(
        model=target.model.name,
        instructions=system_text([*request.system, *map(TextBlock, instructions)], target, notes),
        items=tuple(_items(request, target, notes)),
        tools=tuple(_tool(tool) for tool in tools),
        options={**fields, **target.model.extra_body},
        stream=stream,
    )


# --- the conversation ----------------------------------------------------------------------------------------


def _items(request: MessagesRequest, target: Target, notes: Notes) -> List[Json]:
    items: List[Json] = [*translate_turns(request, target, notes, _turn)]
    if items[-1].get("role") == "assistant":
        items.append(_message("user", CONTINUE))
    return items


def _turn(turn: Message, calls: Tuple[str, ...], target: Target, notes: Notes) -> List[Encoded]:
    """Return the items of a turn."""
    if turn.role == "assistant":
        items = _assistant(turn, target, notes)
    elif turn.role == "system":
        text = system_text(turn.content, target, notes)
        items = [_message("system", text)] if text else []
    else:
        items = _user(turn, calls, target, notes)
    return [Encoded(item) for item in items]


def _message(role: str, content: Any) -> Json:
    return {"type": "message", "role": role, "content": content}


def _assistant(message: Message, target: Target, notes: Notes) -> List[Json]:
    """Return the items of one turn: what the model said, then its calls, its reasoning where it was.

    Text between calls comes before them: DeepSeek refuses results that do not follow all calls of a turn.
    """
    said: List[Json] = []
    called: List[Json] = []
    ids: List[str] = []
    spoken: List[Block] = []
    for block in message.content:
        if isinstance(block, ThinkingBlock):
            reasoning = own_items(block, target.model)
            if reasoning and not called:
                said += _said(spoken, notes)
                spoken = []
            (called if called else said).extend(reasoning)
        elif isinstance(block, ToolUseBlock) and block.id in ids:
            notes.drop(f"a second call with the id {block.id!r}")
        elif isinstance(block, ToolUseBlock):
            ids.append(block.id)
            called.append(_call(block, target))
        else:
            spoken.append(block)
    said += _said(spoken, notes)
    if re.search(target.dialect.names_phases, target.model.name):
        phase = "commentary" if called else "final_answer"
        said = [{**item, "phase": phase} if item["type"] == "message" else item for item in said]
    return said + called


def _said(blocks: Sequence[Block], notes: Notes) -> List[Json]:
    """Return what was said as one message, or none."""
    text = words_of(blocks, notes)
    return [_message("assistant", text)] if text else []


def _call(block: ToolUseBlock, target: Target) -> Json:
    call_id = provider_tool_id(block.id, target.dialect.tool_id_pattern)
    name, arguments = ToolNames.to_provider(block.name), dump(block.input)
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}


def _user(message: Message, calls: Sequence[str], target: Target, notes: Notes) -> List[Json]:
    results, parts = user_parts(message, calls, target, notes)
    items: List[Json] = [
        {"type": "function_call_output", "call_id": call_id, "output": _content(result, target)}
        for call_id, result in results
    ]
    return items + ([_message("user", _content(parts, target))] if parts else [])


def _content(parts: Sequence[Json], target: Target) -> Any:
    content = simplify(parts, target)
    return content if isinstance(content, str) else [_part(part) for part in content]


def _part(part: Json) -> Json:
    """Return a part of chat completions as input."""
    if part["type"] == "image_url":
        return {"type": "input_image", "image_url": part["image_url"]["url"], "detail": "auto"}
    if part["type"] == "file":
        return {"type": "input_file", **part["file"]}
    return {"type": "input_text", "text": part["text"]}


# --- fields --------------------------------------------------------------------------------------------------


def _tool(tool: Json) -> Json:
    """Return a function, flat; it is strict here unless it says that it is not."""
    if "function" not in tool:
        return tool
    return {"type": "function", **tool["function"], "strict": tool["function"].get("strict", False)}


def _fields(options: Mapping[str, Any], *, shows_reasoning: bool) -> Json:
    fields: Json = {}
    for name, value in options.items():
        if name == "reasoning_effort":
            fields["reasoning"] = {"effort": value}
        elif name == "response_format":
            fields["text"] = {"format": {"type": value["type"], **value.get("json_schema", {})}}
        elif name == "tool_choice" and isinstance(value, dict) and "function" in value:
            fields["tool_choice"] = {"type": "function", "name": value["function"]["name"]}
        elif name not in _NO_FIELDS:
            fields[name] = value
    reasoning = fields.get("reasoning")
    if reasoning and shows_reasoning and reasoning.get("effort") not in ("none", "minimal"):
        fields["reasoning"] = {**reasoning, "summary": "auto"}
    return fields
