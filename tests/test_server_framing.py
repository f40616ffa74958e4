"""HTTP/1.1 as the built-in server speaks it: what is a request, where it ends, and what is refused."""

from __future__ import annotations

import json
import logging
import re
import socket
from typing import Callable, Dict, Iterator

import pytest

from ccproxy.stub import StubProvider
from grammar import check_error
from raw_http import RawAnswer, RawConnection, chunked, request
from support import Proxy, proxy_with, running_proxy, user

LIMIT = 10_000


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    """A proxy with a scripted model that says what it was told."""
    with proxy_with() as (proxy, _):
        yield proxy


@pytest.fixture(scope="module")
def narrow() -> Iterator[Proxy]:
    """A proxy that takes bodies of 10,000 bytes."""
    with StubProvider() as stub:
        models = [{"model_id": "stub", "api_base": stub.url}]
        with running_proxy({"ROUTER_DEFAULT": "stub", "MAX_REQUEST_BYTES": str(LIMIT)}, models) as proxy:
            yield proxy


def check_refusal(answer: RawAnswer, *statuses: int) -> None:
    """An error in Anthropic's shape that tells nothing about the implementation."""
    assert answer.status in statuses, answer
    assert answer.headers["content-type"] == "application/json"
    check_error(answer.json)
    assert answer.json["request_id"] == answer.headers["request-id"]
    everything = json.dumps(answer.headers) + answer.body.decode()
    assert not re.search(r"python|basehttp|traceback|<html|\.py\b", everything, re.IGNORECASE)


def said(answer: RawAnswer) -> str:
    """The text of an answer that must be a message."""
    assert answer.status == 200, answer.body
    return str(answer.json["content"][0]["text"])


# --- several requests on one connection -------------------------------------------------------------------------


def test_keep_alive(proxy: Proxy) -> None:
    """One connection serves request after request, whole and streamed, also after an error answer."""
    with RawConnection(proxy.url) as client:
        for number in range(3):
            client.send(request("POST", "/v1/messages", user(f"demo: text answer {number}")))
            assert said(client.answer()) == f"answer {number}"
            client.send(request("GET", "/nowhere"))
            check_refusal(client.answer(), 404)
            client.send(request("POST", "/v1/messages", user(f"demo: text stream {number}", stream=True)))
            answer = client.answer()
            assert answer.is_complete
            assert b"message_stop" in answer.body


def test_pipelining(proxy: Proxy) -> None:
    """Requests sent in one go are answered in order, one answer each."""
    bodies = [user(f"demo: text {number}", stream=number % 2 == 1) for number in range(6)]
    with RawConnection(proxy.url) as client:
        client.send(b"".join(request("POST", "/v1/messages", body) for body in bodies))
        for number, body in enumerate(bodies):
            answer = client.answer()
            if body["stream"]:
                assert b'"text":"%d"' % number in answer.body
            else:
                assert said(answer) == str(number)


def test_head_has_no_body(proxy: Proxy) -> None:
    """HEAD answers as GET does, without the body, and the connection stays in step."""
    with RawConnection(proxy.url) as client:
        client.send(request("GET", "/health") + request("HEAD", "/health") + request("HEAD", "/nowhere"))
        whole = client.answer()
        head = client.answer("HEAD")
        assert (head.status, head.headers["content-length"]) == (200, str(len(whole.body)))
        assert client.answer("HEAD").status == 404
        client.send(request("GET", "/health"))
        assert client.answer().json["status"] == "ok"


@pytest.mark.parametrize("headers", [{"Connection": "close"}, {"connection": "Close"}])
def test_connection_close(proxy: Proxy, headers: Dict[str, str]) -> None:
    """A client that asks for the end of the connection gets it after the answer."""
    with RawConnection(proxy.url) as client:
        client.send(request("GET", "/health", headers=headers))
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert client.is_closed()


# --- HTTP/1.0 ---------------------------------------------------------------------------------------------------


def test_http_1_0_stream(proxy: Proxy) -> None:
    """HTTP/1.0 knows no chunks: the bare events come, and the end of the connection ends them."""
    with RawConnection(proxy.url) as client:
        client.send(request("POST", "/v1/messages", user("demo: text hello", stream=True), version="1.0"))
        answer = client.answer()
    assert answer.status == 200
    assert "transfer-encoding" not in answer.headers
    assert answer.body.startswith(b"event: message_start\n")
    assert answer.body.endswith(b'data: {"type":"message_stop"}\n\n')


