"""A scripted provider of the Responses API: the steps of `ccproxy.stub`, and searches, streamed or whole."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple, Union

from ccproxy.stub import Reasoning, Text, ToolCall
from replay import Answer, ReplayProvider

Json = Dict[str, Any]
USAGE = {
    "input_tokens": 50,
    "input_tokens_details": {"cached_tokens": 20},
    "output_tokens": 12,
    "output_tokens_details": {"reasoning_tokens": 4},
    "total_tokens": 62,
}


@dataclass(frozen=True)
class Searched:
    """A web search; `sources` are the addresses that the call itself tells."""

    query: str
    sources: Sequence[str] = ()
    status: str = "completed"


@dataclass(frozen=True)
class Cited:
    """Text that cites addresses: (url, title) each."""

    text: str
    citations: Sequence[Tuple[str, str]]


Step = Union[Text, Reasoning, ToolCall, Searched, Cited]
Script = Callable[[Json], Sequence[Step]]


class ResponsesProvider(ReplayProvider):
    """Plays a script; `requests` are the bodies it was sent, in order."""

    def __init__(self, script: Script, **entry: Any) -> None:
        super().__init__()
        self.script = script
        self.entry = {"api": "responses", "dialect": "openai", "model_name": "gpt-5.6", **entry}
        """What models.yaml says of it beside its address."""

    @property
    def url(self) -> str:
        """Its api_base."""
        return super().url + "/v1"

    @property
    def requests(self) -> List[Any]:
        """What was received."""
        return self.received

    def answer_to(self, key: str, body: Json) -> Answer:
        """Play the script as it was asked for."""
        items = [item_of(step, number) for number, step in enumerate(self.script(body))]
        response = {"id": "resp_1", "object": "response", "status": "completed", "output": items, "usage": USAGE}
        if not body.get("stream"):
            return Answer(200, {"content-type": "application/json"}, [json.dumps(response).encode()], "length")
        events = [event for number, item in enumerate(items) for event in events_of(item, number)]
        frames = [{"type": "response.created"}, *events, {"type": "response.completed", "response": response}]
        pieces = [f"event: {frame['type']}\ndata: {json.dumps(frame)}\n\n".encode() for frame in frames]
        return Answer(200, {"content-type": "text/event-stream"}, pieces)


def item_of(step: Step, number: int) -> Json:
    """The output item of a step."""
    if isinstance(step, Reasoning):
        summary = [{"type": "summary_text", "text": step.text}]
        return {"type": "reasoning", "id": f"rs_{number}", "summary": summary, "encrypted_content": f"enc{number}"}
    if isinstance(step, ToolCall):
        call_id = step.id or f"call_{number}_{abs(hash(json.dumps(step.arguments))) % 10**8}"
        arguments = step.arguments if isinstance(step.arguments, str) else json.dumps(step.arguments)
        return {
            "type": "function_call",
            "id": f"fc_{number}",
            "call_id": call_id,
            "name": step.name,
            "arguments": arguments,
        }
    if isinstance(step, Searched):
        sources = {"sources": [{"type": "url", "url": url} for url in step.sources]} if step.sources else {}
        action = {"type": "search", "query": step.query, **sources}
        return {"type": "web_search_call", "id": f"ws_{number}", "status": step.status, "action": action}
    cited = step.citations if isinstance(step, Cited) else ()
    notes = [
        {"type": "url_citation", "url": url, "title": title, "start_index": 0, "end_index": 1} for url, title in cited
    ]
    content = [{"type": "output_text", "text": step.text, "annotations": notes}]
    return {"type": "message", "id": f"msg_{number}", "role": "assistant", "status": "completed", "content": content}


def events_of(item: Json, number: int) -> Iterator[Json]:
    """The events in which an item is streamed."""
    place = {"output_index": number, "item_id": item["id"]}
    begun = {**item, **{name: [] for name in ("content", "summary") if name in item}}
    yield {
        "type": "response.output_item.added",
        **place,
        "item": {**begun, **({"arguments": ""} if "arguments" in item else {})},
    }
    for word in pieces_of(item.get("arguments", "")):
        yield {"type": "response.function_call_arguments.delta", **place, "delta": word}
    for part in item.get("summary", ()):
        for word in pieces_of(part["text"]):
            yield {"type": "response.reasoning_summary_text.delta", **place, "summary_index": 0, "delta": word}
    for part in item.get("content", ()):
        for word in pieces_of(part["text"]):
            yield {"type": "response.output_text.delta", **place, "content_index": 0, "delta": word}
        for note in part["annotations"]:
            yield {"type": "response.output_text.annotation.added", **place, "annotation": note}
    yield {"type": "response.output_item.done", **place, "item": item}


def pieces_of(text: str) -> List[str]:
    """A text in small pieces."""
    return [text[start : start + 7] for start in range(0, len(text), 7)]
