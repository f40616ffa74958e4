"""``ClientLine``: one answer's way to its client, with early bytes while a provider is silent, under deadlines."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Mapping, Optional

from .http1 import date_of, encode_head
from .incoming import MIN_RATE
from .web import Early

_SHORTEST = 0.001
"""A timeout of 0 would make the socket non-blocking."""


class ClientLine:
    """One answer's way to its client, shared by the handler thread and the watching thread.

    Bytes go out under a lock. The watching thread never waits: what a full socket does not take is kept, and goes
    out first with the next write.
    """

    def __init__(self, connection: socket.socket, *, is_chunked: bool, pause: Optional[float] = None) -> None:
        """``pause``: the seconds a client may take nothing; unless told, the connection's timeout."""
        self._connection = connection
        self._pause = pause
        self._is_chunked = is_chunked
        self._line_lock = threading.Lock()
        self._early: Optional[Early] = None
        self._started = self._last = time.monotonic()
        self._rest = b""
        self._has_begun = False
        self.has_head = False
        """Whether a response head went out."""

    def fileno(self) -> int:
        """Return the client's socket."""
        return self._connection.fileno()

    def is_gone(self) -> bool:
        """The socket tells."""
        return False

    def expect(self, early: Early) -> None:
        """Give the client early bytes when their time has come."""
        self._started = time.monotonic()
        self._early = early

    def begin(self) -> bool:
        """Take over: no early head is sent from now on. Return whether one was."""
        with self._line_lock:
            self._has_begun = True
            if self._early is not None:  # its first bytes know the request, which the answer may outlast by minutes
                self._early = Early(0.0, {}, bytes, self._early.filler, self._early.every)
            return self.has_head

    def write_head(self, data: bytes) -> None:
        """Send the head, with the first bytes of the body."""
        with self._line_lock:
            self._send(data)
            self.has_head = True

    def write(self, data: bytes) -> None:
        """Send bytes of the body."""
        with self._line_lock:
            self._send(data)

    def write_now(self, data: bytes) -> bool:
        """Send bytes of the body without waiting; return whether all went. If not, ``write`` sends the rest."""
        with self._line_lock:
            self._send_soon(data)
            return not self._rest

    def chunk(self, part: bytes) -> bytes:
        """Return a part of the body in the connection's framing."""
        return b"%x\r\n%s\r\n" % (len(part), part) if self._is_chunked else part

    def head(self, status: int, headers: Mapping[str, str]) -> bytes:
        """Return the head of an answer whose length is not known yet."""
        framing = {"transfer-encoding": "chunked"} if self._is_chunked else {"connection": "close"}
        return encode_head(status, {**headers, "date": date_of(int(time.time())), **framing})

    def finish(self) -> None:
        """No filler may follow."""
        with self._line_lock:
            self._early = None

    def tick(self, now: float) -> None:
        """Send what is due; must not block."""
        early = self._early
        if early is None or not self._line_lock.acquire(blocking=False):
            return  # somebody writes: no silence
        try:
            if not self.has_head and not self._has_begun and now >= self._started + early.after:
                self._send_soon(self.head(200, early.headers) + self.chunk(early.first()))
                self.has_head = True
            elif self.has_head and self._early is not None and now >= self._last + early.every:
                self._send_soon(self.chunk(early.filler))
        except OSError:
            pass  # the client is gone, which is noticed elsewhere
        finally:
            self._line_lock.release()

    def _send(self, data: bytes) -> None:
        rest, self._rest = self._rest, b""
        data = rest + data if rest else data
        try:
            # A socket with a timeout is non-blocking underneath: send() would ask poll() first, one more system call.
            sent = os.write(self._connection.fileno(), data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._send_slowly(memoryview(data)[sent:])
        self._last = time.monotonic()

    def _send_slowly(self, left: memoryview) -> None:
        """Send to a client that does not take everything at once: it may pause, but not for ever in all.

        Not ``sendall``: its timeout is for the whole, and would drop a slow client that takes every byte.
        """
        before = self._connection.gettimeout()
        pause = self._pause if self._pause is not None else before or 0.0
        deadline = time.monotonic() + pause + len(left) / MIN_RATE
        try:
            while left:
                self._connection.settimeout(max(min(pause, deadline - time.monotonic()), _SHORTEST))
                left = left[self._connection.send(left) :]
        finally:
            self._connection.settimeout(before)

    def _send_soon(self, data: bytes) -> None:
        self._last = time.monotonic()
        data = self._rest + data if self._rest else data
        try:
            sent = os.write(self._connection.fileno(), data)
        except BlockingIOError:
            sent = 0
        self._rest = data[sent:] if sent < len(data) else b""
