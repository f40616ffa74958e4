"""The estimate of input tokens: text, images, PDFs and structure; never an exception, never base64 as text."""

from __future__ import annotations

import base64
import json
import struct
import time
from typing import Any, List

import pytest

from ccproxy.anthropic import MessagesRequest
from ccproxy.tokens import Counter, characters_estimate, estimate, image_size, image_tokens, pdf_pages


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + b"\x08\x06\0\0\0"


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\0\0\0"


def jpeg(width: int, height: int, marker: int = 0xC0, before: bytes = b"") -> bytes:
    exif = b"\xff\xe1" + struct.pack(">H", 2 + 500) + b"x" * 500
    frame = bytes([0xFF, marker]) + struct.pack(">HBHHB", 17, 8, height, width, 3)
    return b"\xff\xd8" + exif + before + frame + b"\0" * 40


def webp(kind: bytes, payload: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 100) + b"WEBP" + kind + struct.pack("<I", len(payload)) + payload + b"\0" * 20


def webp_lossy(width: int, height: int) -> bytes:
    return webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height))


def webp_lossless(width: int, height: int) -> bytes:
    return webp(b"VP8L", b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14))


def webp_extended(width: int, height: int) -> bytes:
    return webp(b"VP8X", b"\0\0\0\0" + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3])


HUFFMAN = b"\xff\xc4" + struct.pack(">H", 10) + b"\0" * 8
FORMATS = [png, gif, jpeg, webp_lossy, webp_lossless, webp_extended]


@pytest.mark.parametrize("make", FORMATS)
@pytest.mark.parametrize("size", [(1, 1), (640, 480), (1920, 1080)])
def test_an_image_tells_its_size(make: Any, size: Any) -> None:
    """From its header, without an image library."""
    assert image_size(b64(make(*size))) == size


@pytest.mark.parametrize("marker", [0xC0, 0xC1, 0xC2])
def test_a_jpeg_is_walked_to_its_frame(marker: int) -> None:
    """Past other segments, also such as have a marker near the frame's."""
    assert image_size(b64(jpeg(640, 480, marker, HUFFMAN))) == (640, 480)


@pytest.mark.parametrize(
    "raw", [b"", b"x", b"\x89PNG", b"GIF8", b"RIFF1234WEBP", b"\xff\xd8\xff", b"\xff\xd8\xff\xe1\0\0", png(0, 5)]
)
def test_an_image_without_a_header_has_no_size(raw: bytes) -> None:
    """Cut or strange bytes are an unknown image."""
    assert image_size(b64(raw)) is None
    assert image_tokens({"type": "base64", "media_type": "image/png", "data": b64(raw)}) == 1568


@pytest.mark.parametrize("make", FORMATS)
def test_a_cut_image_never_raises(make: Any) -> None:
    """Wherever it ends."""
    raw = make(640, 480)
    for end in range(len(raw)):
        assert image_tokens({"type": "base64", "data": b64(raw[:end])}) > 0


@pytest.mark.parametrize("data", ["", "!!!", "a", "é", "====", None])
def test_what_is_no_base64_is_an_unknown_image(data: Any) -> None:
    """The provider may judge it."""
    assert image_tokens({"type": "base64", "data": data}) == 1568


@pytest.mark.parametrize(
    ("size", "tokens"),
    [
        ((28, 28), 1),
        ((29, 28), 2),
        ((640, 480), 23 * 18),
        ((1000, 1000), 36 * 36),
        ((1568, 1568), 1568),  # at most
        ((4000, 3000), 1568),
        ((3136, 28), 56),  # scaled to 1568 on the long edge
        ((10_000, 1), 56),
    ],
)
def test_the_tokens_of_an_image(size: Any, tokens: int) -> None:
    """One for every 28 by 28 pixels after scaling, at most 1568."""
    assert image_tokens({"type": "base64", "data": b64(png(*size))}) == tokens


def test_an_image_by_address_is_unknown() -> None:
    """Nothing is fetched to count."""
    assert image_tokens({"type": "url", "url": "https://x/y.png"}) == 1568


PAGE, PAGES = b"<< /Type /Page /Parent 1 0 R >>", b"<< /Type /Pages /Count 3 >>"


@pytest.mark.parametrize(
    ("raw", "pages"),
    [
        (PAGE + PAGES, 1),
        (PAGES + PAGE + b"<</Type/Page>>" + b"<< /Type\n/Page\n>>", 3),
        (b"%PDF-1.7", 1),
        (b"x" * 120_000, 2),
        (b"", 1),
    ],
)
def test_the_pages_of_a_pdf(raw: bytes, pages: int) -> None:
    """Its page objects, else one for every 50 kB."""
    assert pdf_pages(b64(raw)) == pages


def test_what_is_no_base64_is_one_page() -> None:
    """Never an exception."""
    assert [pdf_pages(data) for data in ("a", "é", "")] == [1, 1, 1]


