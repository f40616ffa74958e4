"""A new connection is made by one deadline: the look-up of the name, all its addresses, TLS."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any, Callable, Iterator, List

import pytest

from ccproxy.errors import ClientGone
from ccproxy.provider.cancel import Cancel
from ccproxy.provider.dial import dial
from fixed_provider import answer_of
from test_provider_client import check_failed

NAME = "provider.invalid"
LONG = 60.0
"""Seconds that nothing here may take."""
Listen = Callable[[], socket.socket]


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What holds a look-up up, until the test is over."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def full() -> Iterator[int]:
    """The port of a server that takes no more connections, so that the next one stays half made."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for sock in waiting:
            sock.close()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> List[Any]:
    """What the look-up of ``NAME`` gives, each as a port of this machine; an ``Event`` is waited for."""
    found: List[Any] = []
    resolve: Callable[..., List[Any]] = socket.getaddrinfo

    def resolver(host: Any, port: Any, *arguments: Any, **options: Any) -> List[Any]:
        if host != NAME:
            return resolve(host, port, *arguments, **options)
        for item in found:
            if isinstance(item, threading.Event):
                item.wait(LONG)
        ports = [item for item in found if isinstance(item, int)]
        return [address for item in ports for address in resolve("127.0.0.1", item, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    return found


def took(name: str, port: int, seconds: float) -> float:
    """How long it takes to fail within so many seconds."""
    began = time.monotonic()
    with pytest.raises(socket.timeout):
        dial(name, port, began + seconds, (), None)
    return time.monotonic() - began


def test_a_look_up_has_an_end(names: List[Any], gate: threading.Event) -> None:
    """The deadline, whatever the system's resolver waits for."""
    names.append(gate)
    assert 0.1 <= took(NAME, 1, 0.1) < LONG


def test_all_addresses_have_one_deadline(names: List[Any], full: int) -> None:
    """Several that take no connection take no longer than one."""
    names += [full] * 8
    assert 0.5 <= took(NAME, full, 1.0) < 6.0  # each alone would take one


def test_the_next_address_has_its_time(names: List[Any], full: int) -> None:
    """One that does not connect leaves time to the one after it; a socket gets its options."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        names += [full, listener.getsockname()[1]]
        option = (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        with dial(NAME, 1, time.monotonic() + 1, [option], None) as sock:
            assert sock.getpeername() == listener.getsockname()
            assert sock.getsockopt(*option[:2])


def test_the_fault_is_told(names: List[Any]) -> None:
    """Of a name that nobody knows, of one without an address, and of a port that nobody listens at."""
    with pytest.raises(OSError, match="has no address"):
        dial(NAME, 1, time.monotonic() + LONG, (), None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        names.append(listener.getsockname()[1])
    with pytest.raises(ConnectionRefusedError):
        dial(NAME, 1, time.monotonic() + LONG, (), None)
    with pytest.raises((OSError, UnicodeError)):
        dial("x" * 64 + ".invalid", 1, time.monotonic() + LONG, (), None)


def test_no_thread_is_left_to_look_up(names: List[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Among very many clients: a fault like others of the way to a provider, which passes."""

    def fail(*arguments: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(OSError, match="can't start new thread"):
        dial(NAME, 1, time.monotonic() + LONG, (), None)


@pytest.mark.parametrize("phase", ["look-up", "connection"])
def test_a_cancel_ends_it(names: List[Any], gate: threading.Event, full: int, phase: str) -> None:
    """Soon, not at the deadline."""
    names.append(gate if phase == "look-up" else full)
    cancel, began = Cancel(), time.monotonic()
    timer = threading.Timer(0.1, cancel.cancel, [ClientGone("it left")])
    timer.start()
    with pytest.raises(ClientGone):
        dial(NAME, full, began + LONG, (), cancel)
    assert time.monotonic() - began < LONG / 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_provider_whose_name_is_late(names: List[Any], gate: threading.Event, stream: bool) -> None:
    """Is a time-out of PROVIDER_CONNECT_TIMEOUT, 504."""
    names.append(gate)
    answer = answer_of(f"http://{NAME}/v1", stream, PROVIDER_CONNECT_TIMEOUT="0.1")
    assert "could not be connected in time" in check_failed(answer, 504)
