"""Estimates input tokens: the texts of a request as the vocabulary counts them, and what its structure adds.

One estimate serves count_tokens, ``message_start`` and routing, so that they agree for the same model. Base64 is never
counted as text: images and PDFs are counted by their size.
"""

from __future__ import annotations

from operator import ne
from typing import Any, Callable, Hashable, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ..anthropic import (
    Block,
    DocumentBlock,
    ImageBlock,
    Message,
    MessagesRequest,
    TextBlock,
    ThinkingBlock,
    Tool,
    ToolResultBlock,
    ToolUseBlock,
)
from ..encoded import dump
from ..remembered import once_each
from .counter import Size
from .image_size import PDF_PAGE, image_tokens, pdf_tokens
from .token_families import Family
from .tool_types import declaration

# Typed tools have no schema to count; their prompts are Anthropic's own: documented, or from the counts of recordings.
_TYPED_TOOLS = {
    "bash_": 325,
    "text_editor_": 700,
    "memory_": 1070,
    "computer_": 1330,
    "browser_": 6600,
    "web_search_": 1700,
    "web_fetch_": 530,
    "tool_search_": 230,
}
_CALL = 85  # the most for a call and its result besides their texts: fewer than the bytes of their JSON
_HIDDEN = 2000  # more than any family adds to a request, whatever its length


class Part(NamedTuple):
    """The tokens of a message or a tool, unrounded. Thinking stands apart: not every family is shown it again."""

    text: float = 0.0
    thinking: float = 0.0
    media: float = 0.0
    """Images and PDFs."""
    spared: float = 0.0
    """The bytes of its texts beyond their tokens."""
    has_citations: bool = False


class Counted(NamedTuple):
    """The tokens of a request, and how many of them are images and PDFs."""

    tokens: int
    media: int


def is_text(request: MessagesRequest) -> bool:
    """Whether a request has no more tokens than ``ceiling`` says: no images, documents and tools without a schema."""
    has_typed_tools = any(tool.input_schema is None for tool in request.tools)
    is_prompt_text = all(map(_is_text, request.system))
    return is_prompt_text and not has_typed_tools and all(once_each(request.messages, _has_text))


def _has_text(message: Message) -> bool:
    return all(map(_is_text, message.content))


def _is_text(block: Block) -> bool:
    if isinstance(block, ToolResultBlock):
        return all(map(_is_text, block.content))
    return not isinstance(block, (ImageBlock, DocumentBlock))


def ceiling(body_bytes: int) -> int:
    """Return a number that no estimate of a request of text exceeds: text never has more tokens than bytes."""
    return body_bytes + _HIDDEN


def spared(
    request: MessagesRequest, size: Callable[[str], Size], family: Family, state: Hashable = None
) -> Iterator[float]:
    """Yield how many tokens less than bytes the texts are, to be taken off ``ceiling``.

    Those of all messages that were counted before come together, then those of each other one.
    """
    tally = _Count(family, size, state)
    known = tally.known(request.messages)
    yield sum([part.spared for part in known if part is not None])
    for message in [message for message, part in zip(request.messages, known) if part is None]:
        yield tally.message(message).spared


def count(request: MessagesRequest, size: Callable[[str], Size], family: Family, state: Hashable = None) -> Counted:
    """Count the input tokens of a request for one family of models.

    Args:
        size: measures a text.
        state: what the sizes depend on. Messages and tools that were counted in the same are not counted again.
    """
    tally = _Count(family, size, state)
    system = tally.part(request.system)
    known = tally.known(request.messages)
    parts = [part or tally.message(message) for part, message in zip(known, request.messages)]
    texts, thinking, media, _, citing = zip(*parts)
    total = tally.frame(request.messages) + system.text + sum(texts) + tally.tools(request)
    if any(thinking):
        total += sum(thinking if family.keeps_thinking else thinking[_current_turn(request.messages) + 1 :])
    if request.thinking.get("type") == "enabled":
        total += family.thinking
    form = request.output_config.get("format") or request.raw.get("output_format")
    if isinstance(form, dict):
        total += family.output_format + tally.text(dump(form.get("schema")))
    if any(citing):
        total += family.citations
    shown = system.media + sum(media)
    return Counted(round(total + shown), round(shown))


