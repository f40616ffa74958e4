"""``Passage``: text that goes from a provider's events into a client's with no layer between.

Nine reads of ten of a slow stream are events that merely go on with the open block. While every layer stands between
two events, and nothing is held or looked for, such a text is taken out of the one frame and put into the other as JSON
has it. With its system calls such a read takes 13 us, and 50 through all layers; more where little is in the caches.
"""

from __future__ import annotations

from typing import Callable, Pattern, Protocol

from .sse import DeltaFrames, in_ascii


class Ahead(Protocol):
    """A body that can be looked at before it is read."""

    ahead: bytes
    """What was looked at; it may be changed."""

    def look(self) -> bytes:
        """Return what has come, which is ``ahead`` now; nothing, where that is for who reads it to see."""


class Passage:
    """The short way for text of one kind into one block, until something else comes."""

    __slots__ = ("_begun", "_frame", "_frames", "_head", "_look", "_passes", "_source", "_tail", "characters", "count")

    def __init__(
        self, source: Ahead, begun: bytes, frame: Pattern[bytes], passes: Callable[[str], bool], frames: DeltaFrames
    ) -> None:
        """Begin between two events.

        Args:
            source: the provider's events.
            begun: what was read of the next one.
            frame: matches an event that is text alone; its group is the text, as JSON has it.
            passes: whether text may go out as it is; what may, does.
            frames: the client's events.
        """
        self._source, self._look, self._begun = source, source.look, begun
        self._frame, self._passes, self._frames = frame, passes, frames
        self._head = self._tail = b"\0"  # around the last text: many providers change nothing there
        self.count = self.characters = 0
        """Of the events that went this way, and of their text."""

    def read(self) -> bytes:
        """Return the events that have come; nothing, if they are not text alone, or none is whole: these are left."""
        data = self._begun + self._look()
        try:
            if data.startswith(self._head) and data.endswith(self._tail):  # 2 us less than by the pattern
                text = data[len(self._head) : -len(self._tail)].decode()
                if text.isprintable() and '"' not in text and "\\" not in text:
                    return self._pass(1, text, text, b"")
            one = self._frame.fullmatch(data)
            if one is None:
                return self._several(data)
            self._head, self._tail = data[: one.start(1)], data[one.end(1) :]
            text = one[1].decode()
        except UnicodeDecodeError:
            return b""
        return self._pass(1, text, text, b"")

    def _several(self, data: bytes) -> bytes:
        parts = self._frame.split(data)  # between events, text, between events, ...
        rest = parts.pop()
        if any(parts[::2]) or b"\n" in rest or b"\r" in rest:
            return b""
        texts = [text.decode() for text in parts[1::2]]
        return self._pass(len(texts), "".join(texts), self._frames.between.join(texts), rest)

    def _pass(self, count: int, text: str, framed: str, rest: bytes) -> bytes:
        if not (text and self._passes(text)):
            return b""
        self._source.ahead, self._begun = b"", rest
        self.count += count
        self.characters += len(text) - text.count("\\")
        before, _, after = self._frames
        return (before + (framed if framed.isascii() else in_ascii(framed)) + after).encode()

    def leave(self) -> None:
        """Leave what comes next, and the beginning of it that was read, to others."""
        self._source.ahead = self._begun + self._source.ahead