@pytest.mark.parametrize("headers", [{}, {"Connection": "keep-alive"}])
def test_http_1_0_closes(proxy: Proxy, headers: Dict[str, str]) -> None:
    """HTTP/1.0 ends with its answer; a connection kept open must at least be announced."""
    with RawConnection(proxy.url) as client:
        client.send(request("GET", "/health", headers=headers, version="1.0"))
        answer = client.answer()
        assert answer.status == 200
        if answer.headers.get("connection") != "keep-alive":
            client.socket.settimeout(2)
            assert client.is_closed()


# --- bodies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 65536])
def test_chunked_body(proxy: Proxy, size: int) -> None:
    """A chunked request body is read to its end, and the next request follows it."""
    body = json.dumps(user("demo: text chunked")).encode()
    head = request("POST", "/v1/messages", headers={"Transfer-Encoding": "chunked"})
    with RawConnection(proxy.url) as client:
        for _ in range(2):
            client.send(head + chunked(body, size))
            assert said(client.answer()) == "chunked"


def test_chunk_extensions_and_trailers(proxy: Proxy) -> None:
    """Extensions and trailers are read over."""
    body = json.dumps(user("demo: text hello")).encode()
    data = b"%x;name=value\r\n%s\r\n0\r\nX-Trailer: 1\r\nContent-Length: 3\r\n\r\n" % (len(body), body)
    with RawConnection(proxy.url) as client:
        client.send(request("POST", "/v1/messages", headers={"Transfer-Encoding": "Chunked"}) + data)
        assert said(client.answer()) == "hello"
        client.send(request("GET", "/health"))
        assert client.answer().status == 200


def test_expect_100_continue(proxy: Proxy) -> None:
    """A client that waits for leave to send its body gets it."""
    with RawConnection(proxy.url) as client:
        head, _, body = request("POST", "/v1/messages", user("demo: text go"), {"Expect": "100-continue"}).partition(
            b"\r\n\r\n"
        )
        client.send(head + b"\r\n\r\n")
        assert client.head().status == 100
        client.send(body)
        assert said(client.answer()) == "go"


