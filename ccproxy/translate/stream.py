"""``StreamTranslator``: chunks of a chat completion in, Messages API events out.

States are a phase (NEW, STREAMING, ENDED) and at most one open block. Three transitions exist:

    start    NEW -> STREAMING        message_start
    switch   STREAMING               content_block_stop of the open block, content_block_start of the next
    end      STREAMING -> ENDED      content_block_stop, message_delta, message_stop; or one error event

Blocks are therefore numbered 0, 1, 2, ... and never overlap, whatever order a provider sends things in: of parallel
tool calls one is open and the others wait. A failure leaves the open block open: clients take a closed block for a
complete one, and older ones a closed last block for a complete answer.

A completion that was not streamed is one chunk, so ``fold`` of these events is the answer without ``stream``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import List, Optional, Set, Tuple

from .. import partial_json
from ..errors import ApiError, ProviderError
from ..message import (
    BlockStart,
    BlockStop,
    ErrorEvent,
    Event,
    InputJsonDelta,
    MessageDelta,
    MessageStart,
    MessageStop,
    TextDelta,
    ThinkingDelta,
    Usage,
    text_block,
    thinking_block,
    tool_use_block,
)
from ..openai import Chunk, Json, Piece, ToolCallDelta, dump
from ..provider.dialects import GENERIC, Dialect
from .failure import error_in_stream
from .ids import ToolNames, client_tool_id
from .response import FAILED, MAX_TOKENS, REFUSAL, stop_reason, translate_usage
from .text import StopMatcher, TagSplitter
from .toolcalls import Call, ToolCalls


@dataclass(frozen=True)
class ReplyContext:
    """What the translation of an answer needs to know of its request."""

    message_id: str
    model: str
    """The model the client asked for; answers echo it."""
    input_tokens: int = 0
    """Our estimate, used until, or unless, the provider tells its own count."""
    tool_names: ToolNames = field(default_factory=lambda: ToolNames(()))
    used_tool_ids: frozenset[str] = frozenset()
    stop_sequences: Tuple[str, ...] = ()
    is_single_call: bool = False
    max_tokens: Optional[int] = None
    window: Optional[int] = None
    """The model's context window in tokens, when it is known."""
    dialect: Dialect = GENERIC


class Phase(Enum):
    """How far the stream is."""

    NEW = "new"
    STREAMING = "streaming"
    ENDED = "ended"


@dataclass
class OpenBlock:
    """The one block that may take deltas."""

    kind: str  # text, thinking, tool_use
    index: int
    call: Optional[Call] = None


