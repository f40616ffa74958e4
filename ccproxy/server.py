"""The built-in front door: a ``ThreadingHTTPServer`` that reads requests, writes responses and drains on stop."""

from __future__ import annotations

import errno
import logging
import math
import resource
import socket
import struct
import threading
import time
from contextlib import suppress
from http.server import ThreadingHTTPServer
from socketserver import BaseRequestHandler
from typing import Any, Dict, Optional, Set, Tuple

from .app import App, new_id
from .errors import ApiError, Overloaded, StreamCut
from .http1 import Head, content_length, date_of, encode_head
from .incoming import Incoming
from .open_streams import OpenStreams
from .outgoing import ClientLine
from .processes.listener import listen, url_of
from .processes.memory import give_back
from .web import Request, Response, Stream

log = logging.getLogger(__name__)

LINGER = 1.0
_SMALL_BODY = 65536
_REFUSALS = 64
"""Connections beyond the limit that are told so at a time; others are closed without a word."""
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_EXHAUSTED_PAUSE = 0.1
_WARN_PAUSE = 10.0
_SPARE_DESCRIPTORS = 64
"""Descriptors for files and the like; each connection may need one more, to a provider."""
_TIDY_INTERVAL = 2.0
_MANY, _FEW = 64, 8
"""Connections at a time that leave enough behind to give it back, and how many may be left when that is done."""
_GIVE_BACK_AFTER = 8.0
"""Seconds for which only a few are left: the connections to providers are closed by then."""
_ABORT_WAIT = 2.0
_GONE = (BrokenPipeError, ConnectionResetError, ConnectionAbortedError, TimeoutError, socket.timeout)
_UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN)
"""Also how a client leaves: with its network."""


