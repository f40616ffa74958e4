"""An answer's way from chunks to events: text, reasoning, endings and failures."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccproxy.openai import Chunk
from ccproxy.provider.dialects import DIALECTS, GENERIC
from ccproxy.translate.stream import StreamTranslator
from chunks import (
    ESTIMATE,
    brief,
    call,
    completion,
    contents,
    context,
    delta,
    message,
    read,
    sse,
    stream_of,
    translate,
    wire,
)
from grammar import error_of, fold

STOP = delta("stop")
GEMINI = DIALECTS["gemini"]
USAGE = {"prompt_tokens": 120, "completion_tokens": 2, "total_tokens": 122}


# --- the worked examples -------------------------------------------------------------------------------------


def test_text_with_late_usage() -> None:
    """The usage chunk comes after the finish reason; cached tokens are not counted twice."""
    usage = {**USAGE, "prompt_tokens_details": {"cached_tokens": 100}}
    events = translate(
        delta(role="assistant", content=""),
        delta(content="Hel"),
        delta(content="lo"),
        delta("stop"),
        {"choices": [], "usage": usage},
    )
    assert brief(events) == [
        "message_start",
        "start 0 text",
        "text Hel",
        "text lo",
        "stop 0",
        "message_delta end_turn",
        "message_stop",
    ]
    counts = events[-2][1]["usage"]
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
    assert [counts[name] for name in names] == [20, 100, 0, 2]


def test_reasoning_text_and_two_calls() -> None:
    """Whitespace before the text is held until text comes; each block is closed before the next one opens."""
    events = translate(
        delta(reasoning_content="Let me"),
        delta(reasoning_content=" look."),
        delta(content="\n\n"),
        delta(content="Checking."),
        call(0, "call_a", "Read", ""),
        call(0, arguments='{"p":1}'),
        call(1, "call_b", "Grep", '{"q"'),
        call(1, arguments=":2}"),
        delta("tool_calls"),
    )
    assert [line for line in brief(events) if line != "partial_json "] == [
        "message_start",
        "start 0 thinking",
        "thinking Let me",
        "thinking  look.",
        "stop 0",
        "start 1 text",
        "text \n\nChecking.",
        "stop 1",
        "start 2 tool_use Read",
        'partial_json {"p":1}',
        "stop 2",
        "start 3 tool_use Grep",
        'partial_json {"q"',
        "partial_json :2}",
        "stop 3",
        "message_delta tool_use",
        "message_stop",
    ]
    assert [block.get("id") for block in fold(events)["content"]] == [None, None, "call_a", "call_b"]


def test_gemini_thoughts_and_a_call() -> None:
    """Thoughts come as tagged text, the call whole and without index, and the finish reason says ``stop``."""
    thought = {"google": {"thought": True}}
    chunks = [
        delta(content="<thought>Plan", extra_content=thought),
        delta(content="</thought>I'll check."),
        call(None, "x1", "Read", '{"p":1}'),
        delta("stop"),
    ]
    assert contents(*chunks, dialect=GEMINI) == [("thinking", "Plan"), "I'll check.", ("Read", {"p": 1})]
    assert message(*chunks, dialect=GEMINI)["stop_reason"] == "tool_use"


def test_an_error_after_text() -> None:
    """The open block stays open, for clients take a closed one for complete; nothing follows the error."""
    failed: Dict[str, Any] = {"error": {"code": 502, "message": "Provider disconnected"}, **delta("error", content="")}
    events = translate(delta(content="Hel"), failed)
    assert brief(events)[:3] == ["message_start", "start 0 text", "text Hel"]
    assert [name for name, _ in events[3:]] == ["error"]
    assert "Provider disconnected" in error_of(events)["message"]


def test_a_whole_answer_in_one_chunk() -> None:
    """``message`` in place of ``delta``, with finish reason and usage: the full sequence from one chunk."""
    whole = completion(
        "tool_calls",
        USAGE,
        reasoning_content="Hm",
        content="Hi",
        tool_calls=[call(0, "a", "A", "{}")["choices"][0]["delta"]["tool_calls"][0]],
    )
    assert brief(translate(whole)) == [
        "message_start",
        "start 0 thinking",
        "thinking Hm",
        "stop 0",
        "start 1 text",
        "text Hi",
        "stop 1",
        "start 2 tool_use A",
        "partial_json {}",
        "stop 2",
        "message_delta tool_use",
        "message_stop",
    ]


# --- text and reasoning --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([delta(content="a"), delta(reasoning="Hm"), delta(content="b")], ["a", ("thinking", "Hm"), "b"]),
        ([delta(reasoning="Hm", content="a")], [("thinking", "Hm"), "a"]),
        ([delta(reasoning_content="", content="a"), delta(reasoning_content=None, content="b")], ["ab"]),
        (
            [delta(content="\n"), delta(reasoning="Hm"), delta(content="\n"), call(0, "i", "A", "{}")],
            [("thinking", "Hm"), ("A", {})],
        ),
        ([delta(content="a"), delta(content="\n\n"), delta(content="b")], ["a\n\nb"]),
        ([delta("stop", content="a"), delta(content="b")], ["ab"]),
        ([delta(content="<think>Hm</think>\n\na <think>b")], [("thinking", "Hm"), "\n\na <think>b"]),
        ([delta(refusal="No.")], ["No."]),
        ([{"choices": []}, delta(content="a"), {"choices": None}, {}], ["a"]),
    ],
)
def test_blocks_follow_what_is_said(chunks: List[Any], expected: List[Any]) -> None:
    """Reasoning before text of the same chunk; blank text opens no block and is dropped before other blocks."""
    assert contents(*chunks, STOP) == expected


def test_the_message_starts_with_our_estimate() -> None:
    """Old clients read the input count only there, and add its output count to the final one: it is 0."""
    start = translate(delta(content="a"), STOP)[0][1]["message"]
    assert (start["usage"]["input_tokens"], start["usage"]["output_tokens"]) == (ESTIMATE, 0)
    assert (start["id"], start["model"]) == ("msg_test", "claude-sonnet-4-5")


@pytest.mark.parametrize(
    ("chunks", "counts"),
    [
        ([delta("stop", USAGE)], (120, 2)),
        ([delta(usage=USAGE), delta("stop", {**USAGE, "completion_tokens": 5})], (120, 5)),  # cumulative: the last one
        ([delta("stop"), {"choices": [], "usage": None}], (ESTIMATE, 1)),
        ([delta("stop", {"prompt_tokens": 0, "completion_tokens": 2})], (ESTIMATE, 2)),
    ],
)
def test_the_final_usage(chunks: List[Any], counts: Any) -> None:
    """The provider's last counts; an absent one is estimated, for a zero prompt would disable compaction."""
    usage = message(delta(content="abcd"), *chunks)["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == counts


# --- how it ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chunks", "done", "reason"),
    [
        ([delta(content="a"), delta("stop")], False, "end_turn"),  # the finish reason is enough
        ([delta(content="a")], True, "end_turn"),  # so is [DONE]
        ([call(0, "i", "A", "{}")], True, "tool_use"),
        ([delta(content="a"), delta("stop"), delta("stop", USAGE)], True, "end_turn"),  # said twice
        ([delta(reasoning="Hm"), STOP], True, "end_turn"),
        ([delta(content="a"), delta("length")], True, "max_tokens"),
        ([delta(refusal="No."), STOP], True, "refusal"),
        ([delta(content="a"), delta("content_filter")], True, "refusal"),
        ([delta(content="a"), delta("function_call_filter: MALFORMED_FUNCTION_CALL")], True, "end_turn"),
        ([delta(content="a"), delta(None)], False, None),  # cut
        ([delta(content="a"), delta("insufficient_system_resource")], True, None),
        ([delta(content="a"), delta("error")], True, None),
        ([], True, None),  # nothing at all
        ([], False, None),
        ([{"choices": [], "usage": USAGE}], True, None),
        ([delta("MALFORMED_FUNCTION_CALL")], True, None),
    ],
)
def test_an_end_is_honest(chunks: List[Any], done: bool, reason: Optional[str]) -> None:
    """A regular end needs a finish reason or ``[DONE]``; a cut, empty or given-up answer is an error."""
    events = translate(*chunks, done=done)
    assert fold(events).get("stop_reason") == reason
    assert (error_of(events) is None) == (reason is not None)


