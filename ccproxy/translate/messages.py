"""The conversation: Messages API turns to chat-completions messages.

Everything here is deterministic, so that a conversation sent again has the same prefix.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import List, Optional, Sequence, Set, Tuple, Union

from ..anthropic import (
    Block,
    Message,
    MessagesRequest,
    OtherBlock,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from ..encoded import Json, dump
from ..openai import ChatMessage, ToolCall
from .content import (
    Notes,
    Target,
    add_parts,
    join_text,
    mark,
    media_word,
    parts_of,
    simplify,
    text_part,
    words_of,
)
from .envelope import unseal_id
from .ids import ToolNames, provider_tool_id
from .reasoning import Returned, call_fields, give_back, message_fields
from .turns import translate_turns

ATTRIBUTION = "x-anthropic-billing-header:"
MISSING_RESULT = "[tool result missing]"
NO_OUTPUT = "(no output)"
UNDERSTOOD = "Understood."
MOST_KNOWN_SYSTEM = 65536
"""Characters of a system prompt that is remembered; eight such take a megabyte."""
CONTINUE = "Continue your last message from exactly where it ends. Do not repeat any of it."


def translate_messages(
    request: MessagesRequest, target: Target, notes: Notes, instructions: Sequence[str] = ()
) -> List[ChatMessage]:
    """Return the messages of a request, system prompt first; ``instructions`` end the system prompt."""
    system = _system([*request.system, *map(TextBlock, instructions)], target, notes)
    return system + _with_prefill(translate_turns(request, target, notes, _turn), target)


def _turn(turn: Message, calls: Tuple[str, ...], target: Target, notes: Notes) -> List[ChatMessage]:
    if turn.role == "assistant":
        message = _assistant(turn, target, notes)
        return [message] if message else []
    return _system(turn.content, target, notes) if turn.role == "system" else _user(turn, calls, target, notes)


def with_breakpoint(messages: List[ChatMessage], cache_control: Json, target: Target) -> List[ChatMessage]:
    """Return the messages with a cache breakpoint on the last text of what the user, or a tool, said last."""
    roles = ("user", "tool") if target.marks_results else ("user",)
    last = next((n for n in range(len(messages) - 1, -1, -1) if messages[n].role in roles), None)
    if last is None:
        return messages
    content = messages[last].content
    parts = [dict(part) for part in content] if isinstance(content, list) else [text_part(content or "")]
    mark(parts, cache_control)
    return [*messages[:last], replace(messages[last], content=parts), *messages[last + 1 :]]


def _with_prefill(messages: List[ChatMessage], target: Target) -> List[ChatMessage]:
    """Ask the model to go on when the conversation ends with its own words."""
    if messages[-1].role != "assistant":
        return messages
    flag = target.dialect.prefill_flag
    if target.dialect.continue_fields:
        return messages
    if flag:
        return [*messages[:-1], replace(messages[-1], extra={**messages[-1].extra, flag: True})]
    return [*messages, ChatMessage("user", CONTINUE)]


def _system(blocks: Sequence[Block], target: Target, notes: Notes) -> List[ChatMessage]:
    """Return one system message, or none."""
    parts = _system_parts(blocks, target, notes)
    if not parts:
        return []
    if any("cache_control" in part for part in parts):
        return [ChatMessage("system", parts)]
    text = join_text(parts, "\n\n")
    return [_known_system(text) if len(text) <= MOST_KNOWN_SYSTEM else ChatMessage("system", text)]


@lru_cache(maxsize=8)
def _known_system(text: str) -> ChatMessage:
    """Return the same message for the same text: what every turn brings is encoded once (0.15 ms for 15 KB)."""
    return ChatMessage("system", text)


def system_text(blocks: Sequence[Block], target: Target, notes: Notes) -> str:
    """Return the text of a system message."""
    return join_text(_system_parts(blocks, target, notes), "\n\n")


def _system_parts(blocks: Sequence[Block], target: Target, notes: Notes) -> List[Json]:
    """Return the text parts. Claude Code's attribution line is none: it changes per request, and caches with it."""
    spoken = [block for block in blocks if isinstance(block, (TextBlock, OtherBlock))]
    if len(spoken) < len(blocks):
        notes.drop("system blocks that are not text")
    texts = [
        replace(block, text=_without_attribution(block.text)) if isinstance(block, TextBlock) else block
        for block in spoken
    ]
    return parts_of(texts, target, notes)


