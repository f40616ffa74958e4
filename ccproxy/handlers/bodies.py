"""With LOG_BODIES: what a client sent and was answered, one JSON line each in ``bodies.log``."""

from __future__ import annotations

import json
import logging
from typing import Iterator, List, Tuple

from ..config.credentials import secret_headers
from ..config.schema import Config
from ..translate.failure import mask
from ..web import Request, Response, Stream

log = logging.getLogger("ccproxy.bodies")

MAX_BODY = 1_000_000
"""Bytes of a body that are logged."""


def record(request: Request, response: Response, request_id: str, config: Config) -> Response:
    """Log a request and, once it ended, its answer; return the response to send."""
    place = f"{request.method} {request.path}"
    secrets = (*config.secrets, *secret_headers(request.headers))
    _write(request_id, place, request.body, secrets)
    body = response.body
    if not isinstance(body, Stream):
        _write(request_id, str(response.status), body, secrets)
        return response
    kept: List[bytes] = []

    def on_close() -> None:
        body.close()
        _write(request_id, str(response.status), b"".join(kept), secrets)

    return Response(response.status, response.headers, Stream(_kept(body, kept), on_close))


def _kept(parts: Iterator[bytes], kept: List[bytes]) -> Iterator[bytes]:
    size = 0
    for part in parts:
        if size <= MAX_BODY:
            kept.append(part)
            size += len(part)
        yield part


def _write(request_id: str, what: str, body: bytes, secrets: Tuple[str, ...]) -> None:
    text = body[:MAX_BODY].decode("utf-8", "replace") + ("..." if len(body) > MAX_BODY else "")
    entry = {"id": request_id, "what": what, "bytes": len(body), "body": mask(text, secrets)}
    log.info("%s", json.dumps(entry))
