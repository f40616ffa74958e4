"""Rules on streamed text: halves of characters, reasoning in tags at its start, Markdown fences, stop sequences."""

from __future__ import annotations

from typing import List, Optional, Sequence, Tuple

from ..openai import Piece


class HalfJoiner:
    """Joins characters whose two UTF-16 halves came in two pieces; a half that stays alone becomes U+FFFD."""

    def __init__(self) -> None:
        self.held = ""
        """The first half of a character, which waits for its second."""

    def feed(self, text: str) -> str:
        """Return the text that is whole."""
        if not self.held and text.isascii():
            return text
        text = self.held + text
        self.held = ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self.held = text[:-1], text[-1]
        return _without_halves(text)

    def finish(self) -> str:
        """Return what replaces a half that stayed alone."""
        held, self.held = self.held, ""
        return "\ufffd" if held else ""


def _without_halves(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class TagSplitter:
    """Splits ``<think>...</think>`` at the start of the content off as reasoning; later tags are text."""

    def __init__(self, tag: str) -> None:
        self._open, self._close = f"<{tag}>", f"</{tag}>"
        self._state = "start"  # start, inside, done
        self.held = ""
        """Text that may still become a tag."""

    @property
    def is_done(self) -> bool:
        """Whether all that follows is text."""
        return self._state == "done"

    def feed(self, text: str) -> List[Piece]:
        """Return what is certain so far; text that may still become a tag is held."""
        if self._state == "done":
            return [Piece("text", text)]
        self.held += text
        pieces: List[Piece] = []
        if self._state == "start":
            start = self.held.lstrip()
            if start.startswith(self._open):
                self._state, self.held = "inside", start[len(self._open) :]
            elif not self._open.startswith(start):
                self._state = "done"
                return self.finish()
        if self._state == "inside":
            thinking, tag, rest = self.held.partition(self._close)
            if tag:
                self._state, self.held = "done", ""
                return [piece for piece in (Piece("thinking", thinking), Piece("text", rest)) if piece.text]
            keep = _longest_suffix_that_begins(self.held, [self._close])
            thinking, self.held = self.held[: len(self.held) - keep], self.held[len(self.held) - keep :]
            if thinking:
                pieces.append(Piece("thinking", thinking))
        return pieces

    def finish(self) -> List[Piece]:
        """Return what was held."""
        held, self.held = self.held, ""
        return [Piece("thinking" if self._state == "inside" else "text", held)] if held else []


class FenceStripper:
    """Takes a Markdown fence off JSON that was only asked for in words."""

    def __init__(self) -> None:
        self._held = ""
        self._state = "start"  # start, fenced, plain

    def feed(self, text: str) -> str:
        """Return the text that is certainly no part of a fence."""
        if self._state == "plain":
            return text
        self._held += text
        if self._state == "start":
            start = self._held.lstrip()
            if start.startswith("```"):
                _, newline, rest = start.partition("\n")
                if not newline:
                    return ""
                self._state, self._held = "fenced", rest
            elif "```".startswith(start):
                return ""
            else:
                self._state = "plain"
                return self.finish()
        keep = len(self._held) - len(self._held.rstrip().rstrip("`").rstrip())
        certain, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return certain

    def finish(self) -> str:
        """Return what was held, without the closing fence."""
        held, self._held = self._held, ""
        return held.replace("```", "").rstrip() if self._state == "fenced" else held


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
