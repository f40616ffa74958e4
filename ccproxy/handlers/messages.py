"""``POST /v1/messages``: route, ask, translate, stream or answer whole."""

from __future__ import annotations

import logging
import math
from typing import Callable, Dict, Iterator, List, Optional, Union

from ..accounting.pricing import plain
from ..anthropic import MessagesRequest
from ..config.schema import Model
from ..counting.estimates import Estimates
from ..errors import ApiError, BudgetSpent, ClientGone, InvalidRequest, ProviderError, StreamCut, forget_calls
from ..http1 import field_value
from ..last_routes import conversation_of
from ..message import ErrorEvent, Event, MessageStart, Ping, Usage, fold, message_object
from ..provider.fallback import Walk
from ..provider.retry import RetryPolicy
from ..routing import BUDGET, MODEL_HEADER, Decision, decide
from ..sse import encode
from ..web import ASIDE, EVENT_STREAM, LAST, PRIVATE, Early, Request, Response, Stream
from .context import Context, parse_body
from .exchange import Exchange
from .passthrough import Relay
from .record import ENDED, Record, session_of
from .topics import Asked

log = logging.getLogger(__name__)

# Claude Code 1.0 and 2.0 overlook an error event that arrives in one read with earlier events.
ERROR_PAUSE = 0.1
# Claude Code 1.0 waits 60 s for the head of an answer that is not streamed.
WHOLE_COMMIT_AFTER = 45.0


def handle(context: Context, request: Request) -> Response:
    """Answer a message request."""
    messages = MessagesRequest.from_dict(parse_body(request, context.recall))
    estimates = context.estimator.of(messages, len(request.body))
    decision = route(context, request, messages, estimates, is_remembered=True)
    if messages.max_tokens == 0 and not decision.models[0].direct:
        return _warm_up(context, messages, estimates.of(decision.models[0]))
    return answer(context, request, messages, decision, estimates)


def route(
    context: Context, request: Request, messages: MessagesRequest, estimates: Estimates, *, is_remembered: bool = False
) -> Decision:
    """Return the route of a request; its tokens are counted only where its body is long enough to matter.

    Args:
        is_remembered: whether the conversation's next request shall know of it.
    """
    session, now = session_of(request, messages), context.now()
    conversation = conversation_of(session, messages)
    decision = decide(
        messages,
        context.config,
        estimates.of,
        estimates.surely_fit,
        last=context.last_routes.get(conversation, now),
        named=request.headers.get(MODEL_HEADER, ""),
        budget=context.spending.budget(context.config, session),
    )
    if is_remembered:
        context.last_routes.put(conversation, decision, now)
    return decision


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
    context: Context, request: Request, messages: MessagesRequest, decision: Decision, estimates: Estimates
) -> Response:
    """Answer with the first model of a route that can."""
    session = session_of(request, messages)
    asked = Asked.of(messages)
    budget = context.spending.budget(context.config, session)
    if budget is not None and budget.is_spent:
        refused = Record(context, Decision((), BUDGET, budget.words), context.now(), messages.model, session, asked)
        return _failed(BudgetSpent(budget.refusal), refused, messages)
    record = Record(context, decision, context.now(), messages.model, session, asked)
    message_id = context.new_id("msg_")
    config, running = context.config, context.running
    walk = Walk(RetryPolicy(config.max_retries, config.retry_max_wait), context.cooldown, running.cancel)
    record.unanswered, running.record = walk.unanswered, record

    def ask(model: Model) -> Union[Exchange, Relay]:
        record.attempts += 1
        record.model = model
        if model.direct:
            opened: Union[Exchange, Relay] = Relay.open(request, messages, model, context)
        else:
            opened = Exchange.open(messages, model, context, message_id, estimates)
        record.sample = estimates.sample(model)
        return opened

    has_own_start = any(model.direct for model in decision.models)

    def start() -> bytes:
        tokens = estimates.of(decision.models[0])
        return b"" if has_own_start else encode([MessageStart(message_id, messages.model, Usage(tokens))])

    running.start(config.provider_total_timeout, _early(context, messages, decision, start))
    try:
        exchange = walk.first_answer(decision.models, ask)
    except ApiError as error:
        return _failed(error, record, messages)
    headers = _headers(decision, record.model)
    if isinstance(exchange, Relay):
        return _relayed(exchange, record, messages, headers)
    if messages.stream:
        return _stream(exchange, record, headers, has_start=running.begin_answer() and not has_own_start)
    return _whole(exchange, record, headers)


