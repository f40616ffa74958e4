"""Chat-completion chunks as providers send them, and their way through the translator as the proxy takes it."""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple, Union

from ccproxy.chunk_reader import ChunkReader
from ccproxy.errors import ProviderError
from ccproxy.message import Event
from ccproxy.openai import Chunk
from ccproxy.responses import ResponsesReader
from ccproxy.sse import Reader, encode
from ccproxy.translate.reply import ReplyContext
from ccproxy.translate.stream import StreamTranslator
from grammar import check_grammar, fold, parse_sse

Json = Dict[str, Any]
ESTIMATE = 7
REQUEST_ID = "req_test"


def delta(finish: Optional[str] = None, usage: Optional[Json] = None, **fields: Any) -> Json:
    """A chunk with one choice; ``fields`` are its delta."""
    chunk: Json = {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}
    return {**chunk, "usage": usage} if usage else chunk


def entry(
    index: Optional[int] = None, id: Optional[str] = None, name: Optional[str] = None, arguments: Any = None
) -> Json:
    """One entry of ``tool_calls``; what is None is missing."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    head = {key: value for key, value in (("index", index), ("id", id)) if value is not None}
    return {**head, "function": function}


def call(*arguments: Any, **named: Any) -> Json:
    """A chunk with one tool-call entry."""
    return delta(tool_calls=[entry(*arguments, **named)])


def completion(finish: Optional[str] = "stop", usage: Optional[Json] = None, **message: Any) -> Json:
    """A whole chat completion."""
    body: Json = {"choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}]}
    return {**body, "usage": usage} if usage else body


def sse(*chunks: Json, done: bool = True) -> bytes:
    """The chunks as a provider's stream."""
    frames = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return "".join([*frames, "data: [DONE]\n\n" if done else ""]).encode()


READERS: Dict[str, Callable[[], Union[ChunkReader, ResponsesReader]]] = {
    "chat": ChunkReader,
    "responses": ResponsesReader,
}


def read(parts: Iterable[bytes], api: str = "chat") -> Tuple[List[Chunk], bool]:
    """The chunks of a provider's stream, and whether it said that it is done."""
    frames, reader, chunks = Reader(), READERS[api](), []
    for event in [*(event for part in parts for event in frames.feed(part)), *frames.finish()]:
        if event.data.strip() == "[DONE]":
            return chunks, True
        try:
            chunks += reader.parse(event.data)
        except ValueError:
            continue
    return chunks, reader.is_done


def context(**fields: Any) -> ReplyContext:
    """What the translation knows of its request."""
    return ReplyContext("msg_test", "claude-sonnet-4-5", ESTIMATE, **fields)


def stream_of(chunks: Iterable[Chunk], *, done: bool = True, **fields: Any) -> List[Event]:
    """The whole stream for chunks that are read already; a failure is its last event."""
    translator, events = StreamTranslator(context(**fields)), []
    try:
        for chunk in chunks:
            events += translator.feed(chunk)
            if translator.is_stopped:
                break
        events += translator.finish(is_done=done)
    except ProviderError as error:
        events += translator.fail(error, REQUEST_ID)
    return events


def wire(events: List[Event]) -> List[Tuple[str, Json]]:
    """The events as the client reads them, checked by the grammar."""
    read_back = parse_sse(encode(events))
    check_grammar(read_back)
    return read_back


def translate(*chunks: Any, done: bool = True, **fields: Any) -> List[Tuple[str, Json]]:
    """The client's events for a provider's chunks."""
    return wire(stream_of([Chunk.from_dict(chunk) for chunk in chunks], done=done, **fields))


def message(*chunks: Any, done: bool = True, **fields: Any) -> Json:
    """The client's message for a provider's chunks; ``stop_reason`` is None when the stream failed."""
    return fold(translate(*chunks, done=done, **fields))


def contents(*chunks: Any, **fields: Any) -> List[Any]:
    """The content blocks in short: a text is its string, thinking ``("thinking", text)``, a call ``(name, input)``."""
    return list(_short(message(*chunks, **fields)["content"]))


def _short(blocks: Iterable[Json]) -> Iterator[Any]:
    for block in blocks:
        if block["type"] == "text":
            yield block["text"]
        elif block["type"] == "thinking":
            yield "thinking", block["thinking"]
        else:
            yield block["name"], block["input"]


def brief(events: Iterable[Tuple[str, Json]]) -> List[str]:
    """Events in one line each, without the block's number where it is plain: ``start 0 text``, ``text Hel``."""
    return [line for name, data in events for line in [_brief(name, data)] if line]


def _brief(name: str, data: Json) -> str:
    if name == "content_block_start":
        block = data["content_block"]
        return f"start {data['index']} {block['type']} {block.get('name', '')}".rstrip()
    if name == "content_block_delta":
        kind, value = list(data["delta"].items())[1]
        return "" if kind == "signature" else f"{kind} {value}"
    if name == "content_block_stop":
        return f"stop {data['index']}"
    if name == "message_delta":
        return f"message_delta {data['delta']['stop_reason']}"
    return f"error {data['error']['type']}" if name == "error" else name
