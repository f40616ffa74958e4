"""The turns of a conversation for either API, in the order that providers demand, repaired where clients leave gaps.

They demand more of it than Anthropic: what answers a call directly after it, one answer for each call.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple, TypeVar

from ..anthropic import (
    Block,
    Message,
    MessagesRequest,
    OtherBlock,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from ..encoded import Json
from ..errors import InvalidRequest
from ..remembered import once, once_each
from .content import UNSPOKEN, Notes, Target

T = TypeVar("T")

NOTHING_SAID = "messages: text content blocks must be non-empty"


class _Made(NamedTuple):
    """What became of a turn, kept with it for the next request of the conversation."""

    target: Target
    calls: Tuple[str, ...]
    items: List[Any]
    dropped: List[str]


def translate_turns(
    request: MessagesRequest,
    target: Target,
    notes: Notes,
    make: Callable[[Message, Tuple[str, ...], Target, Notes], List[T]],
) -> List[T]:
    """Return what ``make`` makes of each turn and the calls that it must answer, all in one list.

    What it made of a turn for the same model before is taken, so it must change nothing later.

    Raises:
        InvalidRequest: nothing is left of the conversation; what was left out is named.
    """
    items: List[T] = []
    for turn, calls in _in_order(request, target):
        made: Optional[_Made] = turn.made.get(make)
        if made is None or made.target != target or made.calls != calls:
            own = Notes()
            made = turn.made[make] = _Made(target, calls, make(turn, calls, target, own), own.dropped)
        items += made.items
        for what in made.dropped:
            notes.drop(what)
    if not items:
        raise InvalidRequest(NOTHING_SAID + (f" (left out: {', '.join(notes.dropped)})" if notes.dropped else ""))
    return items


def _in_order(request: MessagesRequest, target: Target) -> Iterator[Tuple[Message, Tuple[str, ...]]]:
    """Yield the turns in the order providers demand, each user turn with the calls that it must answer first.

    Calls that nobody answers are followed by a user turn of their own, without content. A cache breakpoint on a call,
    as Claude Code sets it to compact a conversation, moves to its result: a call has no text that could bear it.
    """
    silent = once_each(request.messages, _is_silent)
    spoken = [message for message, is_silent in zip(request.messages, silent) if not is_silent]
    pending: Tuple[str, ...] = ()  # calls of the assistant message just before
    marks: Dict[str, Json] = {}  # and their breakpoints
    for turn in _merge(_place_system(_without_repeats(_merge(spoken)), target)):
        if pending and turn.role != "user":
            yield Message("user", ()), pending
        if marks and target.marks_results:
            turn = replace(turn, content=tuple(_marked(block, marks) for block in turn.content))
        yield turn, pending if turn.role == "user" else ()
        pending, marks = once(turn, _calls), once(turn, _marks)
    if pending:
        yield Message("user", ()), pending


def _calls(turn: Message) -> Tuple[str, ...]:
    """Return the ids of the calls that a turn makes, each once."""
    return tuple(_calls_by_id(turn)) if turn.role == "assistant" else ()


def _marks(turn: Message) -> Dict[str, Json]:
    """Return the cache breakpoints on calls, by the call's id."""
    uses = (block for block in turn.content if isinstance(block, ToolUseBlock))
    return {block.id: block.cache_control for block in uses if block.cache_control}


def _marked(block: Block, marks: Dict[str, Json]) -> Block:
    if not isinstance(block, ToolResultBlock) or block.cache_control:
        return block
    return replace(block, cache_control=marks.get(block.tool_use_id))


def _calls_by_id(turn: Message) -> Dict[str, ToolUseBlock]:
    return {block.id: block for block in turn.content if isinstance(block, ToolUseBlock)}


def _is_silent(message: Message) -> bool:
    """Whether a turn says nothing: blank text, or thinking alone, is no message elsewhere."""

    def says_something(block: Block) -> bool:
        if isinstance(block, TextBlock):
            return bool(block.text.strip())
        return not isinstance(block, ThinkingBlock) and not (isinstance(block, OtherBlock) and block.type in UNSPOKEN)

    return message.role != "system" and not any(map(says_something, message.content))


def _without_repeats(messages: List[Message]) -> List[Message]:
    """Drop a tool turn that is there twice: Claude Code 1.0 repeats the first one in every later request."""
    ids = [name for calls in once_each(messages, _calls_by_id) for name in calls]
    if len(set(ids)) == len(ids):
        return messages  # nearly always: a third of the time
    made: Dict[str, ToolUseBlock] = {}
    repeated: Set[str] = set()
    kept: List[Message] = []
    for message in messages:
        if message.role == "assistant":
            calls = once(message, _calls_by_id)
            is_repeat = bool(calls) and all(made.get(name) == call for name, call in calls.items())
            repeated = set(calls) if is_repeat else set()
            made.update(calls)
            if not is_repeat:
                kept.append(message)
        elif not repeated:
            kept.append(message)
        else:
            content = tuple(
                block
                for block in message.content
                if not (isinstance(block, ToolResultBlock) and block.tool_use_id in repeated)
            )
            if content or not message.content:
                kept.append(replace(message, content=content))
    return kept


def _place_system(messages: Sequence[Message], target: Target) -> List[Message]:
    """Place system messages inside the conversation where the dialect takes them.

    Many chat templates raise on a system message that is not first, and hoisting it would spoil prefix caches: by
    default it becomes a reminder in the user's turn. One that stands between calls and results moves behind them.
    """
    placed: List[Message] = []
    waiting: List[Message] = []
    for position, message in enumerate(messages):
        if message.role == "system":
            is_over = any(later.role == "user" for later in messages[position + 1 :])
            text = "\n\n".join(block.text for block in message.content if isinstance(block, TextBlock))
            if not text.strip() or (is_over and message.raw.get("clear_at") == "next_user_message"):
                continue
            if target.dialect.system_in_conversation != "inline":
                marks = [block.cache_control for block in message.content if isinstance(block, TextBlock)]
                reminder = TextBlock(f"<system-reminder>\n{text}\n</system-reminder>", marks[-1])
                message = Message("user", (reminder,))
            if placed and any(isinstance(block, ToolUseBlock) for block in placed[-1].content):
                waiting.append(message)
                continue
        placed.append(message)
        if waiting and message.role == "user":
            placed += waiting
            waiting = []
    return placed + waiting


def _merge(messages: Iterable[Message]) -> List[Message]:
    """Join neighbours of one role, as Anthropic does."""
    merged: List[Message] = []
    for message in messages:
        if merged and merged[-1].role == message.role != "system":
            merged[-1] = replace(merged[-1], content=merged[-1].content + message.content)
        else:
            merged.append(message)
    return merged
