"""A client that sends HTTP byte by byte as told, and reads the answers of one connection strictly."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional
from urllib.parse import urlsplit

PATIENCE = 20.0
"""Seconds after which a test that waits has failed."""


@dataclass
class RawAnswer:
    """One answer. ``is_complete`` is False when the body broke off before its framing said so."""

    status: int
    version: str
    headers: Dict[str, str]
    body: bytes = field(default=b"", repr=False)
    is_complete: bool = True

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class RawConnection:
    """One connection to a proxy; a context manager."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self.socket = socket.create_connection((address.hostname, address.port), timeout=PATIENCE)
        self._reader = self.socket.makefile("rb")

    def __enter__(self) -> RawConnection:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._reader.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def line(self) -> bytes:
        """The next line of the answer, without its end; empty at the end of the connection."""
        return self._reader.readline().rstrip(b"\r\n")

    def head(self) -> RawAnswer:
        """Read status line and headers; a header that comes twice fails."""
        version, status, _ = (self.line().decode() + "  ").split(" ", 2)
        headers: Dict[str, str] = {}
        for raw in iter(self.line, b""):
            name, _, value = raw.decode("latin-1").partition(":")
            assert name.lower() not in headers, f"{name} comes twice"
            headers[name.lower()] = value.strip()
        return RawAnswer(int(status or 0), version, headers)

    def answer(self, method: str = "GET") -> RawAnswer:
        """Read one whole answer; `method` says whether it may have a body."""
        answer = self.head()
        if method == "HEAD":
            return answer
        if answer.headers.get("transfer-encoding") == "chunked":
            pieces = list(iter(self.chunk, b""))
            answer.is_complete = self._ended_well
            answer.body = b"".join(pieces)
        elif "content-length" in answer.headers:
            size = int(answer.headers["content-length"])
            answer.body = self._read(size)
            answer.is_complete = len(answer.body) == size
        else:
            answer.body = self._read(-1)
        return answer

    _ended_well = False

    def chunk(self) -> bytes:
        """The next chunk of a chunked body; empty at its end, however it ended."""
        try:
            size = int(self._reader.readline() or b"-1", 16)
        except OSError:
            size = -1
        if size < 0:
            return b""
        data = self._read(size + 2)
        self._ended_well = size == 0 and data == b"\r\n"
        return data[:-2]

    def _read(self, size: int) -> bytes:
        try:
            return self._reader.read(size) or b""
        except OSError:
            return b""

    def is_closed(self) -> bool:
        """Wait for the other side to say something more; True when that is the end."""
        try:
            return self._reader.read(1) == b""
        except socket.timeout:
            return False
        except OSError:
            return True


def request(
    method: str, path: str, body: Any = None, headers: Optional[Mapping[str, str]] = None, version: str = "1.1"
) -> bytes:
    """Return the bytes of a well-formed request; ``body`` is bytes or a JSON value."""
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    lines: List[str] = [f"{method} {path} HTTP/{version}", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body is not None:
        lines.append(f"Content-Length: {len(data)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + data


def chunked(data: bytes, size: int) -> bytes:
    """Return a body in chunks of ``size`` bytes, with its end."""
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def is_refused(url: str) -> bool:
    """Whether nobody listens there any more."""
    try:
        RawConnection(url).__exit__()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass
    return False
