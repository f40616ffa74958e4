"""``Cancel``: one request's signal to stop, whatever its thread waits for."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Callable, Optional

from ..errors import ApiError

_current = threading.local()


def nothing() -> None:
    """There is nothing to do meanwhile."""


class Cancel:
    """Ends the provider's connection under the thread that reads it, and any pause between attempts."""

    def __init__(self) -> None:
        self.error: Optional[ApiError] = None
        """Why the request was cancelled."""
        self._pausing: Optional[threading.Event] = None  # most requests never pause, and one takes 5 us
        self._socket: Optional[socket.socket] = None
        self._socket_lock = threading.Lock()  # guards all of these
        self.meanwhile: Callable[[], object] = nothing
        """What the request has to do while its provider works; called when a call is on its way."""

    def cancel(self, error: ApiError) -> None:
        """Cancel, once; from any thread."""
        with self._socket_lock:
            if self.error is not None:
                return
            self.error = error
            if self._pausing is not None:
                self._pausing.set()
            if self._socket is not None:
                shut(self._socket)

    def check(self) -> None:
        """Raise why the request was cancelled, if it was."""
        if self.error is not None:
            raise self.error

    def pause(self, seconds: float) -> None:
        """Wait, unless the request is cancelled meanwhile.

        Raises:
            ApiError: why it was.
        """
        with self._socket_lock:
            self.check()
            pausing = self._pausing = threading.Event()
        pausing.wait(seconds)
        self.check()

    def attach(self, sock: Optional[socket.socket]) -> None:
        """Name the socket that a cancel has to end; one that comes too late is ended at once."""
        with self._socket_lock:
            self._socket = sock
            if sock is not None and self.error is not None:
                shut(sock)

    def is_current(self, meanwhile: Callable[[], object] = nothing) -> _IsCurrent:
        """Make connections that this thread uses in a ``with`` block attach themselves, and do something before they
        wait."""
        return _IsCurrent(self, meanwhile)


class _IsCurrent:
    """The block; each request has one, and a generator would take three times as long."""

    def __init__(self, cancel: Cancel, meanwhile: Callable[[], object]) -> None:
        self._cancel, self._meanwhile = cancel, meanwhile

    def __enter__(self) -> None:
        _current.cancel, self._cancel.meanwhile = self._cancel, self._meanwhile

    def __exit__(self, *failure: object) -> None:
        _current.cancel, self._cancel.meanwhile = None, nothing


def current() -> Optional[Cancel]:
    """Return the cancel signal of the request this thread works for."""
    return getattr(_current, "cancel", None)


def shut(sock: socket.socket) -> None:
    """End a connection under its reader. A TLS socket's own ``shutdown`` would pull the session away from it."""
    with suppress(OSError):  # ended already
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
