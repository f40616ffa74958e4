"""The Messages API's answers: message, usage and stream events as values, and the fold of events to a message."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Optional, Union

from . import partial_json
from .encoded import Json
from .frozen import frozen

_MOST_COUNTED = 10**15


def count_of(value: Any) -> int:
    """Return a count that a provider told; wrong types and absurd numbers are 0."""
    if type(value) is int and 0 <= value < _MOST_COUNTED:
        return value
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return int(value) if is_number and 0 <= value < _MOST_COUNTED else 0


@frozen
class Usage:
    """Token counts as Anthropic defines them: ``input_tokens`` excludes cache reads and cache writes."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    thinking_tokens: int = 0
    web_searches: int = 0
    cache_creation_1h_input_tokens: int = 0
    """Those of the cache writes that are kept for an hour, where a provider tells them apart."""

    @classmethod
    def from_dict(cls, usage: Any) -> Usage:
        """Read the ``usage`` object; wrong types and absurd numbers count as 0."""

        def count(*path: str) -> int:
            value = usage
            for name in path:
                value = value.get(name) if isinstance(value, dict) else None
            return count_of(value)

        written = count("cache_creation_input_tokens")
        return cls(
            count("input_tokens"),
            count("output_tokens"),
            count("cache_read_input_tokens"),
            written,
            count("output_tokens_details", "thinking_tokens"),
            count("server_tool_use", "web_search_requests"),
            min(count("cache_creation", "ephemeral_1h_input_tokens"), written),
        )

    @property
    def prompt_tokens(self) -> int:
        """All of the prompt, from a cache or not."""
        return self.input_tokens + self.cache_read_input_tokens + self.cache_creation_input_tokens

    def to_dict(self) -> Json:
        """Return the ``usage`` object."""
        searches = {"server_tool_use": {"web_search_requests": self.web_searches, "web_fetch_requests": 0}}
        return {
            **(searches if self.web_searches else {}),
            "input_tokens": self.input_tokens,
            "cache_creation_input_tokens": self.cache_creation_input_tokens,
            "cache_read_input_tokens": self.cache_read_input_tokens,
            "output_tokens": self.output_tokens,
            "output_tokens_details": {"thinking_tokens": self.thinking_tokens},
            "service_tier": "standard",
        }


@frozen
class MessageStart:
    """Opens a stream. ``usage`` is an estimate; the counts of ``MessageDelta`` replace it."""

    id: str
    model: str
    usage: Usage


@frozen
class BlockStart:
    """Opens content block ``index``; ``block`` is the empty content block object."""

    index: int
    block: Json


@frozen
class TextDelta:
    """More visible text of block ``index``."""

    index: int
    text: str


@frozen
class ThinkingDelta:
    """More thinking text of block ``index``."""

    index: int
    thinking: str


@frozen
class SignatureDelta:
    """The whole signature of thinking block ``index``; SDKs replace, they do not append."""

    index: int
    signature: str


@frozen
class InputJsonDelta:
    """More JSON text of the input of tool block ``index``."""

    index: int
    partial_json: str


@frozen
class CitationsDelta:
    """One more citation for the text of block ``index``."""

    index: int
    citation: Json


@frozen
class BlockStop:
    """Closes content block ``index``."""

    index: int


@frozen
class MessageDelta:
    """Why the message ended, and its final token counts."""

    stop_reason: str
    stop_sequence: Optional[str]
    usage: Usage
    stop_details: Optional[Json] = None


@frozen
class MessageStop:
    """The regular end of a stream."""


@frozen
class Ping:
    """A sign of life."""


@frozen
class ErrorEvent:
    """The irregular end of a stream; ``body`` is the Anthropic error object."""

    body: Json


Delta = Union[TextDelta, ThinkingDelta, SignatureDelta, InputJsonDelta, CitationsDelta]
Event = Union[MessageStart, BlockStart, Delta, BlockStop, MessageDelta, MessageStop, Ping, ErrorEvent]


def text_block() -> Json:
    """Return an empty text block."""
    return {"type": "text", "text": ""}


def thinking_block() -> Json:
    """Return an empty thinking block."""
    return {"type": "thinking", "thinking": "", "signature": ""}


def tool_use_block(id: str, name: str) -> Json:
    """Return a tool_use block without its input."""
    return {"type": "tool_use", "id": id, "name": name, "input": {}}


def server_tool_use_block(id: str, name: str) -> Json:
    """Return the call of a tool that the provider runs, without its input."""
    return {"type": "server_tool_use", "id": id, "name": name, "input": {}}


def search_result_block(id: str, found: Optional[List[Json]]) -> Json:
    """Return what a web search found, title and url each; None: it failed."""
    content: Any = {"type": "web_search_tool_result_error", "error_code": "unavailable"}
    if found is not None:
        content = [{"type": "web_search_result", **one, "encrypted_content": "", "page_age": None} for one in found]
    return {"type": "web_search_tool_result", "tool_use_id": id, "content": content}


def message_object(id: str, model: str, usage: Usage, content: Optional[List[Json]] = None) -> Json:
    """Return a message object that has not ended yet."""
    return {
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content if content is not None else [],
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
        "usage": usage.to_dict(),
    }


def fold(events: Iterable[Event]) -> Json:
    """Return the message that a complete stream of events makes: the answer to a request without ``stream``."""
    message: Json = message_object("", "", Usage())
    inputs: Dict[int, str] = {}
    for event in events:
        if isinstance(event, MessageStart):
            message = message_object(event.id, event.model, event.usage)
        elif isinstance(event, BlockStart):
            message["content"].append(dict(event.block))
        elif isinstance(event, (TextDelta, ThinkingDelta, SignatureDelta, InputJsonDelta, CitationsDelta)):
            _apply_delta(message["content"][event.index], event, inputs)
        elif isinstance(event, MessageDelta):
            message.update(
                stop_reason=event.stop_reason,
                stop_sequence=event.stop_sequence,
                stop_details=event.stop_details,
                usage=event.usage.to_dict(),
            )
    for index, text in inputs.items():
        block = message["content"][index]
        block["input"] = partial_json.parse_object(text)
        if block["input"] is None:
            block["input"] = partial_json.complete_cut(text)
    return message


def _apply_delta(block: Json, delta: Delta, inputs: Dict[int, str]) -> None:
    if isinstance(delta, TextDelta):
        block["text"] += delta.text
    elif isinstance(delta, ThinkingDelta):
        block["thinking"] += delta.thinking
    elif isinstance(delta, SignatureDelta):
        block["signature"] = delta.signature
    elif isinstance(delta, CitationsDelta):
        block["citations"] = [*(block.get("citations") or []), delta.citation]
    else:
        inputs[delta.index] = inputs.get(delta.index, "") + delta.partial_json
