"""The built-in front door: a ``ThreadingHTTPServer`` that reads requests, writes responses and drains on stop."""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
import time
import zlib
from contextlib import suppress
from email.utils import formatdate
from http.server import ThreadingHTTPServer
from socketserver import StreamRequestHandler, TCPServer
from typing import Any, Dict, Mapping, Optional, Set

from .app import App, new_id
from .errors import ApiError, InvalidRequest, RequestTooLarge, StreamCut
from .http1 import (
    MAX_CHUNK_LINE,
    MAX_FIELDS,
    MAX_HEAD,
    MAX_LINE,
    Head,
    chunk_size,
    content_length,
    encode_head,
    parse_head,
)
from .web import Early, Request, Response, Stream

log = logging.getLogger(__name__)

LINGER = 1.0
_ABORT_WAIT = 2.0
_GONE = (BrokenPipeError, ConnectionResetError, ConnectionAbortedError, TimeoutError, socket.timeout)


class Server(ThreadingHTTPServer):
    """Serves an ``App``. Threads are daemons; ``stop`` waits for the busy ones, as long as it is allowed to."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024  # a burst of clients must not be refused while threads start

    def __init__(self, app: App, host: str, port: int) -> None:
        self.app = app
        if ":" in host:
            self.address_family = socket.AF_INET6
        self._connections_changed = threading.Condition()
        self._idle: Set[socket.socket] = set()
        self._busy: Set[socket.socket] = set()
        self.stopping = threading.Event()
        super().__init__((host, port), Handler)

    def server_bind(self) -> None:
        """Bind, without the look-up of the host's name that http.server makes: no start waits for DNS."""
        TCPServer.server_bind(self)

    @property
    def url(self) -> str:
        """The address clients use."""
        host, port = self.server_address[:2]
        shown = f"[{host!s}]" if ":" in str(host) else str(host)
        return f"http://{shown}:{port}"

    def mark(self, connection: socket.socket, state: Optional[str]) -> None:
        """Note that a connection is ``idle`` or ``busy``, or gone (None)."""
        with self._connections_changed:
            self._idle.discard(connection)
            self._busy.discard(connection)
            if state == "idle":
                self._idle.add(connection)
            elif state == "busy":
                self._busy.add(connection)
            self._connections_changed.notify_all()

    def stop(self, timeout: float) -> bool:
        """Stop accepting, close idle connections, wait for running requests; return whether all of them ended."""
        self.stopping.set()
        self.shutdown()
        self.server_close()
        with self._connections_changed:
            for connection in list(self._idle):
                _shut(connection)
            self._wait_for_busy(timeout)
            left = list(self._busy)
        if left:
            self.app.abort()  # their streams end with an error event
            with self._connections_changed:
                self._wait_for_busy(_ABORT_WAIT)
                for connection in list(self._busy):
                    _shut(connection)
        return not left

    def _wait_for_busy(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while self._busy and time.monotonic() < deadline:
            self._connections_changed.wait(deadline - time.monotonic())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a fault of the connection's thread; a client that left is no news."""
        log.exception("connection from %s failed", client_address)


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):  # gone already
        connection.shutdown(socket.SHUT_RDWR)


