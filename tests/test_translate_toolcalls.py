"""Streamed tool calls: whatever a provider uses to tell parallel calls apart, one block is open at a time."""

from __future__ import annotations

import json
import re
from typing import Any, Dict, List, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccproxy.openai import Chunk
from ccproxy.translate.stream import StreamTranslator
from chunks import brief, call, completion, contents, context, delta, entry, message, translate
from grammar import error_of

DONE = delta("tool_calls")


def calls(*chunks: Any, **fields: Any) -> List[Any]:
    return contents(*chunks, DONE, **fields)


def both(*arguments: Any, **named: Any) -> Dict[str, Any]:
    return entry(*arguments, **named)


TABLE: List[Tuple[str, List[Any], List[Any]]] = [
    (
        "an index, with the id in the first fragment only",
        [call(0, "a", "A", ""), call(0, arguments='{"x"'), call(0, arguments=":1}")],
        [("A", {"x": 1})],
    ),
    (
        "an index, with id and name repeated in every fragment",
        [call(0, "a", "A", '{"x"'), call(0, "a", "A", ":1}")],
        [("A", {"x": 1})],
    ),
    (
        "an index, with empty id and name in later fragments",
        [call(0, "a", "A", '{"x"'), call(0, "", "", ":1}")],
        [("A", {"x": 1})],
    ),
    (
        "every call numbered 0: another id and a name begin a new call",
        [call(0, "a", "A", '{"x":1}'), call(0, "b", "B", '{"y"'), call(0, "b", arguments=":2}")],
        [("A", {"x": 1}), ("B", {"y": 2})],
    ),
    (
        "no index: the id is the key",
        [call(None, "a", "A", '{"x"'), call(None, "a", arguments=":1}"), call(None, "b", "B", "{}")],
        [("A", {"x": 1}), ("B", {})],
    ),
    (
        "no index and no id: a name begins a new call",
        [call(name="A", arguments='{"x":1}'), call(name="A", arguments='{"x":2}')],
        [("A", {"x": 1}), ("A", {"x": 2})],
    ),
    (
        "no index, no id, no name: the most recent call",
        [call(None, "a", "A", '{"x"'), call(arguments=":1}"), call()],
        [("A", {"x": 1})],
    ),
    (
        "several whole calls without index in one chunk",
        [delta(tool_calls=[both(None, "a", "A", '{"x":1}'), both(None, "b", "B", '{"y":2}')])],
        [("A", {"x": 1}), ("B", {"y": 2})],
    ),
    (
        "indexes that begin at 1, or leave one out",
        [call(1, "a", "A", '{"x":1}'), call(3, "b", "B", "{}")],
        [("A", {"x": 1}), ("B", {})],
    ),
    (
        "a name that comes after the first arguments",
        [call(0, "a", arguments='{"x"'), call(0, name="A", arguments=":1}")],
        [("A", {"x": 1})],
    ),
    (
        "an id that comes after the name",
        [call(0, name="A", arguments=""), call(0, "a", arguments="{}")],
        [("A", {})],
    ),
    ("arguments that are an object", [call(0, "a", "A", {"x": 1})], [("A", {"x": 1})]),
    ("arguments as an object in a string", [call(0, "a", "A", '"{\\"x\\":1}"')], [("A", {"x": 1})]),
    ("arguments null", [call(0, "a", "A", None)], [("A", {})]),
    ('arguments "null"', [call(0, "a", "A", "null")], [("A", {})]),
    ("no arguments at all", [call(0, "a", "A")], [("A", {})]),
    ("arguments cut before the closing bracket", [call(0, "a", "A", '{"x":[1')], [("A", {"x": [1]})]),
    ("arguments that are text", [call(0, "a", "A", "ls -la")], [("A", {"_raw_arguments": "ls -la"})]),
    ("arguments that are a list", [call(0, "a", "A", "[1]")], [("A", {"_raw_arguments": "[1]"})]),
    ("a call with neither name nor arguments", [call(0, "a"), call(1, "b", "B", "{}")], [("B", {})]),
    (
        "whitespace after a call was closed",
        [call(0, "a", "A", '{"x":1}'), call(1, "b", "B", '{"y":2}'), call(0, arguments=" \n")],
        [("A", {"x": 1}), ("B", {"y": 2})],
    ),
    (
        "text in the middle of a call's arguments",
        [call(0, "a", "A", '{"x"'), delta(content="Hi"), call(0, arguments=":1}")],
        [("A", {"x": 1}), "Hi"],
    ),
    (
        "text between two calls",
        [call(0, "a", "A", '{"x":1}'), delta(content="Hi"), call(1, "b", "B", "{}")],
        [("A", {"x": 1}), "Hi", ("B", {})],
    ),
    ("a function call of the old API", [delta(function_call={"name": "A", "arguments": '{"x":1}'})], [("A", {"x": 1})]),
    (
        "a function call of the old API in fragments",
        [delta(function_call={"name": "A", "arguments": '{"x"'}), delta(function_call={"arguments": ":1}"})],
        [("A", {"x": 1})],
    ),
]


