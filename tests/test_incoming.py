"""One connection's bytes as requests: bodies in pieces of any size."""

from __future__ import annotations

import random
import tracemalloc
from typing import Any, Iterator

import pytest

from ccproxy.http1 import Head
from ccproxy.incoming import Incoming
from support import make_config

NEXT = b"GET / HTTP/1.1\r\n"


class Connection:
    """A socket that gives what a client sent in pieces."""

    def __init__(self, data: bytes, sizes: Iterator[int]) -> None:
        self._data, self._place, self._sizes = data, 0, sizes

    def gettimeout(self) -> float:
        return 30.0

    def settimeout(self, timeout: float) -> None:
        """Nothing waits here."""

    def recv(self, most: int) -> bytes:
        place, self._place = self._place, self._place + min(most, next(self._sizes))
        return self._data[place : self._place]


def pieces(largest: int) -> Iterator[int]:
    """Yield the sizes of pieces."""
    chance = random.Random(largest)
    while True:
        yield chance.randint(1, largest)


def head(**fields: str) -> Head:
    """Return the head of a request with these fields."""
    return Head("POST", "/", False, {name.replace("_", "-"): value for name, value in fields.items()})


def body_of(connection: Any, asked: Head) -> Any:
    """Return a request's body, and its connection's reader, which may have more."""
    incoming = Incoming(connection)
    incoming.wait(make_config(), 1.0)
    return incoming.body(asked, make_config(), lambda data: None), incoming


@pytest.mark.parametrize("largest", [3, 1500, 20_000, 65_536, 1_000_000])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_is_what_was_sent(largest: int, is_chunked: bool) -> None:
    """In pieces of any size, and nothing of what follows it."""
    body = bytes(range(1, 251)) * 800
    sent, asked = body, head(content_length=str(len(body)))
    if is_chunked:
        parts = [body[start : start + 70_000] for start in range(0, len(body), 70_000)]
        sent = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        asked = head(transfer_encoding="chunked")
    received, incoming = body_of(Connection(sent + NEXT, pieces(largest)), asked)
    assert received == body
    assert incoming._line(100) == NEXT


def test_a_body_in_single_bytes_takes_little_more_than_its_size() -> None:
    """A client could make each of them an object of its own."""
    size = 50_000
    tracemalloc.start()
    try:
        body_of(Connection(b"x" * size, pieces(1)), head(content_length=str(size)))
        assert tracemalloc.get_traced_memory()[1] < 6 * size
    finally:
        tracemalloc.stop()
