"""Rows on their way into the ledger, as lines of small files: they outlive a process that is killed.

A line costs a request some microseconds, a transaction a hundred times that. Each file is locked by the process that
writes it; what has no lock any more is left behind, and whoever finds it takes it over.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Iterator, List, Optional, Tuple

from .ledgerfile import Row
from .pricing import plain

MOST_LINES = 20_000
"""In one file: more would wait only for a database that cannot be written for long."""
_MONEY = ("cost", "claude_cost")


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
            os.write(self._file[0], (_line(row) + "\n").encode())
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
            yield [row for _, path in taken for row in _rows(path)]
            for _, path in taken:
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


def _line(row: Row) -> str:
    fields = {**vars(row)}  # asdict copies each value, which takes ten times as long
    fields.update({name: plain(fields[name]) for name in _MONEY if fields[name] is not None})
    return json.dumps(fields)


def _rows(path: Path) -> Iterator[Row]:
    """Yield the whole lines; another version's rows, and the end of a full disk, are passed over."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        with suppress(ValueError, TypeError):
            fields = json.loads(line)
            fields.update({name: Decimal(fields[name]) for name in _MONEY if fields.get(name) is not None})
            yield Row(**fields)
