"""One connection's requests, read from its socket under deadlines: head, body, content encoding.

A timeout of the socket alone bounds the pause between two bytes, and nothing else: a client that sends one byte now
and then would keep its thread for ever. So a head has one deadline, and a body has to arrive at a least rate.
"""

from __future__ import annotations

import socket
import time
import zlib
from typing import Callable, List, Optional

from .config.schema import Config
from .errors import ApiError, InvalidRequest, RequestTooLarge
from .http1 import (
    MAX_CHUNK_LINE,
    MAX_FIELDS,
    MAX_HEAD,
    MAX_LINE,
    Head,
    chunk_size,
    content_length,
    parse_head,
    parse_lines,
)

MIN_RATE = 4000.0
"""Bytes per second that a client has to send or take, beyond the pause it is allowed."""
MAX_EMPTY_LINES = 4
_READ_SIZE = 65536
_LEAST_PIECE = 16384
"""Bytes of a body that are kept as a piece of it: each byte for itself would take thirty times as many."""
_NEAR = 0.02
"""A timeout that is off by this share is left as it is: setting one is a system call."""


class Incoming:
    """Reads what a client sends. Every read may raise ``socket.timeout``, or ``OSError`` when the client left."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = bytearray()
        self._accepted = time.monotonic()
        self._is_first = True
        self._pause = self._deadline = self._per_byte = 0.0

    def wait(self, config: Config, at_most: float) -> bool:
        """Wait for a request's first byte, and skip the empty lines before it; return whether it came.

        A new connection has to send its first head within CLIENT_HEADER_TIMEOUT, a kept one may be idle longer.
        """
        idle = min(at_most, config.client_header_timeout if self._is_first else config.keepalive_timeout)
        self._allow(idle, (self._accepted if self._is_first else time.monotonic()) + idle)
        for _ in range(MAX_EMPTY_LINES):
            while bytes(self._buffer[:2]) in (b"", b"\r") and self._fill():
                pass
            if not self._buffer.startswith(b"\r\n"):
                break
            del self._buffer[:2]
        begun = self._accepted if self._is_first else time.monotonic()
        self._is_first = False
        self._allow(config.client_header_timeout, begun + config.client_header_timeout)
        return bool(self._buffer)

    def head(self) -> Head:
        """Read a request's head.

        Raises:
            ApiError: it is none, or too large.
        """
        whole = self._whole_head()
        if whole is not None:
            return parse_lines(whole)
        first = self._line(MAX_LINE)
        if len(first) > MAX_LINE:
            raise ApiError(f"the request line exceeds {MAX_LINE} bytes", status=414)
        lines, size = [first], len(first)
        while lines[-1].endswith(b"\r\n"):
            line = self._line(MAX_HEAD)
            size += len(line)
            if size > MAX_HEAD or len(lines) > MAX_FIELDS + 1:
                raise ApiError(f"the head exceeds {MAX_HEAD} bytes or {MAX_FIELDS} fields", status=431)
            if line == b"\r\n":
                return parse_head(lines)
            if not line:
                raise InvalidRequest("the head is not complete")
            lines.append(line)
        return parse_head(lines)  # which refuses that line

    def _whole_head(self) -> Optional[List[str]]:
        """Take a head that is here from its first byte to its last and within all bounds: its lines without CRLF.

        Nearly all are; to take line by line costs three times as much.
        """
        end = self._buffer.find(b"\r\n\r\n", 0, MAX_HEAD)
        if end < 0:
            return None
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        is_clean = self._buffer.count(b"\n", 0, end) == len(lines) - 1
        if not is_clean or len(lines[0]) + 2 > MAX_LINE or len(lines) > MAX_FIELDS + 1:
            return None
        del self._buffer[: end + 4]
        return lines

    def body(self, head: Head, config: Config, send: Callable[[bytes], object]) -> bytes:
        """Read and decode a request's body.

        Args:
            send: takes the leave to send the body, for a client that waits for it.

        Raises:
            ApiError: it cannot be read as its head says, or is too large.
        """
        limit, length = config.max_request_bytes, content_length(head.headers)
        expectation = head.headers.get("expect", "").lower()
        if expectation not in ("", "100-continue"):
            raise ApiError(f"expect: {expectation} cannot be met", status=417)
        if length is not None and length > limit:
            raise RequestTooLarge(f"the body of {length} bytes exceeds the {limit} of MAX_REQUEST_BYTES")
        if expectation and not head.is_http_1_0:
            send(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._allow(config.client_body_timeout, time.monotonic() + config.client_body_timeout, 1 / MIN_RATE)
        body = self._exactly(length) if length is not None else self._chunks(limit)
        return decoded(body, head.headers.get("content-encoding", ""), limit)

    # --- bytes -----------------------------------------------------------------------------------------------

    def _allow(self, pause: float, deadline: float, per_byte: float = 0.0) -> None:
        """From now on, wait ``pause`` seconds for a read, and until ``deadline`` for all of them, with a bit more time
        for each byte that came."""
        self._pause, self._deadline, self._per_byte = pause, deadline, per_byte

    def _fill(self) -> int:
        """Read what is there; return how much, 0 at the end."""
        data = self._receive(_READ_SIZE)
        self._buffer += data
        return len(data)

    def _receive(self, most: int) -> bytes:
        """Return what is there, at most so many bytes; nothing at the end."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise socket.timeout("timed out")
        timeout, before = min(self._pause, left), self._connection.gettimeout()
        if before is None or abs(before - timeout) > timeout * _NEAR:
            self._connection.settimeout(timeout)
        data = self._connection.recv(most)
        self._deadline += len(data) * self._per_byte
        return data

    def _line(self, limit: int) -> bytes:
        """Return the next line, or its beginning when it is longer than ``limit``, or what is left at the end."""
        searched = 0
        while True:
            end = self._buffer.find(b"\n", searched)
            if end >= 0 or len(self._buffer) > limit:
                return self._take(end + 1 if 0 <= end <= limit else limit + 1)
            searched = len(self._buffer)
            if not self._fill():
                return self._take(len(self._buffer))

    def _take(self, size: int) -> bytes:
        taken = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        return taken

    def _exactly(self, size: int) -> bytes:
        if len(self._buffer) >= size:
            return self._take(size)
        pieces = [self._take(len(self._buffer))]
        left = size - len(pieces[0])
        while left:  # past the buffer, which would grow with it and be copied: 0.1 ms less for 800 KB
            data = self._receive(min(left, _READ_SIZE))
            if not data:
                raise InvalidRequest(f"the body ended after {size - left} of {size} bytes")
            left -= len(data)
            if len(pieces[-1]) < _LEAST_PIECE:
                pieces[-1] += data
            else:
                pieces.append(data)
        return b"".join(pieces)

    def _chunks(self, limit: int) -> bytes:
        body = bytearray()
        while True:
            size = chunk_size(self._line(MAX_CHUNK_LINE))
            if not size:
                break
            if len(body) + size > limit:
                raise RequestTooLarge(f"the body exceeds the {limit} of MAX_REQUEST_BYTES")
            body += self._exactly(size)
            if self._exactly(2) != b"\r\n":
                raise InvalidRequest("chunked body: a chunk does not end where it says")
        for _ in range(MAX_FIELDS):  # trailers are not used
            line = self._line(MAX_LINE)
            if line == b"\r\n":
                return bytes(body)
            if not line.endswith(b"\r\n"):
                break
        raise InvalidRequest("chunked body: the end is missing")


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
    if not inflater.eof or inflater.unused_data:
        details = {"error_code": "request_body_encoding_invalid"}
        raise InvalidRequest(f"content-encoding: the body is not {kind}", details=details)
    return data
