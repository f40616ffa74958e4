"""Every fault a provider can have, and what the client sees of it: an error, never half an answer that looks whole."""

from __future__ import annotations

import gzip
import socket
import time
import zlib
from typing import Any, Callable, Dict, List, NamedTuple, Tuple

import pytest

from faults import (
    END,
    FaultyProvider,
    Plan,
    at_accept,
    back_at,
    chunk,
    close,
    endless,
    head,
    latency,
    levels,
    limit_data,
    reset_peer,
    send,
    silent,
    slicer,
    slow_close,
    whole,
)
from fixed_provider import EVENTS, JSON, STREAM, WHOLE, proxy_for, text_of
from grammar import check_error, check_grammar, error_of, parse_sse
from processes import eventually
from replay import Reply, post
from support import ask, user

SETTINGS = {"MAX_RETRIES": "1", "PROVIDER_READ_TIMEOUT": "1", "PROVIDER_TOTAL_TIMEOUT": "4", "RETRY_MAX_WAIT": "5"}
FIRST = EVENTS[: EVENTS.index(b"\n\n") + 2]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
HTML = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
DONE = b"data: [DONE]\n\n"
FAILED_JSON = b'{"error":{"message":"no","code":500}}'
both = pytest.mark.parametrize("stream", [False, True])


class Fault(NamedTuple):
    """A plan, and what must come of it: the statuses allowed, and the attempts made with MAX_RETRIES=1."""

    name: str
    plan: Plan
    statuses: Tuple[int, ...]
    attempts: int


SILENT, TRANSPORT = (504,), (502,)
BEFORE_CONTENT = [
    Fault("closed after accept", [at_accept(close)], TRANSPORT, 2),
    Fault("reset after accept", [at_accept(reset_peer)], TRANSPORT, 2),
    Fault("closed after the request", [close], TRANSPORT, 2),
    Fault("reset after the request", [reset_peer], TRANSPORT, 2),
    Fault("silent", [silent], SILENT, 1),
    Fault("cut in the status line", limit_data(HEAD, 10), TRANSPORT, 2),
    Fault("reset in the head", [send(HEAD[:40]), reset_peer], TRANSPORT, 2),
    Fault("silent in the head", [send(HEAD[:40]), silent], SILENT, 1),
    Fault("no HTTP", [send(b"SSH-2.0-OpenSSH_9.6\r\n"), close], TRANSPORT, 2),
    Fault("endless headers", [send(b"HTTP/1.1 200 OK\r\n"), endless(b"x-a: b\r\n")], TRANSPORT, 2),
    Fault("a huge header line", [send(b"HTTP/1.1 200 OK\r\nx: "), endless(b"y" * 65536)], TRANSPORT, 2),
    Fault("closed before the body", [send(HEAD), close], TRANSPORT, 2),
    Fault("reset before the body", [send(HEAD), latency(0.05), reset_peer], TRANSPORT, 2),
    Fault("silent before the body", [send(HEAD), silent], SILENT, 1),
    Fault("an empty body", whole(200, b""), TRANSPORT, 2),
    Fault("an empty chunked body", [head(), END], TRANSPORT, 2),
    Fault("an empty JSON body", whole(200, b"", content_type=JSON), (502, 529), 2),
    Fault("only [DONE]", [head(), chunk(b"data: [DONE]\n\n"), END], TRANSPORT, 2),
    Fault("HTML with 200", whole(200, HTML, content_type="text/html"), (502,), 2),
    Fault("JSON cut short", [head(200, "400", content_type=JSON), send(WHOLE[:30]), close], TRANSPORT, 2),
    Fault("an error in a 200", whole(200, FAILED_JSON, content_type=JSON), (500,), 2),
    Fault("an error in a stream", [head(), chunk(b"data: %s\n\n" % FAILED_JSON), END], (500,), 2),
    Fault("an error in place of a stream", whole(200, FAILED_JSON), (500,), 2),
    Fault("HTML in place of a stream", whole(200, HTML), (502,), 2),
    Fault("an event called error", [head(), chunk(b"event: error\ndata: no\n\n" + DONE), END], (500,), 2),
    Fault("no JSON in the stream", [head(), chunk(b"data: {oops\n\n" * 9), END], TRANSPORT, 2),
    Fault("no UTF-8", [head(), chunk(b"data: \xff\xfe\n\n"), END], TRANSPORT, 2),
    Fault("a bad chunk size", [send(HEAD + b"zz\r\n" + STREAM), close], TRANSPORT, 2),
    Fault("no gzip", whole(200, STREAM, content_encoding="gzip"), TRANSPORT, 2),
    Fault("an unknown encoding", whole(200, STREAM, content_encoding="x-odd"), TRANSPORT, 2),
    *(Fault(f"a redirect {status}", whole(status, b"", location="/x"), (502,), 1) for status in (301, 302, 307, 308)),
]
REFUSALS = [(400, 400, 1), (401, 401, 1), (402, 402, 1), (403, 403, 1), (404, 404, 1), (413, 413, 1), (422, 400, 1)]
PASSING = [(408, 504, 2), (409, 409, 2), (429, 429, 2), (500, 500, 2), (502, 529, 2), (503, 529, 2), (504, 504, 2)]