def test_an_answer_without_content_has_one_empty_text() -> None:
    """Clients take a message without any block for a failure."""
    assert contents(delta(role="assistant", content=""), STOP) == [""]


def test_a_refusal_says_why() -> None:
    """``stop_details`` is Anthropic's object."""
    events = translate(delta(refusal="I cannot."), STOP)
    assert events[-2][1]["delta"]["stop_details"] == {"type": "refusal", "category": None, "explanation": "I cannot."}


@pytest.mark.parametrize(
    ("asked", "window", "reason"),
    [(1000, 122, "model_context_window_exceeded"), (2, 122, "max_tokens"), (1000, 9000, "max_tokens")],
)
def test_a_full_window_is_told_from_a_full_answer(asked: int, window: int, reason: str) -> None:
    """``length`` below the limit asked for, with the window full, is the window."""
    chunks = [delta(content="a"), delta("length", USAGE)]
    assert message(*chunks, max_tokens=asked, window=window)["stop_reason"] == reason


# --- stop sequences ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", range(9))
def test_a_stop_sequence_ends_the_text(cut: int) -> None:
    """Matched here wherever the pieces are split; what follows is not read."""
    text = "abENDcd!!"
    events = translate(
        delta(content=text[:cut]), delta(content=text[cut:]), delta(content="x"), STOP, stop_sequences=("END",)
    )
    assert [block["text"] for block in fold(events)["content"]] == ["ab"]
    assert events[-2][1]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "END"}


