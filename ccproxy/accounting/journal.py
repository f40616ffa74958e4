"""Rows on their way into the ledger, as lines of small files: they outlive a process that is killed.

A line costs a request some microseconds, a transaction a hundred times that. Each file is locked by the process that
writes it; what has no lock any more is left behind, and whoever finds it takes it over.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
from contextlib import contextmanager, suppress
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import Iterator, List, Optional, Tuple

from ..encoded import dump_ascii
from .ledgerfile import Row

log = logging.getLogger(__name__)

MOST_LINES = 20_000
"""In one file: more would wait only for a database that cannot be written for long."""
_MONEY = ("cost", "claude_cost")
_MOST = 2**63
"""What SQLite has no integer for."""


class Journal:
    """The files of one process. A row that cannot be written is merely not protected."""

    def __init__(self, ledger: Path) -> None:
        self._folder, self._prefix = ledger.parent, f"{ledger.name}-"
        self.lock = threading.Lock()
        """To be held while rows are added, and while the file is changed."""
        self._file: Optional[Tuple[int, Path]] = None
        self._closed: List[Tuple[int, Path]] = []
        self._made = self._lines = 0

    def append(self, row: Row) -> None:
        """Write a row down."""
        if self._lines >= MOST_LINES:
            return
        with suppress(OSError):
            if self._file is None:
                self._file = self._begin()
            os.write(self._file[0], f"{'' if self._lines else _NAMES}{dump_ascii(row.values)}\n".encode())
            self._lines += 1

    def turn_over(self) -> None:
        """Begin another file with the next row, unless one waits for ``drop`` already, which removes it."""
        with self.lock:
            if self._file is not None and not self._closed:
                self._closed.append(self._file)
                self._file, self._lines = None, 0

    def drop(self) -> None:
        """Remove what was written before the turn: it is in the ledger."""
        for descriptor, path in self._closed:
            path.unlink(missing_ok=True)
            os.close(descriptor)
        self._closed.clear()

    def _begin(self) -> Tuple[int, Path]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._made += 1
        path = self._folder / f"{self._prefix}{os.getpid()}-{self._made}.rows"
        unlocked = path.with_suffix(".new")  # nobody looks for it before it is locked
        descriptor = os.open(unlocked, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_TRUNC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        unlocked.rename(path)
        return descriptor, path

    @contextmanager
    def left_behind(self) -> Iterator[List[Row]]:
        """Give the rows of processes that are no more; their files are removed when the block ends well."""
        own = {file[1] for file in (*self._closed, self._file) if file is not None}
        files = [path for path in self._folder.glob(f"{self._prefix}*.rows") if path not in own]
        taken = [(descriptor, path) for path in files for descriptor in _take_over(path)]
        try:
            found = {path: _rows(path) for _, path in taken}
            yield [row for rows, _ in found.values() for row in rows]
            for path, (_, odd_lines) in found.items():
                if odd_lines:
                    aside = path.replace(path.with_name(f"{path.name}.damaged"))
                    log.warning("%s: lines that are no rows: %d; it is kept as %s", path, odd_lines, aside.name)
                else:
                    path.unlink(missing_ok=True)
        finally:
            for descriptor, _ in taken:
                os.close(descriptor)


def _take_over(path: Path) -> Iterator[int]:
    """Yield the locked file, unless its process lives or another one took it."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
        else:
            yield descriptor


_NAMES = json.dumps([field.name for field in fields(Row)]) + "\n"
"""The first line: the names of the values in all others, which to write with each takes as long as the values."""


def _rows(path: Path) -> Tuple[List[Row], int]:
    """Return the rows, and how many lines are none, as at the end of a full disk."""
    rows: List[Row] = []
    odd_lines = 0
    names: List[str] = []
    for line in path.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        try:
            found = json.loads(line)
            if isinstance(found, list) and not names:
                names = found
                continue
            values = dict(zip(names, found)) if isinstance(found, list) else found  # older versions wrote objects
            values.update({name: Decimal(values[name]) for name in _MONEY if values.get(name) is not None})
            rows.append(_checked(Row(**values)))
        except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError):
            odd_lines += 1
    return rows, odd_lines


def _checked(row: Row) -> Row:
    """Return a row that SQLite can take, and the statistics can add up.

    Raises:
        ValueError: it is not one.
    """
    for each in fields(Row):
        value, kind = getattr(row, each.name), str(each.type)
        if value is None and kind.startswith("Optional"):
            continue
        if type(value).__name__ not in kind and not (type(value) is int and "float" in kind):
            raise ValueError(f"{each.name} is no {kind}")
        if isinstance(value, str):
            value.encode()
        elif not abs(value) < _MOST:
            raise ValueError(f"{each.name} is too large")
    return row
