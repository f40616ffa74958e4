"""Server-sent events: one event to bytes, and the bytes of a provider's stream to the events complete so far."""

from __future__ import annotations

import json
import re
from json.encoder import encode_basestring_ascii as quote
from typing import Any, Callable, Dict, List, Type

import sseclient

from .errors import ProviderError
from .message import (
    BlockStart,
    BlockStop,
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
    message_object,
)

MAX_EVENT_BYTES = 32 * 1024 * 1024
# The event line is required: SDKs drop frames that have only data.
_DELTA = 'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%s","%s":%s}}\n\n'


def _frame(name: str, body: Dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps({'type': name, **body}, separators=(',', ':'))}\n\n"


def _message_start(event: MessageStart) -> str:
    return _frame("message_start", {"message": message_object(event.id, event.model, event.usage)})


def _message_delta(event: MessageDelta) -> str:
    delta: Dict[str, Any] = {"stop_reason": event.stop_reason, "stop_sequence": event.stop_sequence}
    if event.stop_details is not None:
        delta["stop_details"] = event.stop_details
    usage = event.usage.to_dict()
    del usage["service_tier"]
    return _frame("message_delta", {"delta": delta, "usage": usage})


# Deltas are nine events of ten; a template costs a thirtieth of json.dumps.
_ENCODERS: Dict[Type[Any], Callable[[Any], str]] = {
    TextDelta: lambda event: _DELTA % (event.index, "text_delta", "text", quote(event.text)),
    ThinkingDelta: lambda event: _DELTA % (event.index, "thinking_delta", "thinking", quote(event.thinking)),
    InputJsonDelta: lambda event: _DELTA % (event.index, "input_json_delta", "partial_json", quote(event.partial_json)),
    SignatureDelta: lambda event: _DELTA % (event.index, "signature_delta", "signature", quote(event.signature)),
    BlockStart: lambda event: _frame("content_block_start", {"index": event.index, "content_block": event.block}),
    BlockStop: lambda event: _frame("content_block_stop", {"index": event.index}),
    MessageStart: _message_start,
    MessageDelta: _message_delta,
    MessageStop: lambda event: _frame("message_stop", {}),
    Ping: lambda event: _frame("ping", {}),
    ErrorEvent: lambda event: _frame("error", event.body),
}


def encode(events: List[Event]) -> bytes:
    """Return the frames of ``events``, ready for one write."""
    return "".join([_ENCODERS[type(event)](event) for event in events]).encode("ascii")


class Reader:
    """Cuts the reads of a provider's body into events, so that each read gives the events it completes at once.

    ``sseclient`` parses them one by one; left to cut the stream itself it would hold back an event until the next
    read, and break one whose line ends are mixed.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._rest = b""
        self._is_first = True
        self._max_event_bytes = max_event_bytes

    def feed(self, data: bytes) -> List[sseclient.Event]:
        """Return the events that ``data`` completes."""
        searched = max(0, len(self._rest) - 3)
        data = self._rest + data
        events: List[sseclient.Event] = []
        start = 0
        for blank in _BLANK_LINE.finditer(data, searched):
            events += self._parse(data[start : blank.end()])
            start = blank.end()
        self._rest = data[start:]
        if len(self._rest) > self._max_event_bytes:
            raise ProviderError(f"the provider sent an event of more than {self._max_event_bytes} bytes")
        return events

    def finish(self) -> List[sseclient.Event]:
        """Return the event a body ends with when its last blank line is missing."""
        rest, self._rest = self._rest, b""
        return self._parse(rest + b"\n\n") if rest.strip() else []

    def _parse(self, event: bytes) -> List[sseclient.Event]:
        if self._is_first:
            self._is_first = False
            event = event[3:] if event.startswith(b"\xef\xbb\xbf") else event
        try:
            return list(sseclient.SSEClient(iter((event,))).events())
        except UnicodeDecodeError as error:
            raise ProviderError(f"the provider sent bytes that are not UTF-8: {error.reason}") from error


# Two line ends, each LF, CR or CRLF.
_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
