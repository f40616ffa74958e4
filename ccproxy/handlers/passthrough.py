"""Anthropic-format providers: body and answer cross unchanged, but for the model's name, the key and the limit."""

from __future__ import annotations

import json
from typing import Any, Dict, Iterator

from ..accounting.pricing import price_factor
from ..anthropic import MessagesRequest
from ..config.schema import Config, Model
from ..errors import ProviderError, StreamCut
from ..message import Usage
from ..provider.client import DIRECT_HEADERS, Call
from ..provider.quoted import QuotedStream
from ..provider.response import MAX_BODY_BYTES, ProviderResponse, whole
from ..sse import Reader
from ..translate.direct import direct_body
from ..translate.failure import mask
from ..web import ASIDE, Request, Response, Stream
from .context import Context
from .record import CANCELLED, ENDED, Record

# Client headers that change what the provider does. Credentials are forwarded only where models.yaml says so.
FORWARDED = ("anthropic-version", "anthropic-beta", "content-type", "user-agent")
CREDENTIALS = ("x-api-key", "authorization")
_MOST_TOKENS = 10**15


class Relay:
    """An open answer whose bytes are passed on as they come; its usage is read on the way."""

    def __init__(self, response: ProviderResponse) -> None:
        self._response = response

    @classmethod
    def open(
        cls, request: Request, messages: MessagesRequest, model: Model, context: Context, path: str = "/v1/messages"
    ) -> Relay:
        """Ask the model.

        Raises:
            ProviderError: with the provider's own answer in ``verbatim``; or a page was answered, a gateway's perhaps.
        """
        headers = {name: request.headers[name] for name in FORWARDED if name in request.headers}
        if model.forward_client_key:
            headers.update(client_credentials(request, context.config))
        headers = {"anthropic-version": "2023-06-01", "content-type": "application/json", **headers}
        headers["accept-encoding"] = "identity"
        changes: Dict[str, Any] = {"model": model.name}
        limits = [limit for limit in (model.max_tokens, context.config.max_tokens_limit) if limit]
        if limits and messages.max_tokens is not None:
            changes["max_tokens"] = min(messages.max_tokens, *limits)
        body = direct_body(request.body, messages.raw, changes)
        path = path[len("/v1") :] if model.api_base.endswith("/v1") else path
        response = context.client.send(Call(model, path, body, headers), context.config, context.running.cancel)
        response.refuse_page()
        return cls(response)

    def respond(self, record: Record, headers: Dict[str, str]) -> Response:
        """Return the answer that relays the provider's."""
        record.is_counted = True
        secrets = tuple(record.context.config.secrets)
        passed = {
            name: mask(value, secrets) for name, value in self._response.headers.items() if name in DIRECT_HEADERS
        }

        def on_close() -> None:
            self._response.close()
            record.end()

        return Response(200, {**passed, **headers}, Stream(self._reads(record), on_close, self._response.source))

    def read(self) -> bytes:
        """Return the whole answer."""
        try:
            return bytes(whole(self._response.reads()))
        finally:
            self._response.close()

    def _reads(self, record: Record) -> Iterator[bytes]:
        is_stream = "event-stream" in self._response.headers.get("content-type", "")
        is_framed = bool({"content-length", "transfer-encoding"} & self._response.headers.keys())
        watch = _UsageOfStream(record) if is_stream else _UsageOfMessage(record, is_framed)
        quoted = QuotedStream(self._response.secrets if is_stream else ())
        try:
            for data in self._response.reads():
                watch.feed(data)
                if record.outcome == ENDED:  # before the client knows it, as in translated streams
                    yield ASIDE
                    record.end()
                yield quoted.feed(data)
        except ProviderError as error:
            record.failed(record.context.running.cancel.error or error, " in mid-stream")
            yield quoted.finish()
            raise StreamCut(error.message) from error
        yield quoted.finish()
        yield ASIDE
        watch.finish()
        cancelled = record.context.running.cancel.error
        if cancelled is not None or not watch.is_complete:
            cut = ProviderError("the provider's answer was cut")
            record.failed(cancelled or cut, " in mid-stream")
            raise StreamCut(cut.message)
        self._response.is_done = True
        record.end()  # before the last chunk goes out, as in translated streams


