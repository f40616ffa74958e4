"""The built-in server at work: streams as they come, streams that fail, clients that leave, the way to the end."""

from __future__ import annotations

import errno
import json
import socket
import threading
from contextlib import ExitStack
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

import pytest

from ccproxy.outgoing import ClientLine
from ccproxy.server import Server
from ccproxy.stub import Cut, Failure, StubProvider, Text
from grammar import check_grammar, error_of, parse_sse
from processes import PATIENCE, eventually
from raw_http import RawConnection, is_refused, request
from replay import Answer, ReplayProvider, read_head
from support import Proxy, ask, proxy_with, running_proxy, user

WORDS = ("one ", "two ", "three ")


def chunk(delta: Dict[str, Any], finish: Any = None) -> bytes:
    """One event of a provider's stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: %s\n\n" % json.dumps({"id": "c", "choices": [choice]}).encode()


PIECES = [*(chunk({"content": word}) for word in WORDS), chunk({}, "stop") + b"data: [DONE]\n\n"]


@pytest.fixture
def provider() -> Iterator[ReplayProvider]:
    """A provider of raw bytes."""
    with ReplayProvider() as provider:
        yield provider


@pytest.fixture
def proxy(provider: ReplayProvider) -> Iterator[Proxy]:
    """A proxy in front of it."""
    entry = {"model_id": "raw", "api_base": provider.base("raw"), "dialect": "generic"}
    with running_proxy({"ROUTER_DEFAULT": "raw"}, [entry]) as proxy:
        yield proxy


def play(provider: ReplayProvider, framing: str, gates: Sequence[threading.Event] = ()) -> None:
    """Let the provider stream the words, each but the first behind a gate."""
    headers = {"content-type": "text/event-stream"}
    provider.answers["raw"] = Answer(200, headers, PIECES, framing, hold=dict(enumerate(gates, start=1)))


def open_stream(proxy: Proxy) -> RawConnection:
    """Send a streaming request."""
    client = RawConnection(proxy.url)
    client.send(request("POST", "/v1/messages", user(stream=True)))
    return client


def read_until(client: RawConnection, text: str) -> bytes:
    """Read chunks until one holds the text."""
    received = b""
    while text.encode() not in received:
        piece = client.chunk()
        assert piece, f"ended before {text!r}: {received!r}"
        received += piece
    return received


def rest_of(client: RawConnection) -> Tuple[bytes, bool]:
    """Read the rest of a chunked body; True when it came to its proper end."""
    body = b"".join(iter(client.chunk, b""))
    return body, client._ended_well


def test_a_stream_that_came_whole_is_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its head, its events and its end go out together: a write is a system call, and wakes the client."""
    writes: List[bytes] = []
    send = ClientLine._send

    def noted(line: ClientLine, data: bytes) -> None:
        writes.append(data)
        send(line, data)

    monkeypatch.setattr(ClientLine, "_send", noted)
    with proxy_with(can_stream=False) as (proxy, _):
        answer = ask(proxy.url, "/v1/messages", user(stream=True))
    check_grammar(parse_sse(answer.body))
    assert len(writes) == 1
    assert writes[0].startswith(b"HTTP/1.1 200 ")
    assert writes[0].endswith(b"\r\n0\r\n\r\n")


@pytest.mark.parametrize(("entry", "is_streamed"), [({}, True), ({"can_stream": False}, False)])
def test_what_may_think_in_streams_alone_is_asked_for_one(entry: Any, is_streamed: bool) -> None:
    """Some of Qwen's models refuse to think otherwise; a client that wants no stream gets the message of it."""
    with proxy_with(dialect="qwen", **entry) as (proxy, stub):
        answer = ask(proxy.url, "/v1/messages", user(thinking={"type": "adaptive"}))
        assert bool(stub.requests[0].body.get("stream")) == is_streamed
    assert answer.json["type"] == "message"
    assert answer.json["stop_reason"] == "end_turn"
    assert answer.json["content"]