@pytest.mark.parametrize(("chunks", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_fragments_find_their_call(chunks: List[Any], expected: List[Any]) -> None:
    """One row for each way in which providers number calls and send their arguments."""
    assert calls(*chunks) == expected


def test_interleaved_calls_are_shown_one_after_the_other() -> None:
    """The first stays live; the second waits until the first one's JSON is complete, then comes at once."""
    events = translate(
        call(0, "a", "A", '{"x"'),
        call(1, "b", "B", '{"y"'),
        call(0, arguments=":1}"),
        call(1, arguments=":2}"),
        DONE,
    )
    assert brief(events) == [
        "message_start",
        "start 0 tool_use A",
        'partial_json {"x"',
        "partial_json :1}",
        "stop 0",
        "start 1 tool_use B",
        'partial_json {"y"',
        "partial_json :2}",
        "stop 1",
        "message_delta tool_use",
        "message_stop",
    ]


def test_calls_that_are_announced_together_keep_their_arguments() -> None:
    """All names first, then all arguments: no call may be sent with an empty input in place of its own."""
    chunks = [call(0, "a", "A", ""), call(1, "b", "B", ""), call(0, arguments='{"x":1}'), call(1, arguments='{"y":2}')]
    assert calls(*chunks) == [("A", {"x": 1}), ("B", {"y": 2})]


@pytest.mark.parametrize(
    "make", [lambda text: call(0, "a", "A", text), lambda text: completion(tool_calls=[entry(0, "a", "A", text)])]
)
@pytest.mark.parametrize("text", ['{"x":1,}', '{"x":[1,2,],}'])
def test_arguments_that_come_whole_are_repaired(make: Any, text: str) -> None:
    """Nothing of them was sent yet, so a trailing comma costs nothing."""
    assert calls(make(text))[0][1]["x"] in (1, [1, 2])


def test_broken_arguments_that_were_sent_are_an_error() -> None:
    """Nothing can be taken back: the client tries again instead of executing a wrong call."""
    events = translate(call(0, "a", "A", '{"x":'), call(0, arguments=" oops}"), DONE)
    assert error_of(events)["type"] == "api_error"


def test_a_call_without_a_name_is_an_error() -> None:
    """Arguments that nobody can execute are a failure of the provider."""
    assert error_of(translate(call(0, "a", arguments='{"x":1}'), DONE))["type"] == "api_error"


def test_a_cut_by_length_leaves_the_call_cut() -> None:
    """As Anthropic does: the block is closed with the JSON as far as it came, and the stop reason says so."""
    events = translate(call(0, "a", "A", '{"x":"ab'), delta("length"))
    assert brief(events)[2:] == ['partial_json {"x":"ab', "stop 0", "message_delta max_tokens", "message_stop"]


def test_only_the_last_call_can_be_cut() -> None:
    """An earlier one was over when the next began: it is made whole."""
    chunks = [call(0, "a", "A", '{"x":[1'), call(1, "b", "B", '{"y":2'), delta("length")]
    assert contents(*chunks)[0] == ("A", {"x": [1]})


@pytest.mark.parametrize("finish", ["stop", "", "tool_calls", "function_call", "eos", None])
def test_a_call_decides_the_stop_reason(finish: Any) -> None:
    """Gemini and forced tool choice say ``stop``, xAI says nothing: a call is a call."""
    assert message(call(0, "a", "A", "{}"), delta(finish))["stop_reason"] == "tool_use"


def test_ids_are_unique_in_the_conversation() -> None:
    """Kimi counts from 0 in every answer, some servers use one id for all calls; clients key results by id."""
    chunks = [call(0, "call_0", "A", "{}"), call(1, "call_1", "B", "{}")]
    blocks = message(*chunks, DONE, used_tool_ids=frozenset({"call_0"}))["content"]
    assert [block["id"] for block in blocks] == ["call_0_2", "call_1"]


@pytest.mark.parametrize("shared", [{"id": "c"}, {"index": 0}, {"id": "c", "index": 0}, {"id": None}])
def test_each_entry_of_a_whole_message_is_a_call(shared: Any) -> None:
    """Nothing is to be put together there, whatever id or number a server gives all of them."""
    whole = completion(tool_calls=[{**both(name=name, arguments='{"x":1}'), **shared} for name in "AB"])
    assert contents(whole) == [("A", {"x": 1}), ("B", {"x": 1})]
    assert Chunk.from_completion(whole) == Chunk.from_dict(whole)


def test_a_missing_id_is_made() -> None:
    """Clients need one to answer."""
    blocks = message(call(name="A", arguments="{}"), call(name="B", arguments="{}"), DONE)["content"]
    assert all(re.fullmatch(r"toolu_[a-zA-Z0-9_-]+", block["id"]) for block in blocks)


def test_only_the_first_call_where_one_was_asked_for() -> None:
    """``disable_parallel_tool_use`` holds also where the provider does not know it."""
    chunks = [call(0, "a", "A", '{"x"'), call(1, "b", "B", "{}"), call(0, arguments=":1}")]
    assert calls(*chunks, is_single_call=True) == [("A", {"x": 1})]


# --- any order of fragments ----------------------------------------------------------------------------------

ARGUMENTS = st.dictionaries(
    st.text(max_size=3), st.text(max_size=6) | st.integers() | st.lists(st.text(max_size=2), max_size=2), max_size=3
)


@pytest.mark.parametrize(
    ("arguments", "count"), [("{}", 0), ("", 0), (None, 0), (" ", 0), ('{"x":1', 1), ("ls -la", 1), ('"{}"', 1)]
)
def test_which_calls_had_to_be_mended(arguments: Any, count: int) -> None:
    """A tool without parameters may be called with nothing: that says nothing against the model."""
    translator = StreamTranslator(context())
    for chunk in (call(0, "a", "A", arguments), DONE):
        translator.feed(Chunk.from_dict(chunk))
    translator.finish(is_done=True)
    assert translator.mended_calls == count


@st.composite
def interleavings(draw: Any) -> Tuple[List[Any], List[Any]]:
    """Some calls, each cut into fragments, and the fragments of all in a random order that keeps each call's own."""
    wanted = draw(st.lists(st.tuples(st.sampled_from("ABC"), ARGUMENTS), min_size=1, max_size=4))
    queues = []
    for index, (name, arguments) in enumerate(wanted):
        text = json.dumps(arguments, ensure_ascii=draw(st.booleans()))
        cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)])]
        queues.append(
            [call(index, f"id{index}", name, pieces[0]), *(call(index, arguments=piece) for piece in pieces[1:])]
        )
    chunks = []
    for index in range(len(queues)):  # calls begin in their order
        chunks.append(queues[index].pop(0))
        while draw(st.booleans()) and any(queues[: index + 1]):
            chunks.append(draw(st.sampled_from([queue for queue in queues[: index + 1] if queue])).pop(0))
    while any(queues):
        chunks.append(draw(st.sampled_from([queue for queue in queues if queue])).pop(0))
    return wanted, chunks


@given(interleavings())
@settings(max_examples=200)
def test_any_interleaving_gives_the_same_calls(drawn: Tuple[List[Any], List[Any]]) -> None:
    """However the fragments are cut and mixed, the stream is legal and the calls are the same."""
    wanted, chunks = drawn
    assert calls(*chunks) == wanted
