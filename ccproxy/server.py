"""The built-in front door: a ``ThreadingHTTPServer`` that reads requests, writes responses and drains on stop."""

from __future__ import annotations

import logging
import re
import socket
import struct
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Dict, Optional, Set

from .app import App, new_id
from .errors import ApiError, InvalidRequest, RequestTooLarge, StreamCut
from .web import Request, Response, Stream

log = logging.getLogger(__name__)

MAX_CHUNK_LINE = 256
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
        self.is_stopping = False
        super().__init__((host, port), Handler)

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
        self.is_stopping = True
        self.shutdown()
        self.server_close()
        with self._connections_changed:
            for connection in list(self._idle):
                _shut(connection)
            deadline = time.monotonic() + timeout
            while self._busy and time.monotonic() < deadline:
                self._connections_changed.wait(deadline - time.monotonic())
            left = list(self._busy)
            for connection in left:
                _shut(connection)
        return not left

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a fault of the connection's thread; a client that left is no news."""
        log.exception("connection from %s failed", client_address)


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):  # gone already
        connection.shutdown(socket.SHUT_RDWR)


class Handler(BaseHTTPRequestHandler):
    """One connection: requests in order, one answer each."""

    protocol_version = "HTTP/1.1"
    server_version = "ccproxy"
    sys_version = ""
    disable_nagle_algorithm = True  # else every answer on a kept connection waits 40 ms for a delayed ACK
    server: Server

    def handle(self) -> None:
        """Serve the connection until it ends; a client that leaves, in any phase, is no error."""
        try:
            super().handle()
        except _GONE:
            pass
        finally:
            self.server.mark(self.connection, None)

    def handle_one_request(self) -> None:
        """Wait for one request and answer it."""
        self.connection.settimeout(self.server.app.config.keepalive_timeout)
        self.server.mark(self.connection, "idle")
        if self.server.is_stopping:
            self.close_connection = True
            return
        super().handle_one_request()

    def _answer(self) -> None:
        self.server.mark(self.connection, "busy")
        config = self.server.app.config
        self.connection.settimeout(config.client_body_timeout)
        try:
            body = self._read_body(config.max_request_bytes)
        except ApiError as error:
            self.close_connection = True  # what follows on the connection may be the rest of the body
            self._send(_error_response(error))
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        response = self.server.app.handle(Request.from_target(self.command, self.path, headers, body))
        self.connection.settimeout(config.client_write_timeout)
        if self.server.is_stopping:
            self.close_connection = True
        self._send(response)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _answer

    # --- reading ---------------------------------------------------------------------------------------------

    def _read_body(self, limit: int) -> bytes:
        length, encoding = self.headers.get("content-length"), self.headers.get("transfer-encoding")
        if encoding is not None:
            if encoding.strip().lower() != "chunked" or length is not None:
                raise InvalidRequest("transfer-encoding: only chunked is understood, and without content-length")
            return self._read_chunks(limit)
        if length is None:
            return b""
        if not re.fullmatch(r"[0-9]{1,18}", length):
            raise InvalidRequest("content-length: not a number")
        if int(length) > limit:
            raise RequestTooLarge(f"the body of {length} bytes exceeds the {limit} of MAX_REQUEST_BYTES")
        return self._read_exactly(int(length))

    def _read_chunks(self, limit: int) -> bytes:
        body = bytearray()
        while True:
            size = self._chunk_size()
            if not size:
                break
            if len(body) + size > limit:
                raise RequestTooLarge(f"the body exceeds the {limit} of MAX_REQUEST_BYTES")
            body += self._read_exactly(size)
            if self._read_exactly(2) != b"\r\n":
                raise InvalidRequest("chunked body: a chunk does not end where it says")
        while self.rfile.readline(MAX_CHUNK_LINE) not in (b"\r\n", b"\n", b""):
            pass  # trailers are not used
        return bytes(body)

    def _chunk_size(self) -> int:
        match = re.fullmatch(rb"([0-9a-fA-F]{1,8})(;[^\r\n]*)?\r\n", self.rfile.readline(MAX_CHUNK_LINE))
        if match is None:
            raise InvalidRequest("chunked body: a chunk size cannot be read")
        return int(match[1], 16)

    def _read_exactly(self, size: int) -> bytes:
        try:
            data = self.rfile.read(size)
        except (TimeoutError, socket.timeout):
            raise ApiError("the body did not arrive in time", status=408) from None
        if len(data) < size:
            raise InvalidRequest(f"the body ended after {len(data)} of {size} bytes")
        return data

    # --- writing ---------------------------------------------------------------------------------------------

    def _send(self, response: Response) -> None:
        body = response.body
        if isinstance(body, Stream):
            try:
                self._send_stream(response, body)
            finally:
                body.close()
            return
        head = self._head(response, {"content-length": str(len(body))})
        self.wfile.write(head if self.command == "HEAD" else head + body)

    def _send_stream(self, response: Response, body: Stream) -> None:
        """Write each part as it comes; the head goes with the first one, the end of the body with none."""
        is_chunked = self.request_version != "HTTP/1.0"
        if not is_chunked:
            self.close_connection = True
        head = self._head(response, {"transfer-encoding": "chunked"} if is_chunked else {})
        try:
            for part in body:
                self.wfile.write(head + (b"%x\r\n%s\r\n" % (len(part), part) if is_chunked else part))
                head = b""
            self.wfile.write(head + (b"0\r\n\r\n" if is_chunked else b""))
        except StreamCut:
            self._reset()

    def _head(self, response: Response, framing: Dict[str, str]) -> bytes:
        lines = [f"HTTP/1.1 {response.status} {self.responses.get(response.status, ('Error',))[0]}"]
        headers = {**response.headers, **framing, "date": self.date_time_string()}
        if self.close_connection:
            headers["connection"] = "close"
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")

    def _reset(self) -> None:
        """End the connection so that no client takes the answer for complete: without a last chunk, by a reset."""
        self.close_connection = True
        with suppress(OSError):  # the client was faster
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()

    def send_error(self, code: int, message: Optional[str] = None, explain: Optional[str] = None) -> None:
        """Answer a request that http.server refuses, in Anthropic's shape."""
        self.close_connection = True
        self.command = getattr(self, "command", "") or ""
        self._send(_error_response(ApiError(message or self.responses.get(code, ("error",))[0], status=int(code))))

    def log_message(self, format: str, *args: Any) -> None:
        """http.server's own lines; ccproxy logs one per request itself."""
        log.debug(format, *args)


def _error_response(error: ApiError) -> Response:
    request_id = new_id("req_")
    return Response.json(error.to_dict(request_id), error.status, {"request-id": request_id, **error.headers})
