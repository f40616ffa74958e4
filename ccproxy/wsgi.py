"""The WSGI front door: ``gunicorn -k gthread 'ccproxy.wsgi:application'``, waitress, or any other server."""

from __future__ import annotations

import os
import threading
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Callable, Dict, Iterable, List, Tuple
from urllib.parse import quote

from .app import App, new_id
from .config.load import load_config
from .errors import RequestTooLarge
from .web import Request, Response, Stream

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
    app = App(load_config(os.environ).config)
    app.counter.load_in_background()
    return app


def wsgi_app(app: App) -> Callable[[Environ, StartResponse], Iterable[bytes]]:
    """Return an ``App`` as a WSGI application."""

    def call(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            response = app.handle(_request(environ, app.config.max_request_bytes))
        except RequestTooLarge as error:
            response = Response.json(error.to_dict(new_id("req_")), error.status)
        body = response.body
        headers: List[Tuple[str, str]] = list(response.headers.items())
        if not isinstance(body, Stream):
            headers.append(("content-length", str(len(body))))
            body = [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
        start_response(f"{response.status} {_phrase(response.status)}", headers)
        return body  # type: ignore[no-any-return]

    return call


def _request(environ: Environ, limit: int) -> Request:
    headers = {
        name[5:].replace("_", "-").lower(): str(value) for name, value in environ.items() if name.startswith("HTTP_")
    }
    if environ.get("CONTENT_TYPE"):
        headers["content-type"] = environ["CONTENT_TYPE"]
    path = quote(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""), safe="/", encoding="latin-1")
    query = environ.get("QUERY_STRING", "")
    body = _body(environ, limit)
    return Request.from_target(environ["REQUEST_METHOD"], path + ("?" + query if query else ""), headers, body)


def _body(environ: Environ, limit: int) -> bytes:
    length = environ.get("CONTENT_LENGTH") or ""
    if length and int(length) > limit:
        raise RequestTooLarge(f"the body of {length} bytes exceeds the {limit} of MAX_REQUEST_BYTES")
    if not length and not environ.get("wsgi.input_terminated"):
        return b""
    body: bytes = environ["wsgi.input"].read(int(length) if length else limit + 1)
    if len(body) > limit:
        raise RequestTooLarge(f"the body exceeds the {limit} of MAX_REQUEST_BYTES")
    return body


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
