"""Images and PDFs in tokens, by their size: from the header, whatever the bytes; never an exception."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest

from ccproxy.counting.image_size import image_size, image_tokens, pdf_pages, pdf_tokens
from ccproxy.counting.token_families import family_of


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def tokens_of(data: Any, model: str = "claude-sonnet-4-5") -> int:
    """The tokens that a model makes of an image."""
    family = family_of(model)
    return image_tokens({"type": "base64", "media_type": "image/png", "data": data}, family.image_edge, family.image)


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
    assert tokens_of(b64(raw)) == 1568


@pytest.mark.parametrize("make", FORMATS)
def test_a_cut_image_never_raises(make: Any) -> None:
    """Wherever it ends."""
    raw = make(640, 480)
    for end in range(len(raw)):
        assert tokens_of(b64(raw[:end])) > 0


@pytest.mark.parametrize("data", ["", "!!!", "a", "é", "====", None])
def test_what_is_no_base64_is_an_unknown_image(data: Any) -> None:
    """The provider may judge it."""
    assert tokens_of(data) == 1568


@pytest.mark.parametrize(
    ("size", "older", "newer"),
    [
        ((28, 28), 1, 1),
        ((29, 28), 2, 2),
        ((640, 480), 23 * 18, 23 * 18),
        ((1000, 1000), 36 * 36, 36 * 36),
        ((1800, 1200), 56 * 38 - 560, 65 * 43),  # the older tier at most 1568
        ((1568, 1568), 1568, 56 * 56),
        ((2576, 2576), 1568, 4784),
        ((4000, 3000), 1568, 4784),
        ((5152, 28), 56, 92),  # scaled to 1568, or 2576, on the long edge
        ((10_000, 1), 56, 92),
    ],
)
def test_the_tokens_of_an_image(size: Any, older: int, newer: int) -> None:
    """One for every 28 by 28 pixels after scaling; newer models see more."""
    data = b64(png(*size))
    assert (tokens_of(data), tokens_of(data, "claude-opus-4-7")) == (older, newer)


def test_an_image_by_address_is_unknown() -> None:
    """Nothing is fetched to count."""
    assert image_tokens({"type": "url", "url": "https://x/y.png"}, 1568, 1568) == 1568


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
    assert pdf_pages(b64(raw)) == (pages, len(raw))


def test_what_is_no_base64_is_one_page() -> None:
    """Never an exception."""
    assert [pdf_pages(data)[0] for data in ("a", "é", "")] == [1, 1, 1]


@pytest.mark.parametrize(
    ("raw", "tokens"),
    [
        (PAGE, 1600 + len(PAGE) // 10),
        (PAGE + b"x" * 5000, 1600 + 503),
        (PAGE * 2 + b"x" * 100_000, 2 * 2500),
        (b"x" * 120_000, 2 * 2500),
        (b"", 1600),
    ],
)
def test_the_tokens_of_a_pdf(raw: bytes, tokens: int) -> None:
    """Each page is an image, and its text by its bytes, at most 900 tokens."""
    assert pdf_tokens(b64(raw)) == tokens
