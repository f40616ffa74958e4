"""Answers of the Messages API: the message object, usage, and the fold of events."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, List

import pytest

from ccproxy.message import (
    BlockStart,
    BlockStop,
    InputJsonDelta,
    MessageDelta,
    MessageStart,
    MessageStop,
    Ping,
    SignatureDelta,
    TextDelta,
    ThinkingDelta,
    Usage,
    fold,
    message_object,
    text_block,
    thinking_block,
    tool_use_block,
)

START = MessageStart("msg_1", "m", Usage(input_tokens=7))
END = [MessageDelta("end_turn", None, Usage(5, 2)), MessageStop()]


def test_usage_is_anthropics_object() -> None:
    """All four counts are there, and the thinking in them; old clients break without."""
    assert Usage(20, 2, 100, 3, 1).to_dict() == {
        "input_tokens": 20,
        "cache_creation_input_tokens": 3,
        "cache_read_input_tokens": 100,
        "output_tokens": 2,
        "output_tokens_details": {"thinking_tokens": 1},
        "service_tier": "standard",
    }


def test_usage_is_read_as_it_is_written() -> None:
    """But for the cache writes that are kept for an hour, which are never more than all of them."""
    usage = Usage(1, 2, 3, 4, 5, 6)
    told = usage.to_dict()
    assert Usage.from_dict(told) == usage
    assert Usage.from_dict({**told, "cache_creation": {"ephemeral_1h_input_tokens": 3}}) == replace(
        usage, cache_creation_1h_input_tokens=3
    )
    assert Usage.from_dict({**told, "cache_creation": {"ephemeral_1h_input_tokens": 9}}) == replace(
        usage, cache_creation_1h_input_tokens=4
    )


@pytest.mark.parametrize(
    "told",
    [
        None,
        [],
        "much",
        {"input_tokens": True},
        {"input_tokens": float("nan")},
        {"input_tokens": "1"},
        {"input_tokens": -1},
        {"input_tokens": 10**15},
    ],
)
def test_a_usage_that_is_none(told: Any) -> None:
    """Counts nothing."""
    assert Usage.from_dict(told) == Usage()


def test_a_message_is_anthropics_object() -> None:
    """Every key of the Messages API's answer, before anything is in it."""
    assert message_object("msg_1", "m", Usage()) == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
        "usage": Usage().to_dict(),
    }


def test_blocks_start_empty() -> None:
    """SDKs add deltas to these values; an input in the start event is ignored by clients."""
    assert text_block() == {"type": "text", "text": ""}
    assert thinking_block() == {"type": "thinking", "thinking": "", "signature": ""}
    assert tool_use_block("i", "T") == {"type": "tool_use", "id": "i", "name": "T", "input": {}}


def test_the_fold_is_the_answer_without_stream() -> None:
    """Text, thinking and JSON are joined, the signature replaces, pings are nothing, the last usage counts."""
    events: List[Any] = [
        START,
        Ping(),
        BlockStart(0, thinking_block()),
        ThinkingDelta(0, "Let "),
        ThinkingDelta(0, "me."),
        SignatureDelta(0, "one"),
        SignatureDelta(0, "two"),
        BlockStop(0),
        BlockStart(1, text_block()),
        TextDelta(1, "Hel"),
        Ping(),
        TextDelta(1, "lo"),
        BlockStop(1),
        BlockStart(2, tool_use_block("i", "T")),
        InputJsonDelta(2, '{"a"'),
        InputJsonDelta(2, ": 1}"),
        BlockStop(2),
        MessageDelta("tool_use", None, Usage(20, 2, 100)),
        MessageStop(),
    ]
    assert fold(events) == {
        **message_object("msg_1", "m", Usage(20, 2, 100)),
        "content": [
            {"type": "thinking", "thinking": "Let me.", "signature": "two"},
            {"type": "text", "text": "Hello"},
            {"type": "tool_use", "id": "i", "name": "T", "input": {"a": 1}},
        ],
        "stop_reason": "tool_use",
    }


@pytest.mark.parametrize(
    ("fragments", "value"),
    [(["{}"], {}), (["", '{"a"', ":1}"], {"a": 1}), (['{"a": "xy'], {"a": "xy"}), ([], {}), ([""], {})],
)
def test_the_input_of_a_call(fragments: List[str], value: Any) -> None:
    """The joined fragments are its JSON; one that was cut is read as far as it goes."""
    deltas = [InputJsonDelta(0, fragment) for fragment in fragments]
    folded = fold([START, BlockStart(0, tool_use_block("i", "T")), *deltas, BlockStop(0), *END])
    assert folded["content"] == [{"type": "tool_use", "id": "i", "name": "T", "input": value}]


def test_the_end_of_a_message() -> None:
    """Stop reason, stop sequence and details are those of the last event."""
    details = {"type": "refusal", "category": None, "explanation": "no"}
    folded = fold([START, MessageDelta("stop_sequence", "END", Usage(1, 2), details), MessageStop()])
    assert (folded["stop_reason"], folded["stop_sequence"], folded["stop_details"]) == ("stop_sequence", "END", details)


def test_folding_leaves_the_events_alone() -> None:
    """The same events fold to the same message again: a start event's block is not written to."""
    events = [START, BlockStart(0, text_block()), TextDelta(0, "Hi"), BlockStop(0), *END]
    assert fold(events) == fold(events)