def test_the_provider_may_tell_the_stop_sequence() -> None:
    """vLLM says which one fired; the text ends before it."""
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "END"}]}
    answer = message(delta(content="ab"), last, stop_sequences=("END",))
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", "END")


@pytest.mark.parametrize(
    ("asked", "end"),
    [(("END",), ("stop_sequence", "END")), (("END", "STOP"), ("end_turn", None)), ((), ("end_turn", None))],
)
def test_the_provider_may_tell_that_one_fired(asked: Any, end: Any) -> None:
    """OpenRouter passes on that Claude stopped at one: with one asked for it is known which."""
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "native_finish_reason": "stop_sequence"}]}
    answer = message(delta(content="ab"), last, stop_sequences=asked)
    assert (answer["stop_reason"], answer["stop_sequence"]) == end


def test_text_that_only_began_like_a_stop_sequence_is_text() -> None:
    """Held text is sent at the end, and before a call."""
    assert contents(delta(content="abEN"), STOP, stop_sequences=("END",)) == ["abEN"]
    assert contents(delta(content="abEN"), call(0, "i", "A", "{}"), STOP, stop_sequences=("END",)) == [
        "abEN",
        ("A", {}),
    ]


@pytest.mark.parametrize(
    ("held", "fields"),
    [("EN", {"stop_sequences": ("END",)}), ("<thi", {"dialect": GENERIC}), ("``", {"has_fence": True})],
)
def test_text_of_which_all_was_held_comes_before_the_call(held: str, fields: Any) -> None:
    """The call that ended it keeps all of its arguments."""
    chunks = [delta(content=held), call(0, "i", "A", '{"x"'), call(0, arguments=":1}"), STOP]
    assert contents(*chunks, **fields) == [held, ("A", {"x": 1})]


def test_a_call_decides_also_over_a_stop_sequence() -> None:
    """A message with a call ends with ``tool_use``, whatever else ended it."""
    chunks = [call(0, "i", "A", "{}"), delta(content="abEND"), STOP]
    assert message(*chunks, stop_sequences=("END",))["stop_reason"] == "tool_use"


