"""The WSGI front door: ``gunicorn -k gthread 'ccproxy.wsgi:application'``, waitress, or any other server."""

from __future__ import annotations

import atexit
import os
import threading
from functools import lru_cache
from typing import Any, Callable, Dict, Iterable, List, Tuple
from urllib.parse import quote

from . import log
from .app import App, new_id
from .config.load import load_config, state_folder
from .errors import ApiError, RequestTooLarge
from .http1 import content_length, phrase
from .ledger import Ledger
from .web import Early, Request, Response, Stream

Environ = Dict[str, Any]
StartResponse = Callable[..., Any]

_first_call = threading.Lock()


def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer one request; the first call reads the configuration."""
    with _first_call:
        app = _configured_app()
    return wsgi_app(app)(environ, start_response)


@lru_cache(maxsize=1)
def _configured_app() -> App:
    config = load_config(os.environ).config
    app = App(config, Ledger(state_folder(config, os.environ)))
    log.configure(config, lambda: app.config.secrets, os.environ)
    atexit.register(app.close)
    app.counter.load_in_background()
    return app


class SocketLine:
    """The way to a client whose socket the WSGI server shows (gunicorn does): one that left is noticed at once."""

    def __init__(self, environ: Environ) -> None:
        self._socket = environ.get("gunicorn.socket")

    def fileno(self) -> int:
        """Return the client's socket, or -1."""
        return self._socket.fileno() if self._socket is not None else -1

    def expect(self, early: Early) -> None:
        """WSGI has no way to send anything before the answer begins."""

    def begin(self) -> bool:
        """Nothing was sent."""
        return False

    def tick(self, now: float) -> None:
        """Nothing is due."""


def wsgi_app(app: App) -> Callable[[Environ, StartResponse], Iterable[bytes]]:
    """Return an ``App`` as a WSGI application."""

    def call(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            response = app.handle(_request(environ, app.config.max_request_bytes))
        except ApiError as error:
            request_id = new_id("req_")
            response = Response.json(error.to_dict(request_id), error.status, {"request-id": request_id})
        body = response.body
        headers: List[Tuple[str, str]] = list(response.headers.items())
        if not isinstance(body, Stream):
            headers.append(("content-length", str(len(body))))
            body = [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
        start_response(f"{response.status} {phrase(response.status)}", headers)
        return body  # type: ignore[no-any-return]

    return call


def _request(environ: Environ, limit: int) -> Request:
    headers = {
        name[5:].replace("_", "-").lower(): str(value) for name, value in environ.items() if name.startswith("HTTP_")
    }
    if environ.get("CONTENT_TYPE"):
        headers["content-type"] = environ["CONTENT_TYPE"]
    path = quote(environ.get("PATH_INFO", ""), safe="/", encoding="latin-1") or "/"
    query = environ.get("QUERY_STRING", "")
    body = _body(environ, limit)
    target = path + ("?" + query if query else "")
    return Request.from_target(environ["REQUEST_METHOD"], target, headers, body, SocketLine(environ))


def _body(environ: Environ, limit: int) -> bytes:
    text = environ.get("CONTENT_LENGTH")
    length = content_length({"content-length": text}) or 0 if text else 0
    if length > limit:
        raise RequestTooLarge(f"the body of {length} bytes exceeds the {limit} of MAX_REQUEST_BYTES")
    if not text and not environ.get("wsgi.input_terminated"):
        return b""
    body: bytes = environ["wsgi.input"].read(length if text else limit + 1)
    if len(body) > limit:
        raise RequestTooLarge(f"the body exceeds the {limit} of MAX_REQUEST_BYTES")
    return body
