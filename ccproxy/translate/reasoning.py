"""Reasoning across turns: collected from an answer, and given back to the provider it came from.

The proxy keeps none of it; see ``envelope`` for how it travels.
"""

from __future__ import annotations

import re
from typing import Dict, Iterable, List, Optional, Sequence, Tuple

from ..anthropic import Block, ThinkingBlock
from ..config.schema import Model
from ..encoded import Json
from ..frozen import frozen
from .envelope import Envelope, is_ours, seal, unseal

FILLER = " "  # an empty string is reported refused
SKIP_SIGNATURE = "skip_thought_signature_validator"  # documented by Google for calls that Gemini did not make
_JOINED = ("text", "summary", "data")


class ReasoningState:
    """What of an answer's reasoning the client must carry; each part is given out once."""

    def __init__(self, provider: str, model: str) -> None:
        self._provider, self._model = provider, model
        self._text_field = ""
        self._hidden: List[str] = []
        self._fields: Json = {}
        self._calls: Dict[str, Json] = {}

    @property
    def is_pending(self) -> bool:
        """Whether there is something that no signature carries yet."""
        return bool(self._fields or self._calls or self._hidden)

    def add(self, fields: Json, text_field: str) -> None:
        """Take in the message fields of one chunk."""
        self._text_field = text_field or self._text_field
        merge_fields(self._fields, fields)

    def add_call(self, tool_id: str, fields: Json) -> None:
        """Take in what a tool call carries."""
        self._calls[tool_id] = fields

    def hide(self, text: str) -> None:
        """Keep reasoning text that the client asked not to be shown."""
        self._hidden.append(text)

    def forget_items(self) -> None:
        """Drop the items that something else followed than what can be given back with them."""
        self._fields.pop("output_items", None)

    def take(self) -> str:
        """Return the signature for the thinking block that is closed now."""
        text, fields, calls = "".join(self._hidden), self._fields, self._calls
        self._hidden, self._fields, self._calls = [], {}, {}
        return seal(Envelope(self._provider, self._model, self._text_field, text, fields, calls))


def merge_fields(into: Json, fields: Json) -> None:
    """Add the fragments of streamed message fields: details are joined per index and type, items added, others set."""
    for name, value in fields.items():
        if name == "reasoning_details":
            into[name] = merge_details([*into.get(name, []), *value])
        elif name == "output_items":
            into[name] = [*into.get(name, []), *value]
        else:
            into[name] = value


def merge_details(details: Iterable[Json]) -> List[Json]:
    """Join the fragments of ``reasoning_details``: OpenRouter refuses signatures of texts that were not joined."""
    merged: Dict[str, Json] = {}
    for number, detail in enumerate(details):
        index = detail.get("index")
        key = f"{f'#{number}' if index is None else index!r} {detail.get('type')!r}"
        known = merged.get(key)
        if known is not None and _is_new(known, detail):
            merged[f"{key} {number}"] = merged.pop(key)
            known = None
        if known is None:
            merged[key] = dict(detail)
            continue
        for name, value in detail.items():
            if name in _JOINED and isinstance(value, str) and isinstance(known.get(name), str):
                known[name] += value
            elif value is not None and value != "":
                known[name] = value
    return list(merged.values())


def _is_new(known: Json, detail: Json) -> bool:
    """Whether a detail is no fragment of a known one, but another turn's: that one is signed, or has another id."""
    if known.get("data") and detail.get("data"):
        return bool(known.get("id") and detail.get("id") and known["id"] != detail["id"])
    return bool(known.get("signature") and any(detail.get(name) for name in _JOINED))


@frozen
class Returned:
    """What goes back on one assistant message: fields of the message and of its calls, by the client's tool id."""

    fields: Json
    calls: Dict[str, Json]
    parts: Tuple[Json, ...] = ()
    """Thinking parts that open the content (Mistral)."""


def give_back(blocks: Sequence[Block], model: Model, has_calls: bool) -> Returned:
    """Return an assistant turn's reasoning in the words of the model that continues.

    The state of this very provider goes back verbatim. Foreign text is used where the provider takes any text. Never
    as visible text: models would copy it into their answers.
    """
    dialect = model.dialect
    fields: Json = {}
    calls: Dict[str, Json] = {}
    own_field, texts = "", []
    for block in blocks:
        if not isinstance(block, ThinkingBlock):
            continue
        envelope = unseal(block.signature)
        if envelope is not None and _is_own(envelope, model):
            own_field = envelope.text_field or own_field
            merge_fields(fields, {name: value for name, value in envelope.fields.items() if name != "output_items"})
            calls.update(envelope.calls)
        if envelope is None and not is_ours(block.signature):
            merge_fields(fields, _claude_details(block, model))
        texts.append(block.thinking or (envelope.text if envelope else ""))
    text = "".join(texts)
    name = own_field or dialect.reasoning_field
    if not text and (dialect.needs_reasoning == "all" or (has_calls and dialect.needs_reasoning)):
        text = FILLER
    if not text or not name:
        return Returned(fields, calls)
    if name == "content":
        return Returned(fields, calls, ({"type": "thinking", "thinking": [{"type": "text", "text": text}]},))
    return Returned({name: text, **fields}, calls)


def own_items(block: ThinkingBlock, model: Model) -> List[Json]:
    """Return the output items of the Responses API that a thinking block carries, where the model can read them."""
    envelope = unseal(block.signature)
    if envelope is None or not _is_own(envelope, model):
        return []
    return list(envelope.fields.get("output_items", ()))


def _is_own(envelope: Envelope, model: Model) -> bool:
    """Whether the model that continues can read what the envelope carries."""
    is_same = envelope.provider == model.provider and _family(envelope.model) == _family(model.name)
    return is_same and model.dialect.takes_own_reasoning


def _family(model_name: str) -> str:
    """Return the maker in a gateway's model name: one maker's state means nothing to another."""
    return model_name.partition("/")[0] if "/" in model_name else ""


def _claude_details(block: ThinkingBlock, model: Model) -> Json:
    """Return thinking that Claude signed in the form in which OpenRouter gives it to Claude."""
    if model.dialect.name != "openrouter" or "claude" not in model.name or not block.signature:
        return {}
    detail = {"type": "reasoning.text", "text": block.thinking, "signature": block.signature}
    return {"reasoning_details": [{**detail, "format": "anthropic-claude-v1", "index": 0}]}


def message_fields(fields: Json, call_id: str, model: Model) -> Json:
    """Return the fields of a message with calls; OpenRouter's Gemini refuses one without details of the first call."""
    if (
        model.dialect.name != "openrouter"
        or "reasoning_details" in fields
        or not re.search(r"gemini-[3-9]", model.name)
    ):
        return fields
    detail = {"type": "reasoning.encrypted", "data": SKIP_SIGNATURE, "id": call_id, "format": "google-gemini-v1"}
    return {**fields, "reasoning_details": [{**detail, "index": 0}]}


def call_fields(carried: Optional[Json], is_first: bool, model: Model) -> Json:
    """Return the fields of one tool call: what it carries, or Gemini's leave to come without."""
    if carried:
        return carried
    if is_first and model.dialect.needs_signature:
        return {"extra_content": {"google": {"thought_signature": SKIP_SIGNATURE}}}
    return {}
