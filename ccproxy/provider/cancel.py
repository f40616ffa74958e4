"""``Cancel``: one request's signal to stop, whatever its thread waits for."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from typing import Callable, Iterator, Optional

from ..errors import ApiError

_current = threading.local()


def _nothing() -> None:
    pass


class Cancel:
    """Ends the provider's connection under the thread that reads it, and any pause between attempts."""

    def __init__(self) -> None:
        self.error: Optional[ApiError] = None
        """Why the request was cancelled."""
        self._cancelled = threading.Event()
        self._socket: Optional[socket.socket] = None
        self._socket_lock = threading.Lock()
        self.meanwhile: Callable[[], object] = _nothing
        """What the request has to do while its provider works; called when a call is on its way."""

    def cancel(self, error: ApiError) -> None:
        """Cancel, once; from any thread."""
        with self._socket_lock:
            if self.error is not None:
                return
            self.error = error
            self._cancelled.set()
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
        self._cancelled.wait(seconds)
        self.check()

    def attach(self, sock: Optional[socket.socket]) -> None:
        """Name the socket that a cancel has to end; one that comes too late is ended at once."""
        with self._socket_lock:
            self._socket = sock
            if sock is not None and self.error is not None:
                shut(sock)

    @contextmanager
    def is_current(self, meanwhile: Callable[[], object] = _nothing) -> Iterator[None]:
        """Make connections that this thread uses attach themselves, and do something before they wait."""
        _current.cancel, self.meanwhile = self, meanwhile
        try:
            yield
        finally:
            _current.cancel, self.meanwhile = None, _nothing


def current() -> Optional[Cancel]:
    """Return the cancel signal of the request this thread works for."""
    return getattr(_current, "cancel", None)


def shut(sock: socket.socket) -> None:
    """End a connection under its reader. A TLS socket's own ``shutdown`` would pull the session away from it."""
    with suppress(OSError):  # ended already
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
