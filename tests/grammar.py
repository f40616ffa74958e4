"""The grammar of an Anthropic event stream, checked strictly, and a fold of it that shares no code with ccproxy.

    stream := message_start block* message_delta message_stop
            | message_start block* error
            | error
    block  := content_block_start content_block_delta* content_block_stop      with indexes 0, 1, 2, ...

A `ping` may stand anywhere. After an `error` nothing follows; the block that was open then may stay open.
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

Event = Tuple[str, Dict[str, Any]]

STOP_REASONS = (
    "end_turn",
    "max_tokens",
    "stop_sequence",
    "tool_use",
    "pause_turn",
    "refusal",
    "model_context_window_exceeded",
)
ERROR_TYPES = (
    "invalid_request_error",
    "authentication_error",
    "billing_error",
    "permission_error",
    "not_found_error",
    "conflict_error",
    "request_too_large",
    "rate_limit_error",
    "timeout_error",
    "api_error",
    "overloaded_error",
)
CUT_SHORT = ("max_tokens", "model_context_window_exceeded")
"""Stop reasons after which the last tool call may be half a JSON object."""

EMPTY_BLOCKS: Dict[str, Dict[str, Any]] = {
    "text": {"text": ""},
    "thinking": {"thinking": "", "signature": ""},
    "tool_use": {"input": {}},
    "redacted_thinking": {},
    "server_tool_use": {"input": {}},
    "web_search_tool_result": {},
}
DELTAS: Dict[str, Dict[str, Tuple[str, str]]] = {
    "text": {"text_delta": ("text", "text"), "citations_delta": ("citation", "citations")},
    "thinking": {"thinking_delta": ("thinking", "thinking"), "signature_delta": ("signature", "signature")},
    "tool_use": {"input_json_delta": ("partial_json", "partial_json")},
    "redacted_thinking": {},
    "server_tool_use": {"input_json_delta": ("partial_json", "partial_json")},
    "web_search_tool_result": {},
}
"""Block type -> delta type -> (key in the delta, key of the block it adds to)."""

NOTHING = {"text": "", "thinking": "", "signature": "", "partial_json": ""}
EMPTY_TEXT = {**NOTHING, "type": "text", "id": None}

TOOL_ID = re.compile(r"^[a-zA-Z0-9_-]+$")


class GrammarError(AssertionError):
    """The stream breaks a rule of the grammar."""


def require(condition: object, rule: str, seen: object = None) -> None:
    """Raise GrammarError with the rule and what was seen instead, unless the condition holds."""
    if not condition:
        raise GrammarError(rule if seen is None else "%s; seen: %.300r" % (rule, seen))


def no_constant(name: str) -> Any:
    """Refuse NaN and Infinity, which JSON does not have."""
    raise GrammarError("JSON has no %s" % name)


def strict_json(text: str) -> Any:
    """Parse JSON as a strict client does: no NaN, no Infinity."""
    return json.loads(text, parse_constant=no_constant)


# --- frames -----------------------------------------------------------------------------------------------------


def parse_sse(body: bytes) -> List[Event]:
    """Return the (event name, data) pairs of a whole response body, refusing every loose frame.

    A frame is `event: NAME`, `data: ONE LINE OF JSON` and a blank line, where NAME is the JSON's own `type`.
    Comment lines (`: ...`) may stand between frames. Nothing may be left over at the end.
    """
    text = body.decode("utf-8")
    require(text == "" or text.endswith("\n\n"), "a stream ends with a blank line", text[-80:])
    require("\r" not in text, "lines end with a line feed alone")
    frames = [frame for frame in text.split("\n\n") if frame.strip("\n")]
    parsed = [parse_frame(frame.strip("\n")) for frame in frames]
    return [event for event in parsed if event is not None]


def parse_frame(frame: str) -> Optional[Event]:
    """Return one frame as (event name, data), or None for a frame of comments alone."""
    lines = [line for line in frame.split("\n") if not line.startswith(":")]
    if not lines:
        return None
    require(len(lines) == 2, "a frame is one event line and one data line", frame)
    require(lines[0].startswith("event: "), "a frame starts with its event line", frame)
    require(lines[1].startswith("data: "), "the second line of a frame is its data", frame)
    name = lines[0][len("event: ") :]
    try:
        data = strict_json(lines[1][len("data: ") :])
    except ValueError as error:
        raise GrammarError("data is one line of JSON (%s); seen: %.300r" % (error, frame)) from error
    require(isinstance(data, dict), "data is a JSON object", frame)
    require(data.get("type") == name, "the event name equals data.type", frame)
    return name, data


# --- the grammar ------------------------------------------------------------------------------------------------


class Checker:
    """Walks a stream once. `state` is what may come next: start, block, inside, stop or end."""

    def __init__(self) -> None:
        self.state = "start"
        self.blocks: List[Dict[str, Any]] = []
        self.failed = False
        self.stop_reason: Optional[str] = None

    def feed(self, name: str, data: Dict[str, Any]) -> None:
        """Take one event, or raise GrammarError."""
        require(self.state != "end", "nothing follows the end of a stream", name)
        if name == "ping":
            return
        handler: Optional[Callable[[Dict[str, Any]], None]] = getattr(self, "on_" + name, None)
        require(handler is not None, "the event type is known", name)
        assert handler is not None
        handler(data)

    def on_message_start(self, data: Dict[str, Any]) -> None:
        """`message_start` comes first and carries the whole message object, still empty."""
        require(self.state == "start", "message_start comes once, first")
        message = data.get("message")
        require(isinstance(message, dict), "message_start has a message", data)
        check_message_start(message or {})
        self.state = "block"

    def on_content_block_start(self, data: Dict[str, Any]) -> None:
        """A block starts when none is open, under the next index, with the empty values of its type."""
        require(self.state == "block", "a block starts only when no other is open", data)
        require(self.blocks[:1] != [EMPTY_TEXT], "an empty text block stands alone", data)
        require(data.get("index") == len(self.blocks), "block indexes are 0, 1, 2, ...", data)
        block = data.get("content_block")
        require(isinstance(block, dict) and block.get("type") in EMPTY_BLOCKS, "the block type is known", data)
        assert block is not None
        for key, value in EMPTY_BLOCKS[block["type"]].items():
            require(block.get(key) == value, "a %s block starts with %s=%r" % (block["type"], key, value), data)
        if block["type"] == "redacted_thinking":
            require(isinstance(block.get("data"), str), "redacted_thinking carries its data", data)
        if block["type"] in ("tool_use", "server_tool_use"):
            self.check_tool(block)
        if block["type"] == "web_search_tool_result":
            calls = [other["id"] for other in self.blocks if other["type"] == "server_tool_use"]
            require(calls[-1:] == [block.get("tool_use_id")], "a result follows its search", block)
        self.blocks.append({**NOTHING, "type": block["type"], "id": block.get("id")})
        self.state = "inside"

    def check_tool(self, block: Dict[str, Any]) -> None:
        """A tool_use block has a name and an id no other block of the message has."""
        require(isinstance(block.get("name"), str) and block["name"], "tool_use has a name", block)
        require(isinstance(block.get("id"), str) and TOOL_ID.match(block["id"]), "tool ids are [a-zA-Z0-9_-]+", block)
        require(block["id"] not in [other["id"] for other in self.blocks], "tool ids are unique", block["id"])

    def on_content_block_delta(self, data: Dict[str, Any]) -> None:
        """A delta names the open block and fits its type; a signature comes once, last."""
        require(self.state == "inside", "a delta comes inside a block", data)
        require(data.get("index") == len(self.blocks) - 1, "a delta names the open block", data)
        block, delta = self.blocks[-1], data.get("delta") or {}
        fitting = DELTAS[block["type"]].get(delta.get("type", ""))
        require(fitting, "the delta fits its %s block" % block["type"], data)
        assert fitting is not None
        if delta["type"] == "citations_delta":
            require(isinstance(delta.get("citation"), dict), "a citation is an object", data)
            return
        require(isinstance(delta.get(fitting[0]), str), "a %s has a string %s" % (delta["type"], fitting[0]), data)
        require(not block["signature"], "nothing follows the signature of a thinking block", data)
        block[fitting[1]] += delta[fitting[0]]

    def on_content_block_stop(self, data: Dict[str, Any]) -> None:
        """A block that stops is worth having: its text is not blank, its thinking not empty.

        One empty text block may stand alone in a message without content, which clients would take for a failure.
        """
        require(self.state == "inside", "only an open block stops", data)
        require(data.get("index") == len(self.blocks) - 1, "the open block stops", data)
        block = self.blocks[-1]
        if block["type"] == "text":
            alone = len(self.blocks) == 1 and not block["text"]
            require(block["text"].strip() or alone, "a text block is not blank", block["text"])
        if block["type"] == "thinking":
            require(block["thinking"] or block["signature"], "a thinking block carries text or a signature")
        self.state = "block"

    def on_message_delta(self, data: Dict[str, Any]) -> None:
        """`message_delta` closes the content: a stop reason and the output count."""
        require(self.state == "block", "message_delta comes when every block is closed")
        delta, usage = data.get("delta") or {}, data.get("usage") or {}
        require(delta.get("stop_reason") in STOP_REASONS, "message_delta has a stop reason", data)
        require("stop_sequence" in delta, "message_delta has stop_sequence, null or not", data)
        require(is_count(usage.get("output_tokens")), "message_delta has usage.output_tokens", data)
        check_counts(usage)
        self.stop_reason = delta["stop_reason"]
        self.state = "stop"

    def on_message_stop(self, data: Dict[str, Any]) -> None:
        """`message_stop` follows message_delta and ends the stream."""
        require(self.state == "stop", "message_stop follows message_delta")
        self.state = "end"

    def on_error(self, data: Dict[str, Any]) -> None:
        """`error` ends the stream instead of message_delta and message_stop."""
        require(self.state != "stop", "an error never follows message_delta")
        check_error(data)
        self.failed = True
        if self.state == "inside":
            self.blocks.pop()  # a half block promises nothing
        self.state = "end"

    def finish(self) -> None:
        """Check what only the end decides: the ending itself, tool inputs, the stop reason."""
        require(self.state == "end", "a stream ends with message_stop or error", self.state)
        searches = [block for block in self.blocks if block["type"] == "server_tool_use"]
        require(all(is_object(search["partial_json"]) for search in searches), "the input of a search is an object")
        calls = [block for block in self.blocks if block["type"] == "tool_use"]
        whole = calls[:-1] if self.stop_reason in CUT_SHORT else calls
        for call in whole:
            require(is_object(call["partial_json"]), "a tool input is a JSON object", call["partial_json"])
        if not self.failed and self.stop_reason not in CUT_SHORT:
            require((self.stop_reason == "tool_use") == bool(calls), "tool_use iff a tool was called", self.stop_reason)


def check_grammar(events: Sequence[Event]) -> None:
    """Raise GrammarError unless the events form one complete stream."""
    checker = Checker()
    for position, (name, data) in enumerate(events):
        try:
            checker.feed(name, data)
        except GrammarError as error:
            raise GrammarError("event %d (%s): %s" % (position, name, error)) from None
    checker.finish()


def check_message_start(message: Dict[str, Any]) -> None:
    """The message object of message_start is complete, with empty content and integer usage."""
    require(str(message.get("id", "")).startswith("msg_"), "the message id starts with msg_", message)
    for key, value in (("type", "message"), ("role", "assistant"), ("content", []), ("stop_reason", None)):
        require(key in message and message[key] == value, "message_start has %s=%r" % (key, value), message)
    require("stop_sequence" in message and message["stop_sequence"] is None, "stop_sequence is null at the start")
    require(isinstance(message.get("model"), str) and message["model"], "the message names the model", message)
    usage = message.get("usage")
    require(isinstance(usage, dict), "message_start has usage", message)
    assert isinstance(usage, dict)
    require(is_count(usage.get("input_tokens")), "usage has input_tokens", usage)
    require(is_count(usage.get("output_tokens")), "usage has output_tokens", usage)
    check_counts(usage)


def check_counts(usage: Dict[str, Any]) -> None:
    """Every count in a usage object that is present is a whole number, not negative."""
    for key, value in usage.items():
        if key.endswith("_tokens"):
            require(is_count(value), "%s is a whole number" % key, value)


def check_error(body: Dict[str, Any]) -> None:
    """An Anthropic error object: `{"type":"error","error":{"type","message"}}`, in a stream or as a body."""
    require(body.get("type") == "error", "an error object has type error", body)
    error = body.get("error")
    require(isinstance(error, dict), "an error object has an error", body)
    assert isinstance(error, dict)
    require(error.get("type") in ERROR_TYPES, "the error type is Anthropic's", body)
    require(isinstance(error.get("message"), str) and error["message"], "an error has a message", body)


def is_count(value: object) -> bool:
    """A token count: a whole number, zero or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_object(text: str) -> bool:
    """True when the text is strictly valid JSON and an object."""
    try:
        return isinstance(strict_json(text), dict)
    except ValueError:
        return False


