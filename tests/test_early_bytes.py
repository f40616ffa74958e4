"""What a client that waits is given: a real HTTP error for as long as possible, then an open stream and pings."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import contextmanager
from typing import Any, Callable, Iterator, List, Optional, Tuple

import pytest

from ccproxy.handlers import messages
from faults import END, FaultyProvider, Plan, chunk, endless, head, latency, send, silent, until, whole
from fixed_provider import EVENTS, STREAM, WHOLE, proxy_for
from grammar import check_error, check_grammar, error_of, fold, parse_sse
from processes import eventually
from raw_http import RawConnection, request
from replay import Reply, post
from support import Proxy, running_proxy, user

SOON = {"COMMIT_AFTER": "0.05", "PING_INTERVAL": "0.3", "MAX_RETRIES": "1"}
OK: Plan = [head(), chunk(STREAM), END]
BUSY: Plan = whole(503, b'{"error":{"message":"busy"}}', retry_after="0")
FIRST, REST = EVENTS[: EVENTS.index(b"\n\n") + 2], EVENTS[EVENTS.index(b"\n\n") + 2 :] + b"data: [DONE]\n\n"


@contextmanager
def asked(url: str, body: Any, proxy: Proxy) -> Iterator[RawConnection]:
    """A client that sent its request and reads the answer as the test wants."""
    with RawConnection(proxy.url) as client:
        client.send(request("POST", "/v1/messages", body))
        yield client


def pieces(client: RawConnection, is_enough: Callable[[bytearray], bool]) -> bytes:
    """Read chunks until they are enough, or the stream ends."""
    got = bytearray()
    while not is_enough(got):
        piece = client.chunk()
        if not piece:
            break
        got += piece
    return bytes(got)


def pings(count: int) -> Callable[[bytearray], bool]:
    """Whether so many pings came."""
    return lambda got: got.count(b"event: ping") >= count


def names_of(body: bytes) -> List[str]:
    """The names of a legal stream's events, without the pings."""
    events = parse_sse(body)
    check_grammar(events)
    return [name for name, _ in events if name != "ping"]


def text_in(reply: Reply) -> str:
    """The text of a stream that must be whole."""
    assert (reply.status, reply.complete) == (200, True), reply.body
    names = names_of(reply.body)
    assert names.count("message_start") == 1
    assert names[-1] == "message_stop"
    return str(fold(parse_sse(reply.body))["content"][0]["text"])


def failure_in(reply: Reply) -> str:
    """The error type a stream ends with; it must not look like a clean end."""
    assert (reply.status, reply.complete) == (200, False), reply.body
    assert names_of(reply.body)[-1] == "error"
    error = error_of(parse_sse(reply.body))
    assert error is not None
    return str(error["type"])


# --- before the first content -------------------------------------------------------------------------------------


def test_a_failure_before_commit_is_a_real_error() -> None:
    """A provider that is slow, and fails before COMMIT_AFTER, gives its HTTP status."""
    with FaultyProvider([latency(0.6), *BUSY]) as provider, proxy_for(provider.url, {"COMMIT_AFTER": "20"}) as proxy:
        reply = post(proxy.url, user(stream=True))
    assert (reply.status, reply.complete) == (529, True)
    check_error(reply.json())


def test_the_stream_opens_and_pings_come() -> None:
    """After COMMIT_AFTER 200, message_start and a ping; then a ping each PING_INTERVAL, until the content comes."""
    gate = threading.Event()
    with (
        FaultyProvider([until(gate), *OK]) as provider,
        proxy_for(provider.url, SOON) as proxy,
        asked(provider.url, user(stream=True), proxy) as client,
    ):
        answer = client.head()
        started = time.monotonic()
        got = pieces(client, pings(4))
        took = time.monotonic() - started
        gate.set()
        got += pieces(client, lambda _: False)
        assert client._ended_well
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert took >= 3 * 0.3 - 0.3
    names = names_of(got)
    assert [name for name, _ in parse_sse(got)][:2] == ["message_start", "ping"]
    assert (names.count("message_start"), names[-1]) == (1, "message_stop")


