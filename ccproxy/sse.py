"""Server-sent events: one event to bytes, and the bytes of a provider's stream to the events complete so far."""

from __future__ import annotations

import re
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quote
from typing import Any, Callable, Dict, List, NamedTuple, Tuple, Type

import sseclient

from .encoded import dump_ascii
from .errors import ProviderError
from .message import (
    BlockStart,
    BlockStop,
    CitationsDelta,
    ErrorEvent,
    Event,
    InputJsonDelta,
    MessageDelta,
    MessageStart,
    MessageStop,
    Ping,
    SignatureDelta,
    TextDelta,
    ThinkingDelta,
    Usage,
    message_object,
    text_block,
)

MAX_EVENT_BYTES = 32 * 1024 * 1024
# The event line is required: SDKs drop frames that have only data.
_DELTA = 'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%s","%s":%s}}\n\n'


def _frame(name: str, body: Dict[str, Any]) -> str:
    return f"event: {name}\ndata: {dump_ascii({'type': name, **body})}\n\n"


def _template(name: str, body: Dict[str, Any]) -> str:
    """Return a frame as a template: its texts ``%s`` take JSON, its texts ``%d`` numbers."""
    return _frame(name, body).replace('"%d"', "%d").replace('"%s"', "%s")


def _counts(usage: Usage) -> Tuple[int, ...]:
    """Return the counts of an answer without a web search, in their order in JSON."""
    written, read = usage.cache_creation_input_tokens, usage.cache_read_input_tokens
    return usage.input_tokens, written, read, usage.output_tokens, usage.thinking_tokens


def _usage_of_delta(usage: Usage) -> Dict[str, Any]:
    counts = usage.to_dict()
    del counts["service_tier"]
    return counts


# The events around a short answer cost as much as all of its text; by template they take a sixth of the time.
_COUNTS: Any = Usage(*["%d"] * 5)  # type: ignore[arg-type]
_START = _template("message_start", {"message": message_object("%s", "%s", _COUNTS)})
_TEXT_START = _template("content_block_start", {"index": "%d", "content_block": text_block()})
_END = _template(
    "message_delta", {"delta": {"stop_reason": "%s", "stop_sequence": None}, "usage": _usage_of_delta(_COUNTS)}
)


def _message_start(event: MessageStart) -> str:
    if event.usage.web_searches:
        return _frame("message_start", {"message": message_object(event.id, event.model, event.usage)})
    return _START % (quote(event.id), quote(event.model), *_counts(event.usage))


def _block_start(event: BlockStart) -> str:
    if event.block == _TEXT_BLOCK:
        return _TEXT_START % event.index
    return _frame("content_block_start", {"index": event.index, "content_block": event.block})


def _message_delta(event: MessageDelta) -> str:
    if event.stop_sequence is None and event.stop_details is None and not event.usage.web_searches:
        return _END % (quote(event.stop_reason), *_counts(event.usage))
    delta: Dict[str, Any] = {"stop_reason": event.stop_reason, "stop_sequence": event.stop_sequence}
    if event.stop_details is not None:
        delta["stop_details"] = event.stop_details
    return _frame("message_delta", {"delta": delta, "usage": _usage_of_delta(event.usage)})


_TEXT_BLOCK = text_block()
_BLOCK_STOP = _template("content_block_stop", {"index": "%d"})
_MESSAGE_STOP, _PING = _frame("message_stop", {}), _frame("ping", {})
# Deltas are nine events of ten; a template costs a thirtieth of json.dumps. Those of text are made without a call.
_TEXT = _DELTA.replace('"%s","%s":%s', '"text_delta","text":%s')
_ENCODERS: Dict[Type[Any], Callable[[Any], str]] = {
    ThinkingDelta: lambda event: _DELTA % (event.index, "thinking_delta", "thinking", quote(event.thinking)),
    InputJsonDelta: lambda event: _DELTA % (event.index, "input_json_delta", "partial_json", quote(event.partial_json)),
    SignatureDelta: lambda event: _DELTA % (event.index, "signature_delta", "signature", quote(event.signature)),
    CitationsDelta: lambda event: _frame(
        "content_block_delta",
        {"index": event.index, "delta": {"type": "citations_delta", "citation": event.citation}},
    ),
    BlockStart: _block_start,
    BlockStop: lambda event: _BLOCK_STOP % event.index,
    MessageStart: _message_start,
    MessageDelta: _message_delta,
    MessageStop: lambda event: _MESSAGE_STOP,
    Ping: lambda event: _PING,
    ErrorEvent: lambda event: _frame("error", event.body),
}


