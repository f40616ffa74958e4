"""Anthropic-format providers: body and answer cross unchanged, but for the model's name, the key and the limit."""

from __future__ import annotations

import json
from typing import Any, Dict, Iterator, Optional

from ..anthropic import MessagesRequest
from ..config.schema import Model
from ..errors import StreamCut
from ..provider.client import DIRECT_HEADERS, Call, ProviderResponse
from ..web import Request, Response, Stream
from .context import Context
from .exchange import Record

# Client headers that change what the provider does. Credentials are not among them.
FORWARDED = ("anthropic-version", "anthropic-beta", "content-type")


class Relay:
    """An open answer whose bytes are passed on as they come."""

    def __init__(self, response: ProviderResponse) -> None:
        self._response = response

    @classmethod
    def open(cls, request: Request, messages: MessagesRequest, model: Model, context: Context) -> Relay:
        """Ask the model.

        Raises:
            ProviderError: with the provider's own answer in ``verbatim``.
        """
        headers = {name: request.headers[name] for name in FORWARDED if name in request.headers}
        headers.setdefault("anthropic-version", "2023-06-01")
        headers["accept-encoding"] = "identity"
        path = "/messages" if model.api_base.endswith("/v1") else "/v1/messages"
        body = direct_body(request.body, messages.raw, model, context.config.max_tokens_limit)
        return cls(context.client.send(Call(model, path, body, headers), context.config))

    def respond(self, record: Record, headers: Dict[str, str]) -> Response:
        """Return the answer that relays the provider's."""
        passed = {name: value for name, value in self._response.headers.items() if name in DIRECT_HEADERS}

        def on_close() -> None:
            self._response.close()
            record.write()

        return Response(200, {**passed, **headers}, Stream(self._reads(record), on_close))

    def _reads(self, record: Record) -> Iterator[bytes]:
        try:
            yield from self._response.reads()
        except Exception as error:
            record.outcome = f"failed in mid-stream: {error}"
            raise StreamCut(str(error)) from error
        self._response.is_done = True
        record.outcome = "relayed"


def direct_body(body: bytes, raw: Dict[str, Any], model: Model, limit: Optional[int]) -> bytes:
    """Return the client's bytes, or, where model or limit must change, the same document with these changed."""
    changes: Dict[str, Any] = {}
    if raw["model"] != model.name:
        changes["model"] = model.name
    limits = [value for value in (model.max_tokens, limit) if value]
    if limits and raw["max_tokens"] > min(limits):
        changes["max_tokens"] = min(limits)
    return json.dumps({**raw, **changes}).encode() if changes else body