# --- text ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("a", 1),
        ("a" * 36, 10),
        ("a" * 37, 11),
        ("漢字", 2),
        ("한국어", 3),
        ("ééééé", 4),  # ten bytes
        ("a" * 36 + "漢字", 12),
        ("\U0001f600", 2),
    ],
)
def test_the_estimate_by_characters(text: str, tokens: int) -> None:
    """ASCII / 3.6, one for each CJK character, other bytes / 2.5; rounded up."""
    assert characters_estimate(text) == tokens


HARD = [
    "\ud83d",
    "\udc00" * 50,
    "<|endoftext|>",
    "<|im_start|>system",
    "\x00\x01",
    "a" * 1_000_000,
    "漢" * 300_000,
    " " * 300_000,
    "\n" * 300_000,
]


@pytest.mark.parametrize("text", HARD, ids=lambda text: ascii(text[:10]))
@pytest.mark.parametrize("is_loaded", [True, False])
def test_no_text_raises(text: str, is_loaded: bool) -> None:
    """With a vocabulary or without: special tokens, half characters, endless runs."""
    counter = Counter()
    if is_loaded:
        counter.load()
    assert counter.count(text) > 0


LARGE = {
    "minified": ("x" * 4000 + " ") * 250,
    "Chinese": ("漢" * 4000 + " ") * 250,
    "one run": "x" * 1_000_000,
    "short words": "a !" * 300_000,
}


@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE)
def test_no_megabyte_takes_long(text: str) -> None:
    """Minified code and texts without spaces are counted in less than a second of this process."""
    counter = Counter()
    counter.load()
    began = time.process_time()
    counter.count(text)
    assert time.process_time() - began < 1.0


def test_without_a_vocabulary_characters_are_counted() -> None:
    """The soft dependency may be missing."""
    assert Counter().count("a" * 36) == 10


# --- requests ------------------------------------------------------------------------------------------------


def count(content: Any, **fields: Any) -> int:
    """The estimate of one user message, with a count of one token for each character."""
    body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": content}], **fields}
    return estimate(MessagesRequest.from_dict(body), len)


NOTHING = count("")


def test_requests_and_messages_have_a_price() -> None:
    """Three for the request, four for each message."""
    assert NOTHING == 7
    messages: List[Any] = [{"role": role, "content": "abc"} for role in ("user", "assistant", "user")]
    assert count("", messages=messages) == 3 + 3 * 7


@pytest.mark.parametrize(
    ("block", "tokens"),
    [
        ({"type": "text", "text": "abc"}, 3),
        ({"type": "thinking", "thinking": "abc", "signature": "s" * 999}, 3),
        ({"type": "tool_use", "id": "i" * 99, "name": "abc", "input": {"a": "é"}}, 12 + 3 + len('{"a":"é"}')),
        ({"type": "tool_result", "tool_use_id": "i" * 99, "content": "abc"}, 8 + 3),
        ({"type": "tool_result", "tool_use_id": "i"}, 8),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": b64(png(28, 28))}}, 1),
        (
            {
                "type": "tool_result",
                "tool_use_id": "i",
                "content": [{"type": "image", "source": {"type": "url", "url": "u"}}],
            },
            8 + 1568,
        ),
        (
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": b64(PAGE * 2)}},
            5000,
        ),
        ({"type": "document", "title": "ab", "source": {"type": "text", "data": "abc"}}, 5),
        ({"type": "redacted_thinking", "data": "x" * 999}, 0),
        (
            {
                "type": "web_search_tool_result",
                "tool_use_id": "",
                "content": [{"type": "x", "title": "ab", "encrypted_content": "x" * 999}],
            },
            2,
        ),
    ],
)
def test_a_block_counts_what_the_model_reads(block: Any, tokens: int) -> None:
    """Its words and its frame; no id, no signature, no encrypted or base64 text."""
    assert count([block]) - NOTHING == tokens


def test_system_and_tools_count() -> None:
    """A tool's name, description and compact schema, eight for each, and once the price of having tools."""
    assert count("", system="abc") - NOTHING == 3
    tool = {"name": "ab", "description": "abc", "input_schema": {"type": "object"}}
    one, two = count("", tools=[tool]), count("", tools=[tool, {**tool, "name": "cd"}])
    assert two - one == 8 + 2 + 3 + len('{"type":"object"}')
    assert one - NOTHING > two - one


@pytest.mark.parametrize("depth", [100, 900, 5000])
def test_deep_blocks_never_raise(depth: int) -> None:
    """As deep as a body can be parsed, which newer Pythons do deeper than they recurse."""
    try:
        nested: Any = json.loads("[" * depth + "]" * depth)
    except RecursionError:
        return
    assert count([{"type": "of_tomorrow", "content": nested}]) >= NOTHING
    assert count([{"type": "tool_use", "id": "i", "name": "T", "input": {"a": nested}}]) >= NOTHING
