"""What was spent today and in each session, for the budgets: sums in memory, brought up to date behind the requests.

A row of this process counts at once. Those of others are read from the ledger by a thread, only what is new and at most
once a second; a request waits for the file when the process is young, and at the first request of a session.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Dict, Optional

from ..config.schema import Config
from .budget import SESSION, TODAY, Budget, Spent, budgets, limits, tightest
from .ledgerfile import UNKNOWN_COST, Row
from .usage import LedgerUnreadable, midnight, newest_row, open_ledger, spent

if TYPE_CHECKING:
    import sqlite3

log = logging.getLogger(__name__)

REFRESH_AFTER = 1.0
MAX_SESSIONS = 1000
_MAX_OWN = 10_000


class Spending:
    """Sums of the known costs. They are kept once somebody asks; without a ledger, from the start of the process."""

    def __init__(self, path: Optional[Path], clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        self._file_lock = threading.Lock()  # one reader at a time: what it read is in the sums before the next one
        self._sums_lock = threading.Lock()  # guards all that follows
        self._today = Spent()
        self._midnight = 0.0
        self._sessions: Dict[str, Spent] = {}
        self._own: Dict[str, None] = {}  # request ids that are in the sums and may still be read
        self._last = 0  # the newest row that was read
        self._read_at = -REFRESH_AFTER
        self._is_failing = False

    def of(self, session: str) -> Dict[str, Spent]:
        """Return what was spent today and, unless its name is unknown, in a session."""
        if self._midnight != midnight(self._clock()):
            self._read(self._begin)
        elif time.monotonic() - self._read_at > REFRESH_AFTER:
            self._read_at = time.monotonic()
            with suppress(RuntimeError):  # out of threads: the next request tries again
                threading.Thread(target=self._read, args=(self._catch_up,), name="spending", daemon=True).start()
        if session and session not in self._sessions:
            self._read(lambda database: self._add_session(database, session), session)
        with self._sums_lock:
            known = {SESSION: self._sessions[session]} if session in self._sessions else {}
            return {TODAY: self._today, **known}

    def budget(self, config: Config, session: str) -> Optional[Budget]:
        """Return the budget of which the least is left, of those that are set."""
        amounts = limits(config)
        return tightest(budgets(amounts, self.of(session))) if amounts else None

    def add(self, row: Row) -> None:
        """Count a request of this process."""
        with self._sums_lock:
            if not self._midnight:
                return
            self._count(row.time, row.session, row.cost, row.has_unknown_cost)
            self._own[row.request_id] = None
            if len(self._own) > _MAX_OWN:
                del self._own[next(iter(self._own))]

    def _count(self, ended: float, session: str, cost: Optional[Decimal], is_unknown: bool) -> None:
        if ended >= self._midnight:
            self._today = self._today.plus(cost, is_unknown)
        if session in self._sessions:
            self._sessions[session] = self._sessions[session].plus(cost, is_unknown)

    # --- reading the file; what is read goes into the sums at once --------------------------------------------------

    def _read(self, take: Callable[[sqlite3.Connection], None], session: str = "") -> None:
        with self._file_lock:
            try:
                with open_ledger(self._path) as database:
                    take(database)
                self._is_failing = False
            except LedgerUnreadable as error:
                if not self._is_failing:
                    words = "%s cannot be read, budgets count what this process spends: %s"
                    log.warning(words, self._path, error.__cause__)
                self._is_failing = True
                with self._sums_lock:
                    self._midnight = self._midnight or midnight(self._clock())
                    if session:
                        self._sessions.setdefault(session, Spent())

    def _begin(self, database: sqlite3.Connection) -> None:
        since, last = midnight(self._clock()), newest_row(database)
        today = spent(database, "time >= ?", since)
        with self._sums_lock:
            self._midnight, self._last, self._today = since, last, today
            self._sessions, self._own = {}, {}

    def _catch_up(self, database: sqlite3.Connection) -> None:
        last = newest_row(database)
        if self._is_failing or last < self._last:  # what was missed, or another file
            self._begin(database)
            return
        columns = f"request_id, time, session, cost, {UNKNOWN_COST}"
        rows = database.execute(f"SELECT {columns} FROM requests WHERE rowid > ?", [self._last]).fetchall()  # noqa: S608
        with self._sums_lock:
            self._last = last
            for request_id, ended, session, cost, is_unknown in rows:
                if request_id in self._own:
                    del self._own[request_id]
                else:
                    self._count(ended, session, None if cost is None else Decimal(cost), bool(is_unknown))

    def _add_session(self, database: sqlite3.Connection, session: str) -> None:
        so_far = spent(database, "session = ? AND rowid <= ?", session, self._last)
        with self._sums_lock:
            self._sessions[session] = so_far
            if len(self._sessions) > MAX_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
