"""Passthrough bodies: the client's own bytes, with only those values replaced that must be."""

from __future__ import annotations

import json
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

from ..encoded import Json
from ..remembered import Item
from .envelope import ID_MARK, PREFIX, SEARCH_MARK, is_ours, unseal_id

_WHITESPACE = " \t\n\r"
_BOM = b"\xef\xbb\xbf"


def direct_body(body: bytes, raw: Json, changes: Mapping[str, Any]) -> bytes:
    """Return the body for an Anthropic-format provider.

    Args:
        body: what the client sent, and ``raw`` the same as a value.
        changes: top-level fields that get another value, such as the model's name.
    """
    changes = dict(changes)
    if PREFIX.encode() in body:
        changes["messages"] = without_envelopes(raw["messages"])
    changes = {name: value for name, value in changes.items() if raw.get(name) != value}
    return replace_members(body, raw, changes) if changes else body


def replace_members(body: bytes, raw: Json, changes: Mapping[str, Any]) -> bytes:
    """Return a JSON object's text with the values of some members replaced, every other byte as it was."""
    text = body[len(_BOM) if body.startswith(_BOM) else 0 :].decode("latin-1")  # a character for each byte
    pieces: List[str] = []
    copied = 0
    for name, start, end in _members(text, raw):
        if name in changes:
            pieces += [text[copied:start], json.dumps(changes[name])]
            copied = end
    return "".join([*pieces, text[copied:]]).encode("latin-1")


def _members(text: str, raw: Json) -> Iterator[Tuple[str, int, int]]:
    """Yield each member's name and where its value starts and ends; ``text`` is known to be the object ``raw``."""
    decoder = json.JSONDecoder()
    position = _skip(text, _skip(text, 0) + 1)
    while text[position] == '"':
        name, position = decoder.raw_decode(text, position)
        start = _skip(text, _skip(text, position) + 1)
        value = raw.get(name)
        items = value if isinstance(value, list) else []
        is_known = bool(items) and all(type(item) is Item for item in items)
        end = _end(text, start, items) if is_known else decoder.raw_decode(text, start)[1]
        yield name, start, end
        position = _skip(text, end)
        if text[position] == ",":
            position = _skip(text, position + 1)


def _end(text: str, start: int, items: List[Item]) -> int:
    """Return where a list ends whose items know their text: of 800 KB in 0.1 ms, parsing takes 10."""
    position = start + 1
    for item in items:
        position = _skip(text, _skip(text, position) + len(item.text)) + 1  # the comma, or the end
    return position


def _skip(text: str, position: int) -> int:
    while text[position] in _WHITESPACE:
        position += 1
    return position


def without_envelopes(messages: List[Json]) -> List[Json]:
    """Return the history without what other providers' turns left in it: Anthropic refuses foreign signatures."""
    cleaned = []
    for message in messages:
        content = message.get("content")
        if not isinstance(content, list):
            cleaned.append(message)
            continue
        blocks = [_plain_ids(block) for block in content if not _is_foreign(block)]
        if blocks or not content:
            cleaned.append({**message, "content": blocks})
    return cleaned


def _is_foreign(block: Any) -> bool:
    if not isinstance(block, dict):
        return False
    search = str(block.get("id") or block.get("tool_use_id") or "")
    is_thinking = block.get("type") == "thinking" and is_ours(str(block.get("signature") or ""))
    return is_thinking or search.startswith(SEARCH_MARK)


def _plain_ids(block: Any) -> Any:
    if not isinstance(block, dict):
        return block
    cited = block.get("citations")
    if isinstance(cited, list) and any(isinstance(one, dict) and one.get("encrypted_index") == "" for one in cited):
        block = {name: value for name, value in block.items() if name != "citations"}
    ids: Dict[str, Optional[str]] = {name: block.get(name) for name in ("id", "tool_use_id")}
    changed = {name: unseal_id(value)[0] for name, value in ids.items() if isinstance(value, str) and ID_MARK in value}
    return {**block, **changed} if changed else block
