"""Anthropic-format providers: body and answer cross unchanged, but for the model's name, the key and the limit."""

from __future__ import annotations

import json
from contextlib import ExitStack, suppress
from itertools import chain
from typing import Any, Dict, Iterator, List, Optional

from ..accounting.pricing import price_factor
from ..anthropic import MessagesRequest
from ..config.schema import Config, Model
from ..errors import ApiError, ProviderError
from ..message import ErrorEvent, MessageStop, Usage
from ..provider.client import Call, direct_headers
from ..provider.quoted import QuotedStream
from ..provider.response import ProviderResponse, whole
from ..sse import Frame, Reader, encode
from ..translate.direct import direct_body
from ..web import ASIDE, LAST, Request, Source
from .context import Context
from .record import Record

# Client headers that change what the provider does, and those named anthropic-*. Credentials are forwarded only where
# models.yaml says so.
FORWARDED = ("content-type", "user-agent")
CREDENTIALS = ("x-api-key", "authorization")


class Relay:
    """A model's open answer that is passed on as it is: a document, or a stream. ``close`` it, whatever happened."""

    def __init__(self, response: ProviderResponse) -> None:
        self._response = response
        self._reads = response.reads()
        self._begun: List[bytes] = []
        self.document: Optional[bytes] = None
        """The whole answer, when it is no stream."""
        self._value: Any = None  # the same as a value, if it is one

    @classmethod
    def open(
        cls, request: Request, messages: MessagesRequest, model: Model, context: Context, path: str = "/v1/messages"
    ) -> Relay:
        """Ask the model, and return once the whole document, or a stream's first event, is here.

        Raises:
            ProviderError: the model gave no answer; with its own words in ``verbatim``, if they are for the client.
        """
        headers = {name: value for name, value in request.headers.items() if _is_forwarded(name)}
        if model.forward_client_key:
            headers.update(client_credentials(request, context.config))
        headers = {"anthropic-version": "2023-06-01", "content-type": "application/json", **headers}
        headers["accept-encoding"] = "identity"
        changes: Dict[str, Any] = {"model": model.name}
        limits = [limit for limit in (model.max_tokens, context.config.max_tokens_limit) if limit]
        if limits and messages.max_tokens is not None:
            changes["max_tokens"] = min(messages.max_tokens, *limits)
        body = direct_body(request.body, messages.raw, changes)
        call = Call(model, model.messages_path(path), body, headers)
        response = context.client.send(call, context.config, context.running.cancel)
        response.refuse_page()
        relay = cls(response)
        with ExitStack() as unless_begun:
            unless_begun.callback(relay.close)
            relay._begin(messages.stream, context)
            context.running.cancel.check()  # a body without framing ends quietly when we end its connection
            unless_begun.pop_all()
        return relay

    def _begin(self, may_stream: bool, context: Context) -> None:
        if "event-stream" not in self._response.headers.get("content-type", ""):
            self.document = self._read()
        elif not may_stream:
            raise ProviderError("the provider answered with a stream, which was not asked for")
        else:
            self._wait_for_event(context)

    def _read(self) -> bytes:
        body = bytes(whole(self._reads))
        is_framed = bool({"content-length", "transfer-encoding"} & self._response.headers.keys())
        if not body:
            raise ProviderError("the provider's answer was empty")
        try:
            self._value = json.loads(body.decode("utf-8-sig", "replace"))
        except RecursionError:
            pass  # it crosses all the same
        except ValueError:
            if not is_framed:  # it may be cut unseen
                raise ProviderError("the provider's answer was cut") from None
        if isinstance(self._value, dict) and self._value.get("type") == "error":
            raise self._response.failure(body)
        self._response.is_done = True
        return body

    def _wait_for_event(self, context: Context) -> None:
        """Read as far as the first event that is more than a sign of life; an error may be none at the next model.

        Signs of life are not kept from the client for longer than COMMIT_AFTER.
        """
        reader, until = Reader(), context.now() + context.config.commit_after
        for data in chain(self._reads, (None,)):
            self._begun += [data] if data else []
            for event in reader.finish() if data is None else reader.feed(data):
                if event.event == "error":
                    raise self._response.failure(event.data.encode())
                if event.event != "ping":
                    return
            if context.now() >= until:
                return
        raise ProviderError("the provider's answer was empty")

    @property
    def source(self) -> Source:
        """Where a stream comes from."""
        return self._response.source

    def headers(self, config: Config) -> Dict[str, str]:
        """Return the headers that clients act on."""
        return direct_headers(self._response.headers, tuple(config.secrets))

    def take_totals(self, record: Record) -> None:
        """Read stop reason and usage from the document."""
        record.saw_content()
        record.ended("relayed")
        with suppress(KeyError, TypeError):  # it crosses all the same
            _take(record, self._value["usage"])
            record.ended(str(self._value["stop_reason"]))

    def parts(self, record: Record) -> Iterator[bytes]:
        """Yield the stream, whole events at a time, to its end.

        Raises:
            ApiError: it failed; with the provider's own error event, if it told, in ``verbatim``.
        """
        events, quoted = _Events(record), QuotedStream(self._response.secrets)
        try:
            for data in chain(self._begun, self._rest(events), (None,)):
                part = events.feed(data) if data is not None else events.finish()
                part = quoted.feed(part) + (quoted.finish() if data is None else b"")
                if events.is_complete:  # in the ledger before the client knows it, as in translated streams
                    self._response.is_done = True
                    yield ASIDE
                    record.end()
                    yield LAST
                    yield part
                    return
                if events.error is not None:
                    before, mark, told = part.rpartition(b"event: error")
                    yield before
                    raise self._response.failure(events.error, mark + told)
                yield part
        except ProviderError:
            yield quoted.finish()
            record.context.running.cancel.check()  # a connection that we ended ourselves is no fault of the provider
            raise
        record.context.running.cancel.check()
        raise ProviderError("the provider closed the stream before finishing")

    def _rest(self, events: _Events) -> Iterator[bytes]:
        """Yield the reads; a connection that breaks behind the stop reason, which the client knows, is an end too."""
        try:
            yield from self._reads
        except ProviderError:
            if not events.stop_reason:
                raise

    def fail(self, error: ApiError, request_id: str) -> bytes:
        """Return the event that ends a stream whose provider failed: its own, if it told."""
        told = error.verbatim if isinstance(error, ProviderError) else None
        return told or encode([ErrorEvent(error.to_dict(request_id))])

    def close(self) -> None:
        """Let go of the provider."""
        self._response.close()


