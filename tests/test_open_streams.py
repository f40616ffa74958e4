"""Streams under way are carried by one thread, and given back for all that is not plain."""

from __future__ import annotations

import gc
import socket
import threading
import time
from contextlib import ExitStack
from typing import Iterator, List, Optional

import pytest

from ccproxy.anthropic import MessagesRequest
from ccproxy.open_streams import OpenStreams
from ccproxy.outgoing import ClientLine
from ccproxy.web import ASIDE, Request, Stream
from faults import END, FaultyProvider, chunk, head, until
from fixed_provider import EVENTS, STREAM, proxy_for
from processes import PATIENCE, eventually
from raw_http import RawConnection, request
from support import user

pytestmark = pytest.mark.skipif(not hasattr(__import__("select"), "epoll"), reason="without epoll nothing is carried")


def carriers() -> int:
    """How many carrying threads there are."""
    return sum(thread.name == "streams" for thread in threading.enumerate())


class Wire:
    """A provider's socket as a source, and the parts that come over it; ``carry`` runs in a thread of its own."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self.near, self.provider = socket.socketpair()
        self.server, self.client = socket.socketpair()
        self.client.settimeout(PATIENCE)
        self.server.settimeout(PATIENCE)
        self.patience, self.is_dry, self.silences = patience, False, []  # type: float, bool, List[float]
        self.body = Stream(self._parts(), lambda: None, self)
        self.fault: Optional[BaseException] = None
        self._streams = OpenStreams()
        self.thread = threading.Thread(target=self._carry, daemon=True)

    def start(self, streams: OpenStreams) -> Wire:
        """Have it carried."""
        self._streams = streams
        self.thread.start()
        return self

    def close(self) -> None:
        """Close all of it, and wait for the end."""
        self.provider.close()
        self.thread.join(PATIENCE)
        for connection in (self.near, self.server, self.client):
            connection.close()

    def stop_waiting(self) -> int:
        """The provider's socket."""
        self.near.settimeout(0)
        return self.near.fileno()

    def wait_again(self, silence: float) -> None:
        """Note it."""
        self.silences.append(silence)

    def _carry(self) -> None:
        try:
            self._streams.carry(self.body, ClientLine(self.server, is_chunked=False))
        except Exception as fault:  # noqa: BLE001 - a thread's top
            self.fault = fault

    def _parts(self) -> Iterator[bytes]:
        while True:
            self.is_dry = True
            yield b""
            self.is_dry = False
            data = self.near.recv(1 << 20)
            if data == b"fail":
                raise RuntimeError("no")
            if not data or data == b"aside":
                yield ASIDE
                yield b"never carried"
            yield data


@pytest.fixture
def streams() -> Iterator[OpenStreams]:
    """Streams whose thread ends with the test."""
    eventually(lambda: not carriers(), "the threads of other tests end")
    yield OpenStreams()
    eventually(lambda: not carriers(), "the thread ends when it has nothing to do")


@pytest.fixture
def wires(streams: OpenStreams) -> Iterator[List[Wire]]:
    """Three of them, being carried."""
    wires = [Wire().start(streams) for _ in range(3)]
    yield wires
    for wire in wires:
        wire.close()


def say(wire: Wire, words: bytes) -> None:
    """The provider says something, and the client hears it."""
    wire.provider.sendall(words)
    assert wire.client.recv(100) == words


def test_one_thread_for_all(wires: List[Wire]) -> None:
    """Each client gets what its provider sends, in any order, from one thread."""
    for words in (b"one", b"two"):
        for wire in reversed(wires):
            say(wire, words)
    assert carriers() == 1
    assert all(wire.thread.is_alive() for wire in wires)


def test_what_takes_time_is_given_back(wires: List[Wire]) -> None:
    """Before it is made; it is not carried again, for its source is gone."""
    wires[1].provider.sendall(b"aside")
    wires[1].thread.join(PATIENCE)
    assert not wires[1].thread.is_alive()
    assert (wires[1].body.source, wires[1].fault) == (None, None)
    assert next(wires[1].body) == b"never carried"
    say(wires[0], b"goes on")


def test_a_fault_is_its_own_streams(wires: List[Wire]) -> None:
    """It is raised where the stream was given away; the others go on."""
    wires[1].provider.sendall(b"fail")
    wires[1].thread.join(PATIENCE)
    assert isinstance(wires[1].fault, RuntimeError)
    say(wires[0], b"goes on")
    say(wires[2], b"too")


def test_a_client_that_left(wires: List[Wire]) -> None:
    """Is noticed by the next write, and told where the stream was given away."""
    wires[1].client.close()
    wires[1].provider.sendall(b"to nobody")
    wires[1].thread.join(PATIENCE)
    assert isinstance(wires[1].fault, OSError)
    say(wires[0], b"goes on")