class Server(ThreadingHTTPServer):
    """Serves an ``App``. Threads are daemons; ``stop`` waits for the busy ones, as long as it is allowed to."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, app: App, host: str, port: int, listener: Optional[socket.socket] = None) -> None:
        """Listen; with a ``listener``, on that one, which other processes may share."""
        self.app = app
        self.last_turn = time.monotonic()
        """When the accepting loop last went round."""
        self._connections_lock = threading.Lock()  # guards all that follows
        self._connections_changed = threading.Condition(self._connections_lock)
        self._open: Set[socket.socket] = set()
        self._refused: Set[socket.socket] = set()
        self._idle: Dict[socket.socket, None] = {}  # the longest idle first
        self._busy: Set[socket.socket] = set()
        self._tidied_at = 0.0
        self._crowded_at: Optional[float] = None
        """When more than a few connections were open last, if there were many before; None once all was given back."""
        self._warned: Dict[str, float] = {}
        self.streams = OpenStreams()
        self.stopping = threading.Event()
        self.patience = math.inf
        """Seconds a client may take to begin a request, where it is not less anyway."""
        super().__init__((host, port), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener if listener is not None else listen(host, port)
        self.url = url_of(self.socket)

    def mark(self, connection: socket.socket, state: Optional[str]) -> None:
        """Note that a connection is ``idle`` or ``busy``, or gone (None)."""
        with self._connections_lock:
            self._idle.pop(connection, None)
            self._busy.discard(connection)
            if state == "idle":
                self._idle[connection] = None
            elif state == "busy":
                self._busy.add(connection)

    def retire(self) -> None:
        """Accept no more, for another server does; each connection may have one more request, and ends with it."""
        self.stopping.set()
        self.app.drain()
        self.shutdown()
        self._accept_waiting()
        self.server_close()

    @property
    def is_empty(self) -> bool:
        """Whether no connection is left."""
        return not self._open

    def stop(self, timeout: float) -> bool:
        """Stop accepting, close idle connections, wait for running requests; return whether all of them ended."""
        self.patience = LINGER
        self.stopping.set()
        self.app.drain()
        self.shutdown()
        with self._connections_changed:
            for connection in list(self._idle):
                _shut(connection, socket.SHUT_RD)  # a request that has arrived is still answered
        self._accept_waiting()
        self.server_close()
        with self._connections_changed:
            self._wait_for_connections(timeout)
            left = list(self._busy)
        if left:
            self.app.abort()  # their streams end with an error event
            with self._connections_changed:
                self._wait_for_connections(_ABORT_WAIT)
                for connection in list(self._busy):
                    _shut(connection)
        return not left

    def _accept_waiting(self) -> None:
        """Take in who is connected already, which the system would reset with the socket; each has one request."""
        with suppress(OSError):  # nobody is left
            while True:
                self.process_request(*self.get_request())

    def _wait_for_connections(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while self._open and time.monotonic() < deadline:
            self._connections_changed.wait(deadline - time.monotonic())

    def service_actions(self) -> None:
        """Tidy up now and then; the accepting loop calls it several times a second."""
        now = self.last_turn = time.monotonic()
        if len(self._open) > (_MANY if self._crowded_at is None else _FEW):
            self._crowded_at = now
        if now >= self._tidied_at + _TIDY_INTERVAL:
            self._tidied_at = now
            self.app.tidy()
            if self._crowded_at is not None and now >= self._crowded_at + _GIVE_BACK_AFTER:
                self._crowded_at = None
                self.app.forget()
                give_back()

    # --- limits ----------------------------------------------------------------------------------------------

    def get_request(self) -> Tuple[socket.socket, Any]:
        """Accept a connection; without a free descriptor, make room and go on after a pause."""
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                self._warn("no connection can be accepted: %s", error.strerror)
                self._drop_longest_idle()
                time.sleep(_EXHAUSTED_PAUSE)  # the loop would come back at once
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own; above MAX_CONNECTIONS idle ones make room, or it is refused."""
        limit = self.max_connections()
        with self._connections_changed:
            self._open.add(request)
            count = len(self._open)
        if count > limit and self._drop_longest_idle():
            count -= 1
        if count > limit:
            self._warn("all %d connections are busy: a client was refused", limit)
            if count > limit + _REFUSALS:
                self.shutdown_request(request)
                return
            self._refused.add(request)
        try:
            super().process_request(request, client_address)
        except RuntimeError as error:
            self._warn("a connection was closed: %s", error)
            self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection; it counts no more."""
        with self._connections_changed:
            self._open.discard(request)
            self._refused.discard(request)
            self._connections_changed.notify_all()
        super().shutdown_request(request)

    def is_refused(self, connection: socket.socket) -> bool:
        """Whether a connection is above the limit, to be told so."""
        return connection in self._refused

    def max_connections(self) -> int:
        """Return how many connections may be open: MAX_CONNECTIONS, or what the descriptors are enough for."""
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return max(1, min(self.app.config.max_connections, (descriptors - _SPARE_DESCRIPTORS) // 2))

    def _drop_longest_idle(self) -> bool:
        with self._connections_changed:
            connection = next(iter(self._idle), None)
            if connection is None:
                return False
            del self._idle[connection]
            self._open.discard(connection)
        _shut(connection)
        return True

    def _warn(self, text: str, *values: object) -> None:
        now = time.monotonic()
        if now >= self._warned.get(text, -_WARN_PAUSE) + _WARN_PAUSE:
            self._warned[text] = now
            log.warning(text, *values)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a fault of the connection's thread; a client that left is no news."""
        log.exception("connection from %s failed", client_address)


