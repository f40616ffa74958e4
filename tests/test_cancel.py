"""``Cancel``: one request's signal to stop, whatever its thread waits for."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from ccproxy.errors import ClientGone, Stopping
from ccproxy.provider.cancel import Cancel, current, shut


@pytest.fixture
def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets; a read that takes longer has failed."""
    near, far = socket.socketpair()
    for end in (near, far):
        end.settimeout(10)
    return near, far


def test_nothing_happens_without_a_cancel() -> None:
    """A check passes, a pause takes its time."""
    cancel = Cancel()
    cancel.check()
    started = time.monotonic()
    cancel.pause(0.05)
    assert time.monotonic() - started >= 0.05


def test_the_first_reason_stays() -> None:
    """It is raised by each check and each pause, at once."""
    cancel, first = Cancel(), ClientGone("left")
    cancel.cancel(first)
    cancel.cancel(Stopping("stop"))
    assert cancel.error is first
    for wait in (cancel.check, lambda: cancel.pause(60)):
        with pytest.raises(ClientGone):
            wait()


def test_a_read_ends(pair: tuple[socket.socket, socket.socket]) -> None:
    """The thread that waits for the provider goes on at once; the provider sees the end of the connection."""
    near, far = pair
    cancel = Cancel()
    cancel.attach(near)
    got = []
    reader = threading.Thread(target=lambda: got.append(near.recv(1)))
    reader.start()
    cancel.cancel(ClientGone("left"))
    reader.join(10)
    assert got == [b""]
    assert far.recv(1) == b""
    near.close(), far.close()


def test_a_socket_that_comes_too_late(pair: tuple[socket.socket, socket.socket]) -> None:
    """The request was cancelled while it connected: the connection ends as soon as it is there."""
    near, far = pair
    cancel = Cancel()
    cancel.cancel(ClientGone("left"))
    cancel.attach(near)
    assert far.recv(1) == b""
    near.close(), far.close()


def test_a_socket_that_was_taken_back(pair: tuple[socket.socket, socket.socket]) -> None:
    """It works for another request now, and is not touched."""
    near, far = pair
    cancel = Cancel()
    cancel.attach(near)
    cancel.attach(None)
    cancel.cancel(ClientGone("left"))
    near.sendall(b"x")
    assert far.recv(1) == b"x"
    near.close(), far.close()


def test_a_socket_that_is_closed_already() -> None:
    """Is no error."""
    closed = socket.socket()
    closed.close()
    shut(closed)
    cancel = Cancel()
    cancel.attach(closed)
    cancel.cancel(ClientGone("left"))


def test_the_current_one_is_the_threads_own() -> None:
    """Connections of other threads do not attach themselves to it."""
    cancel, seen = Cancel(), []
    assert current() is None
    with cancel.is_current():
        assert current() is cancel
        other = threading.Thread(target=lambda: seen.append(current()))
        other.start()
        other.join(10)
    assert current() is None
    assert seen == [None]