def test_a_slow_client(streams: OpenStreams, wires: List[Wire]) -> None:
    """Gets every byte, from the thread that may wait for it; no other stream waits."""
    slow, much = Wire(), bytes(65536)
    slow.server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    slow.provider.sendall(much)
    slow.start(streams)
    eventually(lambda: slow.silences, "it is given back")
    say(wires[0], b"goes on")
    got = b""
    while len(got) < len(much):
        got += slow.client.recv(len(much))
    assert got == much
    slow.thread.join(PATIENCE)
    assert slow.fault is None
    assert slow.body.source is slow
    slow.close()


def test_silence(streams: OpenStreams) -> None:
    """What is silent too long is given back, with how long it was; the one that talks is not."""
    silent, talking = Wire(patience=0.3).start(streams), Wire().start(streams)
    silent.thread.join(PATIENCE)
    assert len(silent.silences) == 1
    assert silent.silences[0] >= 0.3
    assert silent.body.source is silent
    say(talking, b"goes on")
    silent.close()
    talking.close()


def test_a_socket_that_cannot_be_waited_for(streams: OpenStreams) -> None:
    """Leaves the stream where it was, and its number free for another one."""
    wire = Wire()
    wire.stop_waiting = lambda: 1 << 20  # type: ignore[method-assign]  # no open descriptor
    wire.near.settimeout(0)
    wire.start(streams)
    wire.thread.join(PATIENCE)
    assert (wire.fault, len(wire.silences)) == (None, 1)
    wire.close()


def test_a_carrier_that_fails(streams: OpenStreams, caplog: pytest.LogCaptureFixture) -> None:
    """Gives all of its streams back, says so, and the next stream is carried."""
    wires = [Wire().start(streams) for _ in range(2)]
    say(wires[0], b"words")
    wires[1].patience = None  # type: ignore[assignment]
    for wire in wires:
        wire.thread.join(PATIENCE)
        assert wire.fault is None
        wire.close()
    assert "carried by their own threads" in caplog.text
    another = Wire().start(streams)
    say(another, b"words")
    another.close()


def test_the_thread_comes_back(streams: OpenStreams) -> None:
    """It ends when there is nothing to do, and is there for the next stream."""
    for _ in range(2):
        wire = Wire().start(streams)
        say(wire, b"words")
        assert carriers() == 1
        wire.close()
        eventually(lambda: not carriers(), "the thread ends")


def test_streams_of_the_server_are_carried() -> None:
    """All that are under way are with the one thread; each comes to its end when its provider does."""
    go = threading.Event()
    middle = EVENTS[: EVENTS.index(b"\n\n") + 2]
    plan = [head(), chunk(middle), until(go), chunk(STREAM), END]
    with FaultyProvider(plan) as provider, proxy_for(provider.url) as proxy, ExitStack() as stack:
        clients = [stack.enter_context(RawConnection(proxy.url)) for _ in range(5)]
        for client in clients:
            client.send(request("POST", "/v1/messages", user(stream=True)))
        for client in clients:
            client.head()
            assert b"message_start" in client.chunk()
        carried = proxy.server.streams._carried
        eventually(lambda: len(carried) == len(clients), "they are carried")
        go.set()
        for client in clients:
            body = b"".join(iter(client.chunk, b""))
            assert b"message_stop" in body
        assert carried == {}


def test_a_prompt_is_let_go_once_its_answer_has_begun() -> None:
    """It is large, and an answer may take minutes: nothing holds it meanwhile, as it came or as it was read."""
    go = threading.Event()
    plan = [head(), chunk(EVENTS[: EVENTS.index(b"\n\n") + 2]), until(go), chunk(STREAM), END]

    def prompts() -> List[object]:
        things = [thing for thing in gc.get_objects() if isinstance(thing, (Request, MessagesRequest))]
        return [thing for thing in things if "to be let go" in repr(thing)]

    with FaultyProvider(plan) as provider, proxy_for(provider.url) as proxy, RawConnection(proxy.url) as client:
        client.send(request("POST", "/v1/messages", user("to be let go", stream=True)))
        client.head()
        assert b"message_start" in client.chunk()
        eventually(lambda: not prompts(), "nothing holds it")
        go.set()
        assert b"message_stop" in b"".join(iter(client.chunk, b""))


def test_a_provider_that_falls_silent_in_mid_stream() -> None:
    """Ends the stream with an error event, after PROVIDER_READ_TIMEOUT."""
    plan = [head(), chunk(EVENTS[: EVENTS.index(b"\n\n") + 2]), lambda wire: wire.wait(PATIENCE)]
    with (
        FaultyProvider(plan) as provider,
        proxy_for(provider.url, {"PROVIDER_READ_TIMEOUT": "1"}) as proxy,
        RawConnection(proxy.url) as client,
    ):
        client.send(request("POST", "/v1/messages", user(stream=True)))
        client.head()
        started, body = time.monotonic(), b""
        while b"event: error" not in body:
            body += client.chunk()
    assert b"did not answer in time" in body
    assert time.monotonic() - started > 0.5
