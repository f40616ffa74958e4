"""The envelope: a provider's reasoning state, carried by the client in the signature of a thinking block.

Clients treat signatures as opaque and send them back unchanged, so the proxy needs no memory, any instance can
continue any conversation, and the state dies with it. What comes back is not trusted: it is bounded, checked for its
shape, and used only to rebuild the history of the provider that sent it.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from dataclasses import field
from typing import Any, Dict, Mapping, Optional, Tuple

from ..encoded import Json
from ..frozen import frozen
from ..partial_json import parse_strict

PREFIX = "ccp1_"
MAX_BYTES = 4 * 1024 * 1024
ID_MARK = "--" + PREFIX
SEARCH_MARK = "srvtoolu_" + PREFIX
"""Begins the ids of searches that Anthropic did not run, and would not take back."""

# What a provider may have said that must return to it, on the message and on a tool call.
MESSAGE_FIELDS: Mapping[str, type] = {
    "reasoning_details": list,
    "reasoning_opaque": str,
    "extra_content": dict,
    "output_items": list,  # of the Responses API, each an item of the next request's input
}
CALL_FIELDS: Mapping[str, type] = {"extra_content": dict}
TEXT_FIELDS = frozenset({"reasoning_content", "reasoning", "reasoning_text", "content"})


@frozen
class Envelope:
    """One thinking block's state.

    ``text_field`` is the field the reasoning text came in (``content``: a thinking part of it); ``text`` the text
    itself where the client is not shown it; ``fields`` and ``calls`` what goes back verbatim, on the message and on
    tool calls by the client's tool id.
    """

    provider: str
    model: str
    text_field: str = ""
    text: str = ""
    fields: Json = field(default_factory=dict)
    calls: Dict[str, Json] = field(default_factory=dict)


def seal(envelope: Envelope) -> str:
    """Return the signature that carries an envelope; what would pass ``MAX_BYTES`` is left out."""
    body: Json = {"p": envelope.provider, "m": envelope.model}
    for key, value in (("r", envelope.text_field), ("t", envelope.text), ("f", envelope.fields), ("c", envelope.calls)):
        if value:
            body[key] = value
    data = json.dumps(body, separators=(",", ":")).encode()
    if len(data) > MAX_BYTES:
        return seal(Envelope(envelope.provider, envelope.model, envelope.text_field))
    return PREFIX + _pack(data)


def is_ours(signature: str) -> bool:
    """Whether a signature was made here; foreign ones are Anthropic's."""
    return signature.startswith(PREFIX)


def unseal(signature: str) -> Optional[Envelope]:
    """Return the envelope of a signature, or None for a foreign, broken or oversized one."""
    data = _unpack(signature[len(PREFIX) :]) if is_ours(signature) else None
    try:
        body = parse_strict(data.decode()) if data is not None else None
    except ValueError:
        return None
    if not isinstance(body, dict) or not all(isinstance(body.get(key), str) for key in ("p", "m")):
        return None
    text_field, text = body.get("r", ""), body.get("t", "")
    if not isinstance(text, str) or not isinstance(text_field, str) or (text_field and text_field not in TEXT_FIELDS):
        return None
    calls = body.get("c")
    return Envelope(
        provider=body["p"],
        model=body["m"],
        text_field=text_field,
        text=text,
        fields=_checked(body.get("f"), MESSAGE_FIELDS),
        calls={name: _checked(value, CALL_FIELDS) for name, value in calls.items()} if isinstance(calls, dict) else {},
    )


def _checked(fields: Any, known: Mapping[str, type]) -> Json:
    """Keep the fields that exist and have their type; nothing else can be injected."""
    if not isinstance(fields, dict):
        return {}
    kept: Json = {name: value for name, value in fields.items() if name in known and isinstance(value, known[name])}
    details = kept.get("reasoning_details")
    if isinstance(details, list) and not all(map(_is_detail, details)):
        del kept["reasoning_details"]
    items = kept.get("output_items")
    if isinstance(items, list) and not all(
        isinstance(item, dict) and item.get("type") == "reasoning" for item in items
    ):
        del kept["output_items"]
    return kept


def _is_detail(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("type"), str) and isinstance(item.get("index") or 0, int)


def seal_id(tool_id: str, signature: str) -> str:
    """Return a tool id that carries a thought signature, for clients that drop thinking blocks."""
    return tool_id + ID_MARK + _pack(signature.encode("utf-8", "replace"))


def unseal_id(tool_id: str) -> Tuple[str, Optional[str]]:
    """Return a tool id without what it carries, and the signature it carries."""
    plain, mark, packed = tool_id.partition(ID_MARK)
    data = _unpack(packed) if mark else None
    return plain, data.decode("utf-8", "replace") if data else None


def _pack(data: bytes) -> str:
    return base64.urlsafe_b64encode(zlib.compress(data)).decode().rstrip("=")


def _unpack(text: str) -> Optional[bytes]:
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        inflater = zlib.decompressobj()
        data = inflater.decompress(packed, MAX_BYTES)
    except (binascii.Error, ValueError, zlib.error):
        return None
    return data if inflater.eof and not inflater.unconsumed_tail else None
