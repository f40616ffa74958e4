"""A client that leaves is noticed in every phase: the provider's connection ends, and nothing more is tried."""

from __future__ import annotations

import logging
import random
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any, Iterator, List, Tuple

import pytest

from faults import (
    END,
    FaultyProvider,
    Plan,
    back_at,
    chunk,
    close,
    endless,
    free_at_once,
    head,
    latency,
    levels,
    silent,
    until,
    whole,
)
from fixed_provider import EVENTS, STREAM, WHOLE, proxy_for, text_of
from processes import eventually
from raw_http import RawConnection, request
from support import Proxy, ask, user

FIRST = EVENTS[: EVENTS.index(b"\n\n") + 2]
WORD = b'data: {"choices":[{"index":0,"delta":{"content":"x "}}]}\n\n'
TALKS = endless(b"%x\r\n%s\r\n" % (len(WORD), WORD), 0.02)
OK: Plan = [head(), chunk(STREAM), END]
LATER: Plan = [*whole(503, b"{}", retry_after="20", connection="close"), close]
TOO_LONG = 4.0
"""Seconds; the promise is two, on a machine that is not busy with other tests."""

PHASES: List[Tuple[str, Plan, bool]] = [
    ("no head", [silent], True),
    ("half a head", [lambda wire: wire.send(b"HTTP/1.1 200 OK\r\ncontent-"), silent], True),
    ("no content", [head(), silent], True),
    ("no content, without chunks", [head(200, "close"), silent], True),
    ("comments", [head(), endless(b"5\r\n: x\n\n\r\n", 0.02)], True),
    ("an error's body", [head(500), silent], True),
    ("silent in mid-stream", [head(), chunk(FIRST), silent], True),
    ("silent without chunks", [head(200, "close"), lambda wire: wire.send(FIRST), silent], True),
    ("talking", [head(), TALKS], True),
    ("whole: no head", [silent], False),
    ("whole: no body", [head(200, "99", content_type="application/json"), silent], False),
    ("whole: half a body", [head(200, "999", content_type="application/json"), chunk(b"{"), silent], False),
    ("whole: talking events", [head(), TALKS], False),
]


