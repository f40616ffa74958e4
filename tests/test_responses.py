"""Events and whole responses of the Responses API, read into chunks, however much of it a provider repeats or omits."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

import pytest

from ccproxy.errors import ProviderError
from ccproxy.openai import Chunk
from ccproxy.responses import ResponsesReader, ResponsesRequest
from ccproxy.translate.stream import StreamTranslator
from chunks import context, stream_of, wire
from grammar import fold

Json = Dict[str, Any]
USAGE = {
    "input_tokens": 20,
    "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 2},
    "output_tokens": 9,
    "output_tokens_details": {"reasoning_tokens": 4},
    "total_tokens": 29,
}


def item(kind: str, **fields: Any) -> Json:
    """An output item."""
    return {"type": kind, "id": f"{kind}_1", **fields}


def said(*texts: str) -> Json:
    """A message item."""
    return item("message", role="assistant", content=[{"type": "output_text", "text": text} for text in texts])


def thought(*summary: str, content: Any = (), **fields: Any) -> Json:
    """A reasoning item."""
    parts = [{"type": "summary_text", "text": text} for text in summary]
    more = {"content": [{"type": "reasoning_text", "text": text} for text in content]} if content else {}
    return item("reasoning", summary=parts, **more, **fields)


def called(arguments: str = '{"a":1}', id: str = "call_1", name: str = "Read") -> Json:
    """A function call."""
    return item("function_call", call_id=id, name=name, arguments=arguments)


def event(name: str, place: Optional[int] = 0, **fields: Any) -> Json:
    """One event; ``place`` is the number of its item, None where a provider tells none."""
    return {"type": f"response.{name}", **({} if place is None else {"output_index": place}), **fields}


def response(*output: Json, status: str = "completed", **fields: Any) -> Json:
    """A whole response."""
    return {"object": "response", "status": status, "output": list(output), "usage": USAGE, **fields}


def end(*output: Json, status: str = "completed", **fields: Any) -> Json:
    """The event that ends a stream."""
    return {"type": f"response.{status}", "response": response(*output, status=status, **fields)}


def chunks_of(*events: Any) -> List[Chunk]:
    """What the events say."""
    reader = ResponsesReader()
    return [chunk for data in events for chunk in reader.event(data)]


def message_of(chunks: List[Chunk]) -> Json:
    """The message a client has in the end."""
    return fold(wire(stream_of(chunks)))


def blocks(chunks: List[Chunk]) -> List[Any]:
    """Its blocks in short."""
    short: List[Any] = []
    for block in message_of(chunks)["content"]:
        kind = block["type"]
        short.append((block["name"], block["input"]) if kind == "tool_use" else (kind, block[kind]))
    return short


CALL = ("Read", {"a": 1})


WHOLE = {
    "text": ([said("Hi")], [("text", "Hi")]),
    "parts of a text": ([said("Hi", " there")], [("text", "Hi there")]),
    "a call": ([called()], [CALL]),
    "a call without arguments": ([called("")], [("Read", {})]),
    "thoughts in parts": ([thought("One.", "Two."), said("Hi")], [("thinking", "One.\n\nTwo."), ("text", "Hi")]),
    "two thoughts": ([thought("A"), thought("B"), called()], [("thinking", "A\n\nB"), CALL]),
    "the thought itself, not its summary": ([thought("Short.", content=["Long."])], [("thinking", "Long.")]),
    "a thought between calls": (
        [thought("A"), called(), thought("B"), called(id="call_2", name="Edit")],
        [("thinking", "A"), CALL, ("thinking", "B"), ("Edit", {"a": 1})],
    ),
    "items nobody knows": ([item("hologram", content="x"), said("Hi")], [("text", "Hi")]),
    "nothing": ([], [("text", "")]),
}


@pytest.mark.parametrize("case", WHOLE)
def test_a_whole_response(case: str) -> None:
    """Becomes the message that its items say, in their order."""
    output, expected = WHOLE[case]
    assert [pair for pair in blocks(ResponsesReader().whole(response(*output))) if pair != ("thinking", "")] == expected


@pytest.mark.parametrize("case", WHOLE)
@pytest.mark.parametrize("repeats", ["items", "the response alone", "both"])
def test_a_stream_that_says_only_the_end(case: str, repeats: str) -> None:
    """A provider that streams nothing but whole items, or nothing but the response, is understood, and once."""
    output, expected = WHOLE[case]
    events = (
        [event("output_item.done", n, item=body) for n, body in enumerate(output)]
        if repeats != "the response alone"
        else []
    )
    told = blocks(chunks_of(*events, end(*(output if repeats != "items" else []))))
    assert told == expected


def streamed(place: Optional[int] = 0, *, added: bool = True, done: bool = True) -> Dict[str, List[Json]]:
    """One item of each kind in pieces, with or without its beginning and its end."""
    ids = {"item_id": "x"}
    kinds = {
        "text": (
            said("Hello"),
            [event("output_text.delta", place, delta=text, **ids) for text in ("Hel", "lo")],
            [event("output_text.done", place, text="Hello", **ids)],
        ),
        "thinking": (
            thought("Hm. So."),
            [
                event("reasoning_summary_text.delta", place, delta=text, summary_index=0, **ids)
                for text in ("Hm. ", "So.")
            ],
            [event("reasoning_summary_text.done", place, text="Hm. So.", summary_index=0, **ids)],
        ),
        "plain thinking": (
            thought(content=["Hm. So."]),
            [event("reasoning_text.delta", place, delta=text, content_index=0, **ids) for text in ("Hm. ", "So.")],
            [event("reasoning_text.done", place, text="Hm. So.", content_index=0, **ids)],
        ),
        "call": (
            called('{"a":1}'),
            [event("function_call_arguments.delta", place, delta=text, **ids) for text in ('{"a"', ":1}")],
            [event("function_call_arguments.done", place, arguments='{"a":1}', **ids)],
        ),
    }
    told = {}
    for name, (body, deltas, ends) in kinds.items():
        body = {**body, "id": "x"}
        start = {**body, "arguments": "", "content": [], "summary": []}
        first = [event("output_item.added", place, item=start)] if added or name == "call" else []
        last = [*ends, event("output_item.done", place, item=body)] if done else []
        told[name] = [*first, *deltas, *last, end(body if done else said("never read"))]
    return told


@pytest.mark.parametrize("done", [False, True], ids=["pieces alone", "repeated"])
@pytest.mark.parametrize("added", [False, True], ids=["unannounced", "announced"])
@pytest.mark.parametrize("place", [0, 3, None])
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("text", ("text", "Hello")),
        ("thinking", ("thinking", "Hm. So.")),
        ("plain thinking", ("thinking", "Hm. So.")),
        ("call", CALL),
    ],
)
def test_an_item_in_pieces(kind: str, expected: Any, place: Optional[int], added: bool, done: bool) -> None:
    """Is told once, whatever else the provider says of it, and whether it numbers its items or names them."""
    told = [pair for pair in blocks(chunks_of(*streamed(place, added=added, done=done)[kind])) if pair != ("text", "")]
    assert told == [expected]


def test_calls_whose_pieces_mingle() -> None:
    """Each piece goes to its own call; ids that change on the way (Copilot) do not matter."""
    names = [("call_1", "Read"), ("call_2", "Edit")]
    begin = [
        event("output_item.added", n, item={**called("", call_id, name), "id": f"a{n}"})
        for n, (call_id, name) in enumerate(names)
    ]
    pieces = [
        event("function_call_arguments.delta", n, item_id=f"b{n}", delta=text)
        for texts in (('{"n":0', '{"n":1'), ("}", "}"))
        for n, text in enumerate(texts)
    ]
    assert blocks(chunks_of(*begin, *pieces, end())) == [("Read", {"n": 0}), ("Edit", {"n": 1})]


def test_a_copy_of_the_reasoning_is_told_once() -> None:
    """Where both the reasoning and its summary are streamed, the one that comes first is shown."""
    events = [
        event("reasoning_text.delta", delta="Long.", content_index=0),
        event("reasoning_summary_text.delta", delta="Short.", summary_index=0),
        event("output_item.done", item=thought("Short.", content=["Long."])),
        end(),
    ]
    assert [pair for pair in blocks(chunks_of(*events)) if pair[0] == "thinking"] == [("thinking", "Long.")]


def test_the_parts_of_a_streamed_summary() -> None:
    """Stand apart, as paragraphs."""
    parts = [("One", 0), (".", 0), ("Two.", 1)]
    events = [event("reasoning_summary_text.delta", delta=text, summary_index=n) for text, n in parts]
    assert blocks(chunks_of(*events, event("output_text.delta", 1, delta="Hi"), end()))[0] == (
        "thinking",
        "One.\n\nTwo.",
    )


PARTS: List[Any] = [
    ("output_text", "text", "content_index", said("One. ", "Two."), ("text", "One. Two.")),
    ("reasoning_text", "text", "content_index", thought(content=["One.", "Two."]), ("thinking", "One.\n\nTwo.")),
    ("reasoning_summary_text", "text", "summary_index", thought("One.", "Two."), ("thinking", "One.\n\nTwo.")),
]


@pytest.mark.parametrize("place", [0, None])
@pytest.mark.parametrize(("name", "field", "number", "body", "expected"), PARTS, ids=[part[0] for part in PARTS])
def test_parts_of_which_only_the_ends_are_told(
    name: str, field: str, number: str, body: Json, expected: Any, place: Optional[int]
) -> None:
    """Each is told once, however often its end is."""
    body = {**body, "id": "x"}
    texts = [part["text"] for part in body.get("content") or body["summary"]]
    ends = [event(f"{name}.done", place, item_id="x", **{number: n, field: text}) for n, text in enumerate(texts)]
    told = blocks(chunks_of(*ends, *ends, event("output_item.done", place, item=body), end(body)))
    assert [pair for pair in told if pair != ("text", "")] == [expected]


def test_a_part_in_pieces_is_not_told_again_at_its_end() -> None:
    """Whatever number a provider gives the end."""
    deltas = [event("output_text.delta", delta=text, content_index=0) for text in ("Hel", "lo")]
    ends = [event("output_text.done", text="Hello", **number) for number in ({"content_index": 1}, {})]
    assert blocks(chunks_of(*deltas, *ends, end())) == [("text", "Hello")]


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_refusal(is_stream: bool) -> None:
    """Is shown as text, and told in the stop reason."""
    body = item("message", content=[{"type": "refusal", "refusal": "No."}])
    if is_stream:
        events = [
            event("refusal.delta", delta="No"),
            event("refusal.delta", delta="."),
            event("refusal.done", refusal="No."),
        ]
        chunks = chunks_of(*events, event("output_item.done", item=body), end(body))
    else:
        chunks = ResponsesReader().whole(response(body))
    message = message_of(chunks)
    assert (message["content"], message["stop_reason"]) == ([{"type": "text", "text": "No."}], "refusal")


ENDINGS = [
    ({}, "end_turn"),
    ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "max_tokens"),
    ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "refusal"),
    ({"status": "incomplete", "incomplete_details": None}, "max_tokens"),
]


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(("fields", "expected"), ENDINGS)
def test_how_an_answer_ends(fields: Json, expected: str, is_stream: bool) -> None:
    """The status and its reason become the stop reason, with all the counts."""
    whole = ResponsesReader().whole(response(said("Hi"), **fields))
    message = message_of(chunks_of(end(said("Hi"), **fields)) if is_stream else whole)
    assert message["stop_reason"] == expected
    usage = message["usage"]
    assert {name: usage[name] for name in usage if name.endswith("tokens")} == {
        "input_tokens": 10,
        "cache_read_input_tokens": 8,
        "cache_creation_input_tokens": 2,
        "output_tokens": 9,
    }
    assert usage["output_tokens_details"] == {"thinking_tokens": 4}


def test_a_call_outranks_the_end() -> None:
    """A finished call decides the stop reason."""
    assert message_of(chunks_of(end(said("Hi"), called())))["stop_reason"] == "tool_use"


FAILURES: List[Any] = [
    ({"type": "error", "code": "rate_limit_exceeded", "message": "Slow down"}, 429, "Slow down"),
    ({"type": "error", "error": {"type": "server_error", "message": "Oops"}}, 500, "Oops"),
    ({"error": {"code": 503, "message": "Busy"}}, 529, "Busy"),
    (end(status="failed", error={"code": "server_error", "message": "Oops"}), 500, "Oops"),
    (end(status="failed", error={"code": "rate_limit_exceeded", "message": "Slow down"}), 429, "Slow down"),
    (end(status="failed", error={"code": "invalid_prompt", "message": "Never"}), 400, "Never"),
    (end(status="failed", error={"code": "image_parse_error", "message": "No image"}), 400, "No image"),
    (
        end(
            status="failed",
            error={"code": "context_length_exceeded", "message": "Your input exceeds the context window"},
        ),
        400,
        "prompt is too long",
    ),
    (end(status="failed", error=None), 500, "failed"),
    (end(status="cancelled"), 500, "cancelled"),
    ({"type": "response.failed", "response": {"output": []}}, 500, "failed"),
    ({"type": "response.cancelled"}, 500, "cancelled"),
]


@pytest.mark.parametrize(("failure", "status", "words"), FAILURES)
def test_a_failure(failure: Json, status: int, words: str) -> None:
    """Becomes the error of its code, with the provider's words, however it is told."""
    [chunk] = chunks_of(failure)
    with pytest.raises(ProviderError, match=words) as caught:
        StreamTranslator(context()).feed(chunk)
    assert caught.value.status == status


