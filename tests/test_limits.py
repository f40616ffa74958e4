"""What one client, or many, can take up of a server: time, memory, threads, descriptors."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any, Iterator, List, Optional

import pytest

from ccproxy.outgoing import ClientLine
from ccproxy.stub import Json, Step, Text
from faults import levels
from grammar import check_error
from processes import eventually, running, serve_command
from raw_http import RawAnswer, RawConnection, request
from support import Proxy, ask, proxy_with, running_proxy, user

SOON = {"CLIENT_HEADER_TIMEOUT": "0.4", "CLIENT_BODY_TIMEOUT": "0.4", "KEEPALIVE_TIMEOUT": "20"}
HEALTH = request("GET", "/health")


@pytest.fixture(scope="module")
def hasty() -> Iterator[Proxy]:
    """A proxy that gives clients little time."""
    with running_proxy(SOON) as proxy:
        yield proxy


def drip(client: RawConnection, data: bytes, pause: float) -> bool:
    """Send byte by byte until all is sent, or the server has had enough; return whether all was sent."""
    client.socket.setblocking(False)
    try:
        for position in range(len(data)):
            try:
                if client.socket.recv(1, socket.MSG_PEEK) is not None:
                    return False
            except BlockingIOError:
                client.socket.send(data[position : position + 1])
                time.sleep(pause)
        return True
    except OSError:
        return False
    finally:
        client.socket.settimeout(20)


def check_timeout(answer: RawAnswer) -> None:
    """408, in Anthropic's shape."""
    assert answer.status == 408
    check_error(answer.json)


# --- time -------------------------------------------------------------------------------------------------------


def test_a_head_has_one_deadline(hasty: Proxy) -> None:
    """A byte now and then does not extend it."""
    with RawConnection(hasty.url) as client:
        assert not drip(client, b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 90, 0.02)
        check_timeout(client.answer())
        assert client.is_closed()


def test_a_connection_that_says_nothing_is_closed(hasty: Proxy) -> None:
    """From the connection's begin on; there is nobody to tell."""
    with RawConnection(hasty.url) as client:
        started = time.monotonic()
        assert client.is_closed()
        assert time.monotonic() - started < 10


def test_a_kept_connection_may_be_idle_for_longer(hasty: Proxy) -> None:
    """Until KEEPALIVE_TIMEOUT; the next head has its own deadline, from its first byte."""
    with RawConnection(hasty.url) as client:
        client.send(HEALTH)
        assert client.answer().status == 200
        time.sleep(0.8)  # twice the time for a head
        client.send(HEALTH)
        assert client.answer().status == 200
        client.send(b"GET /hea")
        check_timeout(client.answer())


def test_an_idle_connection_ends() -> None:
    """At KEEPALIVE_TIMEOUT, without a word: an answer nobody asked for would be taken for the next one's."""
    with running_proxy({"KEEPALIVE_TIMEOUT": "0.2"}) as proxy, RawConnection(proxy.url) as client:
        client.send(HEALTH)
        assert client.answer().status == 200
        assert client.is_closed()


def test_a_body_may_not_pause(hasty: Proxy) -> None:
    """CLIENT_BODY_TIMEOUT between two reads."""
    with RawConnection(hasty.url) as client:
        client.send(request("POST", "/v1/messages", b"x" * 50_000)[:-10_000])
        check_timeout(client.answer())


@pytest.mark.parametrize("framing", ["Content-Length: 5000", "Transfer-Encoding: chunked"])
def test_a_body_has_to_keep_moving(hasty: Proxy, framing: str) -> None:
    """All of it takes no longer than CLIENT_BODY_TIMEOUT and a second per 4 kB, however it is dripped."""
    started = time.monotonic()
    with RawConnection(hasty.url) as client:
        client.send(b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\n%s\r\n\r\n" % framing.encode())
        assert not drip(client, b"1388\r\n" + b" " * 5000, 0.02)
        check_timeout(client.answer())
    assert time.monotonic() - started < 10


def in_chunks(body: bytes, size: int) -> bytes:
    """Return a request whose body comes in chunks of that size."""
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    framed = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])
    return b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + framed