@pytest.fixture
def outcomes(caplog: pytest.LogCaptureFixture) -> Iterator[List[str]]:
    """The lines that were logged about requests, growing."""
    lines: List[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name == "ccproxy.handlers.record" and "total=" in record.getMessage():
                lines.append(record.getMessage())

    handler, logger = Collect(), logging.getLogger("ccproxy.handlers.record")
    caplog.set_level(logging.INFO, logger.name)
    caplog.set_level(logging.ERROR, "urllib3.connection")  # pytest would keep its records, and their calls with them
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def leave(client: RawConnection, *, is_reset: bool = False) -> None:
    """Close the client's end, orderly or by a reset."""
    if is_reset:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.__exit__()


def start(proxy: Proxy, **fields: Any) -> RawConnection:
    """A client that sent its request."""
    client = RawConnection(proxy.url)
    client.send(request("POST", "/v1/messages", user(**fields)))
    return client


@pytest.mark.parametrize("is_reset", [False, True], ids=["close", "reset"])
@pytest.mark.parametrize(("phase", "plan", "stream"), PHASES, ids=[row[0] for row in PHASES])
def test_in_every_phase(phase: str, plan: Plan, stream: bool, is_reset: bool, outcomes: List[str]) -> None:
    """The provider's connection is closed, no further attempt is made, nothing stays, and the log says cancelled."""
    settings = {"MAX_RETRIES": "2", "COMMIT_AFTER": "0.2", "PING_INTERVAL": "0.2"}
    with FaultyProvider(plan) as provider, proxy_for(provider.url, settings) as proxy:
        baseline = levels()
        with free_at_once():
            client = start(proxy, stream=stream)
            provider.asked(1)
            if phase in ("talking", "silent in mid-stream"):
                client.head()
                assert client.chunk()
            left = time.monotonic()
            leave(client, is_reset=is_reset)
            eventually(provider.all_left, "the connection is closed")
            assert provider.attempts[0].left is not None
            assert provider.attempts[0].left - left < TOO_LONG
            eventually(lambda: outcomes, "the request is logged")
        back_at(baseline)
        assert len(provider.attempts) == 1
    assert len(outcomes) == 1
    assert outcomes[0].endswith(" cancelled")


@pytest.mark.parametrize("phase", ["name", "address", "tls"])
def test_while_it_connects(phase: str, outcomes: List[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """While the name is looked up, while nobody takes the connection, and in the handshake of TLS."""
    resolve, begun, gate = socket.getaddrinfo, threading.Event(), threading.Event()
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4 if phase == "address" else 0):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())

        def resolver(host: Any, *arguments: Any, **options: Any) -> Any:
            if host != "provider.invalid":
                return resolve(host, *arguments, **options)
            begun.set()
            if phase == "name":
                gate.wait()
            return resolve("127.0.0.1", *arguments, **options)

        monkeypatch.setattr(socket, "getaddrinfo", resolver)
        scheme, port = "https" if phase == "tls" else "http", listener.getsockname()[1]
        proxy = stack.enter_context(proxy_for(f"{scheme}://provider.invalid:{port}/v1"))
        baseline = levels()
        client = start(proxy, stream=True)
        assert begun.wait(30)
        taken = listener.accept()[0] if phase == "tls" else socket.socket()
        assert phase != "tls" or taken.recv(1)
        left = time.monotonic()
        leave(client)
        eventually(lambda: outcomes, "the request is logged")
        assert time.monotonic() - left < TOO_LONG
        gate.set()
        taken.close()
        back_at(baseline)
    assert outcomes[0].endswith(" cancelled")


@pytest.mark.parametrize("stream", [True, False])
def test_in_a_pause(stream: bool, outcomes: List[str]) -> None:
    """Between two attempts: the second one is never made."""
    with FaultyProvider(LATER, OK) as provider, proxy_for(provider.url, {"MAX_RETRIES": "2"}) as proxy:
        baseline = levels()
        client = start(proxy, stream=stream)
        eventually(lambda: provider.attempts and provider.all_left(), "the first attempt ended")
        left = time.monotonic()
        leave(client)
        eventually(lambda: outcomes, "the request is logged")
        assert time.monotonic() - left < TOO_LONG
        back_at(baseline)
        assert len(provider.attempts) == 1
    assert outcomes[0].endswith(" cancelled")


def test_during_early_pings(outcomes: List[str]) -> None:
    """Behind an open stream, while nothing but pings goes out."""
    settings = {"COMMIT_AFTER": "0.05", "PING_INTERVAL": "0.1", "MAX_RETRIES": "2"}
    with FaultyProvider([silent]) as provider, proxy_for(provider.url, settings) as proxy:
        baseline = levels()
        client = start(proxy, stream=True)
        client.head()
        assert client.chunk()
        leave(client)
        eventually(provider.all_left, "the connection is closed")
        eventually(lambda: outcomes, "the request is logged")
        back_at(baseline)
        assert len(provider.attempts) == 1
    assert outcomes[0].endswith(" cancelled")


def test_a_passed_through_answer(outcomes: List[str]) -> None:
    """Its provider is left as well, and the log says why it ended."""
    plan = [head(), chunk(b"event: message_start\ndata: {}\n\n"), silent]
    with FaultyProvider(plan) as provider, proxy_for(provider.url, direct=True) as proxy:
        client = start(proxy, stream=True)
        client.head()
        assert client.chunk()
        leave(client)
        eventually(provider.all_left, "the connection is closed")
        eventually(lambda: outcomes, "the request is logged")
    assert outcomes[0].endswith(" cancelled")


def test_a_count() -> None:
    """Its provider is left too."""
    with FaultyProvider([silent]) as provider, proxy_for(provider.url, direct=True) as proxy:
        client = RawConnection(proxy.url)
        client.send(request("POST", "/v1/messages/count_tokens", user()))
        provider.asked(1)
        leave(client)
        eventually(provider.all_left, "the connection is closed")


def test_the_next_model_is_not_asked() -> None:
    """Nor is a cancelled model blamed: it does not rest."""
    with FaultyProvider([silent]) as provider, proxy_for(provider.url) as proxy:
        for count in range(4):
            client = start(proxy, stream=True)
            provider.asked(count + 1)
            leave(client)
            eventually(provider.all_left, "the connection is closed")
        eventually(lambda: not proxy.app._watch.all(), "all ended")
        assert proxy.app._cooldown._states == {}


def test_two_hundred_that_leave() -> None:
    """At random moments, in random ways: everything is back where it was within seconds."""
    plans: List[Plan] = [
        [silent],
        [head(), chunk(FIRST), silent],
        [head(), TALKS],
        [latency(0.3), *whole(503, b"{}", retry_after="1")],
        OK,
    ]
    draw = random.Random(7)
    with FaultyProvider(*[draw.choice(plans) for _ in range(600)]) as provider:
        settings = {"MAX_RETRIES": "2", "COMMIT_AFTER": "0.2", "PING_INTERVAL": "0.2"}
        with proxy_for(provider.url, settings) as proxy:
            baseline = levels()

            def visit(number: int) -> None:
                client = start(proxy, stream=number % 4 > 0)
                client.socket.settimeout(draw.random())
                with suppress(socket.timeout):
                    client.socket.recv(1000)
                leave(client, is_reset=number % 3 == 0)

            with ThreadPoolExecutor(32) as clients:
                list(clients.map(visit, range(200)))
            eventually(lambda: not proxy.app._watch.all(), "no request is left")
            asked = len(provider.attempts)
            proxy.app.close()  # the idle connections
            back_at(baseline)
            assert len(provider.attempts) == asked


def test_a_connection_belongs_to_its_request_alone() -> None:
    """Requests that leave just as their answer ends never break the next one on the same pooled connection."""
    gate = threading.Event()
    with FaultyProvider([head(), chunk(STREAM), END]) as provider, proxy_for(provider.url) as proxy:

        def hurry(_: int) -> None:
            while not gate.is_set():
                client = start(proxy, stream=True)
                client.socket.recv(100)
                leave(client)

        def stay(number: int) -> List[str]:
            return [text_of(ask(proxy.url, "/v1/messages", user(stream=True))) for _ in range(60)]

        with ThreadPoolExecutor(8) as clients:
            hurrying = [clients.submit(hurry, number) for number in range(4)]
            try:
                answers = [text for texts in clients.map(stay, range(4)) for text in texts]
            finally:
                gate.set()
            for one in hurrying:
                one.result(30)
    assert answers == ["Hello"] * 240


def test_a_client_that_left_after_the_end() -> None:
    """Is nobody's business: the connection went back, and serves the next request."""
    done = threading.Event()
    with FaultyProvider([until(done), *whole(200, WHOLE, content_type="application/json")]) as provider:
        done.set()
        with proxy_for(provider.url) as proxy:
            for _ in range(20):
                client = start(proxy)
                assert client.answer().status == 200
                leave(client)
            eventually(lambda: not proxy.app._watch.all(), "no request is left")
            assert len({attempt.headers["host"] for attempt in provider.attempts}) == 1
            assert provider.attempts[0].left is None