def check_http_error(reply: Reply, statuses: Tuple[int, ...]) -> None:
    """A whole HTTP answer, an error in Anthropic's shape."""
    assert reply.complete
    assert reply.status in statuses, (reply.status, reply.body)
    check_error(reply.json())


@both
@pytest.mark.parametrize("fault", BEFORE_CONTENT, ids=[fault.name for fault in BEFORE_CONTENT])
def test_before_content(fault: Fault, stream: bool) -> None:
    """An HTTP error with the right status; as many attempts as are due; no connection or thread stays."""
    with FaultyProvider(fault.plan) as provider, proxy_for(provider.url, SETTINGS) as proxy:
        baseline = levels()
        started = time.monotonic()
        reply = post(proxy.url, user(stream=stream))
        assert time.monotonic() - started < 15
        check_http_error(reply, fault.statuses)
        assert len(provider.attempts) == fault.attempts
        proxy.app.close()  # a connection whose answer was read to its end may be kept until now
        back_at(baseline)


@both
@pytest.mark.parametrize(("status", "answer", "attempts"), [*REFUSALS, *PASSING])
def test_error_statuses(status: int, answer: int, attempts: int, stream: bool) -> None:
    """What may pass is tried once more here, what does not is not; Retry-After goes with what is left."""
    plan = whole(status, b'{"error":{"message":"no"}}', retry_after="0")
    with FaultyProvider(plan) as provider, proxy_for(provider.url, SETTINGS) as proxy:
        reply = post(proxy.url, user(stream=stream))
        check_http_error(reply, (answer,))
        assert len(provider.attempts) == attempts
        assert reply.headers.get("retry-after") == "0"


@both
@pytest.mark.parametrize("body", [HTML, b"", b"{}", b"\x00\xff", b"[]"])
def test_error_bodies(body: bytes, stream: bool) -> None:
    """The status decides where the body says nothing."""
    with (
        FaultyProvider(whole(500, body, content_type="text/html")) as provider,
        proxy_for(provider.url, {"MAX_RETRIES": "0"}) as proxy,
    ):
        check_http_error(post(proxy.url, user(stream=stream)), (500,))


@pytest.mark.parametrize("plan", [[head(429, "99", retry_after="9"), verb] for verb in (close, reset_peer, silent)])
def test_an_error_whose_body_is_cut(plan: Plan) -> None:
    """Its status and Retry-After were told all the same, and are what counts."""
    with FaultyProvider(plan) as provider, proxy_for(provider.url, {**SETTINGS, "MAX_RETRIES": "0"}) as proxy:
        reply = post(proxy.url, user())
    check_http_error(reply, (429,))
    assert reply.headers["retry-after"] == "9"