class _Events:
    """Cuts a stream between its events, and reads stop reason and usage from those that pass by."""

    def __init__(self, record: Record) -> None:
        self._record, self._reader = record, Reader()
        self._begun: List[bytes] = []  # of the next event
        self._counts: Dict[str, Any] = {}
        self.stop_reason = ""
        self.is_complete = False
        """Whether the stream said that it ended."""
        self.error: Optional[bytes] = None
        """What an error event told."""

    def feed(self, data: bytes) -> bytes:
        """Return the events that are whole now; half a one could not be followed by another, such as an error."""
        for event in self._reader.feed(data):
            self._see(event)
        self._begun.append(data)
        left = self._reader.pending_bytes
        if left >= len(data):
            return b""
        told = b"".join(self._begun)
        end = len(told) - left
        self._begun = [told[end:]] if left else []
        return told[:end]

    def finish(self) -> bytes:
        """Return what a stream ends with that ended; the blank line, or message_stop, may be missing."""
        rest = b""
        for event in self._reader.finish():
            with suppress(ValueError, RecursionError):  # half an event is none
                json.loads(event.data)
                self._see(event)
                rest = b"".join(self._begun).rstrip(b"\r\n") + b"\n\n"
        if self.stop_reason and not self.is_complete and self.error is None:
            self._see(Frame("", "message_stop"))
            rest += encode([MessageStop()])
        return rest

    def _see(self, event: Frame) -> None:
        self._record.got.events += 1
        if event.event == "message_stop":
            self.is_complete = True
            self._record.ended(self.stop_reason or "relayed")
        elif event.event == "error":
            self.error = event.data.encode()
        elif event.event in ("message_start", "content_block_start", "message_delta"):
            with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):  # it crosses all the same
                self._read(event.event, json.loads(event.data))

    def _read(self, name: str, body: Any) -> None:
        if name == "content_block_start":
            self._record.saw_content()
            self._record.got.see(body["content_block"])
            return
        usage = body["message"].get("usage") if name == "message_start" else body.get("usage")
        self._counts.update({name: value for name, value in (usage or {}).items() if value is not None})
        _take(self._record, self._counts)
        if name == "message_delta":
            self.stop_reason = str(body["delta"].get("stop_reason") or "")


def _is_forwarded(name: str) -> bool:
    return name in FORWARDED or name.startswith("anthropic-")


def _take(record: Record, counts: Any) -> None:
    record.usage = Usage.from_dict(counts)
    record.price_factor = price_factor(counts if isinstance(counts, dict) else {})


def client_credentials(request: Request, config: Config) -> Dict[str, str]:
    """Return the client's own credential headers, never the proxy's token."""
    token = config.ccproxy_auth_token
    offered = {name: request.headers[name] for name in CREDENTIALS if name in request.headers}
    return {name: value for name, value in offered.items() if not token or token not in value}
