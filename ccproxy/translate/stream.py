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
from enum import Enum
from typing import DefaultDict, List, Optional, Set

from ..encoded import Json
from ..errors import ApiError, ProviderError
from ..message import (
    ErrorEvent,
    Event,
    MessageStart,
    MessageStop,
    SignatureDelta,
    ThinkingDelta,
    Usage,
    text_block,
    thinking_block,
    tool_use_block,
)
from ..openai import Chunk, Piece, ToolCallDelta
from .blocks import BlockWriter, OpenBlock
from .envelope import seal_id
from .failure import error_in_stream
from .ids import client_tool_id
from .reasoning import ReasoningState
from .reply import ReplyContext
from .response import CUT_BY_LENGTH, FAILED, Ending, is_malformed, message_delta, stop_reason
from .searches import Searches
from .text import FenceStripper, HalfJoiner, StopMatcher, TagSplitter
from .toolcalls import Call, ToolCalls

# The end of a chunk that has pieces alone.
_NOTHING_ELSE = Chunk()[2:]


class Phase(Enum):
    """How far the stream is."""

    NEW = "new"
    STREAMING = "streaming"
    ENDED = "ended"


_STREAMING = Phase.STREAMING  # to ask an enumeration for it takes longer


class StreamTranslator:
    """One answer's translation. ``feed`` chunks, then ``finish`` or ``fail``; each returns the events to send."""

    def __init__(self, context: ReplyContext) -> None:
        self._context = context
        self._phase = Phase.NEW
        self._writer = BlockWriter(self._complete)
        self._searches = Searches(context, self._writer)
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

    @property
    def has_content(self) -> bool:
        """Whether a block was opened: from then on no other model may answer."""
        return self._writer.count > 0

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
        if chunk.error is not None and not self.is_stopped:
            raise error_in_stream(chunk.error, self._context.target)
        self._start()
        self._has_choice = self._has_choice or chunk.has_choice
        self.provider_usage = chunk.usage or self.provider_usage
        if not (chunk.is_whole and self._writer.count):
            self._feed_content(chunk)
        if self._deferred and not self._writer.is_writing_call:
            self._send_deferred()
        if not self.is_stopped:  # else it tells of what nobody gets
            self._finish_reason = chunk.finish_reason or self._finish_reason
        if chunk.stop_sequence is not None:
            self._stop_sequence = self._context.stopped_at(chunk.stop_sequence) or self._stop_sequence
        return self._writer.take()

    def _plain_text(self, chunk: Chunk) -> List[Event]:
        """Return the deltas of a chunk that merely goes on with the open text: nine of ten, in a third of the time."""
        if not chunk.pieces or chunk[2:] != _NOTHING_ELSE:
            return []
        block = self.passes()
        if block is None or block.kind != "text" or any(k != "text" or not t.isascii() for k, t in chunk.pieces):
            return []
        for _, text in chunk.pieces:
            self._writer.text(block.index, text)
        return self._writer.take()

    def passes(self) -> Optional[OpenBlock]:
        """Return the open block, if text of its kind merely goes on with it: nothing is held, or looked for in it."""
        block = self._writer.open
        if block is None or self._phase is not _STREAMING or self._blank or self._halves[block.kind].held:
            return None
        if block.kind == "text":
            return None if self._fence or self._tags or self._context.stop_sequences else block
        is_shown = block.kind == "thinking" and not self._context.hides_thinking
        return block if is_shown and not (self._tags and self._tags.held) else None

    def passed(self, characters: int) -> None:
        """Count text that went into the open block."""
        self._writer.characters += characters

    def _feed_content(self, chunk: Chunk) -> None:
        if chunk.state or chunk.reasoning_field:
            self._reasoning.add(chunk.state, chunk.reasoning_field)
        for piece in chunk.pieces:
            self._piece(Piece(piece.kind, self._halves[piece.kind].feed(piece.text)))
        for delta in chunk.tool_calls:
            self._tool_call(delta)
        if self._searches.is_asked and (chunk.searches or chunk.citations):
            self._search(chunk)

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
        if self._finish_reason in FAILED or (not self._writer.count and is_malformed(self._finish_reason)):
            raise ProviderError(f"the provider gave up: finish_reason {self._finish_reason!r}", status=529)
        self._start()
        for kind in list(self._halves):
            self._piece(Piece(kind, self._halves[kind].finish()))
        self._flush_text()
        self._flush_calls()
        self._writer.close()
        self._send_deferred()
        self._flush_text()
        self._searches.show_held(is_end=True)
        if self._reasoning.is_pending and (self._calls.closed or not self._writer.count):
            self._carry_reasoning()
        self._writer.close()
        if not self._writer.count:  # clients take a message without any block for a failure
            self._writer.switch(text_block())
            self._writer.close()
        self._writer.out += [message_delta(self._ending(), self._context), MessageStop()]
        self._phase = Phase.ENDED
        return self._writer.take()

    def fail(self, error: ApiError, request_id: str) -> List[Event]:
        """End the message with an error event."""
        if self._phase is Phase.ENDED:
            return []
        self._phase = Phase.ENDED
        return [*self._writer.take(), ErrorEvent(error.to_dict(request_id))]

    # --- transitions -----------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._phase is Phase.NEW:
            self._phase = Phase.STREAMING
            # Claude Code 1.0 adds the output count of this event to the final one: it must be 0.
            usage = Usage(input_tokens=self._context.estimate or 0)
            self._writer.out.append(MessageStart(self._context.message_id, self._context.model, usage))

    def _complete(self, block: OpenBlock) -> None:
        """Write what a block needs before it is closed: the rest of a call's arguments, a signature."""
        call = block.call
        if call is not None:
            call.end()
            self._send_arguments(block.index, call)
            rest = call.missing(may_be_cut=self._is_cut_by_length and call is self._calls.all[-1])
            if rest:
                self._writer.json(block.index, rest)
            call.is_closed = True
        elif block.kind == "thinking":
            self._writer.out.append(SignatureDelta(block.index, self._reasoning.take()))

    def _search(self, chunk: Chunk) -> None:
        """Show what the provider searched for; reasoning before a search is not carried, for the search cannot be."""
        if chunk.searches:
            self._flush_text()
            self._flush_calls()
            self._reasoning.forget_items()
        for search in chunk.searches:
            self._searches.add(search)
        for citation in chunk.citations:
            self._searches.cite(citation)

    # --- text and thinking -----------------------------------------------------------------------------------

    def _piece(self, piece: Piece) -> None:
        if not piece.text:
            return
        if self._writer.is_writing_call:
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
            if self._tags.is_done:
                self._tags = None

    def _send_deferred(self) -> None:
        deferred, self._deferred = self._deferred, []
        for piece in deferred:
            self._piece(piece)

    def _split(self, pieces: List[Piece]) -> None:
        for kind, text in pieces:
            (self._thinking if kind == "thinking" else self._text)(text)

    def _thinking(self, text: str) -> None:
        if self.is_stopped:
            return
        self._flush_stops()
        if not self._writer.is_open("thinking"):
            self._flush_calls()
        block = self._carry_reasoning()
        self._writer.characters += len(text)
        if self._context.hides_thinking:
            self._reasoning.hide(text)
        else:
            self._writer.out.append(ThinkingDelta(block.index, text))

    def _carry_reasoning(self) -> OpenBlock:
        """Open an empty thinking block for state that no open one can carry; its signature comes when it closes.

        After visible text nothing is carried: older clients read the last block as the answer, and only tool turns
        need the state.
        """
        block = self._writer.open
        return block if block is not None and block.kind == "thinking" else self._writer.switch(thinking_block())

    def _text(self, text: str) -> None:
        if self.is_stopped:
            return
        certain, matched = self._stops.feed(self._fence.feed(text) if self._fence else text)
        self._certain_text(certain)
        if matched is not None:
            self._stop_sequence = matched
            self.is_stopped = True

    def _certain_text(self, text: str) -> None:
        block = self._writer.open
        if block is None or block.kind != "text":
            text = self._blank + text
            if not text.strip():
                self._blank = text
                return
            self._blank = ""
            self._flush_calls()
            if self._reasoning.is_pending:
                self._carry_reasoning()
            self._searches.show_held(is_end=False)
            block = self._writer.switch(text_block())
        if text:
            self._writer.text(block.index, text)

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
        block = self._writer.open
        if block is None or block.call is None:
            self._flush_text()  # text sends all calls that wait: this one is not known yet
        call = self._calls.add(delta)
        if delta.state and call.client_id:  # the signature came after its call was opened
            self._reasoning.add_call(call.client_id, delta.state)
        if call.is_closed or (self._context.is_single_call and call is not self._calls.all[0]):
            return
        if block is not None and block.call is call:
            self._send_arguments(block.index, call)
        self._open_next_call()

    def _open_next_call(self) -> None:
        """Open the first waiting call, unless another one is still being written."""
        waiting = self._waiting_calls()
        if waiting and self._writer.may_open_call:
            self._open_call(waiting[0])

    def _waiting_calls(self) -> List[Call]:
        return self._calls.waiting(is_single=self._context.is_single_call, current=self._writer.call)

    def _open_call(self, call: Call) -> None:
        provider_id = call.provider_id or f"toolu_{self._context.message_id[4:]}_{self._writer.count}"
        tool_id = client_tool_id(provider_id, self._tool_ids)
        if call.state:
            tool_id = self._carried_by(tool_id, call.state)
        if self._reasoning.is_pending:
            self._carry_reasoning()
        index = self._writer.count
        call.client_id = tool_id
        self._writer.characters += len(call.name)
        self._writer.switch(tool_use_block(tool_id, self._context.tool_names.to_client(call.name)), call)
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
            self._writer.json(index, fragment)

    def _flush_calls(self) -> None:
        """Send what still waits: text follows, or the answer ends."""
        for call in self._waiting_calls():
            self._open_call(call)
        if any(not call.name and call.arguments.strip() for call in self._calls.all):
            raise ProviderError("the provider sent a tool call without a name")

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
            output_characters=self._writer.characters,
            web_searches=self._searches.count,
        )