def test_a_refused_connection() -> None:
    """502, in good time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with proxy_for(f"http://127.0.0.1:{port}/v1", SETTINGS) as proxy:
        check_http_error(post(proxy.url, user(stream=True)), (502,))


Resolve = Callable[..., Any]


@pytest.mark.parametrize("failures", [1, 2])
def test_a_name_that_cannot_be_resolved(failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is looked up again, as often as any attempt that failed: then it is found, or the answer is a 502."""
    asked: List[str] = []
    resolve: Resolve = socket.getaddrinfo

    def resolver(host: Any, *arguments: Any, **options: Any) -> Any:
        if host != "provider.invalid":
            return resolve(host, *arguments, **options)
        asked.append(host)
        if len(asked) <= failures:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return resolve("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    with FaultyProvider([head(), chunk(STREAM), END]) as provider:
        url = provider.url.replace("127.0.0.1", "provider.invalid")
        with proxy_for(url, {"MAX_RETRIES": "1"}) as proxy:
            reply = post(proxy.url, user(stream=True))
    assert len(asked) == 2
    if failures == 1:
        assert b"message_stop" in reply.body
    else:
        check_http_error(reply, (502,))


# --- after the first content --------------------------------------------------------------------------------------


def flushed(data: bytes) -> bytes:
    """The gzip of some data that more is to follow."""
    compressor = zlib.compressobj(wbits=31)
    return compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)


MID_STREAM: Dict[str, Tuple[Plan, Tuple[int, ...], str]] = {
    "closed between chunks": ([send(HEAD), chunk(FIRST), close], TRANSPORT, "api_error"),
    "closed in a chunk": (limit_data(HEAD + b"fff\r\n" + FIRST, len(HEAD) + 5 + len(FIRST)), TRANSPORT, "api_error"),
    "reset": ([head(), chunk(FIRST), latency(0.2), reset_peer], TRANSPORT, "api_error"),
    "silent": ([head(), chunk(FIRST), silent], SILENT, "timeout_error"),
    "ends without an end": ([head(), chunk(FIRST), END], TRANSPORT, "api_error"),
    "unframed, closed": ([head(200, "close"), send(FIRST), close], TRANSPORT, "api_error"),
    "a length too long": ([head(200, "9999"), send(FIRST), close], TRANSPORT, "api_error"),
    "a length too short": ([head(200, str(len(FIRST) + 9)), send(EVENTS)], TRANSPORT, "api_error"),
    "a bad chunk size": ([head(), chunk(FIRST), send(b"zz\r\n" + STREAM), close], TRANSPORT, "api_error"),
    "an error event": ([head(), chunk(FIRST + b"data: %s\n\n" % FAILED_JSON), END], (500,), "api_error"),
    "overloaded": (
        [head(), chunk(FIRST + b'data: {"error":{"message":"Overloaded","code":529}}\n\n'), END],
        (529,),
        "overloaded_error",
    ),
    "an event called error": ([head(), chunk(FIRST + b"event: error\ndata: no\n\n" + DONE), END], (500,), "api_error"),
    "an error in words of its own": (
        [head(), chunk(FIRST + b'event: error\ndata: {"code":529,"msg":"no"}\n\n' + DONE), END],
        (529,),
        "overloaded_error",
    ),
    "a field called error": ([head(), chunk(FIRST + b"error: %s\n\n" % FAILED_JSON + DONE), END], (500,), "api_error"),
    "no JSON": ([head(), chunk(FIRST + b"data: {oops\n\n" * 9), END], TRANSPORT, "api_error"),
    "HTML": ([head(), chunk(FIRST + HTML), END], TRANSPORT, "api_error"),
    "no UTF-8": ([head(), chunk(FIRST), latency(0.2), chunk(b"data: \xff\xfe\n\n"), END], TRANSPORT, "api_error"),
    "gzip that ends early": (
        [head(200, "close", content_encoding="gzip"), send(flushed(FIRST)), close],
        TRANSPORT,
        "api_error",
    ),
}


