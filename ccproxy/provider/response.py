"""``ProviderResponse``: a provider's answer with status 200, in the pieces in which it arrives, or read into chunks."""

from __future__ import annotations

import http.client
import itertools
import json
import ssl
import time
from contextlib import suppress
from typing import Any, Callable, Iterable, Iterator, List, Optional, Tuple, Union

import urllib3
from urllib3.util.wait import wait_for_read

from ..chunk_reader import ChunkReader
from ..errors import ProviderError, status_of
from ..masking import mask
from ..openai import Chunk, Piece
from ..passage import Passage
from ..responses import ResponsesReader
from ..sse import DeltaFrames, Frame, Reader
from ..translate.failure import Target, translate_failure, unreadable
from .answer import Answer
from .faults import Faults
from .quoted import Quoted
from .reads import READ_SIZE, Reads

MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_ERROR_BYTES = 256 * 1024
MAX_BAD_LINES = 3
_FIRST, _MANY = 3, 6
"""Events that tell how most of a stream look, and so many in one read that it pays to know."""
_END_WAIT = 0.25


class ProviderResponse:
    """An answer with status 200, read as it arrives. ``close`` it, whatever happened."""

    def __init__(
        self,
        answer: Answer,
        target: Target,
        reader: Union[ChunkReader, ResponsesReader],
        secrets: Tuple[str, ...],
    ) -> None:
        """``secrets`` are the keys that it was asked with."""
        self._answer = answer
        self._reader = reader
        self._target = target
        self._quoted = Quoted(secrets)
        self.secrets = secrets
        self.headers = answer.headers
        self.source = Reads(answer)
        self._lines, self._bad_lines = Reader(), 0
        self.is_done = False
        """Whether the provider said that the answer is complete."""

    def reads(self) -> Iterator[bytes]:
        """Yield the body in the pieces in which it arrives, without the keys that it was asked with.

        ``read1`` returns what is there, also for a body without chunks, where ``iter_content`` and ``stream`` would
        wait for a full buffer. Where ``source`` does not wait, an empty piece comes before each read.
        """
        with Faults(self._target):
            for data in self.source.pieces():
                told = self._quoted.feed(data) if data else data
                if told or not data:
                    yield told
        held = self._quoted.finish()
        if held:
            yield held

    def passage(self, kind: str, passes: Callable[[str], bool], frames: DeltaFrames) -> Optional[Passage]:
        """Return the short way for text of a kind, if there is one now."""
        frame = self._reader.frame(kind)
        if frame is None or self._quoted.held or self._lines.pending_bytes > READ_SIZE:
            return None
        return Passage(self.source, self._lines.take_begun(), frame, passes, frames)

    def end(self, passage: Passage) -> None:
        """Go on with what it left."""
        passage.leave()
        if passage.count:
            self._bad_lines = 0

    def chunks(self) -> Iterator[List[Chunk]]:
        """Yield the chunks of an answer, those of one read together; a whole answer comes as one read."""
        reads = self.reads()
        first = next(reads, b"")
        if self._is_event_stream(first):
            yield from self._events(first, reads)
        else:
            yield self._whole(first, reads)

    def _is_event_stream(self, first: bytes) -> bool:
        """Whether the body is server-sent events, which begin neither as JSON nor as a page, whatever their type."""
        kind = self.headers.get("content-type", "")
        return "json" not in kind and first.lstrip()[:1] not in (b"{", b"[", b"<")

    def _events(self, first: bytes, reads: Iterator[bytes]) -> Iterator[List[Chunk]]:
        for data in itertools.chain((first,), reads, (None,)):
            if data == b"":
                yield []
                continue
            chunks: List[Chunk] = []
            for event in self._lines.finish() if data is None else self._cut(data):
                if isinstance(event, Chunk):
                    chunks.append(event)
                    self._bad_lines = 0
                    continue
                if event.data.strip() == "[DONE]":
                    self.is_done = True
                    break
                if event.event == "error":
                    chunks.append(Chunk(error=_told(event.data)))
                    continue
                try:
                    chunks += self._reader.parse(event.data)
                    self._bad_lines = 0
                except (ValueError, RecursionError):
                    self._bad_lines += 1
                if self._bad_lines > MAX_BAD_LINES:
                    yield chunks
                    raise ProviderError("the provider's stream is not JSON")
            self.is_done = self.is_done or self._reader.is_done
            yield chunks
            if self.is_done:
                return

    def _cut(self, data: bytes) -> Iterator[Union[Frame, Chunk]]:
        """Yield the events that a read completes; of many, those of text alone together, as one chunk that is read.

        The first ones have to be read before the others are looked at: they tell how those look.
        """
        if data.count(b"\n\n") < _MANY:
            yield from self._lines.feed(data)
            return
        data = self._lines.take_begun() + data
        for _ in range(_FIRST if self._reader.is_learning else 0):
            end = data.find(b"\n\n") + 2
            yield from self._lines.feed(data[:end])
            data = data[end:]
        texts, data = self._reader.run(data)
        if texts:
            yield Chunk(True, tuple([Piece("text", text) for text in texts]))
        if data:
            yield from self._lines.feed(data)

    def _whole(self, first: bytes, reads: Iterator[bytes]) -> List[Chunk]:
        body = whole(itertools.chain((first,), reads))
        try:
            value = json.loads(body.decode("utf-8-sig", "replace"))
        except (ValueError, RecursionError):
            raise unreadable(bytes(body[:MAX_ERROR_BYTES]), self._target) from None
        chunks = self._reader.whole(value)
        if value and not any(chunk.has_choice or chunk.error is not None for chunk in chunks):
            raise unreadable(bytes(body[:MAX_ERROR_BYTES]), self._target)
        self.is_done = True
        return chunks

    def refuse_page(self) -> None:
        """Raise the ``ProviderError`` that an HTML page is, a gateway's perhaps, and close it."""
        if "html" in self.headers.get("content-type", ""):
            try:
                raise unreadable(bytes(whole(self.reads())[:MAX_ERROR_BYTES]), self._target)
            finally:
                self.close()

    def failure(self, told: bytes, verbatim: Optional[bytes] = None) -> ProviderError:
        """Return the failure that an Anthropic-format answer with status 200 is; the client is given its own words.

        Args:
            told: the error in Anthropic's shape, and ``verbatim`` what the client is given in its place.
        """
        value = _told(told.decode("utf-8", "replace"))
        status = status_of(value.get("type")) if isinstance(value, dict) else 500
        error = translate_failure(status, {}, told, self._target)
        error.headers["content-type"] = "application/json"
        text = (verbatim or told).decode("utf-8", "surrogateescape")
        error.verbatim = mask(text, self._target.secrets).encode("utf-8", "surrogateescape")
        return error

    def close(self) -> None:
        """Give the connection back when the answer was read to its end, close it otherwise."""
        if self.is_done and self._at_end():
            self._answer.release()
        else:
            self._answer.close()

    def _at_end(self) -> bool:
        """Whether nothing but the end of the body follows ``[DONE]``; waits no longer than the last packet takes."""
        sock = self._answer.open_socket()
        if sock is None:
            return True
        deadline = time.monotonic() + _END_WAIT
        try:
            timeout = sock.gettimeout()
            if self.source.stop_waiting() < 0:
                sock.settimeout(_END_WAIT)
            try:
                while True:
                    with suppress(BlockingIOError, ssl.SSLWantReadError):
                        return not self._answer.reader()(READ_SIZE)
                    if not wait_for_read(sock, max(0.0, deadline - time.monotonic())):
                        return False
            finally:
                sock.settimeout(timeout)
        except (OSError, ValueError, http.client.HTTPException, urllib3.exceptions.HTTPError):
            return False


def _told(data: str) -> Any:
    """Return what an event called error says: its error, or all of it."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return data
    return (value.get("error") if isinstance(value, dict) else None) or value or data


def whole(reads: Iterable[bytes]) -> bytearray:
    """Return the pieces of a body as one.

    Raises:
        ProviderError: they exceed ``MAX_BODY_BYTES``.
    """
    body = bytearray()
    for data in reads:
        body += data
        if len(body) > MAX_BODY_BYTES:
            body.clear()  # the error's traceback keeps this frame
            raise ProviderError(f"the provider's answer exceeds {MAX_BODY_BYTES} bytes")
    return body
