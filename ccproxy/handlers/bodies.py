"""With LOG_BODIES: what a client sent and was answered, one JSON line each in ``bodies.log``."""

from __future__ import annotations

import json
import logging
from typing import Iterable, Iterator, Optional

from ..config.credentials import secret_headers
from ..config.schema import Config
from ..masking import mask
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
    kept = _Kept()

    def on_close() -> None:
        body.close()
        _write(request_id, str(response.status), bytes(kept.begin), secrets, kept.size)

    return Response(response.status, response.headers, Stream(kept.of(body), on_close))


class _Kept:
    """The beginning of a body that passes, and the size of all of it."""

    def __init__(self) -> None:
        self.begin = bytearray()
        self.size = 0

    def of(self, parts: Iterator[bytes]) -> Iterator[bytes]:
        """Pass the parts on."""
        for part in parts:
            self.size += len(part)
            if len(self.begin) < MAX_BODY:
                self.begin += part
            yield part


def _write(request_id: str, what: str, body: bytes, secrets: Iterable[str], size: Optional[int] = None) -> None:
    size = len(body) if size is None else size
    text = body[:MAX_BODY].decode("utf-8", "replace") + ("..." if size > MAX_BODY else "")
    entry = {"id": request_id, "what": what, "bytes": size, "body": mask(text, secrets)}
    log.info("%s", json.dumps(entry))