class _Count:
    """Counts the parts of a request; fractions are kept to its end."""

    def __init__(self, family: Family, size: Callable[[str], Size], state: Hashable = None) -> None:
        self._family, self._size = family, size
        self._key = (family.name, size, state)
        self._thinking = self._media = self._spared = 0.0
        self._has_citations = False

    def known(self, messages: Sequence[Message]) -> List[Optional[Part]]:
        """Return what each message counts, where it was counted before."""
        key = self._key
        return [message.made.get(key) for message in messages]

    def message(self, message: Message) -> Part:
        """Return what a message counts, and remember it."""
        part = message.made[self._key] = self.part(message.content)
        return part

    def part(self, blocks: Iterable[Block]) -> Part:
        """Return what the blocks of one message count."""
        self._thinking = self._media = self._spared = 0.0
        self._has_citations = False
        text = sum(map(self._block, blocks))
        return Part(text, self._thinking, self._media, self._spared, self._has_citations)

    def text(self, text: str) -> float:
        """A text has no more tokens than bytes, in any vocabulary."""
        size = self._size(text)
        tokens = min(size.bytes, self._family.text * size.tokens + self._family.symbol * size.symbols)
        self._spared += size.bytes - tokens
        return tokens

    def texts(self, value: Any) -> float:
        return sum(map(self.text, _strings(value)))

    def frame(self, messages: Sequence[Message]) -> float:
        """Return what the turns add; messages of one role in a row are one."""
        roles = [message.role for message in messages]
        turns: int = 1 + sum(map(ne, roles, roles[1:]))
        return turns * self._family.turn + (0.0 if messages[-1].role == "assistant" else self._family.request)

    def tools(self, request: MessagesRequest) -> float:
        """Return what the tools add; those that are loaded later count once, for all of them."""
        family, choice = self._family, request.tool_choice
        ready = [tool for tool in request.tools if not tool.raw.get("defer_loading")]
        if not ready:
            return 0.0
        is_forced = choice is not None and choice.type in ("any", "tool")
        total = float(family.forced_tools if is_forced else family.tools)
        if len(ready) < len(request.tools):
            total += family.deferred_tools
        return total + sum(map(self._tool, ready))

    def _tool(self, tool: Tool) -> float:
        tokens: Optional[float] = tool.made.get(self._key)
        if tokens is None:
            tokens = tool.made[self._key] = self._declared(tool)
        return tokens

    def _declared(self, tool: Tool) -> float:
        if tool.input_schema is None:
            return next((size for prefix, size in _TYPED_TOOLS.items() if tool.type.startswith(prefix)), 0)
        if self._family.has_typed_tools:
            return self._family.tool + self.text(declaration(tool.name, tool.description, tool.input_schema))
        shown = {"description": tool.description, "name": tool.name, "parameters": tool.input_schema}
        return self._family.tool + self.text(dump(shown))

    def _block(self, block: Block) -> float:
        if isinstance(block, TextBlock):
            return self.text(block.text)
        if isinstance(block, ThinkingBlock):
            self._thinking += self.text(block.thinking)
            return 0.0
        if isinstance(block, ToolUseBlock):
            before = self._spared
            tokens = self._call(len(block.input)) + self.text(block.name) + self.text(dump(block.input))
            self._spared = before  # a number may be written longer than it came
            return tokens
        if isinstance(block, ToolResultBlock):
            return sum(map(self._block, block.content))
        if isinstance(block, ImageBlock):
            self._media += image_tokens(block.source, self._family.image_edge, self._family.image)
            return 0.0
        if isinstance(block, DocumentBlock):
            return self._document(block)
        return self.texts(block.raw)

    def _call(self, arguments: int) -> float:
        return min(_CALL, self._family.call + self._family.argument * arguments)

    def _document(self, block: DocumentBlock) -> float:
        kind, data = block.source.get("type"), str(block.source.get("data") or "")
        total = self.text(block.title) + self.text(block.context)
        self._has_citations = self._has_citations or block.has_citations
        if kind in ("base64", "url", "file"):
            self._media += pdf_tokens(data) if kind == "base64" else PDF_PAGE  # nothing is fetched to count
            return total
        total += self._family.document
        return total + (self.text(data) if kind == "text" else self.texts(block.source.get("content")))


def _current_turn(messages: Tuple[Message, ...]) -> int:
    """Return the index of the last message in which the user said something, not only handed tool results back."""
    for number in range(len(messages) - 1, -1, -1):
        blocks = messages[number].content
        if messages[number].role == "user" and not all(isinstance(block, ToolResultBlock) for block in blocks):
            return number
    return -1


def _strings(value: Any) -> Iterable[str]:
    """Yield the texts of a block nobody describes, however deep, without its encrypted or binary fields."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, list):
            waiting += item
        elif isinstance(item, dict):
            waiting += [
                part
                for name, part in item.items()
                if name not in ("type", "data", "signature", "id") and not name.startswith("encrypted")
            ]
