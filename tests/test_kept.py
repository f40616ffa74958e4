"""The short way over a kept connection: the same bytes out, the same answers in, as the libraries' way."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import threading
from contextlib import closing
from typing import Any, Dict, Iterator, List, Optional, Tuple, Type

import pytest

from ccproxy.config.load import load_config
from ccproxy.config.schema import Model
from ccproxy.errors import ProviderError
from ccproxy.provider.cancel import Cancel
from ccproxy.provider.client import Call, ProviderClient
from ccproxy.provider.connections import PromptResponse
from ccproxy.provider.plain_body import PlainBody

BODY = b'{"choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}]}'
CONFIG = load_config({}).config


# --- heads: read as http.client reads them ------------------------------------------------------------------------

PLAIN = (
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nHello",
    b"HTTP/1.1 200 OK\r\nContent-Length:5\r\nContent-Type:  text/plain; charset=utf-8 \r\n\r\nHello",
    b"HTTP/1.1 200 Fine by me\r\nX: \r\nConnection: Keep-Alive\r\ncontent-length: 005\r\n\r\nHello",
    b"HTTP/1.1 200 OK\r\nset-cookie: a=1\r\nset-cookie: b=2\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n5\r\nHello\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 98 + b"content-length: 5\r\n\r\nHello",
    b"HTTP/1.1 200 OK\r\ncontent-length: 20000\r\n\r\n" + b"x" * 20_000,
)
OTHER = (
    b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nHello",
    b"HTTP/1.1 200\r\ncontent-length: 5\r\n\r\nHello",
    b"HTTP/1.1 200 OK\ncontent-length: 5\n\nHello",
    b"HTTP/1.1 200 OK\r\n\r\nHello",
    b"HTTP/1.1 201 Created\r\ncontent-length: 5\r\n\r\nHello",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 429 Too Many\r\nretry-after: 1\r\ncontent-length: 2\r\n\r\n{}",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nHello",
    b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nHello",
    b"HTTP/1.1 200 OK\r\nconnection: keep-alive\r\nconnection: close\r\ncontent-length: 5\r\n\r\nHello",
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nHello!",
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nHello\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\nHello",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked \r\n\r\nHello",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding : chunked\r\n\r\nHello",
    b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nHello",
    b"HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nHello",
    b"HTTP/1.1 200 OK\r\ncontent-length: 0x5\r\n\r\nHello",
    b"HTTP/1.1 200 OK\r\ncontent-length: \xb2\r\n\r\nHello",
    b"HTTP/1.1 200 OK\r\nx: a\r\n folded\r\ncontent-length: 5\r\n\r\nHello",
    b"HTTP/1.1 200 OK\r\nno colon\r\ncontent-length: 5\r\n\r\nHello",
    b"HTTP/1.1 200 OK\r\n: nameless\r\ncontent-length: 5\r\n\r\nHello",
    b"HTTP/1.1 200 OK\r\nx: \xe9\r\ncontent-length: 5\r\n\r\nHello",
    b"HTTP/1.1 200 OK\r\nx: a\x00b\r\ncontent-length: 5\r\n\r\nHello",
    b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 99 + b"content-length: 5\r\n\r\nHello",
    b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100 + b"content-length: 5\r\n\r\nHello",
    b"HTTP/1.1 200 OK\r\nx: " + b"y" * 20_000 + b"\r\ncontent-length: 5\r\n\r\nHello",
    b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000 + b"\r\ncontent-length: 5\r\n\r\nHello",
    b"HTTP/1.1 200 OK\r\ncontent-len",
    b"<html>",
    b"",
)


def read(kind: Type[http.client.HTTPResponse], data: bytes, method: str) -> Any:
    """All that a response says about ``data``, which ends with its connection; or what it raises."""
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        writer = threading.Thread(target=lambda: (theirs.sendall(data), theirs.shutdown(socket.SHUT_WR)))
        writer.start()
        response: Any = kind(ours, method=method)
        try:
            response.begin()
            names = ("version", "status", "code", "reason", "chunked", "length", "will_close")
            found = [*[getattr(response, name) for name in names], response.headers.items(), response.msg.items()]
            return [*found, response.read()]
        except (http.client.HTTPException, ValueError, OSError) as error:
            return type(error)
        finally:
            response.close()
            ours.close()
            writer.join()


@pytest.mark.parametrize("method", ["POST", "HEAD"])
@pytest.mark.parametrize("number", range(len(PLAIN + OTHER)))
def test_heads_are_read_as_by_http_client(number: int, method: str) -> None:
    """Plain or not, right or wrong."""
    data = (PLAIN + OTHER)[number]
    assert read(PromptResponse, data, method) == read(http.client.HTTPResponse, data, method)


@pytest.mark.parametrize("number", range(len(PLAIN + OTHER)))
def test_which_heads_are_plain(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are http.client's, whole."""
    asked: List[bool] = []
    begin = http.client.HTTPResponse.begin

    def seen(response: http.client.HTTPResponse) -> None:
        asked.append(True)
        begin(response)

    monkeypatch.setattr(http.client.HTTPResponse, "begin", seen)
    read(PromptResponse, (PLAIN + OTHER)[number], "POST")
    assert bool(asked) == (number >= len(PLAIN))


