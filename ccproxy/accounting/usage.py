"""What the ledger says about a period: totals, by model, rule, session and day."""

from __future__ import annotations

import time
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from ..encoded import Json
from ..errors import CcproxyError
from ..frozen import frozen
from .budget import SESSION, TODAY, Spent, budgets
from .ledgerfile import MIGRATIONS, UNKNOWN_COST
from .totals import COLUMNS, Totals, amount

if TYPE_CHECKING:
    import sqlite3

_DAY = 86400.0
PERIODS = (SESSION, TODAY, "7d", "30d", "all")
MAX_GROUPS = 50
MAX_DAYS = 400

# What rows are told apart by. A day is one of the server's, as is ``today``.
_KEYS = {"day": "date(time, 'unixepoch', 'localtime')", "model": "model", "rule": "rule", "session": "session"}
# They are read once, in the smallest groups, from which all others are put together.
_PARTS = f"SELECT {', '.join([*_KEYS.values(), *COLUMNS])} FROM requests WHERE %s GROUP BY 1, 2, 3, 4"  # noqa: S608

_Found = Tuple[Tuple[str, ...], Totals]


@frozen
class Group:
    """How parts are put together: one entry for each combination of values in ``columns``."""

    columns: Tuple[str, ...]
    latest: Optional[Callable[[_Found], Any]] = None
    """What the later entries have more of, which come first; without it those with the most requests do."""
    most: int = MAX_GROUPS
    has_times: bool = True


# Key of the answer: what its list holds. Of a day and its models no times: nobody asks for so many.
GROUPS: Dict[str, Group] = {
    "by_model": Group(("model",)),
    "by_rule": Group(("rule",)),
    "by_session": Group(("session",), lambda found: found[1].newest),
    "by_day": Group(("day",), lambda found: found[0][0], MAX_DAYS, has_times=False),
    "by_day_and_model": Group(("day", "model"), lambda found: found[0][0], MAX_DAYS * 10, has_times=False),
}


class LedgerUnreadable(CcproxyError):
    """The ledger is there and cannot be read."""


def report(path: Path, period: str, now: float, limits: Optional[Mapping[str, Decimal]] = None) -> Json:
    """Return the statistics of a period, one of ``PERIODS``; an absent file holds no requests.

    Args:
        limits: the budgets by period; they are for today and for the newest session, whatever ``period`` is.

    Raises:
        LedgerUnreadable: with SQLite's words.
    """
    with open_ledger(path) as database:
        since = _since(period, now)
        newest = _newest_session(database)
        session = newest if period == SESSION else None
        condition, values = ("session = ?", [session]) if period == SESSION else ("time >= ?", [since or 0])
        so_far = {TODAY: spent(database, "time >= ?", midnight(now))}
        if newest:
            so_far[SESSION] = spent(database, "session = ?", newest)
        parts = database.execute(_PARTS % condition, values).fetchall()
    answer: Json = {
        "period": period,
        "since": None if since is None else datetime.fromtimestamp(since, timezone.utc).isoformat(),
        "today": time.strftime("%Y-%m-%d", time.localtime(now)),
        "time_zone": time.strftime("%Z", time.localtime(now)),
        "session": session,
        "budgets": [budget.to_dict() for budget in budgets(limits or {}, so_far)],
    }
    found = [(dict(zip(_KEYS, part)), Totals.of(*part[len(_KEYS) :])) for part in parts]
    (answer["totals"],) = _entries(found, Group(())) or [Totals().to_dict()]
    return {**answer, **{key: _entries(found, group) for key, group in GROUPS.items()}}


def _entries(parts: Sequence[Tuple[Mapping[str, str], Totals]], group: Group) -> List[Json]:
    """Return the totals of each combination of values that occurs, as far as there is room."""
    found: Dict[Tuple[str, ...], Totals] = {}
    for names, totals in parts:
        found.setdefault(tuple([names[column] for column in group.columns]), Totals()).add(totals)
    ordered = sorted(found.items(), key=lambda entry: (-entry[1].counts["requests"], entry[0]))
    if group.latest is not None:
        ordered.sort(key=group.latest, reverse=True)
    return [
        {**dict(zip(group.columns, names)), **totals.to_dict(has_times=group.has_times)}
        for names, totals in ordered[: group.most]
    ]


@contextmanager
def open_ledger(path: Optional[Path]) -> Iterator[sqlite3.Connection]:
    """Open the file for reading in the block; without one, an empty database takes its place.

    Raises:
        LedgerUnreadable: with SQLite's words, and caused by its error.
    """
    import sqlite3

    try:
        with closing(_connect(path)) as database:
            database.execute("BEGIN")  # all answers are about the same rows
            yield database
    except (sqlite3.Error, OSError) as error:
        raise LedgerUnreadable(f"{path}: cannot be read: {error}") from error


def _connect(path: Optional[Path]) -> sqlite3.Connection:
    import sqlite3

    database = None
    if path is not None and path.exists():
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5, isolation_level=None)
        if not database.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():  # made on a full disk, and empty
            database.close()
            database = None
    if database is None:
        database = sqlite3.connect(":memory:", isolation_level=None)
        for statement in (line for step in MIGRATIONS for line in step):
            database.execute(statement)
    return database


def midnight(now: float) -> float:
    """Return when today began, local time."""
    year, month, day = time.localtime(now)[:3]
    return time.mktime((year, month, day, 0, 0, 0, 0, 0, -1))


def _since(period: str, now: float) -> Optional[float]:
    """Return where a period begins."""
    return {"today": midnight(now), "7d": now - 7 * _DAY, "30d": now - 30 * _DAY}.get(period)


def spent(database: sqlite3.Connection, condition: str, *values: Any) -> Spent:
    """Return what the requests cost that meet a condition."""
    columns = f"group_concat(cost), COALESCE(SUM({UNKNOWN_COST}), 0)"
    costs, unknown = database.execute(f"SELECT {columns} FROM requests WHERE {condition}", values).fetchone()  # noqa: S608
    return Spent(amount(costs), unknown)


def newest_row(database: sqlite3.Connection) -> int:
    """Return the number of the row that was written last; 0 where there is none."""
    return int(database.execute("SELECT COALESCE(MAX(rowid), 0) FROM requests").fetchone()[0])


def _newest_session(database: sqlite3.Connection) -> str:
    row = database.execute("SELECT session FROM requests ORDER BY time DESC LIMIT 1").fetchone()
    return str(row[0]) if row else ""