# --- streams ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["chunked", "close", "length"])
def test_event_by_event(provider: ReplayProvider, proxy: Proxy, framing: str) -> None:
    """Each event is passed on before the provider sends the next, also from a body without chunks."""
    gates = [threading.Event() for _ in PIECES[1:]]
    play(provider, framing, gates)
    with open_stream(proxy) as client:
        assert client.head().status == 200
        body = b""
        for word, gate in zip(WORDS, gates):
            body += read_until(client, json.dumps(word))
            gate.set()
        rest, is_complete = rest_of(client)
    assert is_complete
    check_grammar(parse_sse(body + rest))


@pytest.mark.parametrize("status", [400, 429, 500])
def test_the_providers_status_is_known_before_ours(status: int) -> None:
    """A stream that fails before its first event is a plain HTTP error, not an event after a 200."""
    with proxy_with(lambda body: [Failure(status, "no luck")]) as (proxy, _), RawConnection(proxy.url) as client:
        client.send(request("POST", "/v1/messages", user(stream=True)))
        answer = client.answer()
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert "no luck" in answer.json["error"]["message"]


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_provider_that_dies_in_mid_stream(version: str) -> None:
    """The client gets all that came, one error event, and a connection that breaks: never a clean end."""
    with proxy_with(lambda body: [Text("half a "), Cut()]) as (proxy, _), RawConnection(proxy.url) as client:
        client.send(request("POST", "/v1/messages", user(stream=True), version=version))
        head = client.head()
        assert head.status == 200
        if version == "1.1":
            body, is_complete = rest_of(client)
            assert not is_complete
        else:
            body = b"".join(read_to_reset(client))
        assert client.is_closed()
    events = parse_sse(body)
    check_grammar(events)
    error = error_of(events)
    assert error is not None
    assert error["type"] == "api_error"
    assert b"half" in body
    assert body.endswith(b"\n\n")
    assert json.loads(body.rsplit(b"data: ", 1)[1])["request_id"] == head.headers["request-id"]


def read_to_reset(client: RawConnection) -> Iterator[bytes]:
    """Yield what comes until the connection is reset; a clean end fails."""
    with pytest.raises(ConnectionResetError):
        yield from iter(client._reader.readline, b"")


def test_an_error_inside_the_stream() -> None:
    """A provider that says in mid-stream that it failed ends the same way, with its own words."""
    steps = [Text("half a "), Failure(503, "the engine fell out")]
    with proxy_with(lambda body: steps) as (proxy, _), open_stream(proxy) as client:
        assert client.head().status == 200
        body, is_complete = rest_of(client)
    assert not is_complete
    error = error_of(parse_sse(body))
    assert error is not None
    assert error["type"] == "overloaded_error"
    assert "the engine fell out" in error["message"]


# --- clients that leave -----------------------------------------------------------------------------------------


class TalkingProvider:
    """Answers one request with a stream that ends only when the other side hangs up."""

    def __init__(self) -> None:
        self.hung_up = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d/v1" % self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        self._listener.close()
        with connection, connection.makefile("rb") as reader:
            head = read_head(reader)
            assert head is not None
            reader.read(int(head[2]["content-length"]))
            try:
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
                while True:
                    connection.sendall(chunk({"content": "and on "}))
            except OSError:
                self.hung_up.set()


def test_a_client_that_leaves_in_mid_stream() -> None:
    """The provider is hung up on, and the thread ends: nobody pays for what nobody reads."""
    provider = TalkingProvider()
    models = [{"model_id": "endless", "api_base": provider.url, "dialect": "generic"}]
    with running_proxy({"ROUTER_DEFAULT": "endless"}, models) as proxy:
        threads = threading.active_count() - 1  # the provider's ends, too
        with open_stream(proxy) as client:
            assert client.head().status == 200
            read_until(client, '"and on "')
        assert provider.hung_up.wait(PATIENCE)
        eventually(lambda: threading.active_count() <= threads, "the thread of the connection ends")