class ClientLine:
    """One answer's way to its client, shared by the handler thread and the watching thread.

    Bytes go out under a lock. The watching thread never waits: what a full socket does not take is kept, and goes
    out first with the next write.
    """

    def __init__(self, connection: socket.socket, *, is_chunked: bool) -> None:
        self._connection = connection
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

    def expect(self, early: Early) -> None:
        """Give the client early bytes when their time has come."""
        self._started = time.monotonic()
        self._early = early

    def begin(self) -> bool:
        """Take over: no early head is sent from now on. Return whether one was."""
        with self._line_lock:
            self._has_begun = True
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

    def chunk(self, part: bytes) -> bytes:
        """Return a part of the body in the connection's framing."""
        return b"%x\r\n%s\r\n" % (len(part), part) if self._is_chunked else part

    def head(self, status: int, headers: Mapping[str, str]) -> bytes:
        """Return the head of an answer whose length is not known yet."""
        framing = {"transfer-encoding": "chunked"} if self._is_chunked else {"connection": "close"}
        return encode_head(status, {**headers, "date": formatdate(usegmt=True), **framing})

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
                self._send_soon(self.head(200, early.headers) + self.chunk(early.first))
                self.has_head = True
            elif self.has_head and self._early is not None and now >= self._last + early.every:
                self._send_soon(self.chunk(early.filler))
        except OSError:
            pass  # the client is gone, which is noticed elsewhere
        finally:
            self._line_lock.release()

    def _send(self, data: bytes) -> None:
        rest, self._rest = self._rest, b""
        left = memoryview(rest + data)
        while left:  # not sendall: its timeout is for the whole, and would drop a slow client that takes every byte
            left = left[self._connection.send(left) :]
        self._last = time.monotonic()

    def _send_soon(self, data: bytes) -> None:
        self._last = time.monotonic()
        data = self._rest + data
        try:
            # A socket with a timeout is non-blocking underneath; its own send() would wait.
            sent = os.write(self._connection.fileno(), data)
        except BlockingIOError:
            sent = 0
        self._rest = data[sent:]