@pytest.mark.parametrize("slow", [[until], [head(), until], [head(), chunk(b": wait\n\n"), until]], ids=len)
def test_every_kind_of_waiting(slow: List[Any]) -> None:
    """No head, no body, or comments alone: the answer after them is whole, its id the one that was told."""
    gate = threading.Event()
    plan = [until(gate) if verb is until else verb for verb in slow]
    rest = OK if len(slow) == 1 else OK[1:]
    with (
        FaultyProvider([*plan, *rest]) as provider,
        proxy_for(provider.url, SOON) as proxy,
        asked(provider.url, user(stream=True), proxy) as client,
    ):
        client.head()
        got = pieces(client, pings(2))
        gate.set()
        got += pieces(client, lambda _: False)
    assert fold(parse_sse(got))["content"] == [{"type": "text", "text": "Hello"}]
    names_of(got)


def test_a_whole_answer_behind_an_open_stream() -> None:
    """A provider that answers with one JSON document instead is translated all the same."""
    with (
        FaultyProvider([latency(0.8), *whole(200, WHOLE, content_type="application/json")]) as provider,
        proxy_for(provider.url, SOON) as proxy,
    ):
        assert text_in(post(proxy.url, user(stream=True))) == "Hello"


def test_retries_go_on_behind_the_open_stream() -> None:
    """The client sees one stream, from whichever attempt answers."""
    with FaultyProvider([latency(0.8), *BUSY], OK) as provider, proxy_for(provider.url, SOON) as proxy:
        reply = post(proxy.url, user(stream=True))
        assert text_in(reply) == "Hello"
        assert b"event: ping" in reply.body
        assert len(provider.attempts) == 2


def test_fallbacks_go_on_behind_the_open_stream() -> None:
    """The next model answers in the stream that the first one was waited for in."""
    with FaultyProvider([latency(0.8), *BUSY]) as bad, FaultyProvider([latency(0.4), *OK]) as good:
        models = [{"model_id": n, "api_base": p.url, "dialect": "generic"} for n, p in (("a", bad), ("b", good))]
        with running_proxy({**SOON, "ROUTER_DEFAULT": "a,b"}, models) as proxy:
            assert text_in(post(proxy.url, user(stream=True))) == "Hello"
        assert (len(bad.attempts), len(good.attempts)) == (2, 1)


FAILURES: List[Tuple[Plan, str]] = [
    (BUSY, "overloaded_error"),
    (whole(401, b'{"error":"no"}'), "authentication_error"),
    (whole(400, b'{"error":"no"}'), "invalid_request_error"),
    (whole(429, b"{}", retry_after="0"), "rate_limit_error"),
    ([head(), END], "api_error"),
    ([head(), chunk(b'data: {"error":{"message":"no","code":500}}\n\n'), END], "api_error"),
]


@pytest.mark.parametrize(("plan", "type"), FAILURES, ids=range(len(FAILURES)))
def test_a_failure_after_commit(plan: Plan, type: str) -> None:
    """Is an error event and a reset: the HTTP status is gone."""
    with FaultyProvider([latency(0.8), *plan]) as provider:
        with proxy_for(provider.url, {**SOON, "MAX_RETRIES": "0"}) as proxy:
            assert failure_in(post(proxy.url, user(stream=True))) == type
        assert len(provider.attempts) == 1


def test_silence_after_commit() -> None:
    """PROVIDER_READ_TIMEOUT ends the waiting behind an open stream too."""
    with FaultyProvider([silent]) as provider:
        with proxy_for(provider.url, {**SOON, "PROVIDER_READ_TIMEOUT": "0.8"}) as proxy:
            reply = post(proxy.url, user(stream=True))
        assert failure_in(reply) == "timeout_error"
        eventually(provider.all_left, "the connection is closed")


# --- in mid-stream ------------------------------------------------------------------------------------------------


