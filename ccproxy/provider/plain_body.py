"""The plain head that nearly all answers have, and the body behind it read from its socket with nothing between."""

from __future__ import annotations

import http.client
import os
import re
import socket
from typing import Dict, List, NamedTuple, Optional, Tuple

from ..http1 import Unchunker, joined

# 200, no field in doubt, one framing. http.client reads the others.
_HEAD = re.compile(rb"HTTP/1\.1 200 ([\x20-\x7e]*)\r\n((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e]*\r\n)*)\r\n")
_FIELD = re.compile(r"([^:]+):[ \t]*(.*)\r\n")
PLAIN_ENCODINGS = ("", "identity")
_MOST_FIELDS = 99  # from 100 on http.client refuses
_READ_SIZE = 65536


class PlainHead(NamedTuple):
    """What a plain head says."""

    size: int
    """Its bytes."""
    reason: str
    fields: List[Tuple[str, str]]
    headers: Dict[str, str]
    """The same by their names in lower case."""
    length: Optional[int]
    """That of the body; None where it comes in chunks."""


def plain_head(data: bytes) -> Optional[PlainHead]:
    """Return the head that ``data`` begins with, if it is there whole and plain."""
    match = _HEAD.match(data)
    if match is None:
        return None
    fields = _FIELD.findall(match[2].decode("ascii"))
    headers = joined(fields)
    length, coding = headers.get("content-length", ""), headers.get("transfer-encoding", "").lower()
    is_chunked = coding == "chunked"
    is_framed = not length if is_chunked else not coding and re.fullmatch("[0-9]{1,18}", length)
    stays_open = headers.get("connection", "").lower() in ("", "keep-alive")
    if not is_framed or not stays_open or len(fields) > _MOST_FIELDS:
        return None
    reason = match[1].decode("ascii").strip()
    return PlainHead(match.end(), reason, fields, headers, None if is_chunked else int(length))


class PlainBody:
    """A body whose head was plain; what the names mean is said at ``PromptResponse``.

    That is http.client's, with a reader and its buffer, headers in two forms and a file around the socket: 40 us of
    each request.
    """

    def __init__(self, sock: socket.socket, head: PlainHead, begun: bytes) -> None:
        """``begun`` is what came of the body together with its head."""
        self._sock, self._begun = sock, begun
        self._unchunker = Unchunker() if head.length is None else None
        self._left = head.length or 0
        self.fields = head.headers

    @classmethod
    def of(cls, sock: socket.socket) -> Optional[PlainBody]:
        """Wait for an answer; return its body if head and encoding are plain. If not, nothing was read.

        Raises:
            OSError: the connection failed, or nothing came in time.
        """
        data = sock.recv(_READ_SIZE, socket.MSG_PEEK)
        head = plain_head(data)
        if head is None or head.headers.get("content-encoding", "").lower() not in PLAIN_ENCODINGS:
            return None
        # What is there already: recv() would ask poll() first, one more system call.
        end = len(data) if head.length is None else min(len(data), head.size + head.length)
        return cls(sock, head, os.read(sock.fileno(), end)[head.size :])

    def read1(self, n: int) -> bytes:
        """Return what is there, at least a byte; nothing at the end."""
        if self._unchunker is not None:
            return self.read_chunks(n)
        if not self._left:
            return b""
        data, self._begun = self._begun, b""
        data = data or self._sock.recv(min(n, self._left))
        if not data:
            raise http.client.IncompleteRead(b"", self._left)
        self._left -= len(data)
        return data

    def read_chunks(self, n: int) -> bytes:
        """Return what is there of a body in chunks; see ``read1``."""
        body, unchunker = b"", self._unchunker
        while unchunker is not None and not (body or unchunker.is_done):
            data, self._begun = self._begun, b""
            data = data or self._sock.recv(n)
            if not data:
                raise http.client.IncompleteRead(b"")
            body = unchunker.feed(data)
        return body

    @property
    def open_socket(self) -> Optional[socket.socket]:
        """The socket, where chunks of the body are still to come from it."""
        return None if self._unchunker is None or self._begun or self._unchunker.is_done else self._sock

    def is_dry(self) -> bool:
        """Return whether the socket will tell when the next ``read1`` has bytes."""
        return not self._begun and not self.isclosed()

    def isclosed(self) -> bool:
        """Return whether the body was read to its end."""
        return self._unchunker.is_done if self._unchunker is not None else not self._left

    def close(self) -> None:
        """Nothing but the socket is open, which is the connection's."""