@pytest.mark.parametrize("chunk", [None, 100, 30_000])
def test_a_slow_body_that_keeps_moving_is_read(hasty: Proxy, chunk: Optional[int]) -> None:
    """More than twice CLIENT_BODY_TIMEOUT, at a rate that is enough; many small chunks may come with one read."""
    body = json.dumps(user("demo: text slow but sure")).encode().ljust(40_000)
    with RawConnection(hasty.url) as client:
        data = in_chunks(body, chunk) if chunk else request("POST", "/v1/messages", body)
        for start in range(0, len(data), 4_000):
            client.send(data[start : start + 4_000])
            time.sleep(0.1)
        assert client.answer().json["content"][0]["text"] == "slow but sure"


class Dripping:
    """A socket whose other side takes one byte every now and then."""

    def __init__(self, pause: float) -> None:
        self.taken = 0
        self._pause = self._timeout = pause
        self._near, self._far = socket.socketpair()
        self._near.setblocking(False)
        with suppress(BlockingIOError):
            while self._near.send(bytes(65536)):
                pass  # until it is full

    def fileno(self) -> int:
        return self._near.fileno()

    def close(self) -> None:
        self._near.close()
        self._far.close()

    def gettimeout(self) -> float:
        return self._timeout

    def settimeout(self, timeout: float) -> None:
        self._timeout = timeout

    def send(self, data: bytes) -> int:
        if self._timeout < self._pause:
            raise socket.timeout
        time.sleep(self._pause)
        self.taken += 1
        return 1


def test_a_reader_has_to_keep_moving() -> None:
    """A client that takes a byte now and then is dropped, too: the same rate as for bodies."""
    drip: Any = Dripping(0.01)
    drip.settimeout(0.2)
    started = time.monotonic()
    with closing(drip), pytest.raises(socket.timeout):
        ClientLine(drip, is_chunked=False).write(b"x" * 2_000)
    assert 10 < drip.taken < 1_000
    assert time.monotonic() - started < 10
    assert drip.gettimeout() == 0.2


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_reads_nothing_is_dropped(stream: bool) -> None:
    """At CLIENT_WRITE_TIMEOUT; its thread ends, and so does the provider's answer."""
    with proxy_with(lambda body: [Text("x" * 100_000)] * 200, env={"CLIENT_WRITE_TIMEOUT": "0.3"}) as (proxy, _):
        before = levels()
        with RawConnection(proxy.url) as client:
            client.send(request("POST", "/v1/messages", user(stream=stream)))
            client.socket.recv(1)
            eventually(lambda: levels()[0] <= before[0] + 2, "the thread ends")


# --- numbers ----------------------------------------------------------------------------------------------------


class Gate:
    """A script that answers when it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()

    def script(self, body: Json) -> List[Step]:
        self.opened.wait(30)
        return [Text("at last")]


def test_above_max_connections_a_client_is_told() -> None:
    """529 with an Anthropic error and a hint when to retry; those that are served go on, and so do later ones."""
    gate = Gate()
    with proxy_with(gate.script, env={"MAX_CONNECTIONS": "3"}) as (proxy, stub), ExitStack() as connections:
        busy = [connections.enter_context(RawConnection(proxy.url)) for _ in range(3)]
        for client in busy:
            client.send(request("POST", "/v1/messages", user()))
        eventually(lambda: len(stub.requests) == 3, "all are being answered")
        for _ in range(2):
            with RawConnection(proxy.url) as late:
                late.send(HEALTH)
                answer = late.answer()
                assert (answer.status, answer.json["error"]["type"]) == (529, "overloaded_error")
                assert answer.headers["retry-after"] == "2"
                check_error(answer.json)
                assert late.is_closed()
        gate.opened.set()
        assert [client.answer().status for client in busy] == [200] * 3
        for client in busy:
            client.__exit__()
        eventually(lambda: ask(proxy.url, "/health").status == 200, "there is room again")


def test_idle_connections_make_room() -> None:
    """The longest idle one is closed for a client that comes; no number of silent connections keeps others out."""
    with running_proxy({"MAX_CONNECTIONS": "5"}) as proxy, ExitStack() as connections:
        idle = [connections.enter_context(RawConnection(proxy.url)) for _ in range(5)]
        for client in idle:
            client.send(HEALTH)
            assert client.answer().status == 200
        silent = [connections.enter_context(RawConnection(proxy.url)) for _ in range(40)]
        assert all(client.is_closed() for client in idle)
        assert ask(proxy.url, "/health").status == 200
        assert silent[0].is_closed()


def test_a_thread_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Its connection is closed, the log says so once, and the server goes on."""
    with running_proxy() as proxy:

        def fail(*arguments: Any) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(ThreadingMixIn, "process_request", fail)
            for _ in range(3):
                with RawConnection(proxy.url) as client:
                    assert client.is_closed()
        assert ask(proxy.url, "/health").status == 200
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "a connection was closed: can't start new thread"
    ]


