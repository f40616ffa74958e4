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

from collections import defaultdict
from dataclasses import dataclass
from enum import Enum
from typing import DefaultDict, List, Optional, Set

from .. import partial_json
from ..errors import ApiError, ProviderError
from ..message import (
    BlockStart,
    BlockStop,
    ErrorEvent,
    Event,
    InputJsonDelta,
    MessageStart,
    MessageStop,
    SignatureDelta,
    TextDelta,
    ThinkingDelta,
    Usage,
    text_block,
    thinking_block,
    tool_use_block,
)
from ..openai import Chunk, Json, Piece, ToolCallDelta, dump
from .envelope import seal_id
from .failure import error_in_stream
from .ids import client_tool_id
from .reasoning import ReasoningState
from .reply import ReplyContext
from .response import CUT_BY_LENGTH, FAILED, Ending, is_malformed, message_delta, stop_reason
from .text import FenceStripper, HalfJoiner, StopMatcher, TagSplitter
from .toolcalls import Call, ToolCalls

# The end of a chunk that has pieces alone.
_NOTHING_ELSE = Chunk()[2:]


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
        self._fence = FenceStripper() if context.has_fence else None
        self._stops = StopMatcher(context.stop_sequences)
        self._halves: DefaultDict[str, HalfJoiner] = defaultdict(HalfJoiner)
        self._tags = TagSplitter(context.dialect.think_tag) if context.dialect.think_tag else None
        self._blank = ""  # whitespace that opens no text block of its own
        self._deferred: List[Piece] = []  # text that came in the middle of a call's arguments
        self._reasoning = ReasoningState(context.provider, context.model_name)
        self.provider_usage: Optional[Json] = None
        """The provider's own ``usage``, once it sent it."""
        self._finish_reason: Optional[str] = None
        self._stop_sequence: Optional[str] = None
        self._has_choice = False
        self.is_stopped = False  # whether a stop sequence ended the answer: the rest need not be read
        self._refusal = ""
        self._output_characters = 0

    @property
    def has_content(self) -> bool:
        """Whether a block was opened: from then on no other model may answer."""
        return self._blocks > 0

    @property
    def mended_calls(self) -> int:
        """How many calls came with arguments that are no JSON object."""
        return self._calls.mended

    def feed(self, chunk: Chunk) -> List[Event]:
        """Translate one chunk.

        Raises:
            ProviderError: the chunk carries an error, or arguments that are no JSON.
        """
        text = self._plain_text(chunk)
        if text:
            return text
        if self._phase is Phase.ENDED:
            return []
        if chunk.error is not None:
            raise error_in_stream(chunk.error, self._context.target)
        self._start()
        self._has_choice = self._has_choice or chunk.has_choice
        self.provider_usage = chunk.usage or self.provider_usage
        if not (chunk.is_whole and self._blocks):
            self._feed_content(chunk)
        if self._deferred and not self._is_writing_call:
            self._send_deferred()
        self._finish_reason = chunk.finish_reason or self._finish_reason
        if chunk.stop_sequence in self._context.stop_sequences:
            self._stop_sequence = chunk.stop_sequence
        return self._take()

    def _plain_text(self, chunk: Chunk) -> List[Event]:
        """Return the delta for a chunk that merely goes on with the open text block, else nothing.

        Such are nine chunks of ten; this takes 3 us for one, the whole way 9.
        """
        block = self._open
        if block is None or block.kind != "text" or chunk[2:] != _NOTHING_ELSE or len(chunk.pieces) != 1:
            return []
        kind, text = chunk.pieces[0]
        if kind != "text" or not text.isascii() or not self._passes_text:
            return []
        self._output_characters += len(text)
        return [TextDelta(block.index, text)]

    @property
    def _passes_text(self) -> bool:
        """Whether text goes out as it comes: nothing is looked for in it, no half of a character is held."""
        looks = self._fence is not None or (self._tags is not None and not self._tags.is_done)
        is_over = self._phase is not Phase.STREAMING
        return not (looks or is_over or self._context.stop_sequences or self._halves["text"].is_holding)

    def _feed_content(self, chunk: Chunk) -> None:
        if chunk.state or chunk.reasoning_field:
            self._reasoning.add(chunk.state, chunk.reasoning_field)
        for piece in chunk.pieces:
            self._piece(Piece(piece.kind, self._halves[piece.kind].feed(piece.text)))
        for delta in chunk.tool_calls:
            self._tool_call(delta)

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
        if not (is_done or self._finish_reason is not None or self.is_stopped):
            raise ProviderError("the provider closed the stream before finishing")
        if self._finish_reason in FAILED or (not self._blocks and is_malformed(self._finish_reason)):
            raise ProviderError(f"the provider gave up: finish_reason {self._finish_reason!r}", status=529)
        self._start()
        for kind in list(self._halves):
            self._piece(Piece(kind, self._halves[kind].finish()))
        self._flush_text()
        self._flush_calls()
        self._close()
        self._send_deferred()
        self._flush_text()
        if self._reasoning.is_pending and (self._calls.closed or not self._blocks):
            self._carry_reasoning()
        self._close()
        if not self._blocks:  # clients take a message without any block for a failure
            self._switch(OpenBlock("text", self._blocks), text_block())
            self._close()
        self._out += [message_delta(self._ending(), self._context), MessageStop()]
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
        elif self._open.kind == "thinking":
            self._out.append(SignatureDelta(self._open.index, self._reasoning.take()))
        self._out.append(BlockStop(self._open.index))
        self._open = None

    # --- text and thinking -----------------------------------------------------------------------------------

    def _piece(self, piece: Piece) -> None:
        if not piece.text:
            return
        if self._is_writing_call:
            self._deferred.append(piece)
            return
        if piece.kind == "refusal":
            self._refusal += piece.text
        if piece.kind == "thinking":
            if self._tags is not None:
                self._split(self._tags.finish())  # what was held for a tag is none
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
        if self.is_stopped:
            return
        self._flush_stops()
        if self._open is None or self._open.kind != "thinking":
            self._flush_calls()
            self._switch(OpenBlock("thinking", self._blocks), thinking_block())
        assert self._open is not None
        self._output_characters += len(text)
        if self._context.hides_thinking:
            self._reasoning.hide(text)
        else:
            self._out.append(ThinkingDelta(self._open.index, text))

    def _carry_reasoning(self) -> None:
        """Open an empty thinking block for state that no open one can carry; its signature comes when it closes.

        After visible text nothing is carried: older clients read the last block as the answer, and only tool turns
        need the state.
        """
        if self._open is None or self._open.kind != "thinking":
            self._switch(OpenBlock("thinking", self._blocks), thinking_block())

    def _text(self, text: str) -> None:
        if self.is_stopped:
            return
        certain, matched = self._stops.feed(self._fence.feed(text) if self._fence else text)
        self._certain_text(certain)
        if matched is not None:
            self._stop_sequence = matched
            self.is_stopped = True

    def _certain_text(self, text: str) -> None:
        if self._open is None or self._open.kind != "text":
            text = self._blank + text
            if not text.strip():
                self._blank = text
                return
            self._blank = ""
            self._flush_calls()
            if self._reasoning.is_pending:
                self._carry_reasoning()
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
        if self._fence is not None:
            self._certain_text(self._fence.finish())
        self._flush_stops()

    # --- tool calls ------------------------------------------------------------------------------------------

    def _tool_call(self, delta: ToolCallDelta) -> None:
        if self.is_stopped:
            return
        call = self._calls.add(delta)
        if delta.state and call.client_id:  # the signature came after its call was opened
            self._reasoning.add_call(call.client_id, delta.state)
        if call.is_closed or (self._context.is_single_call and call is not self._calls.all[0]):
            return
        if self._open is None or self._open.call is None:
            self._flush_text()
        if self._open is not None and self._open.call is call:
            self._send_arguments(self._open.index, call)
        self._open_next_call()

    def _open_next_call(self) -> None:
        """Open the first waiting call, unless another one is still being written."""
        waiting = self._waiting_calls()
        if waiting and self._may_open_call:
            self._open_call(waiting[0])

    @property
    def _is_writing_call(self) -> bool:
        """Whether the open block is a call in the middle of its arguments."""
        call = self._open.call if self._open is not None else None
        return call is not None and bool(call.arguments.strip()) and not call.is_complete

    @property
    def _may_open_call(self) -> bool:
        """Whether no call is open, or a whole one: one without arguments so far may still get them."""
        call = self._open.call if self._open is not None else None
        return call is None or call.is_complete

    def _waiting_calls(self) -> List[Call]:
        current = self._open.call if self._open is not None else None
        candidates = self._calls.all[:1] if self._context.is_single_call else self._calls.all
        return [call for call in candidates if call.name and not call.is_closed and call is not current]

    def _open_call(self, call: Call) -> None:
        provider_id = call.provider_id or f"toolu_{self._context.message_id[4:]}_{self._blocks}"
        tool_id = client_tool_id(provider_id, self._tool_ids)
        if call.state:
            tool_id = self._carried_by(tool_id, call.state)
        if self._reasoning.is_pending:
            self._carry_reasoning()
        index = self._blocks
        call.client_id = tool_id
        self._output_characters += len(call.name)
        block = tool_use_block(tool_id, self._context.tool_names.to_client(call.name))
        self._switch(OpenBlock("tool_use", index, call), block)
        self._send_arguments(index, call)

    def _carried_by(self, tool_id: str, state: Json) -> str:
        """Hand a call's state to the thinking block before it and, where a call without is refused, to its id."""
        if self._context.dialect.needs_signature:
            signature = (state["extra_content"].get("google") or {}).get("thought_signature")
            tool_id = seal_id(tool_id, signature) if isinstance(signature, str) else tool_id
        self._reasoning.add_call(tool_id, state)
        return tool_id

    def _send_arguments(self, index: int, call: Call) -> None:
        fragment = call.arguments[call.sent :]
        if fragment and call.is_live:
            call.sent = len(call.arguments)
            self._send_json(index, fragment)

    def _send_json(self, index: int, text: str) -> None:
        self._output_characters += len(text)
        self._out.append(InputJsonDelta(index, text))

    def _flush_calls(self) -> None:
        """Send what still waits: text follows, or the answer ends."""
        for call in self._waiting_calls():
            self._open_call(call)
        if any(not call.name and call.arguments.strip() for call in self._calls.all):
            raise ProviderError("the provider sent a tool call without a name")

    def _complete_arguments(self, index: int, call: Call) -> None:
        """Make the sent arguments strict JSON, as far as what is already sent allows."""
        call.end()
        self._send_arguments(index, call)
        if not call.sent:
            self._send_json(index, dump(partial_json.repair(call.arguments)))
        elif not call.is_complete and not (self._is_cut_by_length and call is self._calls.all[-1]):
            suffix = partial_json.closing(call.arguments)
            if suffix is None:
                raise ProviderError(f"the provider sent arguments for tool {call.name!r} that are not JSON")
            self._send_json(index, suffix)

    # --- the end ---------------------------------------------------------------------------------------------

    @property
    def _is_cut_by_length(self) -> bool:
        return stop_reason(self._finish_reason, False) in CUT_BY_LENGTH

    def _ending(self) -> Ending:
        return Ending(
            finish_reason=self._finish_reason,
            stop_sequence=self._stop_sequence,
            refusal=self._refusal,
            has_tool_use=self._calls.closed > 0,
            usage=self.provider_usage,
            output_characters=self._output_characters,
        )