@pytest.mark.parametrize("size", [1, 2, 3, 65536, -1])
def test_a_body_of_known_length_ends_with_it(size: int) -> None:
    """``read1`` reads no byte beyond it, waits for none, and notices when one is missing."""
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        ours.settimeout(30)
        theirs.sendall(PLAIN[0] + b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab")
        response = PromptResponse(ours, method="POST")
        response.begin()
        assert b"".join(iter(lambda: response.read1(size), b"")) == b"Hello"
        assert response.isclosed()
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        theirs.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab")
        theirs.shutdown(socket.SHUT_WR)
        response = PromptResponse(ours, method="POST")
        response.begin()
        with pytest.raises(http.client.IncompleteRead):
            b"".join(iter(lambda: response.read1(size), b""))
        response.close()


@pytest.mark.parametrize("number", range(len(PLAIN + OTHER)))
@pytest.mark.parametrize("size", [1, 65536])
def test_a_plain_answer_needs_no_reader(number: int, size: int) -> None:
    """Its body is read from the socket, to its end and no byte beyond; of any other answer nothing is read."""
    data = (PLAIN + OTHER)[number]
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        ours.settimeout(30)
        writer = threading.Thread(target=lambda: (theirs.sendall(data + b"more"), theirs.shutdown(socket.SHUT_WR)))
        writer.start()
        body = PlainBody.of(ours)
        if body is None:
            assert number >= len(PLAIN)
            assert b"".join(iter(lambda: ours.recv(65536), b"")) == data + b"more"
        else:
            known = read(PromptResponse, data, "POST")
            assert b"".join(iter(lambda: body.read1(size), b"")) == known[-1]
            assert body.isclosed()
            assert not body.is_dry()
            assert body.open_socket is None
            if "chunked" not in data.decode().lower():
                assert ours.recv(65536) == b"more"
        writer.join()


@pytest.mark.parametrize("head", [b"content-length: 3\r\n\r\nab", b"transfer-encoding: chunked\r\n\r\n3\r\nab"])
def test_a_plain_answer_is_cut(head: bytes) -> None:
    """What is missing is noticed."""
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        theirs.sendall(b"HTTP/1.1 200 OK\r\n" + head)
        theirs.shutdown(socket.SHUT_WR)
        body = PlainBody.of(ours)
        assert body is not None
        assert body.read1(65536) == b"ab"
        with pytest.raises(http.client.IncompleteRead):
            body.read1(65536)


# --- the short way ------------------------------------------------------------------------------------------------


class Scripted:
    """A provider that gives each request the next of some answers, byte for byte, and keeps what it was sent."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = iter(answers)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.base = "http://127.0.0.1:%d/v1" % self._listener.getsockname()[1]
        self.requests: List[bytes] = []
        self.connections = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        connection: Optional[socket.socket] = None
        for answer in self._answers:
            if connection is None or not self._request(connection):
                connection, _ = self._listener.accept()
                self.connections += 1
                connection.settimeout(30)
                self._request(connection)
            connection.sendall(answer)
            if b"connection: close" in answer:
                connection.close()
                connection = None
        self._listener.close()

    def _request(self, connection: socket.socket) -> bool:
        data = b""
        while b"\r\n\r\n" not in data or len(data) < data.index(b"\r\n\r\n") + 4 + _length(data):
            got = connection.recv(65536)
            if not got:
                connection.close()
                return False
            data += got
        self.requests.append(data)
        return True

    def head(self, number: int) -> Tuple[str, Dict[str, str], bytes]:
        """The request line, header fields and body of a request."""
        head, _, body = self.requests[number].partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        assert len({field.partition(":")[0].lower() for field in fields}) == len(fields), fields
        return line, {field.partition(": ")[0].lower(): field.partition(": ")[2] for field in fields}, body


def _length(data: bytes) -> int:
    fields = data.lower().partition(b"\r\n\r\n")[0].split(b"\r\n")
    return next((int(field.split(b":")[1]) for field in fields if field.startswith(b"content-length")), 0)


def whole(body: bytes = BODY, status: str = "200 OK", *fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", "content-type: application/json", *fields, f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


@pytest.fixture
def client() -> Iterator[ProviderClient]:
    found = ProviderClient(lambda: "")
    yield found
    found.close()


def ask(client: ProviderClient, base: str, body: bytes = b"{}", **model: Any) -> bytes:
    """The body of an answer, its connection given back."""
    call = Call(Model("m", base, **model), "/chat/completions?a=b", body, {"content-type": "application/json"})
    response = client.send_with("", call, CONFIG, Cancel())
    found = b"".join(response.reads())
    response.is_done = True
    response.close()
    return found


@pytest.mark.parametrize(
    "place", ["127.0.0.1", "localhost", "LOCALHOST", "user:pass%20word@127.0.0.1", "localhost.localdomain@127.0.0.1"]
)
def test_both_ways_send_the_same(client: ProviderClient, place: str) -> None:
    """Request line, fields and body; credentials of the address, and the model's own fields, win."""
    body = json.dumps({"a": "\u00e9" * 40_000}).encode()
    provider = Scripted(whole(), whole(), whole())
    base = provider.base.replace("127.0.0.1", place)
    fields = {"X-Own": "1", "Content-Type": "application/vnd.own+json"}
    for _ in range(3):
        assert ask(client, base, body, extra_headers=fields) == BODY
    assert provider.connections == 1
    assert provider.head(0) == provider.head(1) == provider.head(2)
    assert provider.head(0)[1]["content-type"] == "application/vnd.own+json"


ODD = [
    (whole(gzip.compress(BODY), "200 OK", "content-encoding: gzip"), 2),
    (b"HTTP/1.1 100 Continue\r\nx: y\r\n\r\n" + whole(), 2),
    (b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nx: y\r\n\r\n" + whole(), 2),
    (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\nx: y\r\n\r\n" % (len(BODY), BODY), 2),
    (whole(BODY, "200 OK", "x: a", " folded"), 2),
    (b"HTTP/1.0 200 OK\r\nconnection: close\r\n\r\n" + BODY, 3),
    (whole(BODY, "200 OK", "connection: close"), 3),
    (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + BODY, 3),
]


@pytest.mark.parametrize(("answer", "connections"), ODD, ids=[str(number) for number in range(len(ODD))])
def test_what_is_not_plain_is_read_all_the_same(client: ProviderClient, answer: bytes, connections: int) -> None:
    """On a kept connection as on a new one; and what comes after it is not taken for a part of it."""
    provider = Scripted(whole(), answer, whole(b"[]"), answer)
    assert [ask(client, provider.base) for _ in range(4)] == [BODY, BODY, b"[]", BODY]
    assert provider.connections == connections - 1


def test_an_error_on_a_kept_connection(client: ProviderClient) -> None:
    """Has its status, words and headers."""
    error = b'{"error": {"message": "the words"}}'
    provider = Scripted(whole(), whole(error, "429 Slow down", "retry-after: 7"), whole())
    ask(client, provider.base)
    with pytest.raises(ProviderError, match="the words") as caught:
        ask(client, provider.base)
    assert (caught.value.provider_status, caught.value.headers["retry-after"]) == (429, "7")
    assert ask(client, provider.base) == BODY


@pytest.mark.parametrize("answer", [b"connection: close", b""])
def test_a_kept_connection_that_breaks(client: ProviderClient, answer: bytes) -> None:
    """Is worth another attempt, on a new one."""
    provider = Scripted(whole(), answer or b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nx: connection: close\r\n\r\n{")
    ask(client, provider.base)
    with pytest.raises(ProviderError) as caught:
        ask(client, provider.base)
    assert (caught.value.status, caught.value.is_transient) == (502, True)


def test_no_field_is_smuggled(client: ProviderClient) -> None:
    """A line end in a value is refused, on a kept connection as on a new one."""
    provider = Scripted(whole())
    ask(client, provider.base)
    with pytest.raises(ProviderError, match="Invalid header value"):
        ask(client, provider.base, extra_headers={"x": "a\r\ny: b"})
    assert len(provider.requests) == 1


def test_a_request_that_is_not_taken(client: ProviderClient) -> None:
    """Fails as it would on a new connection: in PROVIDER_CONNECT_TIMEOUT, and worth another attempt."""
    config = load_config({"PROVIDER_CONNECT_TIMEOUT": "0.2"}).config
    provider = Scripted(whole())
    ask(client, provider.base)
    call = Call(Model("m", provider.base), "/x", b"x" * 40_000_000, {})
    with pytest.raises(ProviderError) as caught:
        client.send_with("", call, config, Cancel())
    assert (caught.value.status, caught.value.is_transient) == (502, True)
