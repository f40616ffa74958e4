"""The official API's answers, live or recorded, as structures that can be compared with the proxy's.

A structure is the set of paths in an answer with the kind of value at each: `content[text].text: str`. Blocks and
events are named by their types, so that their number and order do not matter; those are compared by value.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, Sequence, Set, Tuple

import requests

from ccproxy.stub import Failure, Finish, Reasoning, Step, Text, ToolCall
from recordings import folder

Json = Dict[str, Any]
Events = List[Tuple[str, Json]]
API, KEY = "https://api.anthropic.com/v1/messages", "ANTHROPIC_API_KEY"
LIVE_MODEL = "claude-haiku-4-5"


@dataclass(frozen=True)
class Exchange:
    """A request and the official answer to it; ``body`` as it came."""

    name: str
    request: Json
    status: int
    body: str

    @property
    def is_stream(self) -> bool:
        """Whether the answer is events."""
        return self.status == 200 and not self.body.lstrip().startswith("{")

    @property
    def message(self) -> Json:
        """The message, folded from the events of a stream; the error object of a failure."""
        return fold(events_of(self.body)) if self.is_stream else dict(json.loads(self.body))


def recorded() -> List[Exchange]:
    """Return the recorded exchanges with the official API; [] where the folder is not at hand."""
    found = []
    for path in sorted((folder() / "anthropic").glob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        answer = data["response"]
        if data["kind"] != "anthropic.messages" or not data["request"]["url"].startswith(API):
            continue  # others speak the format too, with differences of their own
        text = answer.get("sse") or answer.get("text") or json.dumps(answer.get("body"))
        request = data["request"].get("body") or {**question("Hello"), "stream": data["stream"]}
        found.append(Exchange(path.stem, request, answer["status"], text))
    return found


def live() -> List[Exchange]:
    """Ask the official API; a handful of small requests."""
    headers = {"x-api-key": os.environ[KEY], "anthropic-version": "2023-06-01"}
    found = []
    for name, request in LIVE_REQUESTS.items():
        answer = requests.post(API, json=request, headers=headers, timeout=120)
        answer.encoding = "utf-8"
        found.append(Exchange(name, request, answer.status_code, answer.text))
    return found


def question(text: str, **fields: Any) -> Json:
    """A request with one question."""
    return {"model": LIVE_MODEL, "max_tokens": 1200, "messages": [{"role": "user", "content": text}], **fields}


ADD = {
    "name": "add",
    "description": "Adds two numbers",
    "input_schema": {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}},
}
THINK = {"type": "enabled", "budget_tokens": 1024}
LIVE_REQUESTS: Mapping[str, Json] = {
    "text": question("Say hello."),
    "text, streamed": question("Say hello.", stream=True),
    "limit": question("Count to one hundred.", max_tokens=8),
    "stop sequence": question("Count from 1 to 9 in digits.", stop_sequences=["5"]),
    "tool": question("What is 2 + 3? Use the tool.", tools=[ADD], tool_choice={"type": "any"}),
    "tool, streamed": question("What is 2 + 3? Use the tool.", tools=[ADD], tool_choice={"type": "any"}, stream=True),
    "thinking": question("Is 91 prime?", thinking=THINK),
    "thinking, streamed": question("Is 91 prime?", thinking=THINK, stream=True),
    "no such model": question("Say hello.", model="claude-does-not-exist"),
    "no messages": question("", messages=[]),
}


# --- reading ----------------------------------------------------------------------------------------------------


def events_of(body: str) -> Events:
    """Return the events of a stream."""
    found = []
    for frame in re.split(r"\r?\n\r?\n", body):
        lines = {name: value.lstrip() for name, _, value in (line.partition(":") for line in frame.splitlines())}
        if "data" in lines:
            data = json.loads(lines["data"])
            found.append((lines.get("event", data["type"]), data))
    return found


_PLACES = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}


def fold(events: Events) -> Json:
    """Return the message that events make; blocks of any type."""
    message: Json = {}
    for name, data in events:
        if name == "message_start":
            message = json.loads(json.dumps(data["message"]))
        elif name == "content_block_start":
            message["content"].append(dict(data["content_block"]))
        elif name == "content_block_delta":
            block, delta = message["content"][data["index"]], data["delta"]
            if delta["type"] == "input_json_delta":
                block["_json"] = block.get("_json", "") + delta["partial_json"]
            elif delta["type"] in _PLACES:
                key = _PLACES[delta["type"]]
                block[key] = block.get(key, "") + delta[key]
        elif name == "message_delta":
            message.update(data["delta"])
            message["usage"].update(data.get("usage") or {})
    for block in message.get("content", []):
        text = block.pop("_json", "")
        if text:
            block["input"] = json.loads(text)
    return message


_REASONS = {"max_tokens": "length", "tool_use": "tool_calls", "refusal": "content_filter"}


def steps_of(exchange: Exchange) -> Sequence[Step]:
    """Return the same answer in chat completions: what another model would have said to say just this."""
    message = exchange.message
    if exchange.status != 200:
        return [Failure(exchange.status, message["error"]["message"])]
    steps: List[Step] = []
    for block in message["content"]:
        if block["type"] == "text":
            steps.append(Text(block["text"]))
        elif block["type"] == "thinking":
            steps.append(Reasoning(block["thinking"] or "(hidden)"))
        else:
            steps.append(ToolCall(block["name"], block["input"]))
    usage, reason = message["usage"], str(message["stop_reason"])
    if reason == "stop_sequence":
        steps.append(Text(message["stop_sequence"]))
    read, written = (usage.get(f"cache_{kind}_input_tokens") or 0 for kind in ("read", "creation"))
    counts = (usage["input_tokens"] + read + written, usage["output_tokens"], read)
    return [*steps, Finish(_REASONS.get(reason, "stop"), *counts)]


# --- structure --------------------------------------------------------------------------------------------------


def structure(status: int, body: str) -> Set[str]:
    """Return the structure of an answer: of its events, its message or its error."""
    if status != 200 or body.lstrip().startswith("{"):
        return set(_paths(json.loads(body), "error" if status != 200 else "message"))
    return {path for name, data in events_of(body) if name != "ping" for path in _paths(data, _event_name(name, data))}


def _event_name(name: str, data: Json) -> str:
    part = data.get("content_block") or (data.get("delta") if name == "content_block_delta" else None) or {}
    return f"{name}({part['type']})" if "type" in part else name


def _paths(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "input" and path.endswith("tool_use]"):
                yield f"{path}.input: object"  # what is in it is the model's
            else:
                yield from _paths(item, f"{path}.{key}")
    elif isinstance(value, list):
        yield f"{path}: array"
        for item in value:
            yield from _paths(
                item, f"{path}[{item['type']}]" if isinstance(item, dict) and "type" in item else f"{path}[]"
            )
    else:
        yield f"{path}: {'null' if value is None else type(value).__name__}"
