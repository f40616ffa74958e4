"""What the ledger says about a period: totals, by model, rule, session and day. Money is summed as decimals."""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import field
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Tuple

from ..errors import CcproxyError
from ..frozen import frozen
from .budget import SESSION, TODAY, Spent, budgets
from .ledgerfile import MIGRATIONS, UNKNOWN_COST
from .pricing import plain

if TYPE_CHECKING:
    import sqlite3

Json = Dict[str, Any]

_DAY = 86400.0
PERIODS = (SESSION, TODAY, "7d", "30d", "all")
MAX_GROUPS = 50
MAX_DAYS = 400

# Column of the answer: how it is made of the rows of a group.
MEASURES: Dict[str, str] = {
    "requests": "COUNT(*)",
    "errors": "COALESCE(SUM(outcome = 'failed'), 0)",
    "cancelled": "COALESCE(SUM(outcome = 'cancelled'), 0)",
    "attempts": "COALESCE(SUM(attempts), 0)",
    "input_tokens": "COALESCE(SUM(input_tokens), 0)",
    "cache_read_tokens": "COALESCE(SUM(cache_read_tokens), 0)",
    "cache_write_tokens": "COALESCE(SUM(cache_write_tokens), 0)",
    "output_tokens": "COALESCE(SUM(output_tokens), 0)",
    "thinking_tokens": "COALESCE(SUM(thinking_tokens), 0)",
    "cost_usd": "money(cost)",
    "unknown_cost_requests": f"COALESCE(SUM({UNKNOWN_COST}), 0)",
    "saving_usd": "saving(claude_cost, cost)",
    "first_content_p50": "p50(first_content)",
    "first_content_p95": "p95(first_content)",
}
# Of a day and its models no times: they would be sorted once more for each.
_SUMS = {name: sql for name, sql in MEASURES.items() if not name.startswith("first_content")}
# A day is one of the server's, as is `today`.
_COLUMNS = {"day": "date(time, 'unixepoch', 'localtime')"}


@frozen
class Group:
    """How rows are put together: one entry for each combination of values in ``columns``."""

    columns: Tuple[str, ...]
    order: str
    """Which entries come first, where there are more than ``most``."""
    measures: Mapping[str, str] = field(default_factory=lambda: MEASURES)
    most: int = MAX_GROUPS


# Key of the answer: what its list holds.
GROUPS: Dict[str, Group] = {
    "by_model": Group(("model",), "COUNT(*) DESC, model"),
    "by_rule": Group(("rule",), "COUNT(*) DESC, rule"),
    "by_session": Group(("session",), "MAX(time) DESC"),
    "by_day": Group(("day",), "day DESC", _SUMS, MAX_DAYS),
    "by_day_and_model": Group(("day", "model"), "day DESC, COUNT(*) DESC, model", _SUMS, MAX_DAYS * 10),
}


class LedgerUnreadable(CcproxyError):
    """The ledger is there and cannot be read."""


class _Money:
    """The exact sum of amounts kept as text; NULL when none of them is known."""

    def __init__(self) -> None:
        self._sum: Optional[Decimal] = None

    def step(self, amount: Optional[str]) -> None:
        if amount is not None:
            self._sum = (self._sum or Decimal(0)) + Decimal(amount)

    def finalize(self) -> Optional[str]:
        return None if self._sum is None else plain(self._sum)


class _Saving(_Money):
    """The sum of the differences, where both amounts are known."""

    def step(self, amount: Optional[str], less: Optional[str] = None) -> None:
        if amount is not None and less is not None:
            super().step(str(Decimal(amount) - Decimal(less)))


class _Median:
    """The value that a share of the values does not exceed (nearest rank)."""

    share = 0.5

    def __init__(self) -> None:
        self._values: List[float] = []

    def step(self, value: Optional[float]) -> None:
        if value is not None:
            self._values.append(value)

    def finalize(self) -> Optional[float]:
        values = sorted(self._values)
        return values[math.ceil(self.share * len(values)) - 1] if values else None


class _P95(_Median):
    share = 0.95


# Name in SQL: number of arguments, and what makes the sum.
AGGREGATES: Dict[str, Tuple[int, Any]] = {
    "money": (1, _Money),
    "saving": (2, _Saving),
    "p50": (1, _Median),
    "p95": (1, _P95),
}


def report(path: Path, period: str, now: float, limits: Optional[Mapping[str, Decimal]] = None) -> Json:
    """Return the statistics of a period, one of ``PERIODS``; an absent file holds no requests.

    Args:
        limits: the budgets by period; they are for today and for the newest session, whatever ``period`` is.

    Raises:
        LedgerUnreadable: with SQLite's words.
    """
    import sqlite3

    try:
        with closing(open_ledger(path)) as database:
            since = _since(period, now)
            newest = _newest_session(database)
            session = newest if period == SESSION else None
            condition, values = ("session = ?", [session]) if period == SESSION else ("time >= ?", [since or 0])
            so_far = {TODAY: spent(database, "time >= ?", midnight(now))}
            if newest:
                so_far[SESSION] = spent(database, "session = ?", newest)
            answer: Json = {
                "period": period,
                "since": None if since is None else datetime.fromtimestamp(since, timezone.utc).isoformat(),
                "today": time.strftime("%Y-%m-%d", time.localtime(now)),
                "time_zone": time.strftime("%Z", time.localtime(now)),
                "session": session,
                "budgets": [budget.to_dict() for budget in budgets(limits or {}, so_far)],
                "totals": _rows(database, MEASURES, f"WHERE {condition}", values)[0],
            }
            for key, group in GROUPS.items():
                columns = {name: f"{_COLUMNS.get(name, name)} AS {name}" for name in group.columns}
                clause = f"WHERE {condition} GROUP BY {', '.join(columns)} ORDER BY {group.order} LIMIT {group.most}"
                answer[key] = _rows(database, {**columns, **group.measures}, clause, values)
            return answer
    except (sqlite3.Error, OSError) as error:
        raise LedgerUnreadable(f"{path}: cannot be read: {error}") from None


def open_ledger(path: Optional[Path]) -> sqlite3.Connection:
    """Open the file for reading; without one, an empty database takes its place."""
    import sqlite3

    if path is not None and path.exists():
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5, isolation_level=None)
    else:
        database = sqlite3.connect(":memory:", isolation_level=None)
        for statement in (line for step in MIGRATIONS for line in step):
            database.execute(statement)
    for name, (arguments, aggregate) in AGGREGATES.items():
        database.create_aggregate(name, arguments, aggregate)
    database.execute("BEGIN")  # all answers are about the same rows
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
    columns = f"money(cost), COALESCE(SUM({UNKNOWN_COST}), 0)"
    amount, unknown = database.execute(f"SELECT {columns} FROM requests WHERE {condition}", values).fetchone()  # noqa: S608
    return Spent(Decimal(amount or 0), unknown)


def _newest_session(database: sqlite3.Connection) -> str:
    row = database.execute("SELECT session FROM requests ORDER BY time DESC LIMIT 1").fetchone()
    return str(row[0]) if row else ""


def _rows(database: sqlite3.Connection, columns: Mapping[str, str], clause: str, values: List[Any]) -> List[Json]:
    """Return the columns of each group; a sum of money that is missing only because there is nothing is 0."""
    found = database.execute(f"SELECT {', '.join(columns.values())} FROM requests {clause}", values)  # noqa: S608
    rows = [dict(zip(columns, row)) for row in found]
    for row in rows:
        if row["cost_usd"] is None and not row["unknown_cost_requests"]:
            row["cost_usd"] = "0"
    return rows
