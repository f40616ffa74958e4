"""Log lines: no key, no forged line, no terminal sequence."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest

from ccproxy.log import SafeFormatter


def line(message: str, *arguments: Any, exc_info: Any = None) -> str:
    """One record as it is written, without its time."""
    record = logging.LogRecord("ccproxy.x", logging.INFO, __file__, 1, message, arguments, exc_info)
    return SafeFormatter(lambda: ["s3cr3t-token"]).format(record).split(" ", 1)[1]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words", "plain words"),
        ("漢字 é \U0001f600", "漢字 é \U0001f600"),
        ("two\nlines", "two\\nlines"),
        ("a\rb", "a\\x0db"),
        ("a\tb", "a\\tb"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("bell\x07 nul\x00 del\x7f csi\x9b", "bell\\x07 nul\\x00 del\\x7f csi\\x9b"),
        ("the s3cr3t-token here", "the *** here"),
        ("key sk-ant-api03-abcdefgh", "key ***"),
    ],
)
def test_a_line_is_safe_to_show(text: str, shown: str) -> None:
    """Control characters are written out, secrets are masked, everything else stays."""
    assert line("%s", text) == f"INFO    {shown}"


def test_secrets_are_masked_in_arguments_and_message_together() -> None:
    """The line is masked, not its parts."""
    assert "s3cr3t-token" not in line("s3cr3t-%s", "token")


def failed(message: str) -> Any:
    try:
        raise ValueError(message)
    except ValueError:
        return sys.exc_info()


def test_a_traceback_keeps_its_lines_and_no_secret() -> None:
    """Its line ends are its own; its text is masked and written out like any other."""
    text = line("failed", exc_info=failed("s3cr3t-token \x1b[2J"))
    assert "Traceback (most recent call last):\n" in text
    assert text.endswith("ValueError: *** \\x1b[2J")


def test_the_line_tells_time_and_level() -> None:
    """With the offset of the clock."""
    record = logging.LogRecord("ccproxy.x", logging.WARNING, __file__, 1, "words", (), None)
    first, rest = SafeFormatter(list).format(record).split(" ", 1)
    assert rest == "WARNING words"
    assert first[10] == "T"
    assert first[-5] in "+-"