def test_a_failure_in_a_whole_answer() -> None:
    """A 200 may hold an error, with and without a response around it."""
    for body in (
        response(status="failed", error={"code": "server_error", "message": "Oops"}),
        {"error": {"message": "Oops"}},
    ):
        [chunk] = ResponsesReader().whole(body)
        assert chunk.error["message"] == "Oops"


@pytest.mark.parametrize("status", ["queued", "in_progress", "cancelling", 7])
def test_an_answer_that_is_not_over(status: Any) -> None:
    """Is none, whatever there is of it; its status is named."""
    for output in ([], [said("Half an ans")]):
        chunks = ResponsesReader().whole(response(*output, status=status))
        assert f"status is {status}" in chunks[-1].error["message"]


def test_the_name_of_the_last_event_says_how_it_ended() -> None:
    """Where its response has the status that it began with, or none."""
    for body in (response(said("Hi"), status="in_progress"), {"output": [said("Hi")]}):
        for name, expected in (("completed", "end_turn"), ("incomplete", "max_tokens")):
            assert message_of(chunks_of({"type": f"response.{name}", "response": body}))["stop_reason"] == expected


def test_a_whole_response_without_a_status() -> None:
    """Is complete."""
    body = response(said("Hi"))
    del body["status"]
    assert message_of(ResponsesReader().whole(body))["stop_reason"] == "end_turn"


