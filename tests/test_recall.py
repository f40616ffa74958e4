"""Conversations that come again: what is equal is not counted twice, whatever changed around it."""

from __future__ import annotations

from typing import Any, List

import pytest

from ccproxy.recall import Recall
from ccproxy.tokens import Part

KIND = ("family", "messages")


def said(number: int, **more: Any) -> Any:
    return {"role": "user", "content": [{"type": "text", "text": f"text {number}", **more}]}


class Counting:
    """Counts a value as the length of its JSON, and lists the numbers of those it was asked for."""

    def __init__(self, recall: Recall) -> None:
        self.recall = recall
        self.counted: List[int] = []

    def parts(self, values: List[Any], kind: Any = KIND) -> List[Part]:
        self.counted.clear()

        def count(number: int) -> Part:
            self.counted.append(number)
            return Part(float(len(str(values[number]))))

        found = self.recall.parts(kind, values, count)
        assert found == [Part(float(len(str(value)))) for value in values]
        return found


def conversation(turns: int) -> List[Any]:
    return [said(number) for number in range(turns)]


@pytest.mark.parametrize("turns", [1, 15, 16, 17, 100])
def test_what_is_new_is_counted(turns: int) -> None:
    """At the end, as clients send it."""
    counting = Counting(Recall())
    counting.parts(conversation(turns))
    assert counting.counted == list(range(turns))
    counting.parts(conversation(turns + 2))
    assert counting.counted == [turns, turns + 1]
    counting.parts(conversation(turns + 2))
    assert counting.counted == []


@pytest.mark.parametrize("changed", [1, 15, 16, 40, 98])
def test_what_changed_is_counted_again(changed: int) -> None:
    """A mark on a message, a result that was cleared: only that one, wherever it is."""
    counting = Counting(Recall())
    counting.parts(conversation(100))
    values = conversation(100)
    values[changed] = said(changed, cache_control={"type": "ephemeral"})
    counting.parts(values)
    assert counting.counted == [changed]


def test_a_shorter_one_is_known() -> None:
    """Somebody went back."""
    counting = Counting(Recall())
    counting.parts(conversation(50))
    counting.parts(conversation(20))
    assert counting.counted == []


def test_conversations_are_apart() -> None:
    """By their first message, and by what is counted for which family."""
    counting = Counting(Recall())
    other = [said(-1), *conversation(3)]
    counting.parts(conversation(5))
    counting.parts(other)
    assert len(counting.counted) == 4
    counting.parts(conversation(5), ("family", "tools"))
    assert len(counting.counted) == 5
    counting.parts(conversation(6))
    assert counting.counted == [5]


def test_nothing_is_no_conversation() -> None:
    """A request without tools."""
    assert Counting(Recall()).parts([]) == []


def test_the_memory_is_bounded() -> None:
    """By tokens and by conversations; the one that came least recently is forgotten."""
    for recall in (Recall(most_entries=2), Recall(most_tokens=2.5 * len(str(said(10))))):
        counting = Counting(recall)
        for number in (10, 20, 10, 30):
            counting.parts([said(number)])
        counting.parts([said(10)])
        assert counting.counted == []
        counting.parts([said(20)])
        assert counting.counted == [0]


def test_what_is_too_deep_to_compare_is_counted() -> None:
    """Never an exception."""
    deep: Any = []
    other: Any = []
    for _ in range(100_000):
        deep, other = [deep], [other]
    recall = Recall()
    assert recall.parts(KIND, [deep], lambda number: Part(1.0)) == [Part(1.0)]
    assert recall.parts(KIND, [other], lambda number: Part(2.0)) == [Part(2.0)]
    while deep:
        deep, other = deep[0], other[0]  # freed level by level
