"""A provider's answer without the keys it was asked with, which some quote; also where a read or a delta splits one.

Whole keys, and those that a read splits, are taken out of the bytes. What several deltas of a block spell, each
harmless alone, is taken out of their text: of a key two characters go out then, so that text is held back only where
more of one stands at its end, which is next to never.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import lru_cache
from typing import Any, AnyStr, Callable, Dict, FrozenSet, Iterable, List, Tuple

from ..masking import MASK, maskable
from ..message import Event, InputJsonDelta, MessageDelta, TextDelta, ThinkingDelta

SPELLED = 2
"""How many characters of a key that several deltas spell go out."""


class Quoted:
    """Takes the secrets out of bytes that come in any pieces; looking at a piece without one takes a microsecond.

    A key has no line end and no bracket, so what is held back at the end of a read is never the end of an event or of
    a document: nothing is late by it.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        """Those that are not ``maskable`` are none."""
        self._secrets, self._bytes = _encoded(tuple(secrets))
        self.held = b""
        """What waits for the next piece."""

    def feed(self, data: bytes) -> bytes:
        """Return the next bytes, but for a secret's beginning at their end: the next piece decides about it."""
        if self.held:
            data, self.held = self.held + data, b""
        for secret in self._secrets:
            if data.find(secret) >= 0:
                data = data.replace(secret, MASK.encode())
        if data and data[-1] in self._bytes:
            size = self._begun_by(data)
            if size:
                data, self.held = data[:-size], data[-size:]
        return data

    def _begun_by(self, data: bytes) -> int:
        """Return how many bytes at the end may begin a secret."""
        return max(_overlap(data, secret) for secret in self._secrets)

    def finish(self) -> bytes:
        """Return what was held back: it is no secret."""
        held, self.held = self.held, b""
        return held


class _Text:
    """The text of one block after another, in any pieces."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self.secrets, self.begins_none, self.may_begin = _beginnings(tuple(secrets))
        self.begun = ""
        """The end of the text so far that begins a secret; what is longer than ``SPELLED`` of it is held back."""

    def feed(self, piece: str) -> str:
        """Return the text that goes out now."""
        text = self.begun + piece
        if not self.may_begin(text):
            self.begun = ""
            return piece
        sent, size = min(len(self.begun), SPELLED), 0
        for secret in self.secrets:
            text = text.replace(secret, secret[:SPELLED] + MASK)
            size = max(size, _overlap(text, secret))
        self.begun = text[len(text) - size :] if size else ""
        return text[sent : len(text) - max(0, size - SPELLED)]

    def finish(self) -> str:
        """Return what was held back: the block ends, it is no secret."""
        held, self.begun = self.begun[SPELLED:], ""
        return held


class QuotedEvents:
    """Takes what deltas spell out of the events of an answer."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._text = _Text(secrets)
        self._secrets, self._begins_none = self._text.secrets, self._text.begins_none
        self._may_begin = self._text.may_begin
        self._in_json = _beginnings_in_json(tuple(self._secrets))
        self._last: Any = None  # the last delta with text

    def passes(self, text: str) -> bool:
        """Whether the next text of the same block, as JSON has it, goes out as it is; if so, it is told by that."""
        begun = self._text.begun
        starts, ends, search = self._in_json
        if not (begun or text.endswith(ends)):  # a pattern takes as long, and its engine's code must be at hand
            for start in starts:
                if start in text:
                    break
            else:
                return True
        found = search(begun + text)
        if found is None:
            self._text.begun = ""
            return True
        ending = found[0]
        if len(begun) > SPELLED or not 0 < len(ending) <= SPELLED or found.string.endswith("\\" + ending):
            return False
        self._text.begun = ending
        return True

    def feed(self, events: List[Event]) -> List[Event]:
        """Return the next events; the end of a block, or of the answer, comes after all of its text."""
        if not self._secrets or self._is_plain(events):
            return events
        told: List[Event] = []
        for event in events:
            name = _TEXTS.get(type(event))
            if name is not None:
                piece = getattr(event, name)
                text, self._last = self._text.feed(piece), event
                told += [event] if text is piece else self._delta(text)
            else:
                told += [*self._delta(self._text.finish()), self._whole(event)]
        return told

    def _is_plain(self, events: List[Event]) -> bool:
        """Whether there is nothing to do, as is nearly always; this takes 1 us."""
        if self._text.begun:
            return False
        text = "".join([event.text if type(event) is TextDelta else _told(event) for event in events])
        return self._begins_none(text) or not self._may_begin(text)

    def _delta(self, text: str) -> List[Event]:
        return [type(self._last)(self._last.index, text)] if text else []

    def _whole(self, event: Event) -> Event:
        """Return an event without a secret in its words of refusal, which were put together from deltas."""
        if not isinstance(event, MessageDelta) or not (event.stop_details or {}).get("explanation"):
            return event
        details: Dict[str, Any] = {**(event.stop_details or {})}
        details["explanation"] = self._text.feed(details["explanation"]) + self._text.finish()
        return replace(event, stop_details=details)