@both
@pytest.mark.parametrize("name", MID_STREAM)
def test_in_mid_stream(name: str, stream: bool) -> None:
    """The stream ends with an error event and a reset, another answer with an HTTP error; nothing is tried again."""
    plan, statuses, error_type = MID_STREAM[name]
    with FaultyProvider(plan) as provider, proxy_for(provider.url, SETTINGS) as proxy:
        baseline = levels()
        reply = post(proxy.url, user(stream=stream))
        if stream:
            assert (reply.status, reply.complete) == (200, False), reply.body
            events = parse_sse(reply.body)
            check_grammar(events)
            error = error_of(events)
            assert error is not None
            assert error["type"] == error_type
            assert any(event == "content_block_start" for event, _ in events)
        else:
            check_http_error(reply, statuses)
        assert len(provider.attempts) == 1
        proxy.app.close()  # a connection whose answer was read to its end may be kept until now
        back_at(baseline)


# --- what was in doubt --------------------------------------------------------------------------------------------

OUTLIVES = 2.0
"""Seconds that a connection in doubt may be open for after its request."""
SLACK = 4.0
"""Seconds that a machine may take on top, which runs other tests as well."""
IN_DOUBT: Dict[str, Plan] = {
    "silent in mid-stream": [head(), chunk(FIRST), silent],
    "an error event, and no end": [head(), chunk(FIRST + b"data: %s\n\n" % FAILED_JSON), silent],
    "no JSON, and no end": [head(), chunk(FIRST + b"data: {oops\n\n" * 9), silent],
    "no end after [DONE]": [head(), chunk(STREAM), silent],
    "endless after [DONE]": [head(), chunk(STREAM), endless(b"5\r\n: x\n\n\r\n", 0.02)],
    "bytes of no chunk after [DONE]": [head(), chunk(STREAM), endless(b"0", 0.05)],
    "trailers without an end": [head(), chunk(STREAM), send(b"0\r\n"), endless(b"x: y\r\n" * 1000)],
    "an error without its body": [head(400, "99"), silent],
    "a redirect without its body": [head(302, "99", location="/x"), silent],
    "a 200 that is an error, and no end": [head(), chunk(b"data: %s\n\n" % FAILED_JSON), silent],
}


@both
@pytest.mark.parametrize("name", IN_DOUBT)
def test_a_connection_in_doubt_ends_with_its_request(name: str, stream: bool) -> None:
    """Whatever the provider may still do on it: nobody waits, and nobody else is served on it."""
    with FaultyProvider(IN_DOUBT[name]) as provider, proxy_for(provider.url, {**SETTINGS, "MAX_RETRIES": "0"}) as proxy:
        post(proxy.url, user(stream=stream))
        ended = time.monotonic()
        eventually(provider.all_left, "the connection is closed")
        left = [attempt.left or 0.0 for attempt in provider.attempts]
    assert max(left) - ended < OUTLIVES + SLACK


# --- what is no fault ---------------------------------------------------------------------------------------------