def _early(context: Context, messages: MessagesRequest, decision: Decision, start: Callable[[], bytes]) -> Early:
    """Return what a waiting client is given: the start of the stream and pings, or spaces before a JSON document.

    Where all models are direct, nothing before the answer: status and headers are the provider's.
    """
    after, every = context.config.commit_after, context.config.ping_interval
    if all(model.direct for model in decision.models):
        after = math.inf
    headers = {"request-id": context.request_id, "x-ccproxy-route": route_header(decision)}
    if messages.stream:
        ping = encode([Ping()])
        return Early(after, {**EVENT_STREAM, **headers}, lambda: start() + ping, ping, every)
    headers.update(PRIVATE, **{"content-type": "application/json"})
    return Early(max(after, WHOLE_COMMIT_AFTER), headers, lambda: b" ", b" ", every)


def _failed(error: ApiError, record: Record, messages: MessagesRequest) -> Response:
    """Answer with an error: an HTTP error, or, where the stream is open already, an error event."""
    record.failed(error)
    is_open = record.context.running.begin_answer()
    if is_open and messages.stream:
        event = encode([ErrorEvent(error.to_dict(record.context.request_id))])
        return Response.stream(_error_parts(event, record), record.end)
    record.end()
    error.headers.update(_headers(record.decision, record.model))
    if isinstance(error, ProviderError) and error.verbatim is not None:
        return Response(error.status, error.headers, error.verbatim)
    raise error


def route_header(decision: Decision) -> str:
    """Return the rule and its reason as a header value."""
    return field_value(f"{decision.rule}: {decision.reason}")


def _headers(decision: Decision, model: Optional[Model]) -> Dict[str, str]:
    return {"x-ccproxy-route": route_header(decision), MODEL_HEADER: model.model_id if model else ""}


def _whole(exchange: Exchange, record: Record, headers: Dict[str, str]) -> Response:
    events: List[Event] = []
    record.failed(ApiError("no end"))  # until it ends
    try:
        for batch in exchange.events():
            record.see(batch)
            events += batch
    except ApiError as error:
        record.failed(error)
        error.headers.update(headers)
        raise
    finally:
        exchange.close()
        _take_totals(exchange, record)
        record.context.running.begin_answer()
        record.end()
    if record.cost is not None:
        headers["x-ccproxy-cost"] = plain(record.cost)
    return Response.json(fold(events), headers=headers)


def _take_totals(exchange: Exchange, record: Record) -> None:
    record.reported_cost = exchange.reported_cost()
    record.is_counted = exchange.is_counted
    record.got.events = exchange.count
    record.got.mended_calls = exchange.translator.mended_calls


def _relayed(relay: Relay, record: Record, messages: MessagesRequest, headers: Dict[str, str]) -> Response:
    is_open = record.context.running.begin_answer()
    headers = {**relay.headers(record.context.config), **headers}
    record.is_counted = True
    if relay.document is None:

        def on_close() -> None:
            relay.close()
            record.end()

        return Response(200, headers, Stream(_parts(relay.parts(record), record, relay.fail), on_close, relay.source))
    relay.close()
    if is_open and messages.stream:
        return _failed(ProviderError("the provider did not answer with a stream"), record, messages)
    relay.take_totals(record)
    record.end()
    return Response(200, headers, relay.document)


def _stream(exchange: Exchange, record: Record, headers: Dict[str, str], *, has_start: bool) -> Response:
    def on_close() -> None:
        exchange.close()
        _take_totals(exchange, record)
        record.end()

    parts = _parts(_translated(exchange, record, has_start), record, exchange.fail)
    return Response.stream(parts, on_close, headers, exchange.source, exchange.plain)


def _translated(exchange: Exchange, record: Record, has_start: bool) -> Iterator[bytes]:
    """Yield the stream; with ``has_start`` its first event is on its way already."""
    for events in exchange.events():
        if not events:
            yield b""
            continue
        record.see(events)
        if has_start:
            events = [event for event in events if not isinstance(event, MessageStart)]
        if record.outcome == ENDED:  # what a client was told is in the statistics, whatever happens to this process
            yield ASIDE
            _take_totals(exchange, record)
            record.end()
            yield LAST
        yield encode(events)


def _parts(parts: Iterator[bytes], record: Record, fail: Callable[[ApiError, str], bytes]) -> Iterator[bytes]:
    """Yield a stream, and the error event that ``fail`` makes where it fails."""
    context = record.context
    try:
        yield from parts
        return
    except ApiError as error:
        failure = error
    except Exception as error:
        log.exception("%s failed in mid-stream", context.request_id)
        failure = ApiError(f"ccproxy failed: {type(error).__name__}")
    forget_calls(failure)
    yield ASIDE
    if isinstance(failure, ClientGone):
        raise StreamCut(failure.message)
    record.failed(failure, " in mid-stream")
    log.warning("%s %s: %s", context.request_id, record.detail, failure.message)
    yield from _error_parts(fail(failure, context.request_id), record)


def _error_parts(event: bytes, record: Record) -> Iterator[bytes]:
    """Yield the error event apart from what was before, and end without an end."""
    record.context.sleep(ERROR_PAUSE)
    yield event
    record.context.sleep(ERROR_PAUSE)
    raise StreamCut(record.detail)
