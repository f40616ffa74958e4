"""A provider whose faults are scripted, verb by verb, over raw sockets; the vocabulary is that of toxiproxy.

A plan is what happens to one attempt: verbs, done in order once the request was read. The first attempt meets the
first plan, and so on; the last plan is repeated. When a plan ends the connection stays open for the next request.

    with FaultyProvider([head(500, retry_after="0"), body(b"{}")], OK) as provider: ...

Verbs named ``at_accept`` act before the request is read. Each attempt is recorded, with the time at which the proxy
was seen to have left its connection.
"""

from __future__ import annotations

import contextlib
import gc
import http.client
import json
import os
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Set, Tuple

from ccproxy.anthropic import MessagesRequest
from ccproxy.handlers.record import Record
from ccproxy.handlers.running import Running
from ccproxy.translate.stream import StreamTranslator
from processes import eventually
from replay import read_head

PATIENCE = 30.0
"""Seconds after which a silent verb gives up."""


@dataclass
class Attempt:
    """One request, or, where none was read, one connection."""

    time: float
    headers: Dict[str, str] = field(default_factory=dict)
    body: Dict[str, Any] = field(default_factory=dict)
    left: Optional[float] = None
    """When the proxy was seen to have closed the connection."""


class Left(Exception):
    """The proxy closed the connection, or the plan did."""


class Wire:
    """The provider's end of one connection."""

    def __init__(self, connection: socket.socket, attempt: Attempt) -> None:
        self.connection, self.attempt = connection, attempt

    def send(self, data: bytes) -> None:
        """Send bytes."""
        try:
            self.connection.sendall(data)
        except OSError:
            self.gone()

    def gone(self) -> None:
        """Note that the proxy left, and end the plan."""
        self.attempt.left = self.attempt.left or time.monotonic()
        raise Left

    def wait(self, seconds: float) -> None:
        """Be silent for a while; a proxy that leaves meanwhile is noticed."""
        self.connection.settimeout(max(seconds, 0.001))
        try:
            if not self.connection.recv(1):
                self.gone()
        except socket.timeout:
            pass
        except OSError:
            self.gone()
        finally:
            self.connection.settimeout(PATIENCE)


Verb = Callable[[Wire], None]
Plan = Sequence[Verb]


# --- verbs --------------------------------------------------------------------------------------------------------


def send(data: bytes) -> Verb:
    """Bytes as they are."""
    return lambda wire: wire.send(data)


def head(status: int = 200, framing: str = "chunked", **headers: str) -> Verb:
    """A response head; ``framing`` is ``chunked``, ``close``, or a content length; ``_`` stands for ``-``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named.setdefault("content-type", "application/json" if status != 200 else "text/event-stream")
    named.update(
        {"transfer-encoding": "chunked"}
        if framing == "chunked"
        else {"connection": "close"}
        if framing == "close"
        else {"content-length": framing}
    )
    lines = [f"HTTP/1.1 {status} {http.client.responses.get(status, 'Odd')}"]
    lines += [f"{name}: {value}" for name, value in named.items()]
    return send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))


def whole(status: int, data: bytes, **headers: str) -> Plan:
    """A whole answer."""
    return [head(status, str(len(data)), **headers), send(data)]


def chunk(data: bytes) -> Verb:
    """One chunk of a chunked body."""
    return send(b"%x\r\n%s\r\n" % (len(data), data))


END = send(b"0\r\n\r\n")
"""The end of a chunked body."""


def latency(seconds: float) -> Verb:
    """Silence for a while."""
    return lambda wire: wire.wait(seconds)


def silent(wire: Wire) -> None:
    """Toxiproxy's timeout: nothing more is said, until the proxy leaves."""
    wire.wait(PATIENCE)


def until(event: threading.Event) -> Verb:
    """Silence until the test says so."""

    def verb(wire: Wire) -> None:
        deadline = time.monotonic() + PATIENCE
        while not event.is_set() and time.monotonic() < deadline:
            wire.wait(0.01)

    return verb


def close(wire: Wire) -> None:
    """An orderly end of the connection."""
    raise Left


def slow_close(seconds: float) -> Verb:
    """All is said, and the connection stays open for a while."""

    def verb(wire: Wire) -> None:
        wire.wait(seconds)
        raise Left

    return verb


def reset_peer(wire: Wire) -> None:
    """A reset."""
    wire.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise Left


def limit_data(plan: bytes, count: int) -> Plan:
    """These bytes, cut after the first ones by an orderly end."""
    return [send(plan[:count]), close]