_TEXTS: Dict[type, str] = {TextDelta: "text", ThinkingDelta: "thinking", InputJsonDelta: "partial_json"}


def _told(event: Event) -> str:
    """Return the text of an event that may spell a secret."""
    if isinstance(event, MessageDelta):
        return str((event.stop_details or {}).get("explanation") or "")
    name = _TEXTS.get(type(event))
    return str(getattr(event, name)) if name is not None else ""


class QuotedStream:
    """The same for the bytes of an Anthropic-format stream: only a line that may matter is looked into."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._text = _Text(secrets)
        self._may_begin = _json_beginnings(tuple(self._text.secrets))
        self._around = b"", b""  # a delta's line before and after its text

    def feed(self, events: bytes) -> bytes:
        """Return the next whole events, but for text that begins a secret."""
        if not self._text.secrets or not (self._text.begun or self._may_begin(events)):
            return events
        return b"".join(map(self._line, events.splitlines(keepends=True)))

    def finish(self) -> bytes:
        """Return what was held back: the text ends, it is no secret."""
        held = self._text.finish()
        return b"event: content_block_delta\n" + self._with(held) + b"\n" if held else b""

    def _line(self, line: bytes) -> bytes:
        found = _DELTA.match(line)
        if found is not None:
            self._around = found[1], found[3]
            return self._with(self._text.feed(found[2].decode("utf-8", "surrogateescape")))
        return self.finish() + line if b"content_block_stop" in line else line

    def _with(self, text: str) -> bytes:
        before, after = self._around
        return before + text.encode("utf-8", "surrogateescape") + after


_DELTA = re.compile(
    rb'(data:.*?"delta"\s*:\s*\{[^{}]*?"(?:text|thinking|partial_json)"\s*:\s*")'
    rb'([^"\\]*(?:\\.[^"\\]*)*)(".*)',
    re.DOTALL,
)


@lru_cache(maxsize=64)
def _encoded(secrets: Tuple[str, ...]) -> Tuple[List[bytes], FrozenSet[int]]:
    """Return the secrets as bytes, the longest first, and which bytes are in them."""
    ordered = [secret.encode("utf-8", "replace") for secret in maskable(secrets)]
    return ordered, frozenset(b"".join(ordered))


@lru_cache(maxsize=64)
def _beginnings(secrets: Tuple[str, ...]) -> Tuple[List[str], Callable[[str], bool], Callable[[str], Any]]:
    """Return the secrets, the longest first; what tells of most texts at once that nothing in them begins one; and what
    finds a text that has, or ends with, the beginning of one."""
    ordered = maskable(secrets)
    begins_none = frozenset(secret[0] for secret in ordered).isdisjoint
    return ordered, begins_none, re.compile(_beginning(ordered, r"\Z")).search


@lru_cache(maxsize=64)
def _beginnings_in_json(secrets: Tuple[str, ...]) -> Tuple[Tuple[str, ...], Tuple[str, ...], Callable[[str], Any]]:
    """Return the beginnings of secrets, of three characters, and those of one or two, that text may end with; and what
    finds any. In JSON all text may be a secret that is written in other characters there."""
    if any(json.dumps(secret) != f'"{secret}"' for secret in secrets):
        return (), ("",), re.compile("").search
    ends = tuple(secret[:size] for secret in secrets for size in (1, 2))
    return tuple(secret[:3] for secret in secrets), ends, re.compile(_beginning(secrets, r"\Z")).search


@lru_cache(maxsize=64)
def _json_beginnings(secrets: Tuple[str, ...]) -> Callable[[bytes], Any]:
    """Return what finds the JSON of such a text."""
    return re.compile(_beginning(secrets, '"').encode("utf-8", "replace")).search


def _beginning(secrets: Iterable[str], end: str) -> str:
    return "|".join(re.escape(secret[:3]) for secret in secrets) + "".join(
        f"|{re.escape(secret[:size])}{end}" for secret in secrets for size in (2, 1)
    )


def _overlap(data: AnyStr, secret: AnyStr) -> int:
    """Return how much at the end of ``data`` may be the beginning of a secret."""
    start = data.find(secret[:1], max(0, len(data) - len(secret) + 1))
    while start >= 0 and not secret.startswith(data[start:]):
        start = data.find(secret[:1], start + 1)
    return len(data) - start if start >= 0 else 0
