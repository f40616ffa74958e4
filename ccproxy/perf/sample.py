"""One answer as it arrived: the timed reads of its body to first content, text, token counts and outcome.

Bodies are read after the clock has stopped, both formats by the same code, so that reading them is in no figure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Callable, List, Optional, Sequence, Tuple

from ..encoded import Json
from ..frozen import frozen
from ..message import Usage
from ..openai import Chunk, object_in
from ..responses import ResponsesReader
from ..sse import Reader

Reads = Sequence[Tuple[float, bytes]]
"""Seconds since the request was sent, and what arrived then."""


@frozen
class Sample:
    """One request and its answer; with ``error`` it failed, and its figures say nothing. Times are in seconds."""

    error: str = ""
    first_content: float = 0.0
    """Until the first chunk with text, thinking or a tool call; chunks that only open the answer do not count."""
    total: float = 0.0
    size: int = 0
    """Bytes of the body."""
    text: str = ""
    usage: Optional[Usage] = None
    """None: the provider told no counts."""
    cost: Optional[Decimal] = None
    """USD; None: nobody told."""

    @property
    def tokens_per_second(self) -> Optional[float]:
        """Output tokens over the whole time; None where they were not told."""
        return self.usage.output_tokens / self.total if self.usage and self.total else None


@dataclass
class Heard:
    """What an answer said so far."""

    texts: List[str] = field(default_factory=list)
    counts: Json = field(default_factory=dict)
    is_complete: bool = False
    error: str = ""
    responses: ResponsesReader = field(default_factory=ResponsesReader)
    """Remembers what of a response was said already."""

    @property
    def text(self) -> str:
        """All content: text, thinking and the arguments of tool calls."""
        return "".join(self.texts)


See = Callable[[Heard, str], None]


def see_chunk(heard: Heard, data: str) -> None:
    """Take down one item of a chat completion's stream, or a whole completion."""
    if data.strip() == "[DONE]":
        heard.is_complete = True
        return
    _take_down(heard, Chunk.from_dict(_parsed(data)))


def see_response(heard: Heard, data: str) -> None:
    """Take down one event of the Responses API's stream, or a whole response."""
    body = _parsed(data)
    for chunk in heard.responses.whole(body) if "output" in body else heard.responses.event(body):
        _take_down(heard, chunk)


def _take_down(heard: Heard, chunk: Chunk) -> None:
    heard.texts += [piece.text for piece in chunk.pieces]
    heard.texts += [call.name + call.arguments for call in chunk.tool_calls]
    heard.counts = chunk.usage or heard.counts
    heard.is_complete = heard.is_complete or chunk.finish_reason is not None
    if chunk.error:
        heard.error = f"an error in the stream: {json.dumps(chunk.error)[:300]}"


def see_event(heard: Heard, data: str) -> None:
    """Take down one event of the Messages API's stream."""
    body = _parsed(data)
    kind = body.get("type")
    if kind == "content_block_start":
        heard.texts.append(str(object_in(body, "content_block").get("name", "")))
    elif kind == "content_block_delta":
        delta = object_in(body, "delta")
        heard.texts += [str(delta[name]) for name in ("text", "thinking", "partial_json") if name in delta]
    elif kind in ("message_start", "message_delta"):
        heard.counts.update(object_in(object_in(body, "message") or body, "usage"))
    elif kind == "message_stop":
        heard.is_complete = True
    elif kind == "error":
        heard.error = f"an error in the stream: {json.dumps(body.get('error'))[:300]}"


def _parsed(data: str) -> Json:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def read(reads: Reads, see: See) -> Tuple[Sample, Json]:
    """Return what the reads of one body say, and the provider's counts as it sent them."""
    if not reads:
        return Sample("an empty answer"), {}
    heard, first = Heard(), 0.0
    reader = Reader()
    if reads[0][1].lstrip()[:1] == b"{":
        see(heard, b"".join(data for _, data in reads).decode("utf-8", "replace"))
        first = reads[-1][0]
    for seconds, data in [] if first else [*reads, (reads[-1][0], b"")]:
        for event in reader.feed(data) if data else reader.finish():
            see(heard, event.data)
        first = first or (seconds if heard.text else 0.0)
    error = heard.error or ("" if heard.is_complete else "the answer was cut") or ("" if heard.text else "no content")
    if error:
        return Sample(error), heard.counts
    return Sample("", first, reads[-1][0], sum(len(data) for _, data in reads), heard.text), heard.counts