_BEYOND_ASCII = re.compile("[^\x00-\x7f]+")


class DeltaFrames(NamedTuple):
    """What is before, between and after the texts, which are JSON already, of deltas into one block."""

    before: str
    between: str
    after: str


@lru_cache(maxsize=256)
def delta_frames(kind: str, index: int) -> DeltaFrames:
    """Return the frames of deltas of a kind, ``text`` or ``thinking``."""
    before, after = (_DELTA % (index, f"{kind}_delta", kind, '"|"')).split("|")
    return DeltaFrames(before, after + before, after)


def in_ascii(text: str) -> str:
    """Return text that is JSON already, with the characters escaped that are not ASCII."""
    return _BEYOND_ASCII.sub(lambda found: quote(found[0])[1:-1], text)


def encode(events: List[Event]) -> bytes:
    """Return the frames of ``events``, ready for one write."""
    frames = [
        _TEXT % (event.index, quote(event.text)) if type(event) is TextDelta else _ENCODERS[type(event)](event)
        for event in events
    ]
    return "".join(frames).encode("ascii")


class Frame(NamedTuple):
    """One event of a provider's stream."""

    data: str
    event: str = "message"


class Reader:
    """Cuts the reads of a provider's body into events, so that each read gives the events it completes at once.

    ``sseclient`` parses them one by one; left to cut the stream itself it would hold back an event until the next
    read, and break one whose line ends are mixed.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._pending: List[bytes] = []  # the beginning of an event, in the pieces it came in
        self.pending_bytes = 0
        """How much of the next event is here."""
        self._is_first = True
        self._max_event_bytes = max_event_bytes

    def take_begun(self) -> bytes:
        """Let others read the next event: return its beginning."""
        begun = b"".join(self._pending)
        self._pending, self.pending_bytes = [], 0
        return begun

    def feed(self, data: bytes) -> List[Frame]:
        """Return the events that ``data`` completes."""
        has_cr = data.find(b"\r") >= 0  # ``in`` tries the bytes as a number first: 0.3 us more
        if not has_cr and data.find(b"\n") < 0:
            self._keep(data)
            return []
        if self._pending:
            data = b"".join([*self._pending, data])
            self._pending, self.pending_bytes = [], 0
            has_cr = data.find(b"\r") >= 0
        *events, rest = _BLANK_LINE.split(data) if has_cr else data.split(b"\n\n")
        if rest:
            self._keep(rest)
        frames: List[Frame] = []
        for event in events:
            # Nine events of ten are one plain data line; sseclient takes 8 us for each, this takes 1.
            is_plain = event.startswith(b"data: {") or event == b"data: [DONE]"
            if is_plain and event.find(b"\n") < 0 and not (has_cr and event.find(b"\r") >= 0):
                frames.append(Frame(event[6:].decode("utf-8", "replace")))
                self._is_first = False
            else:
                frames += self._parse(event)
        return frames

    def _keep(self, data: bytes) -> None:
        self._pending.append(data)
        self.pending_bytes += len(data)
        if self.pending_bytes > self._max_event_bytes:
            raise ProviderError(f"the provider sent an event of more than {self._max_event_bytes} bytes")

    def finish(self) -> List[Frame]:
        """Return the event a body ends with when its last blank line is missing."""
        rest = b"".join(self._pending)
        self._pending = []
        return self._parse(rest) if rest.strip() else []

    def _parse(self, event: bytes) -> List[Frame]:
        if self._is_first and event:
            self._is_first = False
            event = event[3:] if event.startswith(b"\xef\xbb\xbf") else event
        if event.startswith(b"error:"):  # as a field: llama.cpp and GPUStack
            event = b"event: error\ndata:" + event[len(b"error:") :]
        try:
            return _parsed(event)
        except UnicodeDecodeError:
            return _parsed(event.decode("utf-8", "replace").encode())


def _parsed(event: bytes) -> List[Frame]:
    return [Frame(found.data, found.event) for found in sseclient.SSEClient(iter((event + b"\n\n",))).events()]


# Two line ends, each LF, CR or CRLF.
_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
