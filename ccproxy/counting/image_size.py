"""Images and PDFs in tokens, by their size: read from the headers of their base64, without an image library."""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from typing import Any, Dict, Optional, Tuple

UNKNOWN_IMAGE = 1568
PDF_PAGE, PDF_PAGE_TEXT = 1600, 900  # a page as an image, fitted; and at most its text, documented
_IMAGE_HEAD = 256 * 1024


def image_tokens(source: Dict[str, Any], edge: int, most: int) -> int:
    """Return the tokens of an image: one per 28 x 28 pixels.

    Args:
        edge: the longest edge in pixels; what is larger is scaled down first.
        most: the tokens of an image that is larger still.
    """
    size = image_size(str(source.get("data") or "")) if source.get("type") == "base64" else None
    if size is None:
        return UNKNOWN_IMAGE
    scale = min(1.0, edge / max(size))
    columns, rows = (math.ceil(side * scale / 28) for side in size)
    return min(most, columns * rows)


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


def pdf_pages(data: str) -> Tuple[int, int]:
    """Return the pages and the bytes of a base64 PDF: its page objects, else one per 50 kB."""
    try:
        raw = base64.b64decode(data)
    except (binascii.Error, ValueError):
        return 1, len(data) * 3 // 4
    return len(re.findall(rb"/Type\s*/Page\b", raw)) or max(1, len(raw) // 50_000), len(raw)


def pdf_tokens(data: str) -> int:
    """Return the tokens of a base64 PDF: each page is an image and its text, which is about a tenth of its bytes."""
    pages, size = pdf_pages(data)
    return pages * (PDF_PAGE + min(PDF_PAGE_TEXT, size // pages // 10))
