"""One translated exchange: a model's open answer, read as events."""

from __future__ import annotations

import logging
from decimal import Decimal
from functools import lru_cache, partial
from typing import Callable, Generator, Iterable, Iterator, List, Optional, Tuple, Union

from ..accounting.pricing import reported_cost
from ..anthropic import MessagesRequest
from ..config.schema import Model
from ..counting.estimates import Estimates
from ..encoded import Json, encode
from ..errors import ApiError, ProviderError
from ..masking import mask
from ..message import Event
from ..openai import Chunk
from ..passage import Passage
from ..provider.cancel import Cancel
from ..provider.client import APIS, Call
from ..provider.quoted import QuotedEvents
from ..provider.repair import Repair, clamped, find_repair
from ..provider.response import ProviderResponse
from ..sse import delta_frames
from ..sse import encode as encode_events
from ..translate.failure import overflow_error
from ..translate.reply import ReplyContext
from ..translate.request import Translated, translate_request, used_tool_ids
from ..translate.response import has_prompt_tokens
from ..translate.search_request import with_search
from ..translate.stream import StreamTranslator
from ..web import Source
from .context import Context

log = logging.getLogger(__name__)

_MOST_NAMED = 100
_MOST_REPAIRS = 3  # of one request
_JSON = {"content-type": "application/json"}


def translate_for(request: MessagesRequest, model: Model, context: Context) -> Translated:
    """Return a request translated for one model; a model that cannot stream is asked for a completion."""
    stream = model.can_stream and (request.stream or model.dialect.streams_always)
    return translate_request(request, model, output_limit=context.config.output_limit(model), stream=stream)


@lru_cache(maxsize=256)
def _tell_once(model_id: str, what: str) -> None:
    """Log what a model is not sent; what a conversation once had is left out again in each of its requests."""
    log.info("%s is not sent: %s (told once)", model_id, what)


def _check_window(model: Model, estimates: Estimates) -> None:
    """Refuse a prompt that surely does not fit: some servers would cut it in silence, and nobody would compact."""
    window = model.max_input_tokens
    if window and not estimates.surely_fit(model, window) and estimates.of(model) > window * 1.1:
        raise overflow_error(estimates.of(model), window)


def _send(
    body: Json, model: Model, context: Context, count: Callable[[], int], *, ahead: bool
) -> Union[ProviderResponse, CutShort]:
    """Send a request, mended where the model refuses fields of it, one after the other."""
    call = partial(Call, model, APIS[model.api].path, headers=_JSON, count=count, counts_ahead=ahead)
    key = (model.api_base + APIS[model.api].path, model.name)
    body = context.repairs.apply(key, body)
    repairs: List[Repair] = []
    too_much: Optional[ProviderError] = None
    while True:
        try:
            response = context.client.send(call(body=encode(body)), context.config, context.running.cancel)
        except ProviderError as error:
            if error.is_output_limit:
                return CutShort()
            if too_much is not None and error.is_refusal:
                raise too_much from error
            if error.room and too_much is None:
                log.info("%s has room for %d tokens of output, asking again for no more", model.model_id, error.room)
                too_much, body = error, clamped(error.room)(body)
                continue
            repair = find_repair(error.provider_status, error.detail, model.api)
            if repair is None or error.is_overflow or len(repairs) == _MOST_REPAIRS or repair(body) == body:
                raise
            log.info("%s refused a field, asking again without it: %s", model.model_id, error.message)
            repairs.append(repair)
            body = repair(body)
        else:
            for repair in repairs:
                context.repairs.remember(key, repair)
            return response


class CutShort:
    """The answer of a model that used up its output limit before it said anything (OpenAI makes it an error)."""

    is_done = True
    secrets: Tuple[str, ...] = ()

    def chunks(self) -> Iterator[List[Chunk]]:
        """Yield the one chunk that ends the answer."""
        yield [Chunk(has_choice=True, finish_reason="length")]

    def close(self) -> None:
        """Nothing is open."""