def test_silence_in_mid_stream() -> None:
    """Pings while the provider is silent, and an error event at PROVIDER_READ_TIMEOUT; nothing is tried again."""
    settings = {**SOON, "COMMIT_AFTER": "20", "PROVIDER_READ_TIMEOUT": "1.2"}
    with FaultyProvider([head(), chunk(FIRST), silent]) as provider, proxy_for(provider.url, settings) as proxy:
        reply = post(proxy.url, user(stream=True))
        assert failure_in(reply) == "timeout_error"
        assert b"event: ping" in reply.body
        assert len(provider.attempts) == 1
        eventually(provider.all_left, "the connection is closed")


@pytest.mark.parametrize("life", [b": OPENROUTER PROCESSING\n\n", b"\n", b"\r\n", b": x\n"])
def test_comments_and_blank_lines_are_life(life: bytes) -> None:
    """A provider that says them is not silent, and its clients get pings all the same."""
    alive = [verb for _ in range(24) for verb in (latency(0.1), chunk(life))]
    settings = {**SOON, "COMMIT_AFTER": "20", "PROVIDER_READ_TIMEOUT": "2"}
    plan = [head(), chunk(FIRST), *alive, chunk(b"\n\n" + REST), END]
    with FaultyProvider(plan) as provider, proxy_for(provider.url, settings) as proxy:
        reply = post(proxy.url, user(stream=True))
    assert text_in(reply) == "Hello"
    assert b"event: ping" in reply.body


@pytest.mark.parametrize("framing", ["chunked", "close"])
@pytest.mark.parametrize("first", [b"", FIRST], ids=["before content", "in mid-stream"])
def test_the_total_deadline(first: bytes, framing: str) -> None:
    """A provider that drips comments for ever is ended by PROVIDER_TOTAL_TIMEOUT, and the words say so."""
    drip = b": x\n\n"
    if framing == "chunked":
        plan = [head(), chunk(first or drip), endless(b"5\r\n%s\r\n" % drip, 0.05)]
    else:
        plan = [head(200, "close"), send(first), endless(drip, 0.05)]
    settings = {**SOON, "COMMIT_AFTER": "20", "PROVIDER_TOTAL_TIMEOUT": "0.7"}
    with FaultyProvider(plan) as provider, proxy_for(provider.url, settings) as proxy:
        started = time.monotonic()
        reply = post(proxy.url, user(stream=True))
        assert time.monotonic() - started < 10
        assert b"PROVIDER_TOTAL_TIMEOUT" in reply.body
        if first:
            assert failure_in(reply) == "timeout_error"
        else:
            assert reply.status == 504
        assert len(provider.attempts) == 1
        eventually(provider.all_left, "the connection is closed")


def test_the_total_deadline_of_a_passed_through_answer() -> None:
    """Half of it never ends as a whole one would."""
    start = b'event: message_start\ndata: {"type":"message_start","message":{"usage":{}}}\n\n'
    with FaultyProvider([head(200, "close"), send(start), silent]) as provider:
        model = {"model_id": "m", "api_base": provider.url, "direct": True}
        with running_proxy({"ROUTER_DEFAULT": "m", "PROVIDER_TOTAL_TIMEOUT": "0.5"}, [model]) as proxy:
            assert not post(proxy.url, user(stream=True)).complete


# --- a client that does not read ----------------------------------------------------------------------------------


def test_a_slow_client_holds_nobody_up() -> None:
    """While one client does not read, another's pings come in time; when it reads again nothing is lost or torn."""
    words = b"0123456789" * 2000
    event = b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % words
    gate = threading.Event()
    big = [head(), *[chunk(event)] * 400, until(gate), chunk(REST), END]
    waiting = [until(gate), *OK]
    with FaultyProvider(big) as fast, FaultyProvider(waiting) as slow:
        models = [{"model_id": n, "api_base": p.url, "dialect": "generic"} for n, p in (("fast", fast), ("slow", slow))]
        with (
            running_proxy({**SOON, "ROUTER_DEFAULT": "fast"}, models) as proxy,
            asked(fast.url, user(stream=True, model="fast"), proxy) as stuck,
        ):
            stuck.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            stuck.head()
            with asked(slow.url, user(stream=True, model="slow"), proxy) as other:
                other.head()
                got = pieces(other, pings(6))
                assert got.count(b"event: ping") >= 6
                gate.set()
                names_of(got + pieces(other, lambda _: False))
            body = pieces(stuck, lambda _: False)
    assert names_of(body)[-1] == "message_stop"
    text = fold(parse_sse(body))["content"][0]["text"]
    assert text == words.decode() * 400 + "lo"