@pytest.mark.parametrize("finish", ["length", "error"])
def test_what_follows_a_stop_sequence_tells_nothing(finish: str) -> None:
    """Also where it came in the same read, or in a whole completion."""
    chunks = [call(0, "i", "A", "{}"), delta(content="abENDcd", finish=finish)]
    assert message(*chunks, stop_sequences=("END",))["stop_reason"] == "tool_use"


def test_what_was_matched_here_stays() -> None:
    """Whatever word a server itself gives for the end of its text, in the same read."""
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "<|end|>"}]}
    translator = StreamTranslator(context(stop_sequences=("END",)))
    events = [event for chunk in (delta(content="abEND"), last) for event in translator.feed(Chunk.from_dict(chunk))]
    assert wire([*events, *translator.finish(is_done=True)])[-2][1]["delta"]["stop_sequence"] == "END"


def test_a_failure_behind_a_stop_sequence_is_none() -> None:
    """In a read of its own it would not have been read."""
    translator = StreamTranslator(context(stop_sequences=("END",)))
    chunks = [delta(content="abENDcd"), {"error": {"code": 502, "message": "gone"}}]
    events = [event for chunk in chunks for event in translator.feed(Chunk.from_dict(chunk))]
    end = wire([*events, *translator.finish(is_done=False)])[-2]
    assert end[1]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "END"}


# --- text of any kind ----------------------------------------------------------------------------------------


def said(*chunks: Any) -> List[str]:
    """All that the deltas say, escaped: half a character cannot be printed."""
    events = translate(*chunks, STOP)
    return [ascii(list(data["delta"].values())[1]) for name, data in events if name == "content_block_delta"]


def test_a_character_in_two_halves_is_one_character() -> None:
    """A surrogate pair that a provider splits over two chunks arrives whole: half of one is no text."""
    joined = "".join(text.strip("'") for text in said(delta(content="a\ud83d"), delta(content="\ude00b")))
    assert joined == ascii("a\U0001f600b").strip("'")


@pytest.mark.parametrize("key", ["content", "reasoning", "arguments"])
def test_half_a_character_is_replaced(key: str) -> None:
    """A lone surrogate cannot be encoded: strict clients would refuse the frame."""
    text = '{"x":"\ud83d"}'
    chunk = call(0, "i", "A", text) if key == "arguments" else delta(**{key: text})
    assert not any("\\ud83d" in value for value in said(chunk))


PIECES = st.lists(st.tuples(st.sampled_from(["content", "reasoning"]), st.text(max_size=6)), max_size=6)


@given(pieces=PIECES, cuts=st.lists(st.integers(0, 600), max_size=10))
def test_any_text_in_any_split(pieces: Any, cuts: List[int]) -> None:
    """Random splits of the bytes give the same legal stream, and all of the text."""
    body = sse(*(delta(**{key: text}) for key, text in pieces), STOP)
    borders = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    chunks, is_done = read(body[a:b] for a, b in zip(borders, borders[1:]))
    events = wire(stream_of(chunks, done=is_done, dialect=DIALECTS["openai"]))
    assert events == wire(
        stream_of(
            [Chunk.from_dict(delta(**{key: text})) for key, text in pieces] + [Chunk.from_dict(STOP)],
            dialect=DIALECTS["openai"],
        )
    )
    for key, kind in (("content", "text"), ("reasoning", "thinking")):
        said = "".join(text for name, text in pieces if name == key)
        shown = "".join(block.get(kind, "") for block in fold(events)["content"])
        assert [char for char in shown if not char.isspace()] == [char for char in said if not char.isspace()]


def test_nothing_follows_the_end() -> None:
    """An ended stream takes no chunk and no second end."""
    from ccproxy.translate.stream import StreamTranslator

    translator = StreamTranslator(context())
    translator.feed(Chunk.from_dict(delta("stop", content="a")))
    assert translator.finish(is_done=True)
    assert translator.feed(Chunk.from_dict(delta(content="b"))) == translator.finish(is_done=True) == []
