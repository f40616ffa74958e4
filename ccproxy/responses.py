"""OpenAI's Responses API as values: the request we send, and answers read into chunks of a chat completion.

What a stream says in pieces it repeats at the end of each part, of each item and of the response; providers differ in
which of these they leave out. So every repetition is compared with what was passed on. A whole response is read as the
repetition of a stream that said nothing. Provider JSON is not trusted: wrong types read as absent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Set, Tuple

from .citations import Citation, Search, read_citations
from .encoded import Json
from .frozen import frozen
from .openai import Chunk, Piece, ToolCallDelta, object_in, objects_in, text_in


@frozen
class ResponsesRequest:
    """A request body. ``items`` are the conversation; ``options`` every further field under its name."""

    model: str
    instructions: str
    items: Tuple[Json, ...]
    tools: Tuple[Json, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    stream: bool = False

    def to_dict(self) -> Json:
        """Return the request body; equal requests give equal bytes, so that prefix caches hit."""
        body: Json = {"model": self.model}
        if self.instructions:
            body["instructions"] = self.instructions
        body["input"] = list(self.items)
        if self.tools:
            body["tools"] = list(self.tools)
        body.update(self.options)
        if self.stream:
            body["stream"] = True
        return body


# Event: the kind of text it carries, and which of two copies of the reasoning it belongs to.
_TEXTS: Dict[str, Tuple[str, str]] = {
    "response.output_text": ("text", ""),
    "response.refusal": ("refusal", ""),
    "response.reasoning_summary_text": ("thinking", "summary"),
    "response.reasoning_text": ("thinking", "content"),
}
_PARTS: Dict[str, str] = {"output_text": "text", "text": "text", "refusal": "refusal"}
_FINISH: Dict[str, str] = {"max_output_tokens": "length", "content_filter": "content_filter"}
_OVER = ("completed", "incomplete", "failed", "cancelled")


@dataclass
class _Item:
    """One output item while it arrives: its place among the items, and what of it was passed on."""

    number: int
    passed: Set[object] = field(default_factory=set)
    """Kinds; beside each, with the part that only its end told, or with none where it came in pieces."""
    source: str = ""
    """Which copy of the reasoning is passed on: that of its first words."""


@frozen
class _Words:
    """Some text of an item; ``source`` and ``part`` tell apart copies and parts of the reasoning."""

    kind: str
    text: Any
    source: str = ""
    part: str = ""


class ResponsesReader:
    """Reads the events of one answer, or one whole response, into chunks."""

    def __init__(self) -> None:
        self.is_done = False
        """Whether the provider said that the answer is over."""
        self._items: Dict[object, _Item] = {}
        self._thought: Optional[Tuple[int, str]] = None  # item and part of the last words, where these are reasoning

    @staticmethod
    def frame(kind: str) -> None:
        """Return nothing: each event has its own number."""

    is_learning = False

    @staticmethod
    def run(data: bytes) -> Tuple[List[str], bytes]:
        """Return no texts, for the same reason."""
        return [], data

    def parse(self, text: str) -> List[Chunk]:
        """Return what one event's JSON text adds.

        Raises:
            ValueError, RecursionError: it is no JSON.
        """
        return self.event(json.loads(text))

    def event(self, data: Any) -> List[Chunk]:
        """Return what one event of a stream adds; most say nothing new."""
        if not isinstance(data, dict):
            return []
        name = str(data.get("type"))
        stem, _, ending = name.rpartition(".")
        if stem == "response" and ending in _OVER:
            response = object_in(data, "response")
            status = response.get("status")
            return self._end(response, status if status in _OVER else ending)
        if name == "error" or data.get("error"):
            return [Chunk(error=data.get("error") or data)]
        if stem in _TEXTS:
            kind, source = _TEXTS[stem]
            text = data.get("delta", data.get("refusal", data.get("text")))
            part = str(data.get("summary_index", data.get("content_index")))
            return self._words(self._item_of(data), _Words(kind, text, source, part), is_repeated=ending == "done")
        if stem == "response.function_call_arguments":
            text = data.get("delta", data.get("arguments"))
            return self._arguments(self._item_of(data), text, is_repeated=ending == "done")
        if name == "response.output_text.annotation.added":
            return self._cited(self._item_of(data), read_citations([data.get("annotation")]))
        if stem == "response.output_item":
            return self._output_item(self._item_of(data), object_in(data, "item"), ending == "done")
        return []

    def whole(self, data: Any) -> List[Chunk]:
        """Return what a whole response says, in the order of its items."""
        if not isinstance(data, dict):
            return []
        if not isinstance(data.get("output"), list):
            return [Chunk(error=data["error"])] if data.get("error") else []
        return self._end(data, data.get("status") or "completed")

    # --- items -----------------------------------------------------------------------------------------------

    def _item_of(self, data: Json) -> _Item:
        """Return the item an event is about: by its place (Copilot's ids change), else by its id (llama.cpp)."""
        item = object_in(data, "item")
        key: object = data.get("output_index")
        if not isinstance(key, int):
            key = str(data.get("item_id") or item.get("id") or item.get("call_id"))
        return self._items.setdefault(key, _Item(len(self._items)))

    def _output_item(self, item: _Item, body: Json, is_done: bool) -> List[Chunk]:
        kind = body.get("type")
        if kind == "function_call":
            return self._function_call(item, body, is_done)
        if not is_done:
            return []
        if kind == "reasoning":
            return self._reasoning(item, body)
        if kind == "web_search_call":
            return self._searched(item, body)
        return self._message(item, body) if kind == "message" else []

    def _message(self, item: _Item, body: Json) -> List[Chunk]:
        chunks: List[Chunk] = []
        passed = frozenset(item.passed)
        for part in objects_in(body, "content"):
            kind = _PARTS.get(str(part.get("type")), "")
            if kind and kind not in passed:
                chunks += self._words(item, _Words(kind, part.get(kind)), is_repeated=False)
            if "citations" not in passed:
                chunks += self._cited(item, read_citations(part.get("annotations")))
        return chunks

    @staticmethod
    def _cited(item: _Item, citations: List[Citation]) -> List[Chunk]:
        item.passed.add("citations")
        return [Chunk(has_choice=True, citations=tuple(citations))] if citations else []

    @staticmethod
    def _searched(item: _Item, body: Json) -> List[Chunk]:
        """Return a search; the pages that a model opens, and looks through, are none."""
        action = object_in(body, "action")
        if action.get("type", "search") != "search" or "search" in item.passed:
            return []
        item.passed.add("search")
        queries = action.get("queries")
        first = queries[0] if isinstance(queries, list) and queries else ""
        query = text_in(action, "query") or (first if isinstance(first, str) else "")
        found = [(text_in(source, "url"), text_in(source, "title")) for source in objects_in(action, "sources")]
        search = Search(query, tuple(one for one in found if one[0]), body.get("status") == "failed")
        return [Chunk(has_choice=True, searches=(search,))]

    def _reasoning(self, item: _Item, body: Json) -> List[Chunk]:
        """Return the item's words, and the item itself where a later request can give it back.

        Nothing is stored at the provider, so that an item of neither encrypted nor plain reasoning would be unknown.
        Its status is for answers alone: OpenAI refuses to be given one.
        """
        chunks: List[Chunk] = []
        content, summary = objects_in(body, "content"), objects_in(body, "summary")
        if "thinking" not in item.passed:
            for number, part in enumerate(content or summary):
                chunks += self._words(
                    item, _Words("thinking", part.get("text"), "item", str(number)), is_repeated=False
                )
        if content or body.get("encrypted_content"):
            item.passed.add("item")
            given = {name: value for name, value in body.items() if name != "status" and value is not None}
            chunks.append(Chunk(has_choice=True, state={"output_items": [given]}))
        return chunks

    def _function_call(self, item: _Item, body: Json, is_done: bool) -> List[Chunk]:
        chunks: List[Chunk] = []
        if "call" not in item.passed:
            item.passed.add("call")
            self._thought = None
            call_id, name = text_in(body, "call_id") or text_in(body, "id"), text_in(body, "name")
            chunks.append(_call(item.number, call_id, name, ""))
        return chunks + (self._arguments(item, body.get("arguments"), is_repeated=True) if is_done else [])

    # --- words -----------------------------------------------------------------------------------------------

    def _words(self, item: _Item, words: _Words, *, is_repeated: bool) -> List[Chunk]:
        """Return more words of an item, none where they repeat what came before or are the second copy."""
        text, told = words.text, (words.kind, words.part if is_repeated else "")
        is_old = is_repeated and not item.passed.isdisjoint((told, (words.kind, "")))
        if not isinstance(text, str) or not text or is_old:
            return []
        if words.kind == "thinking":
            if item.source not in ("", words.source):
                return []
            item.source = words.source
            here = (item.number, words.part)
            text = text if self._thought in (None, here) else "\n\n" + text
            self._thought = here
        else:
            self._thought = None
        item.passed.update((words.kind, told))
        return [Chunk(has_choice=True, pieces=(Piece(words.kind, text),))]

    def _arguments(self, item: _Item, text: Any, *, is_repeated: bool) -> List[Chunk]:
        if not isinstance(text, str) or not text or (is_repeated and "arguments" in item.passed):
            return []
        item.passed.add("arguments")
        return [_call(item.number, "", "", text)]

    # --- the end ---------------------------------------------------------------------------------------------

    def _end(self, response: Json, status: Any) -> List[Chunk]:
        """Return the end of an answer, which a status that is no end makes a failure; the items before it where no
        event told them."""
        self.is_done = True
        chunks: List[Chunk] = []
        if not any(item.passed for item in self._items.values()):
            for number, body in enumerate(objects_in(response, "output")):
                chunks += self._output_item(_Item(number), body, True)
        if status not in ("completed", "incomplete") or response.get("error"):
            error = response.get("error") or {"message": f"the response's status is {status}"}
            return [*chunks, Chunk(error=error, usage=_usage(response))]
        reason = "stop"
        if status == "incomplete":
            reason = _FINISH.get(str(object_in(response, "incomplete_details").get("reason")), "length")
        return [*chunks, Chunk(has_choice=True, finish_reason=reason, usage=_usage(response))]


def _call(index: int, id: str, name: str, arguments: str) -> Chunk:
    return Chunk(has_choice=True, tool_calls=(ToolCallDelta(index, id, name, arguments),))


def _usage(response: Json) -> Optional[Json]:
    """Return the counts under the names of chat completions; whatever else is there stays."""
    usage = response.get("usage")
    if not isinstance(usage, dict) or not usage:
        return None
    return {_COUNTS.get(str(name), str(name)): value for name, value in usage.items()}


_COUNTS: Dict[str, str] = {
    "input_tokens": "prompt_tokens",
    "input_tokens_details": "prompt_tokens_details",
    "output_tokens": "completion_tokens",
    "output_tokens_details": "completion_tokens_details",
}
