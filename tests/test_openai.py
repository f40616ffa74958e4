"""Chunks and completions in every provider's variant, read into one value; requests and messages as sent."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccproxy.openai import ChatMessage, ChatRequest, Chunk, Piece, ToolCall, ToolCallDelta
from chunks import completion, delta

Json = Dict[str, Any]


def text(value: str) -> Piece:
    return Piece("text", value)


def thinking(value: str) -> Piece:
    return Piece("thinking", value)


PIECES = [
    # content: text, null, a list of parts, an object
    ({"content": "Hi"}, (text("Hi"),)),
    ({"content": ""}, ()),
    ({"content": None}, ()),
    ({"role": "assistant"}, ()),
    ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, (text("a"), text("b"))),
    ({"content": ["a"]}, (text("a"),)),
    ({"content": {"answer": 42}}, (text('{"answer":42}'),)),  # Cloudflare's structured output
    ({"content": "\u2028"}, (text("\u2028"),)),
    # reasoning under every name
    ({"reasoning_content": "Hm"}, (thinking("Hm"),)),
    ({"reasoning": "Hm"}, (thinking("Hm"),)),
    ({"reasoning_text": "Hm", "reasoning_opaque": "x"}, (thinking("Hm"),)),
    ({"reasoning_details": [{"type": "reasoning.text", "text": "Hm"}]}, (thinking("Hm"),)),
    ({"reasoning_details": [{"type": "reasoning.summary", "summary": "Hm"}]}, (thinking("Hm"),)),
    ({"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}, ()),
    ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}]}, (thinking("Hm"),)),
    ({"content": [{"type": "thinking", "thinking": "Hm"}, {"type": "text", "text": "a"}]}, (thinking("Hm"), text("a"))),
    # of several copies exactly one; null and empty are nothing
    ({"reasoning_content": "Hm", "reasoning": "Hm"}, (thinking("Hm"),)),
    ({"reasoning": "Hm", "reasoning_details": [{"type": "reasoning.text", "text": "Hm"}]}, (thinking("Hm"),)),
    ({"reasoning_content": "", "reasoning": "Hm"}, (thinking("Hm"),)),
    ({"reasoning_content": None, "reasoning": None, "content": "a"}, (text("a"),)),
    # reasoning comes before the text of the same chunk
    ({"content": "a", "reasoning_content": "Hm"}, (thinking("Hm"), text("a"))),
    # a refusal is text of its own kind
    ({"refusal": "No."}, (Piece("refusal", "No."),)),
    ({"content": [{"type": "refusal", "refusal": "No."}]}, (Piece("refusal", "No."),)),
    ({"refusal": None, "content": "a"}, (text("a"),)),
    # Gemini's flag beside visible text is no thought
    ({"content": "a", "thought": True}, (text("a"),)),
]


@pytest.mark.parametrize(("fields", "pieces"), PIECES)
def test_text_and_reasoning(fields: Json, pieces: Any) -> None:
    """A delta of a stream and the message of a completion are read alike."""
    assert Chunk.from_dict(delta(**fields)).pieces == pieces
    assert Chunk.from_completion(completion(**fields)).pieces == pieces


def function(**fields: Any) -> Json:
    return {"id": "c", "function": {"name": "T", **fields}}


CALLS = [
    (function(arguments='{"a":1}'), ToolCallDelta(None, "c", "T", '{"a":1}')),
    ({**function(arguments=""), "index": 2, "type": "function"}, ToolCallDelta(2, "c", "T", "")),
    (function(), ToolCallDelta(None, "c", "T", "")),
    (function(arguments=None), ToolCallDelta(None, "c", "T", "")),
    (function(arguments={"a": 1}), ToolCallDelta(None, "c", "T", '{"a":1}')),
    (function(arguments="null"), ToolCallDelta(None, "c", "T", "null")),
    ({"index": 0, "id": None, "function": {"name": None, "arguments": "x"}}, ToolCallDelta(0, "", "", "x")),
    ({"index": 0, "id": "", "function": {"name": "", "arguments": "x"}}, ToolCallDelta(0, "", "", "x")),
    ({"index": 0}, ToolCallDelta(0, "", "", "")),
    ({"index": "0", "function": None}, ToolCallDelta(None, "", "", "")),
    ({"id": "c", "custom": {"name": "T", "input": "text"}}, ToolCallDelta(None, "c", "T", "text")),
    (
        {**function(arguments="{}"), "extra_content": {"google": {"thought_signature": "S"}}},
        ToolCallDelta(None, "c", "T", "{}"),
    ),
]


@pytest.mark.parametrize(("raw", "expected"), CALLS)
def test_tool_calls(raw: Json, expected: ToolCallDelta) -> None:
    """Index, id, name and arguments in every form; arguments are always text."""
    read = Chunk.from_dict(delta(tool_calls=[raw])).tool_calls[0]
    assert (read.index, read.id, read.name, read.arguments) == (
        expected.index,
        expected.id,
        expected.name,
        expected.arguments,
    )


@pytest.mark.parametrize("value", [None, [], "x", [None, 5]])
def test_no_tool_calls(value: Any) -> None:
    """Answers without calls have null or an empty list there."""
    assert Chunk.from_dict(delta(content="a", tool_calls=value)).tool_calls == ()


def test_a_legacy_function_call_is_one_tool_call() -> None:
    """The form before ``tool_calls`` is the call with index 0."""
    chunk = Chunk.from_dict(delta(function_call={"name": "T", "arguments": "{}"}))
    assert chunk.tool_calls == (ToolCallDelta(0, "", "T", "{}"),)


def test_only_the_first_choice_is_read() -> None:
    """With several choices the one with index 0 is the answer."""
    choices = [{"index": 1, "delta": {"content": "b"}}, {"index": 0, "delta": {"content": "a"}}]
    assert Chunk.from_dict({"choices": choices}).pieces == (text("a"),)


def test_choices_without_an_index_are_one_answer() -> None:
    """Copilot spreads text and call over two choices."""
    call = {"message": {"tool_calls": [function(arguments="{}")]}, "finish_reason": "tool_calls"}
    chunk = Chunk.from_dict({"choices": [{"message": {"content": "a"}, "finish_reason": "tool_calls"}, call]})
    assert (chunk.pieces, len(chunk.tool_calls), chunk.finish_reason) == ((text("a"),), 1, "tool_calls")


def test_a_message_may_stand_for_the_delta() -> None:
    """Some servers send a full message in the only chunk of a stream."""
    assert Chunk.from_dict({"choices": [{"index": 0, "message": {"content": "a"}}]}).pieces == (text("a"),)


def test_a_delta_goes_before_the_message_so_far() -> None:
    """Perplexity repeats the message so far beside every delta, and beside an empty one at the end."""
    for content, pieces in (("lo", (text("lo"),)), ("", ())):
        choice = {"index": 0, "delta": {"content": content}, "message": {"content": "Hello"}}
        assert Chunk.from_dict({"choices": [choice]}).pieces == pieces


def test_the_message_of_a_completion_goes_before_its_delta() -> None:
    """Perplexity puts an empty delta beside it."""
    choice = {"index": 0, "delta": {"content": ""}, "message": {"content": "Hello"}}
    assert Chunk.from_completion({"choices": [choice]}).pieces == (text("Hello"),)


USAGE = {"prompt_tokens": 1}


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        ({"choices": [], "usage": USAGE}, USAGE),
        ({"choices": [{"index": 0, "delta": {}, "usage": USAGE}]}, USAGE),
        ({"choices": [], "x_groq": {"id": "r", "usage": USAGE}}, USAGE),
        ({"choices": [], "usage": None, "x_groq": {"usage": USAGE}}, USAGE),
        ({"choices": [], "usage": {}}, None),
        ({"choices": [], "usage": None}, None),
        ({"choices": []}, None),
    ],
)
def test_usage_wherever_it_stands(body: Json, usage: Optional[Json]) -> None:
    """At the top, inside the choice (Kimi) or under ``x_groq``."""
    assert Chunk.from_dict(body).usage == usage


@pytest.mark.parametrize(
    ("body", "stop"),
    [
        ({"choices": [{"index": 0, "delta": {}, "stop_reason": "END"}]}, "END"),  # vLLM
        ({"choices": [{"index": 0, "delta": {}, "stop_reason": 128009}]}, None),  # vLLM: a token id
        ({"choices": [{"index": 0, "delta": {}}], "stopping_word": "END"}, "END"),  # llama.cpp
        ({"choices": [{"index": 0, "delta": {}}], "stopping_word": ""}, None),
        ({"choices": [{"index": 0, "delta": {}, "native_finish_reason": "stop_sequence"}]}, ""),  # OpenRouter
        ({"choices": [{"index": 0, "delta": {}, "native_finish_reason": "stop"}]}, None),
    ],
)
def test_the_stop_string_that_fired(body: Json, stop: Optional[str]) -> None:
    """Only some servers tell it; an empty one is one of those asked for."""
    assert Chunk.from_dict(body).stop_sequence == stop


@pytest.mark.parametrize(("reason", "read"), [("stop", "stop"), (None, None), (5, None)])
def test_the_finish_reason(reason: Any, read: Optional[str]) -> None:
    """Null before the end; any word of the provider at the end."""
    assert Chunk.from_dict(delta(reason)).finish_reason == read


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": 502, "message": "gone"}},
        {"error": "gone"},
        {"choices": [{"index": 0, "delta": {}, "error": {"message": "gone"}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "x_groq": {"id": "r", "error": "gone"}},
    ],
)
def test_an_error_inside_a_chunk(body: Json) -> None:
    """At the top, as an object or as text, or inside the choice."""
    assert Chunk.from_dict(body).error


@pytest.mark.parametrize(
    "body", [{"error": None}, {"error": {}}, {"error": ""}, {"x_groq": {"error": None}}, {"x_groq": {"error": ""}}]
)
def test_an_empty_error_is_none(body: Json) -> None:
    """Some servers always send the key."""
    assert not Chunk.from_dict(body).error


@pytest.mark.parametrize("body", [None, 5, "x", [], {}, {"choices": None}, {"choices": [None]}, {"choices": {}}])
def test_anything_else_says_nothing(body: Any) -> None:
    """Azure's first chunk has no choice, and any JSON may arrive."""
    assert Chunk.from_dict(body) == Chunk()


