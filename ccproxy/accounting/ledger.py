"""The ledger: one row per request in SQLite, written by a thread of its own, so that no request waits for a disk.

``add`` writes a row down as a line of a journal, puts it into a queue and returns. The writer commits what is there at
once, in one transaction; after a crash or ``kill -9`` another writer finds the journal. Nothing that happens to the
database fails a request: a locked or full one is tried again, and each outage is told once in the log.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Deque, List, Optional, Sequence, Tuple, Union

from .journal import Journal
from .ledgerfile import MIGRATIONS, LedgerFile, Row

log = logging.getLogger(__name__)

FILE_NAME = "usage.db"
KEEP_DAYS = 400
QUEUE_SIZE = 10_000
BATCH_SIZE = 500
RETRY_PAUSE = 1.0
WRITE_EVERY = 0.25
"""The fewest seconds between two transactions; one takes 3 ms, as long as a request or two."""

_Item = Union[Row, threading.Event, None]


class Ledger:
    """Takes rows from all threads. The writer starts with the first row, in the process that adds it."""

    def __init__(
        self,
        folder: Path,
        *,
        migrations: Sequence[Sequence[str]] = MIGRATIONS,
        keep_days: float = KEEP_DAYS,
        busy_timeout: float = 5.0,
    ) -> None:
        self.path = folder / FILE_NAME
        self._file = LedgerFile(self.path, migrations, keep_days, busy_timeout)
        self._journal = Journal(self.path)
        self._queue: queue.SimpleQueue[_Item] = queue.SimpleQueue()  # a Queue takes 2 us to put something into
        self._pending: Deque[Row] = deque()
        self._is_failing = False
        self._retry_at = 0.0
        self._written_at = 0.0
        self._lost = 0
        self._hurry = threading.Event()
        self._start_lock = threading.Lock()
        self._writer: Optional[threading.Thread] = None

    def add(self, row: Row) -> None:
        """Record a request; never waits, never fails."""
        with self._journal.lock:
            if self._queue.qsize() < QUEUE_SIZE:
                self._queue.put(row)
                self._journal.append(row)
            else:
                self._lost += 1
        self._start()

    def _start(self) -> None:
        if self._writer is None:
            with self._start_lock:
                if self._writer is None:
                    writer = threading.Thread(target=self._run, name="ledger", daemon=True)
                    with suppress(RuntimeError):  # out of threads: the next row tries again
                        writer.start()
                        self._writer = writer

    def flush(self, timeout: float) -> bool:
        """Wait until the rows added so far were written, or cannot be; return whether that was in time."""
        done = threading.Event()
        self._queue.put(done)
        self._hurry.set()
        self._start()
        return done.wait(timeout)

    def close(self, timeout: float = 10.0) -> None:
        """Write what is there and stop."""
        if self._writer is not None:
            self._queue.put(None)
            self._hurry.set()
            self._writer.join(timeout)

    # --- the writer's thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        is_last = False
        while not is_last:
            waiting, is_last, is_whole = self._take()
            is_due = not self._is_failing or time.monotonic() >= self._retry_at
            try:
                if is_due or waiting or is_last:
                    self._save(is_whole)
            except Exception as error:  # noqa: BLE001 - a thread's top
                self._failed(error)
            for done in waiting:
                done.set()
        if self._pending:
            log.warning("%s: %d rows could not be written", self.path, len(self._pending))
        self._file.close()

    def _take(self) -> Tuple[List[threading.Event], bool, bool]:
        """Move rows from the queue to the pending ones; return who waits for them, whether they are the last, and
        whether all rows of the journal before its turn are among them."""
        waiting: List[threading.Event] = []
        taken = 0
        try:
            item = self._queue.get(timeout=RETRY_PAUSE if self._pending else None)
            if isinstance(item, Row):
                self._hurry.wait(max(0.0, self._written_at + WRITE_EVERY - time.monotonic()))
            self._hurry.clear()
            self._journal.turn_over()
            while item is not None:
                if isinstance(item, Row):
                    self._pending.append(item)
                else:
                    waiting.append(item)
                taken += 1  # not the pending ones: there may be many while the file cannot be written
                if taken >= BATCH_SIZE:
                    return waiting, False, False
                item = self._queue.get_nowait()
        except queue.Empty:
            return waiting, False, True
        return waiting, True, True

    def _save(self, is_whole: bool) -> None:
        with self._journal.left_behind() as rows:
            if rows:
                self._file.write(rows, is_again=True)
        if not self._pending:
            return
        self._file.write(list(self._pending))
        self._written_at = time.monotonic()
        self._pending.clear()
        if is_whole:
            self._journal.drop()
        if self._is_failing or self._lost:
            log.warning("%s is written again; %d rows were lost", self.path, self._lost)
        self._is_failing, self._lost = False, 0

    def _failed(self, error: Exception) -> None:
        if not self._is_failing:
            log.warning("usage cannot be recorded for now: %s: %s", self.path, error)
        self._is_failing, self._retry_at = True, time.monotonic() + RETRY_PAUSE
        self._file.close()
        # A value that SQLite cannot take must not hold up the rows behind it.
        keep = 0 if isinstance(error, (ValueError, OverflowError)) else QUEUE_SIZE
        while len(self._pending) > keep:
            self._pending.popleft()
            self._lost += 1
