"""Web searches that the provider ran for an answer, as the blocks in which Anthropic tells of its own.

A provider tells what it found with the search (OpenAI), or only in the citations of the text that follows. Then the
search is shown once something was found: before the text where that is known in time, else behind it.
"""

from __future__ import annotations

from typing import Dict, List, Optional

from ..citations import Citation, Search
from ..encoded import dump
from ..message import CitationsDelta, search_result_block, server_tool_use_block
from .blocks import BlockWriter
from .envelope import SEARCH_MARK
from .reply import ReplyContext


class Searches:
    """The searches of one answer; where the client asked for none, nothing is shown of them."""

    def __init__(self, context: ReplyContext, writer: BlockWriter) -> None:
        self._context, self._writer = context, writer
        self._held: List[Search] = []
        self._found: Dict[str, str] = {}  # what the citations tell: address and title
        self.count = 0
        """How many were shown."""

    @property
    def is_asked(self) -> bool:
        """Whether the client asked for a search."""
        return self._context.search is not None

    def add(self, search: Search) -> None:
        """Show a search; one that tells nothing of what it found is held."""
        if search.found or search.has_failed:
            self._show(search)
        else:
            self._held.append(search)

    def cite(self, citation: Citation) -> None:
        """Add a citation to the open text, and to what was found."""
        self._found.setdefault(citation.url, citation.title)
        block = self._writer.open
        if block is not None and block.kind == "text":
            self._writer.out.append(CitationsDelta(block.index, citation.to_dict()))

    def show_held(self, *, is_end: bool) -> None:
        """Show the searches that were held, once it is known what they found, or at the end of the answer."""
        if not (self._found or (is_end and self._held)):
            return
        held, self._held = self._held, []
        if not (held or self.count):  # the provider searched without a word
            held = [Search(self._context.search or "")]
        found, self._found = tuple(self._found.items()), {}
        for search in held:
            self._show(Search(search.query, found))
            found = ()

    def _show(self, search: Search) -> None:
        self.count += 1
        search_id = f"{SEARCH_MARK}{self._context.message_id[4:]}_{self.count}"
        block = self._writer.switch(server_tool_use_block(search_id, "web_search"))
        self._writer.json(block.index, dump({"query": search.query or self._context.search}))
        result: Optional[List[Dict[str, object]]] = None
        if not search.has_failed:
            result = [{"title": title or url, "url": url} for url, title in search.found]
        self._writer.switch(search_result_block(search_id, result))
        self._writer.close()
