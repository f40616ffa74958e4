"""The ledger's file: a SQLite database that several processes write, its versions, and what is done when it is damaged.

SQLite is imported with the first use: a start does not need it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from contextlib import contextmanager, suppress
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator, List, Optional, Sequence, Tuple

from ..frozen import frozen
from .pricing import plain

if TYPE_CHECKING:
    import sqlite3

log = logging.getLogger(__name__)

# One step per version of the file, counted in ``user_version``. A released step is never changed: add another one.
MIGRATIONS: Tuple[Tuple[str, ...], ...] = (
    (
        """CREATE TABLE requests (
            time REAL NOT NULL, session TEXT NOT NULL, request_id TEXT NOT NULL, requested_model TEXT NOT NULL,
            model TEXT NOT NULL, provider TEXT NOT NULL, rule TEXT NOT NULL,
            input_tokens INTEGER NOT NULL, cache_read_tokens INTEGER NOT NULL, cache_write_tokens INTEGER NOT NULL,
            output_tokens INTEGER NOT NULL, thinking_tokens INTEGER NOT NULL,
            cost TEXT, claude_cost TEXT, outcome TEXT NOT NULL, status INTEGER NOT NULL,
            first_content REAL, duration REAL NOT NULL, attempts INTEGER NOT NULL)""",
        "CREATE INDEX requests_by_time ON requests (time)",
        "CREATE INDEX requests_by_session ON requests (session, time)",
    ),
    (
        "ALTER TABLE requests ADD COLUMN reason TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE requests ADD COLUMN unanswered TEXT NOT NULL DEFAULT ''",
    ),
    (
        "ALTER TABLE requests ADD COLUMN estimate INTEGER",
        "ALTER TABLE requests ADD COLUMN has_tools INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX requests_to_learn_from ON requests (time) WHERE estimate IS NOT NULL",
    ),
)


_MAX_NAME = 200


def bounded_name(text: str) -> str:
    """Return a name of the client's choice as bounded, valid text."""
    return text if len(text) <= _MAX_NAME and text.isascii() else text[:_MAX_NAME].encode("utf-8", "replace").decode()


