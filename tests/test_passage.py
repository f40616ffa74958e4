"""Text that takes the short way: what goes out is what came, as events of the client, or all of it is left."""

from __future__ import annotations

import json
from typing import List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccproxy.chunk_reader import ChunkReader
from ccproxy.message import TextDelta
from ccproxy.passage import Passage
from ccproxy.sse import delta_frames, encode


class Body:
    """A body whose next piece was set."""

    def __init__(self) -> None:
        self.ahead = b""

    def look(self) -> bytes:
        """Return what has come."""
        return self.ahead


def event(text: str, *, ensure_ascii: bool = False) -> bytes:
    """A chunk with text."""
    delta = json.dumps({"content": text}, ensure_ascii=ensure_ascii)
    return b'data: {"choices":[{"index":0,"delta":%s}]}\n\n' % delta.encode("utf-8", "replace")


class Way:
    """A passage into block 3, and the texts it was asked about."""

    def __init__(self, begun: bytes = b"", forbidden: str = "\0") -> None:
        reader = ChunkReader()
        reader.frame("text")
        reader.read(event("a")[6:-2].decode())
        frame = reader.frame("text")
        assert frame is not None
        self.body = Body()
        self.passage = Passage(self.body, begun, frame, lambda text: forbidden not in text, delta_frames("text", 3))

    def read(self, data: bytes) -> bytes:
        """Read this piece; what was not read stays where others find it."""
        self.body.ahead = data
        got = self.passage.read()
        assert self.body.ahead == (b"" if got else data)
        return got


def deltas(*texts: str) -> bytes:
    """The client's events."""
    return encode([TextDelta(3, text) for text in texts])


def test_events_with_the_beginning_of_another() -> None:
    """Each has its delta; the beginning waits for its rest, wherever it ends."""
    texts = ["one", 'two \n"', "\u00e9\u4f60\U0001f600"]
    data, last = b"".join(map(event, texts)), event("n")
    for cut in range(len(last) - 2):
        way = Way()
        assert way.read(data + last[:cut]) == deltas(*texts)
        assert way.read(last[cut:]) == deltas("n")
        assert (way.passage.count, way.passage.characters) == (4, 13)


@pytest.mark.parametrize(
    "odd", [b": ping\n\n", b"data: [DONE]\n\n", b"data: x\n", event("\\"), event("@").replace(b"@", b"\xff")]
)
def test_what_is_left(odd: bytes) -> None:
    """A read with anything but text is left whole, with the beginning that was read before."""
    for data in (odd, event("a") + odd, odd + event("a")):
        way = Way(begun=event("x")[:5])
        assert way.read(event("x")[5:] + event("y")[:7]) == deltas("x")
        assert way.read(event("y")[7:] + data) == b""
        way.passage.leave()
        assert way.body.ahead == event("y") + data
        assert (way.passage.count, way.passage.characters) == (1, 1)


def test_text_that_may_not_pass() -> None:
    """Is asked about as one text, and left whole."""
    way = Way(forbidden="ab")
    assert way.read(event("a")) == deltas("a")
    assert way.read(event("xa") + event("bx")) == b""


@given(st.lists(st.text(max_size=5), min_size=1, max_size=4), st.booleans())
def test_any_text(texts: List[str], ensure_ascii: bool) -> None:
    """What passes is what the same deltas encode to, to the byte."""
    way = Way()
    got = way.read(b"".join(event(text, ensure_ascii=ensure_ascii) for text in texts))
    assert got in (b"", deltas(*texts))
    if all(text.isprintable() and text and "\\" not in text for text in texts) and not ensure_ascii:
        assert got
        assert way.passage.characters == len("".join(texts))
