"""Chat-completions requests as the Messages API requests that ask for the same: the way back of the translation."""

from __future__ import annotations

import json
import re
from typing import Any, Dict, List, Optional

Json = Dict[str, Any]

_DATA = re.compile(r"data:([^;,]*);base64,(.*)", re.DOTALL)


def messages_request(chat: Json) -> Optional[Json]:
    """Return the body, or None when the Messages API has nothing for a part of it."""
    functions = [tool.get("function") or {} for tool in chat.get("tools") or []]
    if not all(function.get("name") for function in functions):
        return None  # a provider's own tools add what the request does not show
    messages: List[Json] = []
    system: List[Json] = []
    for message in chat["messages"]:
        blocks = _blocks(message)
        if blocks is None:
            return None
        if message["role"] in ("system", "developer"):
            system += blocks
        else:
            messages.append({"role": "assistant" if message["role"] == "assistant" else "user", "content": blocks})
    body: Json = {"model": str(chat.get("model") or ""), "max_tokens": 1000, "system": system, "messages": messages}
    if functions:
        body["tools"] = [_tool(function) for function in functions]
        body["tool_choice"] = _choice(chat.get("tool_choice"))
    form = chat.get("response_format") or {}
    if form.get("type") == "json_schema":
        schema = form["json_schema"].get("schema") or {}
        body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    return body if messages else None


def _tool(function: Json) -> Json:
    return {
        "name": function["name"],
        "description": function.get("description") or "",
        "input_schema": function.get("parameters") or {"type": "object", "properties": {}},
    }


def _choice(choice: Any) -> Json:
    if isinstance(choice, dict):
        return {"type": "tool", "name": (choice.get("function") or choice).get("name")}
    return {"type": {"required": "any", "any": "any", "none": "none"}.get(choice, "auto")}


def _blocks(message: Json) -> Optional[List[Json]]:
    if message["role"] == "tool":
        texts = _content(message.get("content"))
        return [{"type": "tool_result", "tool_use_id": message.get("tool_call_id") or "call", "content": texts or []}]
    content = _content(message.get("content"))
    if content is None:
        return None
    thinking = message.get("reasoning_content") or message.get("reasoning")
    before = [{"type": "thinking", "thinking": thinking, "signature": ""}] if isinstance(thinking, str) else []
    calls = [_call(call) for call in message.get("tool_calls") or []]
    return [*before, *content, *calls] or [{"type": "text", "text": " "}]


def _call(call: Json) -> Json:
    arguments = call["function"].get("arguments") or "{}"
    try:
        value = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        value = {"text": arguments}
    inputs = value if isinstance(value, dict) else {"value": value}
    return {"type": "tool_use", "id": call.get("id") or "call", "name": call["function"]["name"], "input": inputs}


def _content(content: Any) -> Optional[List[Json]]:
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}] if content else []
    blocks: List[Json] = []
    for part in parts:
        if part["type"] == "text":
            blocks.append({"type": "text", "text": part["text"]})
        elif part["type"] == "image_url":
            address = part["image_url"] if isinstance(part["image_url"], str) else part["image_url"]["url"]
            data = _DATA.fullmatch(address)
            source = {"type": "url", "url": address}
            if data:
                source = {"type": "base64", "media_type": data[1], "data": data[2]}
            blocks.append({"type": "image", "source": source})
        else:
            return None
    return blocks
