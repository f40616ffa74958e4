"""The replaying provider itself: the pieces, the framing and the pauses are what a test asked for."""

from __future__ import annotations

import http.client
import json
import threading
from typing import Iterator

import pytest

from replay import Answer, ReplayProvider, bytewise, cut

SSE = {"content-type": "text/event-stream", "transfer-encoding": "chunked", "x-kept": "yes"}
BODY = 'data: {"ü"}\n\ndata: [DONE]\n\n'.encode()


@pytest.fixture
def provider() -> Iterator[ReplayProvider]:
    """A running provider."""
    with ReplayProvider() as running:
        yield running


def ask(provider: ReplayProvider, key: str) -> http.client.HTTPResponse:
    """POST to one key and return the response with its head read."""
    connection = http.client.HTTPConnection(provider.url.split("//")[1], timeout=10)
    connection.request("POST", f"/{key}/v1/chat/completions", json.dumps({"model": key}))
    return connection.getresponse()


def test_pieces() -> None:
    """Recorded lengths cut a body; what they leave over is one more piece; bytes are pieces of one."""
    assert cut(b"abcdef", [1, 3]) == [b"a", b"bcd", b"ef"]
    assert cut(b"abcdef") == [b"abcdef"]
    assert cut(b"abc", [3]) == [b"abc"]
    assert bytewise(b"abc") == [b"a", b"b", b"c"]


def test_each_piece_is_a_chunk(provider: ReplayProvider) -> None:
    """Under chunked framing a reader meets exactly the pieces, in the middle of characters too."""
    provider.answers["one"] = Answer(200, SSE, bytewise(BODY))
    response = ask(provider, "one")
    assert response.getheader("x-kept") == "yes"
    assert list(iter(lambda: response.read1(65536), b"")) == bytewise(BODY)


@pytest.mark.parametrize(("framing", "header"), [("close", "connection"), ("length", "content-length")])
def test_bodies_without_chunks(provider: ReplayProvider, framing: str, header: str) -> None:
    """The other framings send the bare body, and say how it ends."""
    provider.answers["two"] = Answer(429, SSE, cut(BODY, [5]), framing)
    response = ask(provider, "two")
    assert response.status == 429
    assert response.getheader("transfer-encoding") is None
    assert response.getheader(header) == {"connection": "close", "content-length": str(len(BODY))}[header]
    assert response.read() == BODY


def test_a_torn_body(provider: ReplayProvider) -> None:
    """A torn body has its pieces but not its end."""
    provider.answers["torn"] = Answer(200, SSE, cut(BODY, [5]), "torn")
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(provider, "torn").read()
    assert caught.value.partial == BODY


def test_a_held_piece_waits(provider: ReplayProvider) -> None:
    """What stands before a held piece arrives while the rest does not exist yet."""
    gate = threading.Event()
    provider.answers["three"] = Answer(200, SSE, [b"first", b"second"], "close", {1: gate})
    response = ask(provider, "three")
    assert response.read1(65536) == b"first"
    gate.set()
    assert response.read() == b"second"


def test_requests_are_kept(provider: ReplayProvider) -> None:
    """Each request can be looked at; a key nobody scripted is a 404."""
    assert ask(provider, "four").status == 404
    assert provider.received[0].path == "/four/v1/chat/completions"
    assert provider.received[0].body == {"model": "four"}