FRAMED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(STREAM), STREAM)
EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\ncontent-length: 5\r\n\r\n"
GOOD: Dict[str, Plan] = {
    "latency before the head": [latency(0.2), head(), chunk(STREAM), END],
    "latency before the body": [head(), latency(0.2), chunk(STREAM), END],
    "latency between chunks": [head(), chunk(FIRST), latency(0.2), chunk(STREAM[len(FIRST) :]), END],
    "one byte at a time": [slicer(HEAD + FRAMED, 1)],
    "a thin line": [slicer(HEAD + FRAMED, 20, 0.01)],
    "a slow close": [head(200, "close"), send(STREAM), slow_close(0.6)],
    "no [DONE]": [head(), chunk(EVENTS), END],
    "no [DONE], no framing": [head(200, "close"), send(EVENTS), close],
    "a cut after [DONE]": [head(), chunk(STREAM), close],
    "a reset after [DONE]": [head(), chunk(STREAM), latency(0.1), reset_peer],
    "endless after [DONE]": [head(), chunk(STREAM), endless(b"5\r\n: x\n\n\r\n", 0.02)],
    "no header of its type": [send(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + STREAM), close],
    "100 Continue first": [send(b"HTTP/1.1 100 Continue\r\n\r\n"), head(), chunk(STREAM), END],
    "other news first": [send(b"HTTP/1.1 102 Processing\r\n\r\n" + EARLY_HINTS), head(), chunk(STREAM), END],
    "trailers": [head(), chunk(STREAM), latency(0.05), send(b"0\r\nx: y\r\n"), latency(0.05), send(b"\r\n")],
    "gzip": whole(200, gzip.compress(STREAM), content_encoding="gzip"),
    "comments": [head(), chunk(b": wait\n\n" * 2000), chunk(STREAM), END],
}


@both
@pytest.mark.parametrize("name", GOOD)
def test_odd_but_whole(name: str, stream: bool) -> None:
    """An answer that came whole is whole, however it came."""
    with (
        FaultyProvider(GOOD[name]) as provider,
        proxy_for(provider.url, {**SETTINGS, "PROVIDER_READ_TIMEOUT": "5"}) as proxy,
    ):
        assert text_of(ask(proxy.url, "/v1/messages", user(stream=stream))) == "Hello"
        assert len(provider.attempts) == 1


@both
def test_some_failures_then_success(stream: bool) -> None:
    """The client sees nothing of them; each attempt is the same request."""
    busy = whole(503, b"{}", retry_after="0")
    plans: List[Plan] = [busy, [*whole(429, b"{}", retry_after="0")], [head(), chunk(STREAM), END]]
    with FaultyProvider(*plans) as provider, proxy_for(provider.url, {"MAX_RETRIES": "2"}) as proxy:
        assert text_of(ask(proxy.url, "/v1/messages", user(stream=stream))) == "Hello"
        bodies = [attempt.body for attempt in provider.attempts]
    assert len(bodies) == 3
    assert bodies[0] == bodies[1] == bodies[2]


def test_retry_after_is_kept() -> None:
    """The second attempt comes after as long as was asked, not before."""
    plans: List[Plan] = [whole(503, b"{}", retry_after_ms="400"), [head(), chunk(STREAM), END]]
    with FaultyProvider(*plans) as provider, proxy_for(provider.url, SETTINGS) as proxy:
        assert text_of(ask(proxy.url, "/v1/messages", user(stream=True))) == "Hello"
        first, second = (attempt.time for attempt in provider.attempts)
    assert 0.39 < second - first < 10


@both
def test_a_gzip_bomb(stream: bool) -> None:
    """Is given up at the limit of an answer, 64 MiB, and its connection closed."""
    bomb = gzip.compress(b"a" * (80 << 20), 9)
    with FaultyProvider(whole(200, bomb, content_encoding="gzip", content_type=JSON)) as provider:
        with proxy_for(provider.url, {"MAX_RETRIES": "0"}) as proxy:
            check_http_error(post(proxy.url, user(stream=stream)), (502, 529))
        eventually(provider.all_left, "the connection is closed")


def test_no_line_end_ever() -> None:
    """One event has a bound, 32 MiB; nothing grows beyond it."""
    plan: Plan = [head(200, "close"), endless(b"data: " + b"x" * 1_000_000, bound=60)]
    with FaultyProvider(plan) as provider:
        with proxy_for(provider.url, {"MAX_RETRIES": "0"}) as proxy:
            check_http_error(post(proxy.url, user(stream=True)), (502,))
        eventually(provider.all_left, "the connection is closed")