class _UsageOfStream:
    """Reads stop reason and usage from the events that pass by."""

    def __init__(self, record: Record) -> None:
        self._record, self._reader = record, Reader()
        self._counts: Dict[str, Any] = {}
        self.is_complete = False
        """Whether the stream said that it ended: one without framing may be cut unseen."""

    def feed(self, data: bytes) -> None:
        for event in self._reader.feed(data):
            self.is_complete = self.is_complete or event.event in ("message_stop", "error")
            self._record.got.events += 1
            if event.event in ("message_start", "content_block_start", "message_delta", "error"):
                self._see(event.event, event.data)

    def _see(self, name: str, data: str) -> None:
        if name == "content_block_start":
            self._record.saw_content()
        try:
            body = json.loads(data)
            if name == "content_block_start":
                self._record.got.see(body["content_block"])
                return
            usage = body["message"].get("usage") if name == "message_start" else body.get("usage")
            told = {name: value for name, value in (usage or {}).items() if value is not None}
            self._counts.update(told)
            _take(self._record, self._counts)
            if name == "message_delta":
                self._record.ended(str(body["delta"].get("stop_reason")))
            elif name == "error":
                self._record.failed(ProviderError("an error event"), " in mid-stream")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass  # the bytes are relayed all the same

    def finish(self) -> None:
        """Take an end that no event told anything about for one all the same."""
        if self._record.outcome == CANCELLED:
            self._record.ended("relayed")


class _UsageOfMessage:
    """Reads stop reason and usage from a whole answer."""

    def __init__(self, record: Record, is_framed: bool) -> None:
        self._record = record
        self._body = bytearray()
        self._is_framed = is_framed
        self.is_complete = True
        """Whether it is no document that was cut, as one without framing may be unseen."""

    def feed(self, data: bytes) -> None:
        self._record.saw_content()
        if len(self._body) <= MAX_BODY_BYTES:
            self._body += data

    def finish(self) -> None:
        self._record.ended("relayed")
        try:
            body = json.loads(self._body.decode("utf-8-sig", "replace"))
            if isinstance(body, dict) and body.get("type") == "error":
                self._record.failed(ProviderError("an error"), " in a 200")
                return
            _take(self._record, body["usage"])
            self._record.ended(str(body["stop_reason"]))
        except (KeyError, TypeError, RecursionError):
            pass
        except ValueError:
            self.is_complete = self._is_framed or len(self._body) > MAX_BODY_BYTES


def _take(record: Record, counts: Any) -> None:
    record.usage, record.price_factor = read_usage(counts), price_factor(counts if isinstance(counts, dict) else {})


def read_usage(counts: Any) -> Usage:
    """Return Anthropic's ``usage`` object as a value; wrong types and absurd numbers count as 0."""

    def count(*path: str) -> int:
        value = counts
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return value if isinstance(value, int) and 0 <= value < _MOST_TOKENS else 0

    written = count("cache_creation_input_tokens")
    return Usage(
        count("input_tokens"),
        count("output_tokens"),
        count("cache_read_input_tokens"),
        written,
        count("output_tokens_details", "thinking_tokens"),
        count("server_tool_use", "web_search_requests"),
        min(count("cache_creation", "ephemeral_1h_input_tokens"), written),
    )


def client_credentials(request: Request, config: Config) -> Dict[str, str]:
    """Return the client's own credential headers, never the proxy's token."""
    token = config.ccproxy_auth_token
    offered = {name: request.headers[name] for name in CREDENTIALS if name in request.headers}
    return {name: value for name, value in offered.items() if not token or token not in value}
