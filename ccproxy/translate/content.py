"""Content blocks to chat-completions parts and text."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Sequence, Set, Union

from ..anthropic import Block, DocumentBlock, ImageBlock, OtherBlock, TextBlock
from ..config.schema import Model
from ..encoded import Json, dump
from ..errors import InvalidRequest
from ..openai import objects_in
from ..provider.dialects import Dialect
from .pdf import pdf_text

UNSPOKEN = frozenset({"redacted_thinking", "fallback"})
"""Blocks that say nothing to another provider."""


@dataclass
class Notes:
    """What the provider will not see, in words, each once."""

    dropped: List[str] = field(default_factory=list)

    def drop(self, what: str) -> None:
        """Note one thing that is left out."""
        if what not in self.dropped:
            self.dropped.append(what)


class Target(NamedTuple):
    """The model that will answer, and what it takes; compared for each turn of a conversation."""

    model: Model
    keeps_cache_control: bool = False

    @property
    def dialect(self) -> Dialect:
        """The model's dialect."""
        return self.model.dialect

    @property
    def marks_results(self) -> bool:
        """Whether a tool's result may hold a cache breakpoint."""
        return self.keeps_cache_control and self.dialect.marks_results


def text_part(text: str) -> Json:
    """Return a text part."""
    return {"type": "text", "text": text}


def parts_of(blocks: Iterable[Block], target: Target, notes: Notes) -> List[Json]:
    """Return the parts for user content, in order; blank text is dropped."""
    parts: List[Json] = []
    for block in blocks:
        add_parts(parts, block, target, notes)
    return parts


def add_parts(parts: List[Json], block: Block, target: Target, notes: Notes) -> None:
    """Add the parts for one block to those of the blocks before it."""
    if isinstance(block, TextBlock):
        made = [text_part(block.text)]
    elif isinstance(block, ImageBlock):
        made = [_image(block.source, target, notes)]
    elif isinstance(block, DocumentBlock):
        made = _document(block, target, notes)
    elif isinstance(block, OtherBlock):
        made = [text_part(text_of_other(block, notes))]
    else:
        return
    parts += [part for part in made if part["type"] != "text" or part["text"].strip()]
    if target.keeps_cache_control and block.cache_control:
        mark(parts, block.cache_control)


def mark(parts: Sequence[Json], cache_control: Json) -> None:
    """Put a cache breakpoint on the last text: on other parts providers do not know it."""
    last = next((part for part in reversed(parts) if part["type"] == "text"), None)
    if last is not None:
        last["cache_control"] = cache_control


def media_word(part: Json) -> str:
    """Return what to call a part that is more than text; nothing for text."""
    return {"image_url": "image", "file": "file"}.get(part["type"], "")


def join_text(parts: Iterable[Json], separator: str = "\n") -> str:
    """Return the text of the text parts."""
    return separator.join(part["text"] for part in parts if part["type"] == "text")


def simplify(parts: Sequence[Json], target: Target) -> Union[str, List[Json]]:
    """Return content in its plainest form: text alone is a string, which every server takes (DeepSeek no other).

    Where breakpoints count, texts stay apart: the prefix must be the same once the breakpoint has moved on.
    """
    stays_apart = target.keeps_cache_control and len(parts) > 1
    if stays_apart or any("cache_control" in part or media_word(part) for part in parts):
        return list(parts)
    return join_text(parts, "\n\n")


def _image(source: Json, target: Target, notes: Notes) -> Json:
    kind = source.get("type")
    if kind == "file":
        raise InvalidRequest("image source 'file': files uploaded to Anthropic are not available on this route")
    if kind == "url" and not (isinstance(source.get("url"), str) and target.dialect.takes_image_urls):
        notes.drop("image addresses: the server fetches none")
        return text_part(f"[image omitted: {source.get('url')}]")
    if not target.model.takes_images:
        notes.drop("images: the model has no image input")
        return text_part("[image omitted: this model has no image input]")
    url = source["url"] if kind == "url" else f"data:{source.get('media_type')};base64,{source.get('data')}"
    return {"type": "image_url", "image_url": {"url": url}}


def _document(block: DocumentBlock, target: Target, notes: Notes) -> List[Json]:
    source, kind = block.source, block.source.get("type")
    title = block.title or "document.pdf"
    if kind == "file":
        raise InvalidRequest("document source 'file': files uploaded to Anthropic are not available on this route")
    if kind == "text":
        return [text_part(_document_text(block, str(source.get("data") or "")))]
    if kind == "content":
        return _nested_document(block, target, notes)
    if kind == "url" and target.dialect.takes_pdf_urls:
        return [_file(title, source["url"])]
    if kind == "url":
        return [text_part(f"[document {title!r}: {source['url']}]")]
    if target.dialect.takes_pdf:
        return [_file(title, f"data:{source.get('media_type')};base64,{source.get('data')}")]
    text = pdf_text(str(source.get("data") or ""))
    if text is not None:
        notes.drop("documents: only the text of the PDF is sent")
        return [text_part(_document_text(replace(block, title=title), text))]
    notes.drop("documents: the provider takes no PDF")
    return [text_part(f'[PDF "{title}" omitted: this model takes no PDF]')]