class StreamTranslator:
    """One answer's translation. ``feed`` chunks, then ``finish`` or ``fail``; each returns the events to send."""

    def __init__(self, context: ReplyContext) -> None:
        self._context = context
        self._phase = Phase.NEW
        self._open: Optional[OpenBlock] = None
        self._blocks = 0
        self._out: List[Event] = []
        self._calls = ToolCalls()
        self._tool_ids: Set[str] = set(context.used_tool_ids)
        self._stops = StopMatcher(context.stop_sequences)
        self._tags = TagSplitter(context.dialect.think_tag) if context.dialect.think_tag else None
        self._blank = ""  # whitespace that opens no text block of its own
        self._deferred: List[Piece] = []  # text that came in the middle of a call's arguments
        self._usage: Optional[Json] = None
        self._finish_reason: Optional[str] = None
        self._stop_sequence: Optional[str] = None
        self._has_choice = self._is_stopped = False
        self._refusal = ""
        self._output_characters = 0

    @property
    def has_content(self) -> bool:
        """Whether a content block was opened: from then on the client cannot be given another model's answer."""
        return self._blocks > 0

    @property
    def is_stopped(self) -> bool:
        """Whether a stop sequence ended the answer, so that the rest need not be read."""
        return self._is_stopped

    def start(self) -> List[Event]:
        """Open the message."""
        self._start()
        return self._take()

    def feed(self, chunk: Chunk) -> List[Event]:
        """Translate one chunk.

        Raises:
            ProviderError: the chunk carries an error, or arguments that are no JSON.
        """
        if self._phase is Phase.ENDED:
            return []
        if chunk.error is not None:
            raise error_in_stream(chunk.error)
        self._start()
        self._has_choice = self._has_choice or chunk.has_choice
        self._usage = chunk.usage or self._usage
        for piece in chunk.pieces:
            self._piece(piece)
        for delta in chunk.tool_calls:
            self._tool_call(delta)
        if self._deferred and not self._is_writing_call:
            self._send_deferred()
        self._finish_reason = chunk.finish_reason or self._finish_reason
        if chunk.stop_sequence in self._context.stop_sequences:
            self._stop_sequence = chunk.stop_sequence
        return self._take()

    def finish(self, *, is_done: bool) -> List[Event]:
        """End the message regularly. ``is_done``: the provider said so (``[DONE]``, or a whole completion).

        Raises:
            ProviderError: the stream was cut, empty, or ended by a failure; an honest end would pass half an answer
                off as a whole one.
        """
        if self._phase is Phase.ENDED:
            return []
        if not self._has_choice:
            raise ProviderError("the provider's answer was empty")
        if not (is_done or self._finish_reason is not None or self._is_stopped):
            raise ProviderError("the provider closed the stream before finishing")
        if self._finish_reason in FAILED:
            raise ProviderError(f"the provider gave up: finish_reason {self._finish_reason!r}", status=529)
        self._start()
        self._flush_text()
        self._flush_calls()
        self._close()
        self._send_deferred()
        self._flush_text()
        self._close()
        if not self._blocks:  # clients take a message without any block for a failure
            self._switch(OpenBlock("text", self._blocks), text_block())
            self._close()
        self._out += [self._message_delta(), MessageStop()]
        self._phase = Phase.ENDED
        return self._take()

    def fail(self, error: ApiError, request_id: str) -> List[Event]:
        """End the message with an error event."""
        if self._phase is Phase.ENDED:
            return []
        self._phase = Phase.ENDED
        return [*self._take(), ErrorEvent(error.to_dict(request_id))]

    # --- transitions -----------------------------------------------------------------------------------------

    def _take(self) -> List[Event]:
        out, self._out = self._out, []
        return out

    def _start(self) -> None:
        if self._phase is Phase.NEW:
            self._phase = Phase.STREAMING
            # Claude Code 1.0 adds the output count of this event to the final one: it must be 0.
            usage = Usage(input_tokens=self._context.input_tokens)
            self._out.append(MessageStart(self._context.message_id, self._context.model, usage))

    def _switch(self, block: OpenBlock, start: Json) -> None:
        self._close()
        self._open = block
        self._blocks += 1
        self._out.append(BlockStart(block.index, start))

    def _close(self) -> None:
        if self._open is None:
            return
        if self._open.call is not None:
            self._complete_arguments(self._open.index, self._open.call)
            self._open.call.is_closed = True
        self._out.append(BlockStop(self._open.index))
        self._open = None

    # --- text and thinking -----------------------------------------------------------------------------------

    def _piece(self, piece: Piece) -> None:
        if self._is_writing_call:
            self._deferred.append(piece)
            return
        if piece.kind == "refusal":
            self._refusal += piece.text
        if piece.kind == "thinking":
            self._thinking(piece.text)
        elif self._tags is None:
            self._text(piece.text)
        else:
            self._split(self._tags.feed(piece.text))

    def _send_deferred(self) -> None:
        deferred, self._deferred = self._deferred, []
        for piece in deferred:
            self._piece(piece)

    def _split(self, pieces: List[Piece]) -> None:
        for piece in pieces:
            if piece.kind == "thinking":
                self._thinking(piece.text)
            else:
                self._text(piece.text)

    def _thinking(self, text: str) -> None:
        if self._is_stopped:
            return
        if self._open is None or self._open.kind != "thinking":
            self._flush_stops()
            self._flush_calls()
            self._switch(OpenBlock("thinking", self._blocks), thinking_block())
        assert self._open is not None
        self._output_characters += len(text)
        self._out.append(ThinkingDelta(self._open.index, text))

    def _text(self, text: str) -> None:
        if self._is_stopped:
            return
        certain, matched = self._stops.feed(text)
        self._certain_text(certain)
        if matched is not None:
            self._stop_sequence = matched
            self._is_stopped = True

    def _certain_text(self, text: str) -> None:
        if self._open is None or self._open.kind != "text":
            text = self._blank + text
            if not text.strip():
                self._blank = text
                return
            self._blank = ""
            self._flush_calls()
            self._switch(OpenBlock("text", self._blocks), text_block())
        if text:
            assert self._open is not None
            self._output_characters += len(text)
            self._out.append(TextDelta(self._open.index, text))

    def _flush_stops(self) -> None:
        """The run of text is over: what was held for a stop sequence is text, whitespace alone is nothing."""
        held = self._stops.finish()
        if held:
            self._certain_text(held)
        self._blank = ""

    def _flush_text(self) -> None:
        if self._tags is not None:
            self._split(self._tags.finish())
        self._flush_stops()

    # --- tool calls ------------------------------------------------------------------------------------------

    def _tool_call(self, delta: ToolCallDelta) -> None:
        if self._is_stopped:
            return
        call = self._calls.add(delta)
        if call.is_closed or (self._context.is_single_call and call is not self._calls.all[0]):
            return
        if self._open is None or self._open.call is None:
            self._flush_text()
        self._open_next_call()
        if self._open is not None and self._open.call is call:
            self._send_arguments(self._open.index, call)
            self._open_next_call()

    def _open_next_call(self) -> None:
        """Open the first waiting call, unless another one is still being written."""
        waiting = self._waiting_calls()
        if waiting and not self._is_writing_call:
            self._open_call(waiting[0])

    @property
    def _is_writing_call(self) -> bool:
        """Whether the open block is a call in the middle of its arguments."""
        call = self._open.call if self._open is not None else None
        return call is not None and bool(call.arguments.strip()) and not call.is_complete

    def _waiting_calls(self) -> List[Call]:
        current = self._open.call if self._open is not None else None
        candidates = self._calls.all[:1] if self._context.is_single_call else self._calls.all
        return [call for call in candidates if call.name and not call.is_closed and call is not current]

    def _open_call(self, call: Call) -> None:
        index = self._blocks
        tool_id = client_tool_id(call.provider_id or f"toolu_{self._context.message_id[4:]}_{index}", self._tool_ids)
        block = tool_use_block(tool_id, self._context.tool_names.to_client(call.name))
        self._switch(OpenBlock("tool_use", index, call), block)
        self._send_arguments(index, call)

    def _send_arguments(self, index: int, call: Call) -> None:
        fragment = call.arguments[call.sent :]
        if fragment and call.is_live:
            call.sent = len(call.arguments)
            self._output_characters += len(fragment)
            self._out.append(InputJsonDelta(index, fragment))

    def _flush_calls(self) -> None:
        """Send what still waits: text follows, or the answer ends."""
        for call in self._waiting_calls():
            self._open_call(call)
        if any(not call.name and call.arguments.strip() for call in self._calls.all):
            raise ProviderError("the provider sent a tool call without a name")

    def _complete_arguments(self, index: int, call: Call) -> None:
        """Make the sent arguments strict JSON, as far as what is already sent allows."""
        if not call.sent:
            self._out.append(InputJsonDelta(index, dump(partial_json.repair(call.arguments))))
        elif not call.is_complete and not self._is_cut_by_length:
            suffix = partial_json.closing(call.arguments)
            if suffix is None:
                raise ProviderError(f"the provider sent arguments for tool {call.name!r} that are not JSON")
            self._out.append(InputJsonDelta(index, suffix))

    # --- the end ---------------------------------------------------------------------------------------------

    @property
    def _is_cut_by_length(self) -> bool:
        return stop_reason(self._finish_reason, False) in (MAX_TOKENS, "model_context_window_exceeded")

    def _message_delta(self) -> MessageDelta:
        usage = self._final_usage()
        if self._stop_sequence is not None and (self._is_stopped or not self._tool_blocks):
            return MessageDelta("stop_sequence", self._stop_sequence, usage)
        reason = stop_reason(self._finish_reason, self._tool_blocks > 0)
        details: Optional[Json] = None
        if self._refusal and reason == "end_turn":
            reason = REFUSAL
        if reason == REFUSAL:
            details = {"type": "refusal", "category": None, "explanation": self._refusal or None}
        if reason == MAX_TOKENS and self._is_window_full(usage):
            reason = "model_context_window_exceeded"
        return MessageDelta(reason, None, usage, details)

    @property
    def _tool_blocks(self) -> int:
        return sum(1 for call in self._calls.all if call.is_closed)

    def _is_window_full(self, usage: Usage) -> bool:
        asked, window = self._context.max_tokens, self._context.window
        prompt = usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens
        if not asked or not window or self._usage is None:
            return False
        return usage.output_tokens < asked and prompt + usage.output_tokens >= window

    def _final_usage(self) -> Usage:
        """Return the provider's counts; an absent or zero one is estimated, for clients compact by these numbers."""
        estimate = Usage(self._context.input_tokens, -(-self._output_characters // 4))
        if self._usage is None:
            return estimate
        usage = translate_usage(self._usage, self._context.dialect)
        if not (usage.input_tokens or usage.cache_read_input_tokens or usage.cache_creation_input_tokens):
            return Usage(estimate.input_tokens, usage.output_tokens, thinking_tokens=usage.thinking_tokens)
        return usage