# --- the fold ---------------------------------------------------------------------------------------------------


def fold(events: Sequence[Event]) -> Dict[str, Any]:
    """Return the message a client has after the events.

    A tool input that is not whole (the answer was cut short) folds to `{"_partial_json": TEXT}`. A stream that ends
    with an error folds to what had arrived, with `stop_reason` None.
    """
    message: Dict[str, Any] = {}
    for name, data in events:
        if name == "message_start":
            message = json.loads(json.dumps(data["message"]))
        elif name == "content_block_start":
            message["content"].append(dict(data["content_block"]))
        elif name == "content_block_delta":
            add_delta(message["content"][data["index"]], data["delta"])
        elif name == "message_delta":
            message.update(data["delta"])
            message["usage"].update(data["usage"])
    for block in message.get("content", []):
        if "_json" in block:
            text = block.pop("_json")
            block["input"] = strict_json(text) if is_object(text) else {"_partial_json": text}
    return message


def add_delta(block: Dict[str, Any], delta: Dict[str, Any]) -> None:
    """Add one delta to its block; a tool input gathers as text until the end."""
    if delta["type"] == "input_json_delta":
        block["_json"] = block.get("_json", "") + delta["partial_json"]
        return
    if delta["type"] == "citations_delta":
        block["citations"] = [*block.get("citations", []), delta["citation"]]
        return
    key = DELTAS[block["type"]][delta["type"]][1]
    block[key] += delta[key]


def error_of(events: Sequence[Event]) -> Optional[Dict[str, Any]]:
    """Return the error object a stream ended with, or None."""
    return next((data["error"] for name, data in events if name == "error"), None)