# Of every type, alone and in others: to draw whole documents takes thirty times as long.
PLAIN: List[Any] = [None, True, False, 0, -1, 2**70, 0.5, float("inf"), "", "text", [], {}]
ANY_JSON = st.sampled_from([*PLAIN, *([value] for value in PLAIN), *({name: 0} for name in ("", "type")), [{"a": []}]])
KEYS = [
    "content",
    "reasoning_content",
    "reasoning",
    "reasoning_details",
    "refusal",
    "tool_calls",
    "function_call",
    "role",
]
CALL_KEYS = st.sampled_from(["index", "id", "function", "custom", "type"])


@given(
    fields=st.dictionaries(st.sampled_from(KEYS), ANY_JSON, max_size=4),
    entry=st.dictionaries(
        CALL_KEYS, ANY_JSON | st.dictionaries(st.sampled_from(["name", "arguments", "input"]), ANY_JSON)
    ),
    choice=st.dictionaries(st.sampled_from(["index", "finish_reason", "usage", "error", "stop_reason"]), ANY_JSON),
    top=st.dictionaries(st.sampled_from(["usage", "x_groq", "error", "stopping_word", "choices"]), ANY_JSON),
)
@settings(max_examples=300)
def test_wrong_types_read_as_absent(fields: Json, entry: Json, choice: Json, top: Json) -> None:
    """Provider JSON is not trusted: whatever stands where, reading it does not raise, on the short way neither."""
    chunk = {"choices": [{**choice, "delta": {"tool_calls": [entry], **fields}}], **top}
    assert Chunk.from_dict(chunk) == Chunk._read(chunk, ("delta", "message"))
    whole = {"choices": [{**choice, "message": {"tool_calls": [entry], **fields}}], **top}
    assert Chunk.from_completion(whole) == Chunk._read(whole, ("message", "delta"))