@pytest.mark.parametrize(
    ("body", "is_kept"),
    [
        (thought("Hm.", encrypted_content="gAAA=="), True),
        (thought(content=["Hm."]), True),
        (thought("Hm."), False),
        (thought("Hm.", encrypted_content=None), False),
        (thought(encrypted_content="", content=()), False),
    ],
)
def test_what_must_come_back(body: Json, is_kept: bool) -> None:
    """A reasoning item with anything in it is kept; an empty one the provider would not know again."""
    for more in ({}, {"status": "completed"}, {"status": None, "format": None}):  # which OpenAI refuses to be given
        told = chunks_of(event("output_item.done", item={**body, **more}), end())
        states = [chunk.state for chunk in told if chunk.state]
        assert states == ([{"output_items": [body]}] if is_kept else [])


def test_an_item_that_shows_nothing_comes_back_once() -> None:
    """Reasoning without a word uses up all tokens: the end of the stream repeats it, and two of one id are refused."""
    hidden = thought(encrypted_content="gAAA==")
    events = [event("output_item.done", item=hidden), end(hidden, status="incomplete")]
    assert [chunk.state for chunk in chunks_of(*events) if chunk.state] == [{"output_items": [hidden]}]


@pytest.mark.parametrize(
    "data", [None, [], "x", 7, {}, {"type": 7}, {"type": "response.output_item.done"}, {"output": 7}]
)
def test_what_makes_no_sense(data: Any) -> None:
    """Says nothing, and does not fail."""
    assert chunks_of(data) == []
    assert ResponsesReader().whole(data) == []


