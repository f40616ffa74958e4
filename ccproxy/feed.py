"""``Feed``: requests as they are recorded, for those who watch them.

The ledger is shared by all processes, so its newest rows tell of every one's requests. A watcher looks for them itself,
in the thread that serves it: no request knows of it.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import List, Optional

from .accounting.usage import newest_row, open_ledger
from .encoded import Json
from .errors import ApiError, Stopping

MAX_WATCHERS = 20
"""Each keeps a thread and a connection."""


class Feed:
    """Counts the watchers, and sends them away when the process stops."""

    def __init__(self, path: Optional[Path]) -> None:
        """Take the ledger's file; without one there is nothing to see but what is running."""
        self._path = path
        self._watchers = 0
        self._watchers_lock = threading.Lock()
        self._is_closing = threading.Event()

    def enter(self) -> None:
        """Begin to watch.

        Raises:
            ApiError: too many do already, or the process stops.
        """
        if self._is_closing.is_set():
            raise Stopping("ccproxy is stopping")
        with self._watchers_lock:
            if self._watchers >= MAX_WATCHERS:
                raise ApiError(f"{MAX_WATCHERS} dashboards are open already", status=503, headers={"retry-after": "10"})
            self._watchers += 1

    def leave(self) -> None:
        """Stop watching."""
        with self._watchers_lock:
            self._watchers -= 1

    def close(self) -> None:
        """Send all watchers away; they come back to the next process."""
        self._is_closing.set()

    def pause(self, seconds: float) -> bool:
        """Wait a moment; return whether watching goes on."""
        return not self._is_closing.wait(seconds)

    def rows(self, after: int, most: int) -> List[Json]:
        """Return the rows behind the one numbered ``after``, oldest first; of more than ``most`` the newest.

        A number that is not reached yet is that of a file which is no more: then all rows are new.

        Raises:
            LedgerUnreadable: with SQLite's words.
        """
        import sqlite3

        with open_ledger(self._path) as database:
            database.row_factory = sqlite3.Row
            statement = "SELECT rowid AS id, * FROM requests WHERE rowid > ? ORDER BY rowid DESC LIMIT ?"
            found = database.execute(statement, [after if after <= newest_row(database) else 0, most])
            return [dict(row) for row in found][::-1]