def test_a_client_that_leaves_before_its_request_is_whole(proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    """Half a request is nothing: no answer, no log line, no thread that stays."""
    threads = threading.active_count()
    for part in (b"", b"POST /v1/mess", request("POST", "/v1/messages", user())[:-10]):
        with RawConnection(proxy.url) as client:
            client.send(part)
    eventually(lambda: threading.active_count() <= threads, "the threads of the connections end")
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


# --- the end ----------------------------------------------------------------------------------------------------


class Stop:
    """`stop()` in a thread of its own."""

    def __init__(self, server: Server, timeout: float) -> None:
        self.results: List[bool] = []
        self.thread = threading.Thread(target=lambda: self.results.append(server.stop(timeout)), daemon=True)
        self.thread.start()

    def result(self) -> bool:
        """Wait for its end; return what it returned."""
        self.thread.join(PATIENCE)
        return self.results[0]


class Unreachable(socket.socket):
    """The connection of a client whose network is gone."""

    def recv(self, *arguments: Any) -> bytes:
        """Fail as the system does."""
        raise OSError(errno.EHOSTUNREACH, "No route to host")


def test_a_client_that_leaves_with_its_network(proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    """Is one that left: the connection ends, and nothing is logged."""
    client, server = socket.socketpair()
    with client:
        proxy.server.process_request(Unreachable(fileno=server.detach()), ("client", 1))
        client.settimeout(PATIENCE)
        assert client.recv(1) == b""
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


def test_stop_waits_for_a_running_stream(provider: ReplayProvider, proxy: Proxy) -> None:
    """Idle connections end at once and new ones are refused, while a running stream comes to its end."""
    gate = threading.Event()
    play(provider, "chunked", [gate])
    with open_stream(proxy) as client, RawConnection(proxy.url) as idle:
        client.head()
        body = read_until(client, json.dumps(WORDS[0]))
        idle.send(request("GET", "/health"))
        assert idle.answer().status == 200
        stop = Stop(proxy.server, PATIENCE)
        assert idle.is_closed()
        eventually(lambda: is_refused(proxy.url), "new connections are refused")
        assert stop.thread.is_alive()
        gate.set()
        rest, is_complete = rest_of(client)
        assert is_complete
        assert client.is_closed()
    check_grammar(parse_sse(body + rest))
    assert stop.result() is True


@pytest.mark.parametrize("end", [lambda server: server.stop(PATIENCE), Server.retire], ids=["stop", "retire"])
def test_who_is_connected_already_is_answered(proxy: Proxy, end: Callable[[Server], object]) -> None:
    """A client that waits to be accepted when the socket goes would be reset by the system; its request is the last."""
    proxy.server.shutdown()  # nobody accepts
    with ExitStack() as connections:
        clients = [connections.enter_context(RawConnection(proxy.url)) for _ in range(3)]
        for client in clients:
            client.send(request("GET", "/health"))
        end(proxy.server)
        for client in clients:
            answer = client.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert client.is_closed()


def test_stop_cuts_at_its_deadline(provider: ReplayProvider, proxy: Proxy) -> None:
    """A stream that does not end in time is cut, not ended cleanly, and stop() says so."""
    gate = threading.Event()
    play(provider, "chunked", [gate])
    with open_stream(proxy) as client:
        client.head()
        read_until(client, json.dumps(WORDS[0]))
        assert Stop(proxy.server, 0.05).result() is False
        assert rest_of(client)[1] is False
        gate.set()


def test_a_stream_cut_at_the_deadline_ends_with_an_error_event(provider: ReplayProvider, proxy: Proxy) -> None:
    """The client is told why its stream ends."""
    gate = threading.Event()
    play(provider, "chunked", [gate])
    with open_stream(proxy) as client:
        client.head()
        body = read_until(client, json.dumps(WORDS[0]))
        Stop(proxy.server, 0.05).result()
        body += rest_of(client)[0]
        gate.set()
    assert error_of(parse_sse(body)) is not None


def test_nagle_is_off() -> None:
    """Small answers on a kept connection do not wait for the client's delayed acknowledgement."""
    accepted: List[socket.socket] = []

    class Recording(Server):
        def get_request(self) -> Tuple[socket.socket, Any]:
            connection, address = super().get_request()
            accepted.append(connection)
            return connection, address

    with StubProvider() as stub, running_proxy({}, [{"model_id": "stub", "api_base": stub.url}]) as proxy:
        server = Recording(proxy.app, "127.0.0.1", 0)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        with RawConnection(server.url) as client:
            client.send(request("GET", "/health"))
            assert client.answer().status == 200
            assert accepted[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert server.stop(PATIENCE) is True
