"""``POST /v1/messages``: route, ask, translate, stream or answer whole."""

from __future__ import annotations

import logging
from typing import Dict, Iterator, Optional, Tuple, Union

from ..anthropic import MessagesRequest
from ..config.schema import Model
from ..errors import ApiError, InvalidRequest, ProviderError, StreamCut
from ..message import Usage, fold, message_object
from ..provider.fallback import first_answer
from ..routing import Decision, decide
from ..sse import encode
from ..tokens import estimate
from ..web import Request, Response
from .context import Context, parse_body
from .exchange import Exchange, Record
from .passthrough import Relay

log = logging.getLogger(__name__)

# Claude Code 1.0 and 2.0 overlook an error event that arrives in one read with earlier events.
ERROR_PAUSE = 0.1


def handle(context: Context, request: Request) -> Response:
    """Answer a message request."""
    messages = MessagesRequest.from_dict(parse_body(request))
    input_tokens = estimate(messages, context.counter.count)
    decision = decide(messages, context.config, lambda: input_tokens)
    if messages.max_tokens == 0 and not decision.models[0].direct:
        return _warm_up(context, messages, input_tokens)
    return answer(context, request, messages, decision, input_tokens)


def _warm_up(context: Context, messages: MessagesRequest, input_tokens: int) -> Response:
    """Answer a request for no output: it fills Anthropic's cache, and there is nothing to fill elsewhere."""
    wants_output = (
        messages.stream
        or (messages.tool_choice is not None and messages.tool_choice.type in ("any", "tool"))
        or messages.thinking.get("type") == "enabled"
        or bool(messages.output_config.get("format"))
    )
    if wants_output:
        raise InvalidRequest("max_tokens: 0 allows no stream, forced tool_choice, enabled thinking or output format")
    message = message_object(context.new_id("msg_"), messages.model, Usage(input_tokens))
    return Response.json({**message, "stop_reason": "max_tokens"})


def answer(
    context: Context, request: Request, messages: MessagesRequest, decision: Decision, input_tokens: int
) -> Response:
    """Answer with the first model of a route that can."""
    record = Record(context, decision, context.now())

    def ask(model: Model) -> Tuple[Model, Union[Exchange, Relay]]:
        if model.direct:
            return model, Relay.open(request, messages, model, context)
        return model, Exchange.open(messages, model, context, input_tokens)

    try:
        record.model, exchange = first_answer(decision.models, ask)
    except ApiError as error:
        record.model, record.outcome = decision.models[-1], f"failed with {error.status}"
        record.write()
        error.headers.update(_headers(decision, record.model))
        if isinstance(error, ProviderError) and error.verbatim is not None:
            return Response(error.status, error.headers, error.verbatim)
        raise
    headers = _headers(decision, record.model)
    if isinstance(exchange, Relay):
        return exchange.respond(record, headers)
    if messages.stream:
        return _stream(exchange, record, headers)
    return _whole(exchange, record, headers)


def _headers(decision: Decision, model: Optional[Model]) -> Dict[str, str]:
    route = f"{decision.rule}: {decision.reason}"
    return {"x-ccproxy-route": route, "x-ccproxy-model": model.model_id if model else ""}


def _whole(exchange: Exchange, record: Record, headers: Dict[str, str]) -> Response:
    events = []
    try:
        for batch in exchange.events():
            record.see(batch)
            events += batch
    except ApiError as error:
        record.outcome = f"failed with {error.status}"
        error.headers.update(headers)
        raise
    finally:
        exchange.close()
        record.write()
    return Response.json(fold(events), headers=headers)


def _stream(exchange: Exchange, record: Record, headers: Dict[str, str]) -> Response:
    def on_close() -> None:
        exchange.close()
        record.write()

    return Response.stream(_parts(exchange, record), on_close, headers)


def _parts(exchange: Exchange, record: Record) -> Iterator[bytes]:
    context = record.context
    try:
        for events in exchange.events():
            record.see(events)
            yield encode(events)
        return
    except ApiError as error:
        failure = error
    except Exception as error:
        log.exception("%s failed in mid-stream", context.request_id)
        failure = ApiError(f"ccproxy failed: {type(error).__name__}")
    record.outcome = f"failed in mid-stream with {failure.status}: {failure.message}"
    log.warning("%s %s", context.request_id, record.outcome)
    context.sleep(ERROR_PAUSE)
    yield encode(exchange.fail(failure, context.request_id))
    context.sleep(ERROR_PAUSE)
    raise StreamCut(failure.message)
