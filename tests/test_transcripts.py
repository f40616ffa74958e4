"""Whole exchanges: ``NAME.chunks.sse`` is what a provider sends, ``NAME.events.sse`` what the client must get for it.

A first comment line ``: dialect NAME`` names the provider's dialect. A new case is two files. What is no fact of the
exchange is not compared: signatures, the words of errors, estimated usage, empty fragments of JSON.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest

from ccproxy.errors import ProviderError
from ccproxy.openai import Chunk
from ccproxy.provider.dialects import DIALECTS
from ccproxy.sse import Reader
from chunks import read, stream_of, wire
from grammar import error_of, fold, parse_sse

FOLDER = Path(__file__).parent / "transcripts"
NAMES = sorted(path.name.replace(".chunks.sse", "") for path in FOLDER.glob("*.chunks.sse"))
each_transcript = pytest.mark.parametrize("name", NAMES)
Json = Dict[str, Any]
Events = List[Tuple[str, Json]]


def chunks_of(name: str) -> bytes:
    return (FOLDER / f"{name}.chunks.sse").read_bytes()


def dialect_of(name: str) -> Any:
    found = re.match(rb": dialect (\w+)", chunks_of(name))
    assert found is not None, name
    return DIALECTS[found[1].decode()]


def events_for(name: str, *parts: bytes) -> Events:
    """The client's events for a provider's reads, checked by the grammar."""
    chunks, is_done = read(parts)
    return wire(stream_of(chunks, done=is_done, dialect=dialect_of(name)))


def facts(name: str, events: Events) -> Events:
    """The events without what is no fact of the exchange."""
    has_usage = b'"usage"' in chunks_of(name)
    kept = []
    for event, data in json.loads(json.dumps(events)):
        if event == "message_delta" and not has_usage:
            data["usage"] = "estimated"
        elif event == "error":
            data = {"type": data["error"]["type"]}
        elif (event == "content_block_delta" and data["delta"].get("partial_json") == "") or (
            event == "content_block_delta" and data["delta"]["type"] == "signature_delta"
        ):
            continue
        kept.append((event, data))
    return kept


def expected(name: str) -> Events:
    return facts(name, parse_sse((FOLDER / f"{name}.events.sse").read_bytes()))


def test_every_transcript_has_both_files() -> None:
    """Neither half stands alone."""
    assert sorted(path.name.replace(".events.sse", "") for path in FOLDER.glob("*.events.sse")) == NAMES
    assert NAMES


@each_transcript
def test_a_transcript_read_whole(name: str) -> None:
    """The events are those of the file."""
    assert facts(name, events_for(name, chunks_of(name))) == expected(name)


@each_transcript
def test_a_transcript_read_byte_by_byte(name: str) -> None:
    """Where the provider's packets end means nothing."""
    body = chunks_of(name)
    assert facts(name, events_for(name, *(body[n : n + 1] for n in range(len(body))))) == expected(name)


@each_transcript
def test_a_transcript_cut_after_every_frame(name: str) -> None:
    """A cut stream is legal up to the cut and then an error, never an end that looks whole."""
    whole = events_for(name, chunks_of(name))
    frames = re.split(rb"(?<=\n\n)|(?<=\r\n\r\n)", chunks_of(name))
    for count in range(len(frames)):
        events = events_for(name, b"".join(frames[:count]))
        *begun, last = events
        if last[0] == "error":
            assert begun == whole[: len(begun)]
        else:
            assert fold(events)["content"] == fold(whole)["content"]


@each_transcript
def test_a_transcript_cut_inside_a_frame(name: str) -> None:
    """The half frame is dropped; it never becomes half a character of content."""
    body = chunks_of(name)
    whole = events_for(name, body)
    for end in range(0, len(body), 7):
        try:
            events = events_for(name, body[:end])
        except ProviderError:  # cut inside a character
            continue
        if events[-1][0] == "error":
            assert events[:-1] == whole[: len(events) - 1]
        else:
            assert fold(events)["content"] == fold(whole)["content"]


@each_transcript
def test_a_completion_gives_the_same_message(name: str) -> None:
    """The same answer without ``stream`` is the fold of the stream's events."""
    body = chunks_of(name)
    streamed = events_for(name, body)
    if error_of(streamed) is None:
        whole = Chunk.from_completion(completion_of(body))
        assert fold(wire(stream_of([whole], dialect=dialect_of(name)))) == fold(streamed)


def completion_of(body: bytes) -> Json:
    """The answer a provider would have given without ``stream``: deltas joined, the last usage."""
    message: Json = {"role": "assistant"}
    calls: List[Json] = []
    whole: Json = {"usage": None}
    finish = None
    for event in [*(reader := Reader()).feed(body), *reader.finish()]:
        try:
            chunk = json.loads(event.data)
        except ValueError:
            continue
        whole["usage"] = chunk.get("usage") or whole["usage"]
        for choice in chunk.get("choices") or []:
            delta = choice.get("delta") or choice.get("message") or {}
            for key in ("content", "reasoning_content", "reasoning", "refusal"):
                if delta.get(key):
                    message[key] = joined(message.get(key), delta[key])
            for entry in delta.get("tool_calls") or []:
                add_call(calls, entry)
            finish = choice.get("finish_reason") or finish
            whole["usage"] = choice.get("usage") or whole["usage"]
    return {**whole, "choices": [{"index": 0, "message": {**message, "tool_calls": calls}, "finish_reason": finish}]}


def joined(known: Any, more: Any) -> Any:
    """Text joined; lists of parts one after the other, neighbours of one kind joined as well."""
    if known is None:
        return more
    if isinstance(known, str) and isinstance(more, str):
        return known + more
    return [*(known if isinstance(known, list) else [known]), *(more if isinstance(more, list) else [more])]


def add_call(calls: List[Json], entry: Json) -> None:
    """A fragment without an id belongs to the call of its index."""
    if entry.get("id"):
        calls.append(json.loads(json.dumps(entry)))
        return
    call = next(call for call in calls if call.get("index") == entry.get("index"))
    call["function"]["arguments"] += entry["function"]["arguments"]
