"""``Request`` and ``Response`` values: what both front doors carry in and out of the application."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Callable, Dict, Iterable, Iterator, Mapping, Optional, Protocol, Tuple
from urllib.parse import parse_qs, unquote, urlsplit

from .encoded import dump_ascii
from .errors import ApiError
from .frozen import frozen

# Answers are one client's business, and what they say they are: no cache keeps them, no browser guesses.
PRIVATE = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
EVENT_STREAM = {
    "content-type": "text/event-stream; charset=utf-8",
    **PRIVATE,
    "x-accel-buffering": "no",  # nginx would collect the events
}


@frozen
class Early:
    """What a client that waits is given before its answer: after so many seconds a head and first bytes, then a filler
    whenever nothing else was sent for a while."""

    after: float
    headers: Mapping[str, str]
    first: Callable[[], bytes]
    """Makes the first bytes; the tokens that they tell are not counted before."""
    filler: bytes
    every: float


class Line(Protocol):
    """A front door's way to the client, for what must happen while the handler waits for a provider."""

    def fileno(self) -> int:
        """Return the client's socket, or -1."""

    def is_gone(self) -> bool:
        """Whether the client left, where its socket does not tell."""

    def expect(self, early: Early) -> None:
        """Give the client early bytes when their time has come."""

    def begin(self) -> bool:
        """Take over: nothing early is sent from now on. Return whether it was already."""

    def tick(self, now: float) -> None:
        """Do what is due; must not block."""


@frozen
class Request:
    """One HTTP request, read whole. Header names are in lower case; ``path`` is decoded and has no query."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    line: Optional[Line] = None

    @classmethod
    def from_target(
        cls, method: str, target: str, headers: Mapping[str, str], body: bytes, line: Optional[Line] = None
    ) -> Request:
        """Build a request from an HTTP request target, in origin form or absolute form."""
        path, query = _place(target)
        return cls(method, path, query, headers, body, line)


@lru_cache(maxsize=64)
def _place(target: str) -> Tuple[str, Mapping[str, str]]:
    """Return path and query of a request target; most of them come again and again."""
    parts = urlsplit(target if not target.startswith("//") else "/" + target.lstrip("/"))
    query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    return unquote(parts.path) or "/", MappingProxyType(query)


class Source(Protocol):
    """Where a streamed body comes from, as a door sees it that waits for many in one thread."""

    @property
    def patience(self) -> float:
        """Seconds of silence that are too many."""

    @property
    def is_dry(self) -> bool:
        """Whether the next part takes what the socket does not have yet."""

    def stop_waiting(self) -> int:
        """Give an empty part before each read, being dry; return the socket to wait for, or -1: reads do wait."""

    def wait_again(self, silence: float) -> None:
        """Let reads wait again, after so many seconds of silence."""


class _Mark(bytes):
    """An empty part that is told apart from others."""


ASIDE = _Mark()
"""A part without bytes: what comes next may take its time, and is not for a thread that serves many streams."""
LAST = _Mark()
"""A part without bytes: the next one is the last, and the end of the body can go out in the same write."""


class Stream:
    """A streamed body: an iterator of bytes that the front door always closes, however the answer ended."""

    def __init__(
        self,
        parts: Iterator[bytes],
        on_close: Callable[[], None],
        source: Optional[Source] = None,
        plain: Callable[[], bytes] = bytes,
    ) -> None:
        self._parts = parts
        self.plain = plain
        """Makes the next part the short way while the source is dry; nothing, where ``next`` has to make it."""
        self._on_close: Optional[Callable[[], None]] = on_close
        self.source = source
        """Where it comes from, as long as one thread may make its parts together with those of others."""
        self.is_ending = False
        """Whether the next part, or the one just given, is the last."""

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> bytes:
        part = next(self._parts)
        if part is ASIDE:
            self.source = None
        elif part is LAST:
            self.is_ending = True
        return part

    def close(self) -> None:
        """Release the provider and write down how the request ended; once."""
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()


@dataclass
class Response:
    """One HTTP response. ``body`` is whole bytes (sent with a content-length) or a ``Stream``."""

    status: int
    headers: Dict[str, str]
    body: Any = b""

    @classmethod
    def json(cls, value: Any, status: int = 200, headers: Optional[Mapping[str, str]] = None) -> Response:
        """Answer with a JSON document."""
        body = dump_ascii(value).encode()
        return cls(status, {"content-type": "application/json", **PRIVATE, **(headers or {})}, body)

    @classmethod
    def error(cls, error: ApiError, request_id: str) -> Response:
        """Answer with an error in Anthropic's shape."""
        return cls.json(error.to_dict(request_id), error.status, {"request-id": request_id, **error.headers})

    @classmethod
    def stream(
        cls,
        parts: Iterable[bytes],
        on_close: Callable[[], None],
        headers: Optional[Mapping[str, str]] = None,
        source: Optional[Source] = None,
        plain: Callable[[], bytes] = bytes,
    ) -> Response:
        """Answer with server-sent events; ``on_close`` runs once the door is done with the body."""
        return cls(200, {**EVENT_STREAM, **(headers or {})}, Stream(iter(parts), on_close, source, plain))
