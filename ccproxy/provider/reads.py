"""``Reads``: the pieces of a body as they arrive; a door that waits for many bodies in one thread can have them wait
no more."""

from __future__ import annotations

import http.client
import ssl
from contextlib import suppress
from typing import Iterator, Optional, Union

from .answer import Answer
from .connections import PromptResponse
from .plain_body import PLAIN_ENCODINGS, PlainBody

READ_SIZE = 65536
# gzip makes up to a thousand bytes of one, and a read unpacks all it got.
PACKED_READ_SIZE = 4096
_SHORTEST = 0.001
"""A timeout of 0 would be none."""


class Reads:
    """One body's reads; what the names of ``web.Source`` mean is said there."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._response: Union[PromptResponse, PlainBody, None] = None
        self.ahead = b""
        """The piece that was looked at; it may be taken away."""
        self._fault: Optional[Exception] = None
        self._waits = True
        self.patience = 0.0
        self.is_dry = False

    def pieces(self) -> Iterator[bytes]:
        """Yield what is there, at least a byte; an empty piece before each read that is not to wait.

        Raises:
            ProviderError: the body is in an unknown encoding.
        """
        read1 = self._answer.reader()
        owner = getattr(read1, "__self__", None)
        self._response = owner if isinstance(owner, (PlainBody, PromptResponse)) else None
        is_plain = self._answer.headers.get("content-encoding", "").lower() in PLAIN_ENCODINGS
        size = READ_SIZE if is_plain else PACKED_READ_SIZE
        while True:
            if not self._waits and self._response is not None and self._response.is_dry():
                self.is_dry = True
                yield b""
                self.is_dry = False
            if self._fault is not None:
                try:
                    raise self._fault
                finally:
                    self._fault = None  # its traceback leads here
            try:
                data = self.ahead or read1(size)
                self.ahead = b""
            except (BlockingIOError, ssl.SSLWantReadError):
                continue  # half a TLS record, perhaps
            if not data:
                return
            yield data

    def look(self) -> bytes:
        """Read the next piece now, while ``is_dry``; nothing, where that is for ``pieces`` alone to tell.

        What is in ``ahead`` then is the next one of ``pieces`` all the same.
        """
        response = self._response
        if response is None:
            return b""
        try:
            data = self.ahead = response.read_chunks(READ_SIZE)
        except (BlockingIOError, ssl.SSLWantReadError):
            return b""
        except (OSError, ValueError, http.client.HTTPException) as fault:
            self._fault = fault
            return b""
        return data if response.is_dry() else b""

    def stop_waiting(self) -> int:
        """Wait no more, where the body comes in chunks, neither compressed nor through layers of TLS."""
        sock = self._response.open_socket if self._response is not None else None
        if sock is None:
            return -1
        self._waits = False
        self.patience = self.patience or sock.gettimeout() or 0.0
        sock.settimeout(0)
        return sock.fileno()

    def wait_again(self, silence: float) -> None:
        """Wait again; the next read not as long as others, when the provider is silent already."""
        self._waits = True
        sock = self._response.open_socket if self._response is not None else None
        if sock is not None:
            with suppress(OSError):  # closed with the body
                sock.settimeout(max(self.patience - silence, _SHORTEST))
