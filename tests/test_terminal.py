"""Tables: aligned by what a terminal shows, in colour where there are colours, narrow where it is narrow."""

from __future__ import annotations

import sys

import pytest

from ccproxy.commands.terminal import GREEN, PLAIN, Look, Styled, display_width

ROWS = [["深度求索", Styled("present", GREEN), "128k"], ["e\u0301", "missing", "8k"]]
HEADINGS = ["model", "key", "input"]


def test_columns_are_aligned_by_what_is_seen() -> None:
    """A wide character takes two columns, a combining one none; numbers stand on the right."""
    lines = Look().table(HEADINGS, ROWS, numbers={"input"})
    assert lines == [
        "model     key      input",
        "深度求索  present   128k",
        "e\u0301         missing     8k",
    ]
    assert {display_width(line) for line in lines} == {24}


def test_colours_change_no_width() -> None:
    """The same table, with the colours around the words."""
    plain, colored = (Look(has_color=color).table(HEADINGS, ROWS, {"input"}) for color in (False, True))
    assert f"{GREEN}present{PLAIN}" in colored[1]
    assert [line.replace(GREEN, "").replace(PLAIN, "") for line in colored[1:]] == plain[1:]


def test_a_narrow_terminal_gets_a_row_as_lines() -> None:
    """What does not fit beside each other stands below each other; empty cells are left out."""
    assert Look(width=23).table(HEADINGS, [["a", "present", ""], ["b", "missing", "8k"]], {"input"}) == [
        "model  key      input",
        "a      present",
        "b      missing     8k",
    ]
    assert Look(width=20).table(HEADINGS, [["a", "present", ""], ["b", "missing", "8k"]]) == [
        "a",
        "  key    present",
        "b",
        "  key    missing",
        "  input  8k",
    ]


def test_no_cell_commands_the_terminal() -> None:
    """Control characters, also those that turn the direction of text, are replaced."""
    (line,) = Look(has_color=True).table(["x"], [["a\x1b[31m\r\n\x9b\u202eb"]])[1:]
    assert line == "a?[31m????b"


@pytest.mark.parametrize(("variable", "has_color"), [("", True), ("1", False)])
def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch, variable: str, has_color: bool) -> None:
    """https://no-color.org: any value but the empty one."""
    monkeypatch.setenv("NO_COLOR", variable)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert Look.of_output().has_color is has_color


def test_a_pipe_gets_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    """No colour and no limit where nobody looks."""
    assert Look.of_output() == Look(has_color=False, width=None)