@frozen
class Row:
    """One request. Neither prompts nor keys are in it."""

    time: float
    """When it ended, in seconds since 1970."""
    session: str
    request_id: str
    requested_model: str
    model: str
    provider: str
    rule: str
    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    thinking_tokens: int
    """Among the output tokens."""
    cost: Optional[Decimal]
    """USD; None when unknown."""
    claude_cost: Optional[Decimal]
    """What the Claude model that was asked for would have cost."""
    outcome: str
    """``ended``, ``failed`` or ``cancelled``."""
    status: int
    first_content: Optional[float]
    """Seconds to the first content."""
    duration: float
    attempts: int
    reason: str = ""
    """Why the rule fired."""
    unanswered: str = ""
    """The models of the route that gave no answer before this one, separated by commas."""

    estimate: Optional[int] = None
    """Our own count of the prompt, before any correction, when the provider's says how good it was."""
    has_tools: bool = False

    @property
    def values(self) -> List[Any]:
        """Its fields in their order, as SQLite and JSON take them."""
        return [plain(value) if type(value) is Decimal else value for value in vars(self).values()]

    @property
    def prompt_tokens(self) -> int:
        """All of the input, cached or not."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens

    @property
    def has_unknown_cost(self) -> bool:
        """Whether it may have cost something that nobody told: it did not fail before its first content."""
        return self.cost is None and (self.outcome != "failed" or self.first_content is not None)


UNKNOWN_COST = "cost IS NULL AND (outcome != 'failed' OR first_content IS NOT NULL)"
"""``Row.has_unknown_cost`` in SQL."""

_COLUMNS = [field.name for field in fields(Row)]
_INSERT = f"INSERT INTO requests ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608

# Old by the newest row of yesterday or before, not by the clock: one that is wrong for some hours, as after a start of
# a machine without one, would take the whole history with it.
_DELETE_OLD = "DELETE FROM requests WHERE time < (SELECT MAX(time) FROM requests WHERE time < ?) - ?"
_DAY = 86400


class LedgerFile:
    """The database file, as its writer uses it."""

    def __init__(self, path: Path, migrations: Sequence[Sequence[str]], keep_days: float, busy_timeout: float) -> None:
        self._path = path
        self._migrations = migrations
        self._keep = keep_days * _DAY
        self._busy_timeout = busy_timeout
        self._cursor: Optional[sqlite3.Cursor] = None  # one for all: a connection remembers its last two hundred
        self._inode = 0
        self._stale: List[sqlite3.Connection] = []

    def write(self, rows: Sequence[Row], *, is_again: bool = False) -> None:
        """Write all rows or none; ``is_again``: they may be there already.

        Raises:
            OSError: the folder or the file cannot be used.
            sqlite3.Error: the database cannot.
        """
        import sqlite3

        try:
            self._insert(rows, is_again)
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:  # subclasses are about locks, space and SQL
                raise
            self.close()
            self._set_aside(error)
            self._insert(rows, is_again)

    def close(self) -> None:
        """Let go of the file."""
        cursor, self._cursor = self._cursor, None
        if cursor is not None:
            cursor.close()  # it would keep the file open as long as an error's traceback keeps it
            cursor.connection.close()

    def _insert(self, rows: Sequence[Row], is_again: bool) -> None:
        values = [row.values for row in rows]
        cursor = self._open()
        with _transaction(cursor):
            if is_again:
                known = "SELECT 1 FROM requests WHERE time = ? AND request_id = ?"
                found = [cursor.execute(known, [row.time, row.request_id]).fetchone() for row in rows]
                values = [value for value, one in zip(values, found) if one is None]
            cursor.executemany(_INSERT, values)

    def _open(self) -> sqlite3.Cursor:
        if self._cursor is not None and self._is_other_file():
            # Closing it would delete the write-ahead log by name, which is the new file's by now.
            self._stale.append(self._cursor.connection)
            self._cursor = None
        if self._cursor is None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._alone():
                self._create()
                self._cursor = _connect(self._path, self._busy_timeout).cursor()
                self._inode = self._path.stat().st_ino
                self._prepare(self._cursor)
        return self._cursor

    def _is_other_file(self) -> bool:
        try:
            return self._path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def _create(self) -> None:
        """Make the file, for its owner only. One that is there is not opened: closing it would drop SQLite's locks."""
        try:
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            with suppress(PermissionError):  # somebody else's file that we may write
                self._path.chmod(0o600)

    def _prepare(self, cursor: sqlite3.Cursor) -> None:
        if cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")  # with a write-ahead log a killed process loses nothing
        version = cursor.execute("PRAGMA user_version").fetchone()[0]
        if version > len(self._migrations):
            raise OSError(f"it has version {version}, this ccproxy knows {len(self._migrations)}")
        with _transaction(cursor):
            for statement in (line for step in self._migrations[version:] for line in step):
                cursor.execute(statement)
            cursor.execute(f"PRAGMA user_version = {len(self._migrations)}")
            cursor.execute(_DELETE_OLD, [time.time() - _DAY, self._keep])

    def _set_aside(self, error: Exception) -> None:
        """Move a damaged file away, unless another process did it meanwhile."""
        with self._alone():
            if not self._path.exists() or _is_sound(self._path, self._busy_timeout):
                return
            stamp = time.strftime("%Y%m%d-%H%M%S")
            for suffix in ("-wal", "-shm", ""):
                source = self._path.with_name(self._path.name + suffix)
                with suppress(FileNotFoundError):
                    source.rename(self._path.with_name(f"{self._path.name}.damaged-{stamp}{suffix}"))
        log.warning("%s is damaged (%s): moved aside, a new one is begun", self._path, error)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep the other processes from opening, migrating or moving the file meanwhile."""
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)


def _connect(path: Path, busy_timeout: float) -> sqlite3.Connection:
    import sqlite3

    return sqlite3.connect(str(path), timeout=busy_timeout, isolation_level=None)


def _is_sound(path: Path, busy_timeout: float) -> bool:
    import sqlite3

    try:
        database = _connect(path, busy_timeout)
        try:
            return bool(database.execute("PRAGMA quick_check").fetchone()[0] == "ok")
        finally:
            database.close()
    except sqlite3.OperationalError:
        return True  # busy or out of reach, which is no damage
    except sqlite3.DatabaseError:
        return False


@contextmanager
def _transaction(cursor: sqlite3.Cursor) -> Iterator[None]:
    with cursor.connection:  # commits, or rolls back what is open
        cursor.execute("BEGIN IMMEDIATE")
        yield
