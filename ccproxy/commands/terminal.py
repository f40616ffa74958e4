"""What commands print: aligned tables, colours on a terminal only, and nothing that a terminal would obey."""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from typing import Container, List, Optional, Sequence, Union

from ..frozen import frozen

BOLD, DIM, RED, GREEN, YELLOW, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"
_GAP = "  "


@frozen
class Styled:
    """A cell with a colour."""

    text: str
    style: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", printable(self.text))

    @property
    def width(self) -> int:
        """The columns it takes."""
        return display_width(self.text)


Cell = Union[str, Styled]


@frozen
class Look:
    """How to print to one place: in colour or not, and how many columns there are (None: no limit)."""

    has_color: bool = False
    width: Optional[int] = None

    @classmethod
    def of_output(cls) -> Look:
        """Return the look of standard output: a terminal's own; plain and without limit for a file or a pipe."""
        if not sys.stdout.isatty():
            return cls()
        return cls(has_color=not os.environ.get("NO_COLOR"), width=shutil.get_terminal_size().columns)

    def colored(self, style: str, text: str) -> str:
        """Return a text in a style, where there are colours."""
        return f"{style}{text}{PLAIN}" if self.has_color and style and text else text

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[Cell]], numbers: Container[str] = ()) -> List[str]:
        """Return the lines of a table; where it is too wide for the terminal, each row as lines of its own.

        Args:
            numbers: the headings of columns that are aligned to the right.
        """
        cells = [[cell if isinstance(cell, Styled) else Styled(cell) for cell in row] for row in rows]
        table = [[Styled(heading, DIM) for heading in headings], *cells]
        widths = [max(cell.width for cell in column) for column in zip(*table)]
        if self.width is not None and sum(widths) + len(_GAP) * (len(widths) - 1) > self.width:
            return self._records(headings, cells)
        is_right = [heading in numbers for heading in headings]
        return [self._line(row, widths, is_right) for row in table]

    def _line(self, row: Sequence[Styled], widths: Sequence[int], is_right: Sequence[bool]) -> str:
        parts = []
        for cell, width, right in zip(row, widths, is_right):
            space = " " * (width - cell.width)
            shown = self.colored(cell.style, cell.text)
            parts.append(space + shown if right else shown + space)
        return _GAP.join(parts).rstrip()

    def _records(self, headings: Sequence[str], rows: Sequence[Sequence[Styled]]) -> List[str]:
        names = max(map(display_width, headings[1:]), default=0)
        lines = []
        for row in rows:
            lines.append(self.colored(BOLD, row[0].text))
            for heading, cell in zip(headings[1:], row[1:]):
                if cell.text:
                    space = " " * (names - display_width(heading))
                    lines.append(f"  {self.colored(DIM, heading)}{space}  {self.colored(cell.style, cell.text)}")
        return lines


def progress(text: str) -> None:
    """Show how far something is in a line of a terminal, in place of what was there; elsewhere nothing."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Return a text of somebody else's choice without what a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)


def display_width(text: str) -> int:
    """Return the columns that a text takes: two for wide characters, none for those that join the one before."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )
