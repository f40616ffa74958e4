"""The WSGI front door: ``gunicorn -k gthread 'ccproxy.wsgi:application'``, waitress, or any other server."""

from __future__ import annotations

import atexit
import os
import queue
import threading
import time
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple
from urllib.parse import quote

from . import log
from .accounting.ledger import Ledger
from .app import App, new_id
from .config.load import load_config, state_folder
from .errors import ApiError, ConfigError, InvalidRequest, Overloaded, RequestTooLarge, StreamCut
from .http1 import content_length, phrase
from .incoming import decoded
from .web import Early, Line, Request, Response, Stream

Environ = Dict[str, Any]
StartResponse = Callable[..., Any]
Headers = List[Tuple[str, str]]

_LOOK_EVERY = 0.25
_first_call = threading.Lock()


def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer one request; the first call reads the configuration, and while that is not valid, each one does."""
    try:
        with _first_call:
            app = _configured_app()
    except ConfigError as error:
        print(f"ccproxy: {error}", file=environ["wsgi.errors"])
        refusal = ApiError("ccproxy's configuration is not valid; the server's log says why")
        return _plain(Response.error(refusal, new_id("req_")), environ, start_response)
    return wsgi_app(app)(environ, start_response)


@lru_cache(maxsize=1)
def _configured_app() -> App:
    loaded = load_config(os.environ)
    app = App(loaded.config, Ledger(state_folder(loaded.config, os.environ)))
    log.configure(app.config, lambda: app.config.secrets, os.environ)
    loaded.log_warnings()
    atexit.register(app.close)
    app.counter.load_in_background()
    return app


class Handover:
    """One answer on its way from the thread that makes it to the one that a WSGI server asks for its parts.

    A WSGI application can send nothing while it is at work. So a thread of its own makes the answer, and the server's
    thread waits for it: for each next part, or until the client is due a sign of life. One part is handed over at a
    time, so a slow client slows the provider down.
    """

    def __init__(self, environ: Environ) -> None:
        self._socket = environ.get("gunicorn.socket")
        self._has_left: Callable[[], bool] = environ.get("waitress.client_disconnected", lambda: False)
        self._items: queue.Queue[Any] = queue.Queue(1)
        self._head_lock = threading.Lock()
        self._early: Optional[Early] = None
        self._started = time.monotonic()
        self._has_begun = False
        self._is_closed = False
        self.has_head = False
        """Whether the client was given the early head."""

    # --- the thread that makes the answer, and the watching thread --------------------------------------------

    def fileno(self) -> int:
        """Return the client's socket where the server shows it (gunicorn does), or -1."""
        return self._socket.fileno() if self._socket is not None else -1

    def is_gone(self) -> bool:
        """Whether the client left, as far as the server tells (waitress, with its ``channel_request_lookahead``)."""
        return self._is_closed or self._has_left()

    def expect(self, early: Early) -> None:
        """Give the client early bytes when their time has come."""
        self._started, self._early = time.monotonic(), early

    def begin(self) -> bool:
        """Take over: no early head is sent from now on. Return whether one was."""
        with self._head_lock:
            self._has_begun = True
            return self.has_head

    def tick(self, now: float) -> None:
        """The server's thread looks at the clock itself."""

    def make(self, app: App, request: Request) -> None:
        """Make the answer: its head, unless an early one is with the client, its parts, and ``None`` at the end."""
        response = app.handle(request)
        body = response.body
        try:
            if not self.begin():
                self._put(response)
            elif response.status >= 400 and not isinstance(body, Stream):
                raise StreamCut("spaces went out already: an error cannot be told any more")
            for part in filter(None, body if isinstance(body, Stream) else [body]):
                self._put(part)
            self._put(None)
        except Exception as error:  # noqa: BLE001 - a thread's top
            with suppress(StreamCut):
                self._put(error)
        finally:
            if isinstance(body, Stream):
                body.close()

    def _put(self, item: Any) -> None:
        while not self._is_closed:
            with suppress(queue.Full):
                self._items.put(item, timeout=_LOOK_EVERY)
                return
        raise StreamCut("the client left")

    # --- the server's thread ----------------------------------------------------------------------------------

    def head(self) -> Tuple[int, Headers]:
        """Wait for the answer's head, or until the early one is due; return status and headers."""
        while True:
            with suppress(queue.Empty):
                response = self._items.get(timeout=_LOOK_EVERY)
                return response.status, _headers(response)
            early = self._early
            with self._head_lock:
                if early is not None and not self._has_begun and time.monotonic() >= self._started + early.after:
                    self.has_head = True
                    return 200, list(early.headers.items())

    def parts(self) -> Iterator[bytes]:
        """Yield the body; a filler whenever there is nothing else for a while."""
        if self.has_head and self._early is not None:
            yield self._early.first()
        while True:
            try:
                item = self._items.get(timeout=self._early.every if self._early is not None else None)
            except queue.Empty:
                assert self._early is not None
                yield self._early.filler
                continue
            if isinstance(item, Exception):
                raise item
            if item is None:
                return
            yield item

    def close(self) -> None:
        """The server is done with the answer, or the client with us."""
        self._is_closed = True


def wsgi_app(app: App) -> Callable[[Environ, StartResponse], Iterable[bytes]]:
    """Return an ``App`` as a WSGI application."""

    def call(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        handover = Handover(environ) if environ["REQUEST_METHOD"] == "POST" else None
        try:
            request = _request(environ, app, handover)
        except ApiError as error:
            return _plain(Response.error(error, new_id("req_")), environ, start_response)
        if handover is None:
            return _plain(app.handle(request), environ, start_response)
        try:
            threading.Thread(target=handover.make, args=(app, request), name="answer", daemon=True).start()
        except RuntimeError:
            refusal = Overloaded("ccproxy has no thread left to answer with")
            return _plain(Response.error(refusal, new_id("req_")), environ, start_response)
        status, headers = handover.head()
        start_response(f"{status} {phrase(status)}", headers)
        return Stream(handover.parts(), handover.close)

    return call


def _plain(response: Response, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer what nobody waits for."""
    start_response(f"{response.status} {phrase(response.status)}", _headers(response))
    if isinstance(response.body, Stream):
        return response.body
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [response.body]


def _headers(response: Response) -> Headers:
    length = [] if isinstance(response.body, Stream) else [("content-length", str(len(response.body)))]
    return [*response.headers.items(), *length]


def _request(environ: Environ, app: App, line: Optional[Line]) -> Request:
    headers = {
        name[5:].replace("_", "-").lower(): str(value) for name, value in environ.items() if name.startswith("HTTP_")
    }
    if environ.get("CONTENT_TYPE"):
        headers["content-type"] = environ["CONTENT_TYPE"]
    path = quote(environ.get("PATH_INFO", ""), safe="/", encoding="latin-1") or "/"
    query = environ.get("QUERY_STRING", "")
    target = path + ("?" + query if query else "")
    request = Request.from_target(environ["REQUEST_METHOD"], target, headers, b"", line)
    if line is not None:
        app.admit(request)  # before its body is read, and kept
    return replace(request, body=_body(environ, app.config.max_request_bytes))


def _body(environ: Environ, limit: int) -> bytes:
    text = environ.get("CONTENT_LENGTH")
    length = content_length({"content-length": text}) or 0 if text else 0
    if length > limit:
        raise RequestTooLarge(f"the body of {length} bytes exceeds the {limit} of MAX_REQUEST_BYTES")
    if not text and not environ.get("wsgi.input_terminated"):
        return b""
    body: bytes = environ["wsgi.input"].read(length if text else limit + 1)
    if text and len(body) < length:
        raise InvalidRequest(f"the body ended after {len(body)} of {length} bytes")
    if len(body) > limit:
        raise RequestTooLarge(f"the body exceeds the {limit} of MAX_REQUEST_BYTES")
    return decoded(body, environ.get("HTTP_CONTENT_ENCODING", ""), limit)
