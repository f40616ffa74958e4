"""HTTP/1.1 of providers: a chunked body, whatever its pieces, and what is no chunk."""

from __future__ import annotations

from email.utils import formatdate
from typing import List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccproxy.http1 import Unchunker, date_of

BODIES = [
    b"5\r\nHello\r\n0\r\n\r\n",
    b"2\r\nHe\r\n3\r\nllo\r\n0\r\n\r\n",
    b"5;name=value\r\nHello\r\n0;last\r\n\r\n",  # extensions
    b" 005 \r\nHello\r\n000\r\nx-trailer: 1\r\ny: 2\r\n\r\n",  # zeros, spaces, trailers
    b"5\nHello\n0\n\n",  # bare line feeds
    b"3\r\nHel\r\n2\r\nlo\r\n0\r\n\r\nwhat follows",
]


def unchunk(pieces: List[bytes]) -> Tuple[bytes, bool]:
    unchunker = Unchunker()
    body = b"".join([unchunker.feed(piece) for piece in pieces])
    return body, unchunker.is_done


@pytest.mark.parametrize("body", BODIES)
def test_every_split(body: bytes) -> None:
    """Whole, byte by byte and in two: the same bytes, and the end is seen with its last byte."""
    bytewise = [body[n : n + 1] for n in range(len(body))]
    for pieces in ([body], bytewise, *([body[:n], body[n:]] for n in range(len(body)))):
        assert unchunk(pieces) == (b"Hello", True)
    assert unchunk([BODIES[0][:-1]]) == (b"Hello", False)


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    cuts=st.lists(st.integers(0, 300), max_size=8),
)
def test_any_bytes_survive(chunks: List[bytes], cuts: List[int]) -> None:
    """Line ends and digits inside of a chunk are its bytes."""
    body = b"".join([b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""]])
    borders = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    assert unchunk([body[a:b] for a, b in zip(borders, borders[1:])]) == (b"".join(chunks), True)


@pytest.mark.parametrize(
    "bad", [b"zz\r\n", b"\r\n\r\n5\r\n", b"-1\r\n", b"0x5\r\nHello", b"5 5\r\n", b"1" * 20 + b"\r\n"]
)
def test_what_is_no_chunk(bad: bytes) -> None:
    """What came before it is given, then it fails."""
    unchunker = Unchunker()
    assert unchunker.feed(b"5\r\nHello\r\n" + bad) == b"Hello"
    with pytest.raises(ValueError):
        unchunker.feed(b"more\r\n")


@pytest.mark.parametrize(("start", "more"), [(b"5;", b"x" * 1000), (b"0\r\n", b"x: y\r\n" * 100)])
def test_what_has_no_end_is_refused(start: bytes, more: bytes) -> None:
    """Neither a size line nor trailers can fill the memory."""
    with pytest.raises(ValueError):
        unchunk([start, *[more] * 100])


@given(st.integers(0, 4_000_000_000))
def test_a_date_is_that_of_the_mail_format(second: int) -> None:
    """RFC 9110 takes it from there; the names are English, whatever the system's language."""
    assert date_of(second) == formatdate(second, usegmt=True)
