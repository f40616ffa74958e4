"""Reads that merely go on with the text take a short way; the client gets the same bytes as on the long one."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any, List, Sequence, Tuple

import pytest

from ccproxy.chunk_reader import ChunkReader
from ccproxy.errors import ApiError
from ccproxy.handlers.exchange import Exchange
from ccproxy.provider.answer import KeptAnswer
from ccproxy.provider.cancel import Cancel
from ccproxy.provider.connections import PromptResponse
from ccproxy.provider.response import ProviderResponse
from ccproxy.sse import encode
from ccproxy.translate.failure import Target
from ccproxy.translate.stream import StreamTranslator
from chunks import call, context, delta, sse
from processes import PATIENCE
from recordings import VARIABLE, folder, load
from replay import bytewise, cut

KEY = "sk-a-key-that-the-provider-quotes"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def framed(piece: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(piece), piece)


class Carried:
    """An answer as the thread reads it that carries many streams, and the wire it comes over."""

    def __init__(self, *, is_short: bool, **fields: Any) -> None:
        near, self._provider = socket.socketpair()
        near.settimeout(PATIENCE)
        self._provider.sendall(HEAD)
        body = PromptResponse(near, method="POST")
        body.begin()
        answer = KeptAnswer(
            SimpleNamespace(_put_conn=lambda connection: None), SimpleNamespace(sock=near, close=near.close), body
        )
        self._response = ProviderResponse(answer, Target("p", "m", 1000), ChunkReader(), (KEY,))
        self._exchange = Exchange(self._response, StreamTranslator(context(**fields)), Cancel(), (), "")
        self._events, self._is_short = self._exchange.events(), is_short
        self.got, self.short = b"", 0
        """What the client is sent, and how many reads took the short way."""
        self._held = b""
        self._is_carried = self._is_over = False

    def hear(self, data: bytes) -> None:
        """The provider sends this; read as long as there is something."""
        if self._is_over:
            return
        self._held += data
        if not self._is_carried and data and len(self._held) < len(b"100\r\nd\r\n"):
            return  # the first read must give a byte, for it waits
        if self._held:
            self._provider.sendall(self._held)
        self._held = b""
        source = self._response.source
        try:
            while True:
                part = self._exchange.plain() if source.is_dry and self._is_short else b""
                self.short += bool(part)
                self.got += part or encode(next(self._events))
                if source.is_dry:
                    return
                if not self._is_carried:
                    self._is_carried = source.stop_waiting() >= 0
        except StopIteration:
            self._is_over = True
        except ApiError as error:
            self.got += self._exchange.fail(error, "req_test")
            self._is_over = True

    def leave(self) -> None:
        """The provider leaves, and what it left is read."""
        self._provider.shutdown(socket.SHUT_WR)
        self.hear(b"")
        self._exchange.close()
        self._provider.close()


def both_ways(pieces: Sequence[bytes], **fields: Any) -> Tuple[bytes, int]:
    """Return what the client is sent for what the provider sends, and how many reads took the short way."""
    ways = [Carried(is_short=True, **fields), Carried(is_short=False, **fields)]
    for way in ways:
        for piece in pieces:
            way.hear(piece)
        way.leave()
    assert ways[0].got == ways[1].got
    assert ways[1].short == 0
    return ways[0].got, ways[0].short


def texts(*words: str) -> List[bytes]:
    """A stream's chunks of text."""
    return [framed(sse(delta(content=text), done=False)) for text in words]


LAST = [framed(sse(delta(finish="stop"))) + END]


def test_text_that_goes_on() -> None:
    """Takes the short way once the frame is known: from the third chunk on."""
    got, short = both_ways([*texts("a", "b", "c d", 'e "\n', "f"), *LAST])
    assert short == 3
    assert got.count(b"text_delta") == 5
    assert b"message_stop" in got


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thinking_that_goes_on(field: str) -> None:
    """Takes the short way, too, and text after it; where the client asked not to be shown it, it is kept as ever."""
    thoughts = [framed(sse(delta(**{field: word}), done=False)) for word in ("so", " the", " s", "ky")]
    got, short = both_ways([*thoughts, *texts("a", "b", "c"), *thoughts, *LAST])
    assert short == 2 + 1 + 3
    assert got.count(b"thinking_delta") == 8
    got, short = both_ways([*thoughts, *texts("a", "b", "c"), *LAST], hides_thinking=True)
    assert short == 1
    assert b"thinking_delta" not in got


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
def test_reads_that_end_anywhere(size: int) -> None:
    """The beginning of an event waits for its rest, on both ways and from one to the other."""
    body = b"".join([*texts(*"abcdefgh"), framed(sse(call(0, "c", "T", '{"a":1}'), done=False)), *texts("i"), *LAST])
    got, _ = both_ways(cut(body, [size] * (len(body) // size)))
    assert got.count(b"text_delta") == 9


@pytest.mark.parametrize(
    ("odd", "found"),
    [
        ([framed(b": still there\n\n")], b""),
        ([framed(b"data: {broken\n\n")], b""),
        ([framed(b"data: {broken\n\n")] * 4, b"not JSON"),
        ([framed(b'data: {"error":{"message":"no more","code":500}}\n\n')], b"no more"),
        ([b"no chunk\r\n\r\n"], b"event: error"),
        ([framed(sse(delta(content=KEY), done=False))], b"***"),
        ([framed(sse(delta(content=piece), done=False)) for piece in (KEY[:9], KEY[9:])], b"***"),
        (
            [framed(sse(delta(content=half), done=False)) for half in ("\ud83d", "\ude00")],
            b"ude00",
        ),
        ([framed(sse(delta(content="a STOP b"), done=False))], b"stop_sequence"),
        ([b"".join([*texts("x"), *LAST])], b"message_stop"),
        ([*texts("x")[0].partition(b"content")], b""),
    ],
)
def test_what_is_not_plain(odd: List[bytes], found: bytes) -> None:
    """Is seen as ever in the middle of plain text, which goes on behind it."""
    for fields in ({}, {"stop_sequences": ("STOP",)} if b"STOP" in odd[0] else {}):
        got, short = both_ways([*texts("a", "b", "c"), *odd, *texts("d", "e"), *LAST], **fields)
        assert short or fields
        assert KEY.encode() not in got
    assert found in got


def test_a_stream_that_is_cut() -> None:
    """Ends with an error event."""
    got, short = both_ways(texts("a", "b", "c"))
    assert short == 1
    assert got.endswith(b"\n\n")
    assert b"event: error" in got


def test_bad_lines_between_good_ones() -> None:
    """Are no reason to give up, whichever way the good ones take."""
    broken = framed(b"data: {broken\n\n")
    got, short = both_ways([*texts("a", "b"), *(piece for text in texts(*"cdefgh") for piece in (broken, text)), *LAST])
    assert short == 6
    assert b"message_stop" in got


@pytest.mark.skipif(not folder().is_dir(), reason=f"no recordings: {VARIABLE} names their folder")
@pytest.mark.parametrize("share", range(8))
def test_recorded_streams(share: int) -> None:
    """Of every provider, read event by event, in halves of events, and byte by byte."""
    streams = [source for source in load() if source.api == "chat" and source.is_stream and not source.is_error]
    short = 0
    for source in streams[share::8]:
        events = [framed(event + b"\n\n") for event in source.body.split(b"\n\n")]
        halves = [half for event in events for half in (event[: len(event) // 2], event[len(event) // 2 :])]
        for pieces in (events, halves, [b"".join(events)], bytewise(b"".join(events[:6]))):
            short += both_ways([*pieces, END])[1]
    assert short > 100
