"""What a client must get for a recorded answer of the Responses API: read here without any of ccproxy's code.

An item is read from its last word, `response.output_item.done`, as far as there is one; what came in pieces decides
only where the stream was cut.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Dict, FrozenSet, List, Optional, Tuple

import recordings
from recorded_failures import Failure, in_answer, in_stream, of_status
from recordings import Call, OpenCall, Reading, Recording, inputs_of, order_of, server_sent_data

Json = Dict[str, Any]

DELTAS = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "text",
    "response.reasoning_summary_text.delta": "thinking",
    "response.reasoning_text.delta": "thinking",
}
CUT_SHORT = {"max_output_tokens": "max_tokens", "content_filter": "refusal"}


def read(source: Recording) -> Reading:
    """Return what a client must get for a recorded answer, whichever API gave it."""
    if source.api == "chat":
        return recordings.read(source)
    if source.is_error:
        return Reading(failure=of_status(source.provider, source.status, source.body))
    return read_stream(source) if source.is_stream else read_answer(source)


@dataclass
class Item:
    """One output item: the pieces of it, and the whole of it once it was told."""

    kind: str = ""
    pieces: List[str] = field(default_factory=list)
    call: OpenCall = field(default_factory=OpenCall)
    whole: Optional[Json] = None

    def words(self) -> Tuple[str, str]:
        """The kind of block it makes, and its text."""
        if self.whole is None:
            return self.kind, "".join(self.pieces)
        if self.whole["type"] == "reasoning":
            told = self.whole.get("content") or self.whole.get("summary") or []
            return "thinking", "\n\n".join(part["text"] for part in told)
        told = self.whole.get("content") or []
        return "text", "".join(part.get("text") or part.get("refusal") or "" for part in told)


def read_answer(source: Recording) -> Reading:
    """Read a whole response."""
    data = json.loads(source.body)
    if data.get("error") or not isinstance(data.get("output"), list):
        return Reading(failure=in_answer(source.provider, source.body))
    return reading([whole_item(body) for body in data["output"]], data)


def whole_item(body: Json) -> Item:
    """Return an item that is told at once."""
    item = Item(whole=body)
    if body["type"] == "function_call":
        item.call = OpenCall(body["call_id"], body["name"], body["arguments"])
    return item


def read_stream(source: Recording) -> Reading:
    """Read a stream up to its end or its last word."""
    items: Dict[Any, Item] = {}
    for text in server_sent_data(source.body):
        try:
            data = json.loads(text)
        except ValueError:  # [DONE], which follows the end, or half an event
            continue
        name = str(data.get("type"))
        key = data.get("output_index", data.get("item_id"))
        if name in ("response.completed", "response.incomplete"):
            return reading(list(items.values()), data["response"])
        if name in ("response.failed", "error"):
            response = data.get("response") or data
            return reading(list(items.values()), {}, in_stream(source.provider, {"error": response.get("error")}))
        if name in DELTAS:
            item = items.setdefault(key, Item())
            item.kind = DELTAS[name]
            item.pieces.append(data["delta"])
        elif name == "response.function_call_arguments.delta":
            items[key].call.arguments += data["delta"]
        elif name == "response.output_item.added" and data["item"]["type"] == "function_call":
            items[key] = Item(call=OpenCall(data["item"]["call_id"], data["item"]["name"]))
        elif name == "response.output_item.done":
            items[key] = whole_item(data["item"])
    return reading(list(items.values()), {}, Failure.cut_off())


def reading(items: List[Item], response: Json, failure: Optional[Failure] = None) -> Reading:
    """Return what items and the end of the response say."""
    runs: List[Tuple[str, str]] = []
    calls: List[OpenCall] = []
    for item in items:
        if item.call.name:
            runs.append((f"call {len(calls)}", ""))
            calls.append(item.call)
        else:
            kind, text = item.words()
            runs += [(kind, text)] if text.strip() else []
    reason = str((response.get("incomplete_details") or {}).get("reason"))
    is_cut = failure is not None or reason in CUT_SHORT
    return Reading(
        text="".join(text for kind, text in runs if kind == "text"),
        reasoning="".join(text for kind, text in runs if kind == "thinking"),
        calls=tuple(
            Call(call.name, call.id, inputs_of(call, is_cut and call is calls[-1])) for call in calls if call.name
        ),
        order=order_of(runs),
        stop_reasons=frozenset() if failure else stop_reasons(items, response, bool(calls), reason),
        usage=counts(response.get("usage")),
        failure=failure,
        has_begun=bool(runs),
    )


def stop_reasons(items: List[Item], response: Json, has_calls: bool, reason: str) -> FrozenSet[str]:
    """The stop reason; calls outrank everything but a cut by length."""
    parts = [part for item in items for part in (item.whole or {}).get("content") or []]
    if response.get("status") == "incomplete" and CUT_SHORT[reason] == "max_tokens":
        return frozenset({"max_tokens"})
    if has_calls:
        return frozenset({"tool_use"})
    is_refused = reason == "content_filter" or any(part["type"] == "refusal" for part in parts)
    return frozenset({"refusal" if is_refused else "end_turn"})


def counts(usage: Optional[Json]) -> Optional[Dict[str, int]]:
    """Return Anthropic's counts: input, cache reads and cache writes add up to `input_tokens`."""
    if not usage:
        return None
    details = usage.get("input_tokens_details") or {}
    read, written = details.get("cached_tokens", 0), details.get("cache_write_tokens", 0)
    return {
        "input_tokens": usage["input_tokens"] - read - written,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
        "output_tokens": usage["output_tokens"],
        "thinking_tokens": (usage.get("output_tokens_details") or {}).get("reasoning_tokens", 0),
    }
