"""A provider's answer once its head is here: one that urllib3 reads, and one plain enough to be read as it is."""

from __future__ import annotations

import socket
from functools import partial
from typing import Any, Callable, Dict, Optional, Protocol, Union

import urllib3

from ..errors import ProviderError, forget_calls
from .connections import PromptResponse
from .plain_body import PLAIN_ENCODINGS, PlainBody


class Answer(Protocol):
    """Status, headers (names in lower case), and the body as it comes. ``release`` or ``close`` it, once or twice."""

    status: int
    headers: Dict[str, str]

    def reader(self) -> Callable[[int], bytes]:
        """Return what reads what is there, at least a byte and at most so many; nothing at the end.

        Raises:
            ProviderError: in an encoding that nobody here knows.
        """

    def start(self, size: int) -> bytes:
        """Return the body, or the first so many bytes of it."""

    def open_socket(self) -> Optional[socket.socket]:
        """Return the socket that more of the body may come from; None when it was read to its end."""

    def release(self) -> None:
        """Give the connection back: the body was read to its end."""

    def close(self) -> None:
        """End the connection."""


class LibraryAnswer:
    """An answer that urllib3 reads, in any framing and encoding."""

    def __init__(self, response: Any) -> None:
        """Take a ``urllib3.HTTPResponse``."""
        self._raw = response
        self.status: int = response.status
        self.headers = {name.lower(): value for name, value in response.headers.items()}

    def reader(self) -> Callable[[int], bytes]:
        """Return a reader; see ``Answer``."""
        raw, encoding = self._raw, self.headers.get("content-encoding", "").lower()
        if encoding not in (*PLAIN_ENCODINGS, *raw.CONTENT_DECODERS):
            raise ProviderError(f"the provider's answer is in an unknown content-encoding: {encoding}")
        has_read1 = hasattr(raw, "read1")  # from urllib3 2.1 on
        is_prompt = isinstance(raw._fp, PromptResponse) and raw._fp.chunked
        if encoding in PLAIN_ENCODINGS and (is_prompt or not has_read1):
            return raw._fp.read1  # type: ignore[no-any-return]  # urllib3 would take 10 us around each read
        if has_read1:
            return partial(raw.read1, decode_content=True)
        pieces = raw.stream(decode_content=True)
        return lambda size: next(pieces, b"")

    def start(self, size: int) -> bytes:
        """Return the body as far as it comes; what it is is in its status."""
        try:
            return self._raw.read(size, decode_content=True) or b""
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            forget_calls(error)
            return b""

    def open_socket(self) -> Optional[socket.socket]:
        """Return the socket of the connection, or, where that ends with the body, that of the reader."""
        response = self._raw._fp
        if isinstance(response, PromptResponse) and response.isclosed():
            return None
        sock: Optional[socket.socket] = getattr(self._raw._connection, "sock", None)
        if sock is None:
            reader = getattr(response, "fp", None)
            sock = getattr(getattr(reader, "raw", reader), "_sock", None)
        return sock

    def release(self) -> None:
        """Give the connection back to the pool."""
        self._raw.release_conn()

    def close(self) -> None:
        """Close the connection; the pool opens it again when it needs one."""
        self._raw.close()
        self._raw.release_conn()


class KeptAnswer:
    """A plain answer on a connection that was kept: no layer is around it."""

    def __init__(self, pool: Any, connection: Any, response: Union[PromptResponse, PlainBody]) -> None:
        self._pool, self._connection, self._response = pool, connection, response
        self.status = 200
        self.headers = response.fields

    def reader(self) -> Callable[[int], bytes]:
        """Return a reader; see ``Answer``."""
        return self._response.read1

    def start(self, size: int) -> bytes:
        """Return the first bytes of the body."""
        return self._response.read1(size)

    def open_socket(self) -> Optional[socket.socket]:
        """Return the socket, unless the body was read to its end."""
        return None if self._response.isclosed() else self._connection.sock

    def release(self) -> None:
        """Give the connection back to the pool."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool._put_conn(connection)

    def close(self) -> None:
        """Close the connection; the pool opens it again when it needs one."""
        if self._connection is not None:
            self._connection.close()
        self._response.close()
        self.release()
