"""Tables: aligned by what a terminal shows, in colour where there are colours, narrow where it is narrow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ccproxy.commands.terminal import GREEN, PLAIN, Look, Styled, display_width
from processes import environment

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


@pytest.mark.parametrize(
    ("output", "code", "said"),
    [
        (">/dev/full", 1, "ccproxy: [Errno 28] No space left on device\n"),
        (">&-", 0, ""),
        ("2>&- >/dev/null", 0, ""),
        ("| true", 0, ""),
    ],
    ids=["full", "closed", "no errors", "unread"],
)
def test_output_that_nobody_takes(tmp_path: Path, output: str, code: int, said: str) -> None:
    """A full disk is told in one line; closed streams, and a reader that has seen enough, are no failures."""
    if "/dev/full" in output and not os.path.exists("/dev/full"):
        pytest.skip("this system has no device that is always full")
    script = f'"{sys.executable}" -m ccproxy models {output}'
    variables = environment(tmp_path, {})
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, env=variables, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr.decode()) == (code, said)