def slicer(data: bytes, size: int, pause: float = 0.0) -> Verb:
    """Toxiproxy's slicer, and with a pause its bandwidth: a few bytes at a time."""

    def verb(wire: Wire) -> None:
        for start in range(0, len(data), size):
            wire.send(data[start : start + size])
            if pause:
                wire.wait(pause)

    return verb


def endless(data: bytes, pause: float = 0.0, bound: int = 1 << 30) -> Verb:
    """The same bytes again and again, until the proxy leaves."""

    def verb(wire: Wire) -> None:
        for _ in range(bound):
            wire.send(data)
            if pause:
                wire.wait(pause)

    return verb


def at_accept(verb: Verb) -> Verb:
    """Let a verb act before the request is read."""

    def early(wire: Wire) -> None:
        verb(wire)

    early.is_early = True  # type: ignore[attr-defined]
    return early


# --- the provider -------------------------------------------------------------------------------------------------


class FaultyProvider:
    """A provider that follows plans; use it as a context manager."""

    def __init__(self, *plans: Plan) -> None:
        self.plans = list(plans)
        self.attempts: List[Attempt] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._port = self._listener.getsockname()[1]
        self._open: List[socket.socket] = []
        self._attempts_lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, name="faulty-accept", daemon=True)

    def __enter__(self) -> FaultyProvider:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        listener, self._listener = self._listener, None  # type: ignore[assignment]
        socket.create_connection(("127.0.0.1", self._port)).close()  # a blocked accept() notices no close
        self._thread.join(PATIENCE)
        listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):  # ended already
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def url(self) -> str:
        """The ``api_base``."""
        return f"http://127.0.0.1:{self._port}/v1"

    def all_left(self) -> bool:
        """Whether the proxy has no connection open whose plan ended before it did."""
        return all(attempt.left is not None for attempt in self.attempts)

    def asked(self, count: int) -> None:
        """Wait for so many attempts."""
        eventually(lambda: len(self.attempts) >= count, f"{count} attempts")

    def _accept(self) -> None:
        listener = self._listener
        while True:
            connection, _ = listener.accept()
            if self._listener is None:
                connection.close()
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(PATIENCE)
            threading.Thread(target=self._serve, args=(connection,), name="faulty-serve", daemon=True).start()

    def _next(self) -> Tuple[Attempt, Plan]:
        with self._attempts_lock:
            plan = self.plans[min(len(self.attempts), len(self.plans) - 1)]
            attempt = Attempt(time.monotonic())
            self.attempts.append(attempt)
            return attempt, plan

    def _serve(self, connection: socket.socket) -> None:
        with self._attempts_lock:
            self._open.append(connection)
            is_early = hasattr(self.plans[min(len(self.attempts), len(self.plans) - 1)][0], "is_early")
        attempt: Optional[Attempt] = None
        reader = connection.makefile("rb")
        try:
            while True:
                received = None if is_early else read_head(reader)
                if received is None and not is_early:
                    raise Left
                sent = reader.read(int(received[2].get("content-length", "0"))) if received else b""
                attempt, plan = self._next()
                attempt.headers = received[2] if received else {}
                attempt.body = json.loads(sent) if sent else {}
                wire = Wire(connection, attempt)
                for verb in plan:
                    verb(wire)
        except (Left, OSError, ValueError):
            pass
        finally:
            if attempt is not None:
                attempt.left = attempt.left or time.monotonic()
            reader.close()
            with self._attempts_lock:
                self._open.remove(connection)
            connection.close()


# --- what must not grow -------------------------------------------------------------------------------------------


def levels() -> Tuple[int, int]:
    """How many threads and how many descriptors this process has."""
    return threading.active_count(), len(os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"))


def back_at(baseline: Tuple[int, int]) -> None:
    """Wait until threads and descriptors are no more than they were."""

    def is_back() -> bool:
        gc.collect()  # urllib3 closes a pool's idle connections when the pool itself goes
        return all(now <= then for now, then in zip(levels(), baseline))

    eventually(is_back, f"back at {baseline}")


@contextlib.contextmanager
def free_at_once() -> Iterator[None]:
    """See that what the requests of a block took is free when they end: prompts are large, and the collector of what
    knows itself comes when it likes."""

    def kept() -> Set[int]:
        kinds = (MessagesRequest, Record, Running, StreamTranslator)
        return {id(thing) for thing in gc.get_objects() if isinstance(thing, kinds)}

    gc.collect()
    before = kept()
    gc.disable()
    try:
        yield
        eventually(lambda: kept() <= before, "all of it is free")
    finally:
        gc.enable()