@pytest.mark.parametrize(
    "data",
    [
        event("output_item.done", item={"type": "message", "content": [7, {"type": "output_text", "text": 7}]}),
        event("output_item.done", item={"type": "reasoning", "summary": "x", "content": 7}),
        event("output_text.delta", delta=None),
        event("function_call_arguments.delta", delta={"a": 1}),
    ],
)
def test_wrong_types_read_as_absent(data: Json) -> None:
    """Provider JSON is not trusted."""
    assert chunks_of(data) == []


def test_the_end_is_known() -> None:
    """The last event is the end, for a stream that stays open after it."""
    reader = ResponsesReader()
    reader.event(event("output_text.delta", delta="Hi"))
    assert not reader.is_done
    reader.event(end())
    assert reader.is_done


def test_the_request_on_the_wire() -> None:
    """Only what is there is written, in one order."""
    options = {"store": False, "max_output_tokens": 16}
    request = ResponsesRequest("m", "Be brief.", ({"role": "user", "content": "Hi"},), ({"type": "x"},), options, True)
    names = ["model", "instructions", "input", "tools", "store", "max_output_tokens", "stream"]
    assert list(request.to_dict()) == names
    assert list(ResponsesRequest("m", "", ({"role": "user", "content": "Hi"},)).to_dict()) == ["model", "input"]
