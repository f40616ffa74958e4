"""The text of a PDF, for providers that take none: with ``pypdf`` (extra ``pdf``), else nothing."""

from __future__ import annotations

import base64
import io
from typing import Optional


def pdf_text(data: str) -> Optional[str]:
    """Return the text of a base64 PDF; None when it has none, cannot be read, or ``pypdf`` is not installed."""
    try:
        import pypdf
        from pypdf.errors import PyPdfError
    except ImportError:
        return None
    try:
        pages = pypdf.PdfReader(io.BytesIO(base64.b64decode(data))).pages
        text = "\n\n".join(page.extract_text() for page in pages).strip()
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return None  # a damaged file shows itself anywhere
    return text or None