def cpu_seconds(pid: int) -> float:
    """Processor time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_without_descriptors_the_server_waits(tmp_path: Path) -> None:
    """It neither spins nor dies: it pauses, says so, and serves again once there are some."""
    command = ["sh", "-c", 'ulimit -n 40; exec "$@"', "sh", *serve_command("--port", "0")]
    with running(command, tmp_path, {"KEEPALIVE_TIMEOUT": "30"}) as process:
        url = process.address()
        assert ask(url, "/health").status == 200
        with ExitStack() as connections:
            for _ in range(200):
                connections.enter_context(RawConnection(url)).send(b"GET /health HTTP/1.1\r\n")
            eventually(lambda: any("no connection can be accepted" in line for line in process.lines), "it is told")
            before = cpu_seconds(process.popen.pid)
            time.sleep(1)
            assert cpu_seconds(process.popen.pid) - before < 0.6
        eventually(lambda: answers(url), "it serves again")
        assert sum("Traceback" in line for line in process.lines) == 0


def answers(url: str) -> bool:
    """Whether /health is answered."""
    try:
        return ask(url, "/health").status == 200
    except OSError:
        return False


# --- memory -----------------------------------------------------------------------------------------------------


def test_a_large_body_of_a_stranger_is_not_read() -> None:
    """Who has no token, or comes from a page, is told before the body: nobody fills the memory with it."""
    head = b"POST /v1/messages HTTP/1.1\r\nHost: %s\r\nContent-Length: 30000000\r\n%s\r\n"
    for settings, host, more, status in (
        ({"CCPROXY_AUTH_TOKEN": "sesame"}, b"localhost", b"", 401),
        ({}, b"evil.example", b"", 403),
        ({}, b"localhost", b"Origin: http://evil.example\r\n", 403),
    ):
        with running_proxy(settings) as proxy, RawConnection(proxy.url) as client:
            client.send(head % (host, more))
            answer = client.answer()
            assert answer.status == status
            check_error(answer.json)
            assert client.is_closed()


def test_descriptors_are_raised(tmp_path: Path) -> None:
    """A server takes as many descriptors as it may: many systems start programs with 256 or 1024."""
    hard = subprocess.run(["sh", "-c", "ulimit -Hn"], check=True, capture_output=True, text=True).stdout.strip()
    if hard == "unlimited" or int(hard) <= 512:
        pytest.skip("the hard limit is not above the soft one used here")
    command = ["sh", "-c", 'ulimit -Sn 512; exec "$@"', "sh", *serve_command("--port", "0")]
    with running(command, tmp_path, {}) as process:
        process.address()
        limits = Path(f"/proc/{process.popen.pid}/limits")
        if not limits.exists():
            pytest.skip("needs /proc")
        line = next(line for line in limits.read_text().splitlines() if line.startswith("Max open files"))
        assert line.split()[3] == hard