def _file(title: str, data: str) -> Json:
    return {"type": "file", "file": {"filename": title, "file_data": data}}


def _document_text(block: DocumentBlock, text: str) -> str:
    lines = [f'<document title="{block.title}">', block.context, text, "</document>"]
    return "\n".join(line for line in lines if line)


def _nested_document(block: DocumentBlock, target: Target, notes: Notes) -> List[Json]:
    nested = block.source.get("content")
    items = [{"type": "text", "text": nested}] if isinstance(nested, str) else nested
    parts: List[Json] = []
    for item in items if isinstance(items, list) else []:
        if isinstance(item, dict) and item.get("type") == "image" and isinstance(item.get("source"), dict):
            parts.append(_image(item["source"], target, notes))
        elif isinstance(item, dict) and isinstance(item.get("text"), str):
            parts.append(text_part(item["text"]))
    text = text_part(_document_text(block, join_text(parts)))
    return [text, *(part for part in parts if media_word(part))]


# --- blocks that exist only at Anthropic: text, so that a conversation survives a change of model -------------


def words_of(blocks: Iterable[Block], notes: Notes) -> str:
    """Return what a model said: its texts as one, and what stands for another block on lines of its own."""
    parts = [
        (False, block.text) if isinstance(block, TextBlock) else (True, text_of_other(block, notes))
        for block in blocks
        if isinstance(block, (TextBlock, OtherBlock))
    ]
    runs = groupby((part for part in parts if part[1].strip()), key=itemgetter(0))
    return "\n".join(("\n" if is_apart else "").join(text for _, text in run) for is_apart, run in runs)


def text_of_other(block: OtherBlock, notes: Notes) -> str:
    """Return the text that stands for a block no other provider knows; empty when there is nothing to say."""
    if block.type == "container_upload":
        raise InvalidRequest("container_upload: files uploaded to Anthropic are not available on this route")
    tell = _OTHERS.get(block.type)
    if tell is not None:
        return tell(block.raw)
    for key in ("text", "content"):
        if isinstance(block.raw.get(key), str):
            return str(block.raw[key])
    if block.type not in UNSPOKEN:
        notes.drop(f"content block {block.type!r}")
    return ""


def _search_result(raw: Json) -> str:
    text = _texts(raw.get("content"))
    return f'<search_result title="{raw.get("title")}" source="{raw.get("source")}">{text}</search_result>'


def _called(raw: Json) -> str:
    return f"[called {raw.get('name')}: {dump(raw.get('input') or {})}]"


def _web_search_result(raw: Json) -> str:
    content = raw.get("content")
    if isinstance(content, dict):
        return f"web search failed: {content.get('error_code')}"
    return "\n".join(f"{item.get('title')} — {item.get('url')}" for item in objects_in(raw, "content"))


def _web_fetch_result(raw: Json) -> str:
    content = raw.get("content")
    if not isinstance(content, dict) or "error_code" in content:
        return f"web fetch failed: {content.get('error_code') if isinstance(content, dict) else 'no content'}"
    document = content.get("content")
    source = document.get("source") if isinstance(document, dict) else None
    text = source.get("data") if isinstance(source, dict) and source.get("type") == "text" else ""
    return f"{content.get('url')}\n{text}".strip()


def _execution_result(raw: Json) -> str:
    content = raw.get("content")
    if not isinstance(content, dict):
        return _texts(content)
    shown = {
        key: content[key]
        for key in ("stdout", "stderr", "return_code", "error_code")
        if content.get(key) not in (None, "")
    }
    return "\n".join(f"{key}: {value}" for key, value in shown.items())


def _tool_search_result(raw: Json) -> str:
    return "Tools available: " + ", ".join(sorted(tool_references(raw)))


def tool_references(raw: Any) -> Set[str]:
    """Return the tool names that ``tool_reference`` blocks anywhere inside a block name."""
    if isinstance(raw, list):
        return {name for item in raw for name in tool_references(item)}
    if not isinstance(raw, dict):
        return set()
    own = {str(raw["tool_name"])} if raw.get("type") == "tool_reference" and raw.get("tool_name") else set()
    return own | {name for key in ("content", "tool_references") for name in tool_references(raw.get(key))}


def _texts(content: Any) -> str:
    if isinstance(content, str):
        return content
    items = content if isinstance(content, list) else []
    return "\n".join(
        str(item["text"]) for item in items if isinstance(item, dict) and isinstance(item.get("text"), str)
    )


_OTHERS: Dict[str, Callable[[Json], str]] = {
    "search_result": _search_result,
    "server_tool_use": _called,
    "mcp_tool_use": _called,
    "mcp_tool_result": lambda raw: _texts(raw.get("content")),
    "advisor_tool_result": lambda raw: _texts(raw.get("content")),
    "web_search_tool_result": _web_search_result,
    "web_fetch_tool_result": _web_fetch_result,
    "code_execution_tool_result": _execution_result,
    "bash_code_execution_tool_result": _execution_result,
    "text_editor_code_execution_tool_result": _execution_result,
    "tool_search_tool_result": _tool_search_result,
    "tool_reference": lambda raw: f"Tool available: {raw.get('tool_name')}",
    "compaction": lambda raw: f"<summary>{raw.get('content') or ''}</summary>",
    "browser_state": dump,
}