class Handler(StreamRequestHandler):
    """One connection: requests in order, one answer each."""

    disable_nagle_algorithm = True  # else every answer on a kept connection waits 40 ms for a delayed ACK
    server: Server

    def handle(self) -> None:
        """Serve the connection until it ends; a client that leaves, in any phase, is no error."""
        try:
            while self._serve_one():
                pass
        except _GONE:
            pass
        finally:
            self.server.mark(self.connection, None)

    def _serve_one(self) -> bool:
        """Answer one request; return whether another may follow."""
        config = self.server.app.config
        self.server.mark(self.connection, "idle")
        if self.server.stopping.is_set():
            return False
        self.connection.settimeout(config.keepalive_timeout)
        first = self._first_line()
        if not first:
            return False
        self.server.mark(self.connection, "busy")
        try:
            head = self._read_head(first)
            self.connection.settimeout(config.client_body_timeout)
            body = self._read_body(head, config.max_request_bytes)
        except ApiError as error:
            self._refuse(error)
            return False
        except (TimeoutError, socket.timeout):
            self._refuse(ApiError("the request did not arrive in time", status=408))
            return False
        self.connection.settimeout(config.client_write_timeout)
        line = ClientLine(self.connection, is_chunked=not head.is_http_1_0)
        response = self.server.app.handle(Request.from_target(head.method, head.target, head.headers, body, line))
        is_last = self.server.stopping.is_set() or not head.keeps_alive
        return self._send(response, head, line, is_last) and not is_last

    # --- reading ---------------------------------------------------------------------------------------------

    def _first_line(self) -> bytes:
        """Wait for a request; empty lines before it are skipped, as RFC 9112 advises."""
        for _ in range(4):
            line = self.rfile.readline(MAX_LINE + 2)
            if line != b"\r\n":
                return line
        return b""

    def _read_head(self, first: bytes) -> Head:
        if len(first) > MAX_LINE:
            raise ApiError(f"the request line exceeds {MAX_LINE} bytes", status=414)
        lines, size = [first], len(first)
        while True:
            line = self.rfile.readline(MAX_HEAD + 2)
            size += len(line)
            if size > MAX_HEAD or len(lines) > MAX_FIELDS + 1:
                raise ApiError(f"the head exceeds {MAX_HEAD} bytes or {MAX_FIELDS} fields", status=431)
            if line == b"\r\n":
                return parse_head(lines)
            if not line:
                raise InvalidRequest("the head is not complete")
            lines.append(line)

    def _read_body(self, head: Head, limit: int) -> bytes:
        length = content_length(head.headers)
        expectation = head.headers.get("expect", "").lower()
        if expectation not in ("", "100-continue"):
            raise ApiError(f"expect: {expectation} cannot be met", status=417)
        if length is not None and length > limit:
            raise RequestTooLarge(f"the body of {length} bytes exceeds the {limit} of MAX_REQUEST_BYTES")
        if expectation and not head.is_http_1_0:
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = self._read_exactly(length) if length is not None else self._read_chunks(limit)
        return decoded(body, head.headers.get("content-encoding", ""), limit)

    def _read_chunks(self, limit: int) -> bytes:
        body = bytearray()
        while True:
            size = chunk_size(self.rfile.readline(MAX_CHUNK_LINE))
            if not size:
                break
            if len(body) + size > limit:
                raise RequestTooLarge(f"the body exceeds the {limit} of MAX_REQUEST_BYTES")
            body += self._read_exactly(size)
            if self._read_exactly(2) != b"\r\n":
                raise InvalidRequest("chunked body: a chunk does not end where it says")
        for _ in range(MAX_FIELDS):  # trailers are not used
            line = self.rfile.readline(MAX_LINE)
            if line == b"\r\n":
                return bytes(body)
            if not line.endswith(b"\r\n"):
                break
        raise InvalidRequest("chunked body: the end is missing")

    def _read_exactly(self, size: int) -> bytes:
        data = self.rfile.read(size)
        if len(data) < size:
            raise InvalidRequest(f"the body ended after {len(data)} of {size} bytes")
        return data

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
        headers.update({"date": formatdate(usegmt=True), "content-length": str(len(body))})
        start = encode_head(response.status, headers)
        line.write_head(start if head.method == "HEAD" else start + body)
        return True

    def _send_stream(self, status: int, headers: Dict[str, str], body: Stream, line: ClientLine) -> bool:
        """Write each part as it comes; the head goes with the first one."""
        try:
            for part in body:
                if not part:
                    continue
                if line.has_head:
                    line.write(line.chunk(part))
                else:
                    line.write_head(line.head(status, headers) + line.chunk(part))
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
        self.rfile.close()
        self.connection.close()

    def _refuse(self, error: ApiError) -> None:
        """Answer what is no clean request, and end the connection: what follows may be the rest of a body.

        The client may still be sending. Closing at once would reset the connection and lose the answer on its way.
        """
        request_id = new_id("req_")
        response = Response.json(error.to_dict(request_id), error.status, {"request-id": request_id, **error.headers})
        head = Head("", "", False, {})
        self._send(response, head, ClientLine(self.connection, is_chunked=True), is_last=True)
        self.connection.settimeout(LINGER)
        deadline = time.monotonic() + LINGER
        with suppress(OSError):  # the client left, or says nothing more
            self.connection.shutdown(socket.SHUT_WR)
            while time.monotonic() < deadline and self.connection.recv(65536):
                pass


def decoded(body: bytes, encoding: str, limit: int) -> bytes:
    """Return a request body without its content encoding.

    Raises:
        InvalidRequest: an unknown encoding, or data that is not in it.
        RequestTooLarge: more than ``limit`` bytes come out.
    """
    kind = encoding.strip().lower()
    if kind in ("", "identity"):
        return body
    if kind not in ("gzip", "x-gzip", "deflate"):
        details = {"error_code": "request_body_encoding_unsupported"}
        raise InvalidRequest(f"content-encoding: {kind} is not understood, only gzip and deflate", details=details)
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)  # zlib and gzip headers are told apart
    try:
        data = inflater.decompress(body, limit + 1)
    except zlib.error:
        data = b""
    if len(data) > limit:
        raise RequestTooLarge(f"the decoded body exceeds the {limit} of MAX_REQUEST_BYTES")
    if not inflater.eof:
        details = {"error_code": "request_body_encoding_invalid"}
        raise InvalidRequest(f"content-encoding: the body is not {kind}", details=details)
    return data
