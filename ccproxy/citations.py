"""Web searches that a provider ran, and the citations of what they found, as both of OpenAI's APIs tell them."""

from __future__ import annotations

from typing import Any, List, Optional, Tuple

from .encoded import Json
from .frozen import frozen


@frozen
class Search:
    """A web search that the provider ran; ``found`` are addresses and titles, as far as it tells them."""

    query: str
    found: Tuple[Tuple[str, str], ...] = ()
    has_failed: bool = False


@frozen
class Citation:
    """Where a run of the text comes from."""

    url: str
    title: str
    cited_text: str = ""

    @classmethod
    def from_dict(cls, annotation: Any) -> Optional[Citation]:
        """Read an annotation of either API; None when it cites no address."""
        if not isinstance(annotation, dict) or annotation.get("type") != "url_citation":
            return None
        inner = annotation.get("url_citation")
        fields = inner if isinstance(inner, dict) else annotation
        url, title, text = (fields.get(name) or "" for name in ("url", "title", "content"))
        is_text = isinstance(url, str) and isinstance(title, str) and isinstance(text, str)
        return cls(url, title or url, text) if url and is_text else None

    def to_dict(self) -> Json:
        """Return the citation as Anthropic tells it."""
        place = {"cited_text": self.cited_text, "encrypted_index": "", "title": self.title, "url": self.url}
        return {"type": "web_search_result_location", **place}


def read_citations(annotations: Any) -> List[Citation]:
    """Return the addresses that annotations cite."""
    items = annotations if isinstance(annotations, list) else []
    return [citation for citation in map(Citation.from_dict, items) if citation is not None]