def test_a_request_body() -> None:
    """What is sent: no empty tool list, no ``stream`` that is false, options under their own names."""
    message = ChatMessage("user", "Hi")
    request = ChatRequest("m", (message,), options={"max_tokens": 5})
    assert request.to_dict() == {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}
    tool = {"type": "function", "function": {"name": "T"}}
    assert ChatRequest("m", (message,), (tool,), stream=True).to_dict() == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "tools": [tool],
        "stream": True,
    }


def test_an_assistant_message_with_calls() -> None:
    """Calls, their extra fields, and the dialect's own fields; content is null beside calls."""
    call = ToolCall("c", "T", "{}", {"extra_content": {"google": {}}})
    assert ChatMessage("assistant", None, (call,), extra={"reasoning_content": "Hm"}).to_dict() == {
        "role": "assistant",
        "content": None,
        "reasoning_content": "Hm",
        "tool_calls": [
            {
                "id": "c",
                "type": "function",
                "function": {"name": "T", "arguments": "{}"},
                "extra_content": {"google": {}},
            }
        ],
    }


def test_a_tool_message() -> None:
    """It answers one call by its id."""
    assert ChatMessage("tool", "out", tool_call_id="c").to_dict() == {
        "role": "tool",
        "content": "out",
        "tool_call_id": "c",
    }