def _shut(connection: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    with suppress(OSError):  # gone already
        connection.shutdown(how)


class Handler(BaseRequestHandler):
    """One connection: requests in order, one answer each."""

    server: Server
    request: socket.socket

    def setup(self) -> None:
        """Prepare to read; small answers on a kept connection must not wait 40 ms for a delayed ACK."""
        self.connection = self.request
        with suppress(OSError):  # the client was faster
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        self._incoming = Incoming(self.connection)

    def handle(self) -> None:
        """Serve the connection until it ends; a client that leaves, in any phase, is no error."""
        try:
            if self.server.is_refused(self.connection):
                self.connection.settimeout(LINGER)
                self._refuse(Overloaded("ccproxy has as many connections as MAX_CONNECTIONS allows"))
                return
            while self._serve_one():
                pass
        except OSError as error:
            if not isinstance(error, _GONE) and error.errno not in _UNREACHABLE:
                raise
        finally:
            self.server.mark(self.connection, None)

    def _serve_one(self) -> bool:
        """Answer one request; return whether another may follow."""
        config = self.server.app.config
        self.server.mark(self.connection, "idle")
        if not self._incoming.wait(config, self.server.patience):
            return False
        self.server.mark(self.connection, "busy")
        try:
            head = self._incoming.head()
            self._admit(head)
            body = self._incoming.body(head, config, self.connection.sendall)
            line = ClientLine(self.connection, is_chunked=not head.is_http_1_0, pause=config.client_write_timeout)
            request = Request.from_target(head.method, head.target, head.headers, body, line)
        except ApiError as error:
            self._refuse(error)
            return False
        except socket.timeout:
            self._refuse(ApiError("the request did not arrive in time", status=408))
            return False
        response = self.server.app.handle(request)
        del body, request  # the answer may outlast them by minutes
        is_last = self.server.stopping.is_set() or not head.keeps_alive
        return self._send(response, head, line, is_last) and not is_last

    def _admit(self, head: Head) -> None:
        """Refuse whom nothing will be answered before reading, and keeping, a large body."""
        length = content_length(head.headers)
        if length is None or length > _SMALL_BODY:
            self.server.app.admit(Request.from_target(head.method, head.target, head.headers, b""))

    # --- writing ---------------------------------------------------------------------------------------------

    def _send(self, response: Response, head: Head, line: ClientLine, is_last: bool) -> bool:
        """Send an answer; return whether it ended regularly."""
        headers = {**response.headers, **({"connection": "close"} if is_last else {})}
        body = response.body
        if isinstance(body, Stream):
            try:
                return self._send_stream(response.status, headers, body, line)
            finally:
                body.close()
        if line.has_head:  # spaces went out already; an error cannot be told any more
            if response.status >= 400:
                self._reset()
                return False
            line.write(line.chunk(body) + line.chunk(b""))
            return True
        headers.update({"date": date_of(int(time.time())), "content-length": str(len(body))})
        start = encode_head(response.status, headers)
        line.write_head(start if head.method == "HEAD" else start + body)
        return True

    def _send_stream(self, status: int, headers: Dict[str, str], body: Stream, line: ClientLine) -> bool:
        """Write each part as it comes; the head goes with the first one, the end with what is known to be the last."""
        try:
            for part in body:
                if not part:
                    continue
                data = line.chunk(part)
                if body.is_ending:
                    line.finish()
                    data += line.chunk(b"")
                if line.has_head:
                    line.write(data)
                else:
                    line.write_head(line.head(status, headers) + data)
                self.server.streams.carry(body, line)
            if not body.is_ending:
                line.finish()
                line.write((b"" if line.has_head else line.head(status, headers)) + line.chunk(b""))
        except StreamCut:
            line.finish()
            self._reset()
            return False
        return True

    def _reset(self) -> None:
        """End the connection so that no client takes the answer for complete: without a last chunk, by a reset."""
        with suppress(OSError):  # the client was faster
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _refuse(self, error: ApiError) -> None:
        """Answer what is no clean request, and end the connection: what follows may be the rest of a body.

        The client may still be sending. Closing at once would reset the connection and lose the answer on its way.
        """
        response, head = Response.error(error, new_id("req_")), Head("", "", False, {})
        self._send(response, head, ClientLine(self.connection, is_chunked=True), is_last=True)
        self.connection.settimeout(LINGER)
        deadline = time.monotonic() + LINGER
        with suppress(OSError):  # the client left, or says nothing more
            self.connection.shutdown(socket.SHUT_WR)
            while time.monotonic() < deadline and self.connection.recv(65536):
                pass
