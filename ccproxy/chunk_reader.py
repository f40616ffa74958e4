"""``ChunkReader``: the chunks of one stream from their text; most of them say again what those before them said."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any, Dict, List, Optional, Pattern, Tuple

from .openai import Chunk, Piece, plain_chunk, plain_delta

_TRIES = 3
"""Some frames never come back: a time in milliseconds, random padding."""
_LONGEST_FRAME = 2000
"""Characters around a text of which a pattern is made, in some 5 ms; of a megabyte it would be 5 s."""
_TEXT_DELTA = re.compile(r'(\{"content": ?")[^"\\]+"\}')
_CLEAN = re.compile(rb'[^"\\\x00-\x1f]*').fullmatch
_decode = json.JSONDecoder().raw_decode


class ChunkReader:
    """Reads the chunks of one stream, or one whole completion.

    Most providers repeat all but the delta to the letter. Once that frame is known, what stands in it is the delta
    of a chunk that says nothing else, and it alone is parsed: 4 us a chunk in place of 12.
    """

    def __init__(self) -> None:
        self._head = self._tail = ""
        self._before = self._after = b""
        self._tries = _TRIES
        self._frames: Dict[str, Pattern[bytes]] = {}
        self._wanted = ""
        self._frame_tries = dict.fromkeys(_PLACES, _TRIES)

    is_done = False  # a stream of chunks ends with ``[DONE]`` alone

    def parse(self, text: str) -> List[Chunk]:
        """Return what one event's JSON text says; what it raises is that of ``read``."""
        return [self.read(text)]

    def whole(self, data: Any) -> List[Chunk]:
        """Return what a whole completion says."""
        return [Chunk.from_completion(data)]

    def frame(self, kind: str) -> Optional[Pattern[bytes]]:
        """Return what matches the events that have text of a kind alone, its group the text as JSON has it.

        None: that is not known, or not yet; the next such chunk that is read may tell it anew.
        """
        self._wanted = kind
        return self._frames.get(kind)

    @property
    def is_learning(self) -> bool:
        """Whether the next chunks may tell what ``run`` looks for."""
        return not self._before

    def run(self, data: bytes) -> Tuple[List[str], bytes]:
        """Return the texts of the events that ``data`` begins with, as far as these have text alone in the stream's
        frame; and what comes after them.

        Of a read that brings many events nearly all are such; this takes 1 us for each, in place of 10.
        """
        before, after = self._before, self._after
        if not before:
            return [], data
        parts: List[bytes] = []
        position = 0
        for event in data.split(b"\n\n")[:-1]:
            if not (event.startswith(before) and event.endswith(after)):
                break
            parts.append(event[len(before) : -len(after)])
            position += len(event) + 2
        try:
            return [text for text in _in_strings(parts) if text], data[position:]
        except ValueError:
            return [], data

    def read(self, text: str) -> Chunk:
        """Return a chunk from its JSON text.

        Raises:
            ValueError, RecursionError: it is no JSON.
        """
        chunk = self._read(text)
        kind = self._wanted
        if kind and self._frame_tries[kind] and [piece.kind for piece in chunk.pieces] == [kind]:
            self._frame_tries[kind] -= 1
            frame = _text_frame(text, kind)
            if frame is not None:
                self._frames[kind] = frame
            self._wanted = ""
        return chunk

    def _read(self, text: str) -> Chunk:
        if self._head and text.startswith(self._head):
            try:
                delta, end = _decode(text, len(self._head))
            except ValueError:  # but for a space, perhaps
                return Chunk.from_dict(json.loads(text))
            chunk = plain_delta(delta) if text[end:] == self._tail else None
            if chunk is not None:
                self._tries = 0
                if not self._before:
                    self._learn_run(text[len(self._head) : end])
                return chunk
        data = json.loads(text)
        chunk = plain_chunk(data)
        if chunk is None:
            return Chunk.from_dict(data)
        if self._tries and chunk.finish_reason is None and chunk.usage is None:
            self._tries -= 1
            self._learn(text)
        return chunk

    def _learn(self, text: str) -> None:
        """Take what is around the delta of a plain chunk for the frame."""
        if text.count('"delta":') != 1:
            return
        start = text.find('"delta":') + len('"delta":')
        start += text.startswith(" ", start)
        try:
            end = _decode(text, start)[1]
        except ValueError:  # it is written with escapes, perhaps
            return
        self._head, self._tail = text[:start], text[end:]

    def _learn_run(self, delta: str) -> None:
        """Take what is around the text of a delta, and has nothing else, for the frame of events that follow."""
        match = _TEXT_DELTA.fullmatch(delta)
        if match is not None and not re.search(r"[\r\n]", self._head + self._tail):
            self._before = f"data: {self._head}{match[1]}".encode()
            self._after = f'"}}{self._tail}'.encode()


# --- the frame of a text ---------------------------------------------------------------------------------------------

# Text in JSON, but for escapes that halves of characters, or characters of keys, may be written with.
_TEXT = rb'(?!")([^"\\\x00-\x1f\x7f]*(?:\\["bfnrt][^"\\\x00-\x1f\x7f]*)*)'
# What no reading looks at, and many providers change with each chunk.
_VARYING = re.compile(r'("(?:id|created|obfuscation|p)": ?)(?:"[^"\\\x00-\x1f]*"|[0-9]+)')
_VALUE = rb'(?:"[^"\\\x00-\x1f]*"|[0-9]+)'
_PLACES = {"text": re.compile('"content": ?"'), "thinking": re.compile('"(?:reasoning_content|reasoning)": ?"')}


def _text_frame(text: str, kind: str) -> Optional[Pattern[bytes]]:
    """Return the pattern of events like this one, if other text put into it reads as that and no more."""
    place = _PLACES[kind].search(text)
    if place is None:
        return None
    try:
        head, tail = text[: place.end()], text[_decode(text, place.end() - 1)[1] - 1 :]
        if len(head) + len(tail) > _LONGEST_FRAME:
            return None
        chunk = Chunk.from_dict(json.loads(head + "." + tail))
    except ValueError:
        return None
    is_alone = chunk._replace(reasoning_field="") == Chunk(True, (Piece(kind, "."),))
    return _compiled(_around(head), _around(tail)) if is_alone and not re.search(r"[\r\n]", head + tail) else None


def _around(text: str) -> bytes:
    """Return the pattern of what is before or after a text."""
    parts = [re.escape(part).encode("utf-8", "replace") for part in _VARYING.split(text)]
    return b"".join(part + _VALUE * (place % 2) for place, part in enumerate(parts))


@lru_cache(maxsize=256)  # a model's streams have the same one; to make it takes 400 us
def _compiled(before: bytes, after: bytes) -> Pattern[bytes]:
    return re.compile(b"data: ?" + before + _TEXT + after + rb"\r?\n\r?\n")


def _in_strings(parts: List[bytes]) -> List[str]:
    """Return what stands between the quotes of JSON strings.

    Raises:
        ValueError: it cannot stand there.
    """
    together = b'"'.join(parts).decode()
    texts = together.split('"')
    if len(texts) == len(parts) and together.isprintable() and "\\" not in together:
        return texts
    return [part.decode() if _CLEAN(part) else _unescaped(part) for part in parts]


def _unescaped(text: bytes) -> str:
    found: str = json.loads(b'"%s"' % text)
    return found
