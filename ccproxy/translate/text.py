"""Rules on streamed text: reasoning in tags at its start, and stop sequences matched exactly."""

from __future__ import annotations

from typing import List, Optional, Sequence, Tuple

from ..openai import Piece


class TagSplitter:
    """Splits ``<think>...</think>`` at the start of the content off as reasoning; later tags are text."""

    def __init__(self, tag: str) -> None:
        self._open, self._close = f"<{tag}>", f"</{tag}>"
        self._state = "start"  # start, inside, done
        self._held = ""

    def feed(self, text: str) -> List[Piece]:
        """Return what is certain so far; text that may still become a tag is held."""
        if self._state == "done":
            return [Piece("text", text)]
        self._held += text
        pieces: List[Piece] = []
        if self._state == "start":
            start = self._held.lstrip()
            if start.startswith(self._open):
                self._state, self._held = "inside", start[len(self._open) :]
            elif not self._open.startswith(start):
                self._state = "done"
                return self.finish()
        if self._state == "inside":
            thinking, tag, rest = self._held.partition(self._close)
            if tag:
                self._state, self._held = "done", ""
                return [piece for piece in (Piece("thinking", thinking), Piece("text", rest)) if piece.text]
            keep = _longest_suffix_that_begins(self._held, [self._close])
            thinking, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
            if thinking:
                pieces.append(Piece("thinking", thinking))
        return pieces

    def finish(self) -> List[Piece]:
        """Return what was held."""
        held, self._held = self._held, ""
        return [Piece("thinking" if self._state == "inside" else "text", held)] if held else []


class StopMatcher:
    """Cuts visible text at the first stop sequence, wherever the pieces are split."""

    def __init__(self, stop_sequences: Sequence[str]) -> None:
        self._stops = [stop for stop in stop_sequences if stop.strip()]
        self._held = ""

    def feed(self, text: str) -> Tuple[str, Optional[str]]:
        """Return the text that is certain to be before any stop sequence, and the sequence that matched."""
        if not self._stops:
            return text, None
        self._held += text
        hits = [(self._held.find(stop), -len(stop), stop) for stop in self._stops if stop in self._held]
        if hits:
            position, _, stop = min(hits)
            before, self._held = self._held[:position], ""
            return before, stop
        keep = _longest_suffix_that_begins(self._held, self._stops)
        certain, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return certain, None

    def finish(self) -> str:
        """Return the held text: the answer ended before it became a stop sequence."""
        held, self._held = self._held, ""
        return held


def _longest_suffix_that_begins(text: str, wanted: Sequence[str]) -> int:
    """Return the length of the longest end of ``text`` that is a proper beginning of one of ``wanted``."""
    longest = min(len(text), max(len(word) for word in wanted) - 1)
    for length in range(longest, 0, -1):
        if any(word.startswith(text[-length:]) for word in wanted):
            return length
    return 0