def test_many_that_wait() -> None:
    """Fifty open streams are pinged by one thread, and each becomes a whole answer."""
    gate = threading.Event()
    with FaultyProvider([until(gate), *OK]) as provider, proxy_for(provider.url, SOON) as proxy:
        clients = [RawConnection(proxy.url) for _ in range(50)]
        for client in clients:
            client.send(request("POST", "/v1/messages", user(stream=True)))
        got = []
        for client in clients:
            assert client.head().status == 200
            got.append(pieces(client, pings(2)))
        assert sum(thread.name == "watch" for thread in threading.enumerate()) == 1
        gate.set()
        for client, early in zip(clients, got):
            assert names_of(early + pieces(client, lambda _: False))[-1] == "message_stop"
            client.__exit__()


# --- answers that are not streamed --------------------------------------------------------------------------------


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The 45 seconds before the first space are over at once."""
    monkeypatch.setattr(messages, "WHOLE_COMMIT_AFTER", 0.05)


def whole_answer(plan: Plan, version: str = "1.1") -> Tuple[Any, Optional[str]]:
    """The raw answer to a request without stream, and what follows on its connection."""
    with FaultyProvider(plan) as provider, proxy_for(provider.url, SOON) as proxy, RawConnection(proxy.url) as client:
        client.send(request("POST", "/v1/messages", user(), version=version))
        answer = client.answer()
        if version == "1.0" or not answer.is_complete:
            return answer, None
        provider.plans = [whole(200, WHOLE, content_type="application/json")]
        client.send(request("POST", "/v1/messages", user()))
        return answer, client.answer().json["content"][0]["text"]


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_spaces_before_a_whole_answer(version: str) -> None:
    """The document after them parses, and the connection serves the next request."""
    plan = [latency(1.3), *whole(200, WHOLE, content_type="application/json")]
    answer, following = whole_answer(plan, version)
    assert (answer.status, answer.headers["content-type"], answer.is_complete) == (200, "application/json", True)
    assert answer.body.startswith(b"  ")
    assert json.loads(answer.body)["content"] == [{"type": "text", "text": "Hello"}]
    assert following == (None if version == "1.0" else "Hello")


@pytest.mark.usefixtures("soon")
def test_a_failure_behind_spaces() -> None:
    """Cannot be told any more: the body breaks off, never ends as a whole one."""
    answer, _ = whole_answer([latency(0.8), *whole(400, b"{}")])
    assert (answer.status, answer.is_complete, answer.body.strip()) == (200, False, b"")


def test_no_spaces_for_a_while() -> None:
    """Within the 45 seconds an error keeps its status."""
    answer, _ = whole_answer([latency(0.8), *whole(400, b"{}")])
    assert answer.status == 400


# --- what stays behind --------------------------------------------------------------------------------------------


def test_nothing_is_sent_after_an_error_of_our_own() -> None:
    """A request that fails in translation is not watched any more: no ping comes on its idle connection."""
    schema = '{"type":"object"}'
    with FaultyProvider(OK) as provider, proxy_for(provider.url, SOON) as proxy:
        statuses = []
        for depth in range(475, 500):
            nested = '{"type":"object","properties":{"a":' * depth + schema + "}}" * depth
            tools = '"tools":[{"name":"t","input_schema":%s}]' % nested
            body = json.dumps(user(stream=True))[:-1] + "," + tools + "}"
            with RawConnection(proxy.url) as client:
                client.send(request("POST", "/v1/messages", body.encode()))
                answer = client.answer()
                statuses.append(answer.status)
                if answer.status != 200:
                    eventually(lambda: not proxy.app._watch.all(), "nothing is watched")
    assert set(statuses) <= {200, 400}