BODY = json.dumps(user("demo: text should not be answered")).encode()
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
POST = b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\n"
IN_CHUNKS = POST + b"Transfer-Encoding: chunked\r\n\r\n"
REFUSED = {
    "length that is no number": POST + b"Content-Length: ten\r\n\r\n" + BODY,
    "length with a sign": POST + b"Content-Length: +%d\r\n\r\n" % len(BODY) + BODY,
    "negative length": POST + b"Content-Length: -1\r\n\r\n" + BODY,
    "length with an underscore": POST + b"Content-Length: 1_0\r\n\r\n" + BODY,
    "length in hexadecimal": POST + b"Content-Length: 0x10\r\n\r\n" + BODY,
    "length in Arabic digits": POST + "Content-Length: ٣\r\n\r\n".encode() + BODY,
    "empty length": POST + b"Content-Length: \r\n\r\n" + BODY,
    "lengths in a list": POST + b"Content-Length: 5, 6\r\n\r\n" + BODY,
    "two lengths": POST + LENGTH + b"Content-Length: 5\r\n\r\n" + BODY,
    "both framings": POST + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(BODY, 99),
    "unknown transfer coding": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + chunked(BODY, 99),
    "identity": POST + LENGTH + b"Transfer-Encoding: identity\r\n\r\n" + BODY,
    "two transfer codings": IN_CHUNKS[:-2] + b"Transfer-Encoding: identity\r\n\r\n" + chunked(BODY, 99),
    "space before the colon": POST + b"Content-Length : %d\r\n\r\n" % len(BODY) + BODY,
    "space in a name": POST + b"X Y: 1\r\n" + LENGTH + b"\r\n" + BODY,
    "line without a colon": POST + b"nonsense\r\n" + LENGTH + b"\r\n" + BODY,
    "carriage return in a value": POST + b"A: b\rContent-Length: 3\r\n" + LENGTH + b"\r\n" + BODY,
    "zero byte in a value": POST + b"A: b\0c\r\n" + LENGTH + b"\r\n" + BODY,
    "control byte in a value": POST + b"A: b\x01c\r\n" + LENGTH + b"\r\n" + BODY,
    "delete byte in a value": POST + b"A: b\x7fc\r\n" + LENGTH + b"\r\n" + BODY,
    "chunk size that is no number": IN_CHUNKS + b"xyz\r\n" + BODY,
    "chunk size with a sign": IN_CHUNKS + b"+5\r\nabcde\r\n0\r\n\r\n",
    "chunk longer than its size": IN_CHUNKS + b"3\r\nabcde\r\n0\r\n\r\n",
    "chunk without a line end": IN_CHUNKS + b"%x\r\n%sXX0\r\n\r\n" % (len(BODY), BODY),
    "chunk size beyond measure": IN_CHUNKS + b"fffffffff\r\nabc",
    "chunk line without end": IN_CHUNKS + b"5" + b" " * 400 + b"\r\nabcde\r\n0\r\n\r\n",
    "bad request line": b"this is not HTTP at all\r\n\r\n",
    "no version": b"POST /v1/messages\r\n\r\n",
    "HTTP/0.9": b"GET /health\r\n\r\n",
    "HTTP/2": b"GET /health HTTP/2.0\r\nHost: localhost\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "unsupported method": b"BREW /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "CONNECT": b"CONNECT example.com:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "line too long": b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "header too long": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
    "too many headers": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 300 + b"\r\n",
    "HTTP/1.2": b"GET /health HTTP/1.2\r\nHost: localhost\r\n\r\n",
    "line ends without CR": b"GET /health HTTP/1.1\nHost: localhost\n\n",
    "one field without CR": b"GET /health HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n",
    "leading LF": b"\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "leading spaces": b"  GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "two spaces": b"GET  /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "space after the version": b"GET /health HTTP/1.1 \r\nHost: localhost\r\n\r\n",
    "control byte in the target": b"GET /hea\x01lth HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "folded field": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n",
    "folded first field": b"GET /health HTTP/1.1\r\n Host: localhost\r\n\r\n",
    "zero byte in a name": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX\0: a\r\n\r\n",
    "two hosts": b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "malformed host": b"GET /health HTTP/1.1\r\nHost: local host\r\n\r\n",
    "foreign target": b"GET http://evil.example/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "chunk that ends without CR": IN_CHUNKS + b"5\nabcde\r\n0\r\n\r\n",
    "bad absolute target": b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(proxy: Proxy, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """What is no clean request is refused in Anthropic's shape, and the connection ends: nothing after it counts."""
    with caplog.at_level(logging.WARNING), RawConnection(proxy.url) as client:
        client.socket.settimeout(3)
        client.send(REFUSED[name])
        check_refusal(client.answer(), 400, 404, 405, 411, 414, 431, 501, 505)
        assert client.is_closed()
    assert "Traceback" not in caplog.text


STATUSES = {
    "line too long": 414,
    "header too long": 431,
    "too many headers": 431,
    "unknown transfer coding": 501,
    "HTTP/2": 505,
    "two hosts": 400,
    "CONNECT": 400,
    "unsupported method": 501,
    "folded field": 400,
    "both framings": 400,
}


@pytest.mark.parametrize("name", STATUSES)
def test_the_status_tells_what_is_wrong(proxy: Proxy, name: str) -> None:
    """A limit, a framing and a version that are not served are told apart from what is malformed."""
    with RawConnection(proxy.url) as client:
        client.send(REFUSED[name])
        check_refusal(client.answer(), STATUSES[name])


@pytest.mark.parametrize("cut", ["length", "chunk", "trailer"])
def test_an_incomplete_body_reaches_no_provider(cut: str) -> None:
    """A body that ends before its framing says so is refused, even when what came is a whole JSON document."""
    data = {
        "length": POST + b"Content-Length: %d\r\n\r\n" % (len(BODY) + 1) + BODY,
        "chunk": IN_CHUNKS + b"%x\r\n%s" % (len(BODY), BODY),
        "trailer": IN_CHUNKS + b"%x\r\n%s\r\n0\r\n" % (len(BODY), BODY),
    }[cut]
    with proxy_with() as (proxy, stub):
        with RawConnection(proxy.url) as client:
            client.send(data)
            client.socket.shutdown(socket.SHUT_WR)
            check_refusal(client.answer(), 400)
        assert stub.requests == []


@pytest.mark.parametrize("cut", [b"", b"Host: localhost\r\n", b"Host: localhost\r\nX: y"])
def test_an_incomplete_head_is_no_request(proxy: Proxy, cut: bytes) -> None:
    """A head that ends before its blank line is not acted upon: what is missing might have changed it."""
    with RawConnection(proxy.url) as client:
        client.send(b"GET /health HTTP/1.1\r\n" + cut)
        client.socket.shutdown(socket.SHUT_WR)
        assert client.answer().status in (0, 400)


# --- limits -----------------------------------------------------------------------------------------------------


def test_too_large_is_answered_before_the_body(narrow: Proxy) -> None:
    """A length beyond the limit is refused at once, without waiting for the body."""
    with RawConnection(narrow.url) as client:
        client.send(POST + b"Content-Length: %d\r\n\r\n" % (LIMIT + 1))
        check_refusal(client.answer(), 413)
        assert client.is_closed()


def test_too_large_in_chunks(narrow: Proxy) -> None:
    """The limit holds while a chunked body is read."""
    with RawConnection(narrow.url) as client:
        client.send(IN_CHUNKS + b"%x\r\n%s\r\n" % (6000, b" " * 6000) + b"%x\r\n" % 6000)
        check_refusal(client.answer(), 413)


def test_a_body_at_the_limit(narrow: Proxy) -> None:
    """The limit itself is allowed."""
    body = json.dumps(user("demo: text fits")).encode().ljust(LIMIT)
    with RawConnection(narrow.url) as client:
        client.send(request("POST", "/v1/messages", body))
        assert said(client.answer()) == "fits"


START = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
FIELD, BLANK = b"X: y\r\n", b"\r\n"


def long_line(size: int) -> bytes:
    """A request whose first line has so many bytes, its CRLF with them."""
    line = b"GET /health?%s HTTP/1.1\r\n"
    return line % (b"a" * (size - len(line) + 2)) + b"Host: localhost\r\n\r\n"


def long_head(size: int) -> bytes:
    """A request whose head has so many bytes, all of it."""
    field = b"X: %s\r\n"
    return START + field % (b"a" * (size - len(START + BLANK + field) + 2)) + BLANK


def many_fields(count: int) -> bytes:
    """A request with so many fields."""
    return START + FIELD * (count - 1) + BLANK


@pytest.mark.parametrize(
    ("make", "most", "status"),
    [(long_line, 8192, 414), (long_head, 32768, 431), (many_fields, 100, 431)],
    ids=["request line", "head", "fields"],
)
def test_the_limits_of_a_head(proxy: Proxy, make: Callable[[int], bytes], most: int, status: int) -> None:
    """8 KiB in the request line, 32 KiB and 100 fields in the head: so much is served, one more is refused."""
    with RawConnection(proxy.url) as client:
        client.send(make(most))
        assert client.answer().status == 200
        client.send(make(most + 1))
        check_refusal(client.answer(), status)
        assert client.is_closed()


@pytest.mark.parametrize("attempt", range(3))
def test_a_client_that_sends_first_and_reads_later_sees_the_413(narrow: Proxy, attempt: int) -> None:
    """The answer is not lost to a reset while the client is still sending: most clients read after they sent."""
    with RawConnection(narrow.url) as client:
        client.send(request("POST", "/v1/messages", b"x" * 4_000_000))
        check_refusal(client.answer(), 413)


def test_an_unknown_expectation_is_refused_at_once(proxy: Proxy) -> None:
    """417, and the body is not waited for."""
    with RawConnection(proxy.url) as client:
        client.send(POST + LENGTH + b"Expect: the-unexpected\r\n\r\n")
        check_refusal(client.answer(), 417)
        assert client.is_closed()


def test_empty_lines_before_a_request_are_skipped(proxy: Proxy) -> None:
    """A few of them, as some clients send after a body."""
    with RawConnection(proxy.url) as client:
        for _ in range(2):
            client.send(b"\r\n\r\n" + request("GET", "/health"))
            assert client.answer().status == 200


def test_a_target_with_our_own_address_is_a_path(proxy: Proxy) -> None:
    """The absolute form that clients send to a proxy, when it means us."""
    with RawConnection(proxy.url) as client:
        client.send(b"GET http://localhost/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.answer().json["status"] == "ok"


def test_a_body_that_nobody_asked_for_is_read_over(proxy: Proxy) -> None:
    """What looks like a request inside the body of another one is none."""
    inner = request("GET", "/nowhere")
    for method, path in (("GET", "/health"), ("POST", "/nowhere"), ("PUT", "/v1/messages")):
        with RawConnection(proxy.url) as client:
            client.send(request(method, path, inner) + request("GET", "/v1/models"))
            assert client.answer().status in (200, 404, 405)
            assert client.answer().json["object"] == "list"


def test_no_answer_is_kept_or_guessed_at(proxy: Proxy) -> None:
    """Every answer, of whatever kind, says that caches must not store it nor browsers guess its type."""
    stream = request("POST", "/v1/messages", user(stream=True))
    for data in (
        *(request("GET", path) for path in ("/health", "/v1/models", "/metrics", "/", "/nowhere")),
        request("DELETE", "/v1/messages"),
        request("POST", "/v1/messages", user()),
        stream,
        REFUSED["two hosts"],
    ):
        with RawConnection(proxy.url) as client:
            client.send(data)
            headers = client.answer().headers
        assert headers["x-content-type-options"] == "nosniff", data
        assert "no-store" in headers["cache-control"], data
        assert "server" not in headers


def test_header_injection(proxy: Proxy) -> None:
    """Nothing in a request can write into the answer's header section."""
    body = user(model="openai/x\r\nX-Evil: 1\r\n\r\n")
    with RawConnection(proxy.url) as client:
        client.send(request("POST", "/v1/messages", body))
        answer = client.answer()
    assert "x-evil" not in answer.headers
    check_error(answer.json)
