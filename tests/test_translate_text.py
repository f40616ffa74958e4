"""Rules on streamed text: reasoning in tags, stop sequences, fences; the same wherever the pieces are split."""

from __future__ import annotations

from typing import Any, List, Optional, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccproxy.translate.text import StopMatcher, TagSplitter

TAGGED = [
    ("<think>Hm</think>Hi", [("thinking", "Hm"), ("text", "Hi")]),
    ("\n <think>Hm</think>\n\nHi", [("thinking", "Hm"), ("text", "\n\nHi")]),
    ("<think></think>Hi", [("text", "Hi")]),
    ("<think>Hm", [("thinking", "Hm")]),  # cut, or never closed
    ("<think>a</thin", [("thinking", "a</thin")]),
    ("<think>a < b</think>c", [("thinking", "a < b"), ("text", "c")]),
    ("Hi <think>no</think>", [("text", "Hi <think>no</think>")]),  # only at the start
    ("<think>a</think>b<think>c</think>", [("thinking", "a"), ("text", "b<think>c</think>")]),
    ("<thinking>a</thinking>", [("text", "<thinking>a</thinking>")]),
    ("<thi", [("text", "<thi")]),
    ("<b>bold</b>", [("text", "<b>bold</b>")]),
    ("", []),
    ("  ", [("text", "  ")]),
]


def split_tags(pieces: List[str]) -> List[Tuple[str, str]]:
    """The runs of text and thinking, neighbours of one kind joined."""
    splitter, runs = TagSplitter("think"), []
    for piece in [*(piece for text in pieces for piece in splitter.feed(text)), *splitter.finish()]:
        if runs and runs[-1][0] == piece.kind:
            runs[-1] = (piece.kind, runs[-1][1] + piece.text)
        elif piece.text:
            runs.append((piece.kind, piece.text))
    return runs


@pytest.mark.parametrize(("text", "runs"), TAGGED)
def test_reasoning_in_a_tag_at_the_start(text: str, runs: Any) -> None:
    """The tag is taken off, at the start only; an answer may quote it."""
    assert split_tags([text]) == runs


@pytest.mark.parametrize(("text", "runs"), TAGGED)
def test_tags_in_every_split(text: str, runs: Any) -> None:
    """One character at a time, and cut in two anywhere."""
    assert split_tags(list(text)) == runs
    for cut in range(len(text) + 1):
        assert split_tags([text[:cut], text[cut:]]) == runs


def test_text_is_shown_as_soon_as_it_is_certain() -> None:
    """Only what may still become a tag is held."""
    splitter = TagSplitter("think")
    assert [(piece.kind, piece.text) for piece in splitter.feed("Hi")] == [("text", "Hi")]
    inside = TagSplitter("think")
    assert [(piece.kind, piece.text) for piece in inside.feed("<think>Hm</")] == [("thinking", "Hm")]


def match(stops: List[str], pieces: List[str]) -> Tuple[str, Optional[str]]:
    """The text before the first stop sequence, and the sequence."""
    matcher, before = StopMatcher(stops), ""
    for piece in pieces:
        certain, matched = matcher.feed(piece)
        before += certain
        if matched is not None:
            return before, matched
    return before + matcher.finish(), None


STOPS = [
    (["END"], "abENDcd", ("ab", "END")),
    (["END"], "abEN", ("abEN", None)),
    (["END"], "abENEND", ("abEN", "END")),
    (["aab"], "aaab", ("a", "aab")),
    (["END", "ENDING"], "xENDING", ("x", "ENDING")),  # of two at one place the longer
    (["cd", "b"], "abcd", ("a", "b")),  # the first to begin
    (["\n\nHuman:"], "Hi\n\nHuman: x", ("Hi", "\n\nHuman:")),
    (["漢字"], "a漢字b", ("a", "漢字")),
    ([], "abc", ("abc", None)),
    (["", " "], "a b", ("a b", None)),  # blank ones match nothing
    (["END"], "END", ("", "END")),
]


@pytest.mark.parametrize(("stops", "text", "expected"), STOPS)
def test_stop_sequences_match_the_whole_text(stops: List[str], text: str, expected: Any) -> None:
    """The text excludes the sequence, as Anthropic's does."""
    assert match(stops, [text]) == expected


@pytest.mark.parametrize(("stops", "text", "expected"), [row for row in STOPS if "ENDING" not in row[0]])
def test_stop_sequences_match_in_every_split(stops: List[str], text: str, expected: Any) -> None:
    """One character at a time, and cut in two anywhere."""
    assert match(stops, list(text)) == expected
    for cut in range(len(text) + 1):
        assert match(stops, [text[:cut], text[cut:]]) == expected


@given(
    stop=st.text("ab", min_size=1, max_size=4),
    text=st.text("abc", max_size=20),
    cuts=st.lists(st.integers(0, 20), max_size=6),
)
def test_any_split_matches_alike(stop: str, text: str, cuts: List[int]) -> None:
    """The match is that of a search in the whole text."""
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    before, found, _ = text.partition(stop)
    assert match([stop], [text[a:b] for a, b in zip(borders, borders[1:])]) == (before, stop if found else None)


def test_text_that_cannot_be_a_stop_sequence_is_shown_at_once() -> None:
    """Only the longest end that could begin one is held."""
    assert StopMatcher(["END"]).feed("abE") == ("ab", None)
    assert StopMatcher(["END"]).feed("abc") == ("abc", None)