def _without_attribution(text: str) -> str:
    return text.partition("\n")[2] if text.startswith(ATTRIBUTION) else text


def _assistant(message: Message, target: Target, notes: Notes) -> Optional[ChatMessage]:
    pattern = target.dialect.tool_id_pattern
    has_calls = any(isinstance(block, ToolUseBlock) for block in message.content)
    returned = give_back(message.content, target.model, has_calls)
    calls: List[ToolCall] = []
    ids: Set[str] = set()
    for block in message.content:
        if isinstance(block, ToolUseBlock) and block.id in ids:
            notes.drop(f"a second call with the id {block.id!r}")
        elif isinstance(block, ToolUseBlock):
            ids.add(block.id)
            name = ToolNames.to_provider(block.name)
            state = call_fields(_carried(block.id, returned, target), not calls, target.model)
            calls.append(ToolCall(provider_tool_id(block.id, pattern), name, dump(block.input), state))
    text = words_of(message.content, notes)
    if not text and not calls:
        return None
    content: Union[str, List[Json], None] = text or (None if target.dialect.null_content else "")
    if returned.parts:
        content = [*returned.parts, *([text_part(text)] if text else [])]
    fields = message_fields(returned.fields, calls[0].id, target.model) if calls else returned.fields
    return ChatMessage("assistant", content, tuple(calls), extra=fields)


def _carried(tool_id: str, returned: Returned, target: Target) -> Optional[Json]:
    """Return the state of a call: from a thinking block, else from the id itself."""
    signature = unseal_id(tool_id)[1] if target.dialect.needs_signature else None
    in_id = {"extra_content": {"google": {"thought_signature": signature}}} if signature else None
    return returned.calls.get(tool_id) or in_id


def _user(message: Message, calls: Sequence[str], target: Target, notes: Notes) -> List[ChatMessage]:
    """Return the tool messages of a turn, one for each open call, and after them what the user says."""
    results, parts = user_parts(message, calls, target, notes)
    answers = [ChatMessage("tool", simplify(result, target), tool_call_id=call_id) for call_id, result in results]
    if not parts:
        return answers
    between = [ChatMessage("assistant", UNDERSTOOD)] if answers and target.dialect.needs_turn_after_tool else []
    return [*answers, *between, ChatMessage("user", simplify(parts, target))]


def user_parts(
    message: Message, calls: Sequence[str], target: Target, notes: Notes
) -> Tuple[List[Tuple[str, List[Json]]], List[Json]]:
    """Return the result of each open call under the provider's id for it, and the parts the user says after them.

    A result is one text part, and the media behind it where the provider takes them there; else they follow.
    """
    given = {block.tool_use_id: block for block in message.content if isinstance(block, ToolResultBlock)}
    results: List[Tuple[str, List[Json]]] = []
    parts: List[Json] = []
    for call in calls:
        given_result = given.get(call)
        text, media = _result(given_result, target, notes) if given_result else (MISSING_RESULT, [])
        call_id = provider_tool_id(call, target.dialect.tool_id_pattern)
        results.append((call_id, [text_part(text)]))
        if given_result and given_result.cache_control and target.marks_results:
            mark(results[-1][1], given_result.cache_control)
        if media and target.dialect.takes_media_in_results:
            results[-1][1].extend(media)
        elif media:
            parts += [text_part(f"{media_word(media[0]).capitalize()} from tool result {call_id}:"), *media]
    for block in message.content:
        if not isinstance(block, ToolResultBlock):
            add_parts(parts, block, target, notes)
        elif block.tool_use_id not in calls:  # its call was trimmed from the history
            text, media = _result(block, target, notes)
            parts += [text_part(f"[tool result {unseal_id(block.tool_use_id)[0]}]\n{text}"), *media]
    return results, parts


def _result(block: ToolResultBlock, target: Target, notes: Notes) -> Tuple[str, List[Json]]:
    """Return a tool result as the string that every server takes, and the media that must go elsewhere."""
    parts = parts_of(block.content, target, notes)
    text, media = join_text(parts), [part for part in parts if media_word(part)]
    if block.is_error and not text.lower().startswith("error"):
        text = f"Error: {text}"
    for number, part in enumerate(media, 1):
        text += f"{chr(10) if text else ''}[{media_word(part)} {number} of this result follows]"
    return text or NO_OUTPUT, media