class Exchange:
    """A model's answer as Messages API events. ``close`` it, whatever happened."""

    def __init__(
        self,
        response: Union[ProviderResponse, CutShort],
        translator: StreamTranslator,
        cancel: Cancel,
        secrets: Iterable[str],
        dialect: str,
    ) -> None:
        self.translator = translator
        self._cancel = cancel
        self._secrets = secrets
        self._dialect = dialect
        self._response = response
        self._quoted = QuotedEvents(response.secrets)
        self._ready: List[Event] = []
        self.count = 0
        """How many events were given."""
        self._passage: Optional[Passage] = None
        self._events = self._translate()

    @classmethod
    def open(
        cls, request: MessagesRequest, model: Model, context: Context, message_id: str, estimates: Estimates
    ) -> Exchange:
        """Ask a model, and return once its first content, or its regular end, is here.

        Raises:
            ApiError: the model gave no content; nothing was shown to the client yet.
        """
        _check_window(model, estimates)
        count = partial(estimates.of, model)
        model = with_search(model, request)
        translated = translate_for(request, model, context)
        if translated.dropped:
            log.debug("%s left out for %s: %s", context.request_id, model.model_id, "; ".join(translated.dropped))
            for what in translated.dropped:
                _tell_once(model.model_id, what[:_MOST_NAMED])
        ahead = request.stream or not estimates.is_settled(model)
        response = _send(translated.request.to_dict(), model, context, count, ahead=ahead)
        reply = ReplyContext(
            message_id=message_id,
            model=request.model,
            estimate=count() if ahead else None,
            count=int if ahead else count,  # which knows the prompt, and a stream may outlast it by minutes
            tool_names=translated.tool_names,
            used_tool_ids=used_tool_ids(request),
            stop_sequences=request.stop_sequences,
            is_single_call=bool(request.tool_choice and request.tool_choice.disable_parallel_tool_use),
            max_tokens=request.max_tokens,
            window=context.config.window(model),
            dialect=model.dialect,
            has_fence=translated.has_fence,
            search=translated.search,
            provider=model.provider,
            model_name=model.name,
            hides_thinking=request.thinking.get("display") == "omitted",
        )
        cancel, secrets = context.running.cancel, context.config.secrets
        exchange = cls(response, StreamTranslator(reply), cancel, secrets, model.dialect.name)
        try:
            exchange._wait_for_content()
        except BaseException:
            exchange.close()
            raise
        return exchange

    def _wait_for_content(self) -> None:
        for events in self._events:
            self._ready += events
            if self.translator.has_content:
                return

    def events(self) -> Iterator[List[Event]]:
        """Yield the events, those of one read together; a read that completes none gives none.

        Raises:
            ApiError: the provider failed on the way.
        """
        if self._ready:
            self.count += len(self._ready)
            yield self._ready
        for events in self._events:
            self.count += len(events)
            yield events

    def plain(self) -> bytes:
        """Read what has come, and return its events if these merely go on with the open block; ``events`` gives all
        others."""
        if self._passage is None:
            self._passage = self._open_passage()
        return self._passage.read() if self._passage is not None else b""

    def _open_passage(self) -> Optional[Passage]:
        block = self.translator.passes()
        if block is None or isinstance(self._response, CutShort):
            return None
        return self._response.passage(block.kind, self._quoted.passes, delta_frames(block.kind, block.index))

    def _close_passage(self) -> None:
        passage, self._passage = self._passage, None
        if passage is not None and isinstance(self._response, ProviderResponse):
            self._response.end(passage)
            self.translator.passed(passage.characters)
            self.count += passage.count

    @property
    def source(self) -> Optional[Source]:
        """Where the events come from."""
        return self._response.source if isinstance(self._response, ProviderResponse) else None

    def _translate(self) -> Generator[List[Event], None, None]:
        """Yield the events of each read; those of the end come with the content before them, for one write."""
        events: List[Event] = []
        try:
            for chunks in self._response.chunks():
                for chunk in chunks:
                    events += self.translator.feed(chunk)
                if self._response.is_done or self.translator.is_stopped:
                    break
                yield self._quoted.feed(events)
                self._close_passage()
                events = []
            self._cancel.check()  # a body without framing ends quietly when we end its connection
            events += self.translator.finish(is_done=self._response.is_done)
        except ApiError as error:
            if events:
                yield self._quoted.feed(events)  # what came before the failure is the client's
            if isinstance(error, ProviderError):
                self._cancel.check()  # a connection that we ended ourselves is no fault of the provider
                error.message = mask(error.message, self._secrets)
            raise
        yield self._quoted.feed(events)

    def fail(self, error: ApiError, request_id: str) -> bytes:
        """Return the event that ends a stream whose provider failed, behind what was held back."""
        return encode_events(self._quoted.feed(self.translator.fail(error, request_id)))

    def reported_cost(self) -> Optional[Decimal]:
        """Return what the provider said the answer costs."""
        return reported_cost(self.translator.provider_usage, self._dialect)

    @property
    def is_counted(self) -> bool:
        """Whether the provider counted the prompt; else its tokens are our estimate."""
        return has_prompt_tokens(self.translator.provider_usage)

    def close(self) -> None:
        """Let go of the provider, and of events that nobody asked for: what makes them holds this exchange."""
        self._events.close()
        self._close_passage()
        self._response.close()
