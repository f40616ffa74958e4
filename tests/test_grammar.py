"""The grammar checker itself: it passes whole streams and names the rule that a broken one breaks."""

from __future__ import annotations

import json
from typing import Any, Dict, List

import pytest

from grammar import Event, GrammarError, check_grammar, error_of, fold, parse_sse

Json = Dict[str, Any]

USAGE: Json = {"input_tokens": 7, "output_tokens": 0}
MESSAGE: Json = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": USAGE,
}


def event(name: str, **fields: Any) -> Event:
    """One event, with its type in its data."""
    return name, {"type": name, **fields}


def start(index: int, **block: Any) -> Event:
    """The start of a block."""
    return event("content_block_start", index=index, content_block=block)


def delta(index: int, **fields: Any) -> Event:
    """A delta."""
    return event("content_block_delta", index=index, delta=fields)


def stop(index: int) -> Event:
    """The stop of a block."""
    return event("content_block_stop", index=index)


def ending(stop_reason: str, output_tokens: int = 3) -> List[Event]:
    """The regular end."""
    closing = event(
        "message_delta",
        delta={"stop_reason": stop_reason, "stop_sequence": None},
        usage={"output_tokens": output_tokens},
    )
    return [closing, event("message_stop")]


BEGIN = event("message_start", message=MESSAGE)
PING = event("ping")
FAILURE = event("error", error={"type": "api_error", "message": "gone"})
TEXT = [start(0, type="text", text=""), delta(0, type="text_delta", text="Hi"), stop(0)]
EMPTY_TEXT = [start(0, type="text", text=""), stop(0)]


def thinking(index: int) -> List[Event]:
    """A thinking block with a signature."""
    return [
        start(index, type="thinking", thinking="", signature=""),
        delta(index, type="thinking_delta", thinking="Hm"),
        delta(index, type="signature_delta", signature="sig"),
        stop(index),
    ]


def tool(index: int, partial_json: str = '{"a": 1}', id: str = "call_1") -> List[Event]:
    """A tool_use block."""
    return [
        start(index, type="tool_use", id=id, name="f", input={}),
        delta(index, type="input_json_delta", partial_json=partial_json[:3]),
        delta(index, type="input_json_delta", partial_json=partial_json[3:]),
        stop(index),
    ]


def frames(events: List[Event]) -> bytes:
    """The events as a response body."""
    return b"".join(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode() for name, data in events)


WHOLE = {
    "text": [BEGIN, PING, *TEXT, *ending("end_turn")],
    "thinking, tools": [BEGIN, *thinking(0), *tool(1), *tool(2, id="call_2"), *ending("tool_use")],
    "no content": [BEGIN, *ending("end_turn")],
    "one empty text block": [BEGIN, *EMPTY_TEXT, *ending("max_tokens")],
    "half a call": [BEGIN, *tool(0, '{"a": "x'), *ending("max_tokens")],
    "error at once": [FAILURE],
    "error inside a block": [BEGIN, *TEXT[:2], FAILURE],
    "error inside a call": [BEGIN, *tool(0, '{"a": "x')[:3], FAILURE],
    "error between blocks": [BEGIN, *TEXT, PING, FAILURE],
}

BROKEN = {
    "a stream ends with message_stop or error": [BEGIN, *TEXT],
    "message_start comes once, first": [BEGIN, BEGIN],
    "a block starts only when no other is open": [*TEXT],
    "nothing follows the end of a stream": [BEGIN, *TEXT, *ending("end_turn"), PING],
    "an error never follows message_delta": [BEGIN, *TEXT, ending("end_turn")[0], FAILURE],
    "block indexes are 0, 1, 2, ...": [BEGIN, start(1, type="text", text="")],
    "a delta names the open block": [BEGIN, TEXT[0], delta(1, type="text_delta", text="Hi")],
    "the delta fits its text block": [BEGIN, TEXT[0], delta(0, type="input_json_delta", partial_json="{}")],
    "only an open block stops": [BEGIN, stop(0)],
    "a text block is not blank": [BEGIN, TEXT[0], delta(0, type="text_delta", text=" \n"), stop(0)],
    "an empty text block stands alone": [BEGIN, *EMPTY_TEXT, *tool(1), *ending("tool_use")],
    "a thinking block carries text or a signature": [BEGIN, thinking(0)[0], stop(0)],
    "nothing follows the signature": [BEGIN, *thinking(0)[:3], thinking(0)[2]],
    "tool ids are unique": [BEGIN, *tool(0), *tool(1)],
    "a tool input is a JSON object": [BEGIN, *tool(0, '{"a": "x'), *ending("tool_use")],
    "JSON has no NaN": [BEGIN, *tool(0, '{"a": NaN}'), *ending("tool_use")],
    "tool_use iff a tool was called": [BEGIN, *TEXT, *ending("tool_use")],
    "message_delta comes when every block is closed": [BEGIN, *TEXT[:2], *ending("end_turn")],
    "message_delta has usage.output_tokens": [BEGIN, *TEXT, *ending("end_turn", output_tokens=-1)],
    "usage has input_tokens": [event("message_start", message={**MESSAGE, "usage": {"output_tokens": 1}})],
    "the message id starts with msg_": [event("message_start", message={**MESSAGE, "id": ""})],
    "the event type is known": [BEGIN, event("surprise")],
    "an error has a message": [event("error", error={"type": "api_error", "message": ""})],
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_stream_passes(name: str) -> None:
    """Every shape a stream may have passes, also by way of its bytes."""
    check_grammar(parse_sse(frames(WHOLE[name])))


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_stream_names_its_rule(rule: str) -> None:
    """Each broken stream is refused for its own reason."""
    with pytest.raises(GrammarError) as caught:
        check_grammar(BROKEN[rule])
    assert rule in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b'data: {"type": "ping"}\n\n',
        b'event: ping\ndata: {"type": "pong"}\n\n',
        b'event: ping\ndata: {"type":\ndata: "ping"}\n\n',
        b'event: ping\r\ndata: {"type": "ping"}\r\n\r\n',
        b'event: ping\ndata: {"type": "ping"}\n',
        b'event: ping\ndata: {"type": "ping", "n": NaN}\n\n',
        b"event: ping\n\n",
        b"data: [DONE]\n\n",
    ],
)
def test_a_loose_frame_is_refused(body: bytes) -> None:
    """A frame has its event line and one line of strict JSON."""
    with pytest.raises(GrammarError):
        parse_sse(body)


def test_comments_are_no_events() -> None:
    """Comment lines may stand anywhere."""
    assert parse_sse(b": hello\n\n" + frames([PING]) + b":\n\n") == [PING]


def test_the_fold_of_a_stream() -> None:
    """Deltas join, inputs parse, the last counts win."""
    message = fold([BEGIN, *thinking(0), *tool(1), *ending("tool_use", 5)])
    assert message == {
        **MESSAGE,
        "content": [
            {"type": "thinking", "thinking": "Hm", "signature": "sig"},
            {"type": "tool_use", "id": "call_1", "name": "f", "input": {"a": 1}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 7, "output_tokens": 5},
    }


def test_the_fold_of_a_failed_stream() -> None:
    """What had arrived stays; the error is told apart."""
    events = [BEGIN, *TEXT[:2], FAILURE]
    assert fold(events)["content"] == [{"type": "text", "text": "Hi"}]
    assert error_of(events) == {"type": "api_error", "message": "gone"}
    assert error_of([BEGIN, *TEXT, *ending("end_turn")]) is None
