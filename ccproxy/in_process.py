"""Asks an application in this process, without a socket: for commands that need its answer and no server."""

from __future__ import annotations

from dataclasses import field
from typing import Dict, Mapping, Optional

from .app import App
from .encoded import Json, to_bytes
from .errors import StreamCut
from .frozen import frozen
from .web import Request, Stream


@frozen
class Answered:
    """One answer, read whole; ``cut`` says why it was cut, if it was."""

    status: int
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: str = ""

    @property
    def is_stream(self) -> bool:
        """Whether it is server-sent events."""
        return "event-stream" in self.headers.get("content-type", "")


def ask(app: App, path: str, body: Json, query: Optional[Dict[str, str]] = None) -> Answered:
    """Send one request with the application's own token."""
    headers = {"host": "localhost", "x-api-key": app.config.ccproxy_auth_token}
    response = app.handle(Request("POST", path, query or {}, headers, to_bytes(body)))
    if not isinstance(response.body, Stream):
        return Answered(response.status, response.body, response.headers)
    data, cut = bytearray(), ""
    try:
        for part in response.body:
            data += part
    except StreamCut as error:
        cut = str(error)
    finally:
        response.body.close()
    return Answered(response.status, bytes(data), response.headers, cut)
