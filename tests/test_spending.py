"""The sums behind the budgets: exact, shared through the ledger, and never read again for each request."""

from __future__ import annotations

import time
from decimal import Decimal
from pathlib import Path
from typing import Any, List

import pytest

from ccproxy.accounting import spending
from ccproxy.accounting.budget import Spent
from ccproxy.accounting.ledger import Ledger
from ccproxy.accounting.ledgerfile import Row
from ccproxy.accounting.spending import Spending
from ledger_rows import row
from processes import eventually

NOON = time.mktime((2026, 3, 4, 12, 0, 0, 0, 0, -1))
_numbers = iter(range(10**9))


def paid(cost: str, session: str = "s", at: float = NOON, **fields: Any) -> Row:
    return row(
        cost=Decimal(cost) if cost else None, session=session, time=at, request_id=f"req_{next(_numbers)}", **fields
    )


def ledger_with(folder: Path, *rows: Row) -> Path:
    """Write rows, as another process would."""
    ledger = Ledger(folder, keep_days=10**6)
    for item in rows:
        ledger.add(item)
    assert ledger.flush(10)
    ledger.close()
    return ledger.path


def amounts(found: Spending, session: str = "s") -> List[str]:
    return [str(sum_.amount) for sum_ in found.of(session).values()]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for news at every request."""
    monkeypatch.setattr(spending, "REFRESH_AFTER", -1.0)


def test_what_was_spent_before_the_start_counts(tmp_path: Path) -> None:
    """Today by the local calendar, and a session over all its days."""
    path = ledger_with(tmp_path, paid("0.1"), paid("0.2", "t"), paid("0.4", at=NOON - 86400))
    found = Spending(path, lambda: NOON)
    assert found.of("s") == {"today": Spent(Decimal("0.3")), "session": Spent(Decimal("0.5"))}
    assert found.of("t")["session"] == Spent(Decimal("0.2"))
    assert found.of("never seen")["session"] == Spent()
    assert list(found.of("")) == ["today"]


def test_unknown_costs_are_counted_apart(tmp_path: Path) -> None:
    """Answers without a price, and those that were cut; not what failed before its first content."""
    failed = paid("", outcome="failed", first_content=None)
    path = ledger_with(tmp_path, paid("0.1"), paid(""), paid("", outcome="cancelled"), failed)
    assert Spending(path, lambda: NOON).of("s")["today"] == Spent(Decimal("0.1"), 2)


def test_an_own_row_counts_at_once_and_once(tmp_path: Path, at_once: None) -> None:
    """Before it is in the file, and not again when it is read from there."""
    found = Spending(ledger_with(tmp_path, paid("0.1")), lambda: NOON)
    assert amounts(found) == ["0.1", "0.1"]
    own = paid("0.2")
    found.add(own)
    assert amounts(found) == ["0.3", "0.3"]
    ledger_with(tmp_path, own, paid("0.4"))
    eventually(lambda: amounts(found) == ["0.7", "0.7"], "the other's row is read")
    assert amounts(found) == ["0.7", "0.7"]


def test_the_file_is_not_read_for_each_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once at the first request, once for each session; news at most once in the time given."""
    opened: List[Any] = []
    really = spending.open_ledger
    monkeypatch.setattr(spending, "open_ledger", lambda path: opened.append(path) or really(path))
    monkeypatch.setattr(spending, "REFRESH_AFTER", 3600.0)
    path = ledger_with(tmp_path, paid("0.1"))
    found = Spending(path, lambda: NOON)
    for _ in range(100):
        found.of("s")
        found.add(paid("0.1"))
    # Servers of other tests, in their last moments, look into files of their own.
    eventually(lambda: opened.count(path) == 3, "begin, session and the first look for news")
    for _ in range(100):
        found.of("s")
        found.of("t")
    assert opened.count(path) == 4


def test_a_new_day_begins_anew(tmp_path: Path) -> None:
    """The session goes on."""
    now = [NOON]
    found = Spending(ledger_with(tmp_path, paid("0.1")), lambda: now[0])
    assert amounts(found) == ["0.1", "0.1"]
    now[0] += 86400
    assert amounts(found) == ["0", "0.1"]


def test_another_file_is_another_sum(tmp_path: Path, at_once: None) -> None:
    """A ledger that was moved aside takes its sums along."""
    path = ledger_with(tmp_path, paid("0.1"), paid("0.1"))
    found = Spending(path, lambda: NOON)
    assert amounts(found) == ["0.2", "0.2"]
    for name in ("usage.db", "usage.db-wal", "usage.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    ledger_with(tmp_path, paid("0.5"))
    eventually(lambda: amounts(found) == ["0.5", "0.5"], "the new file is read")


def test_a_file_that_cannot_be_read_is_told_once(tmp_path: Path, at_once: None, caplog: Any) -> None:
    """Requests go on; what this process spends is counted, and all of it once the file is mended."""
    path = tmp_path / "usage.db"
    path.write_bytes(b"no database" * 1000)
    found = Spending(path, lambda: NOON)
    assert amounts(found) == ["0", "0"]
    found.add(paid("0.2"))
    assert amounts(found) == ["0.2", "0.2"]
    eventually(lambda: "cannot be read" in caplog.text, "the log says so")
    path.unlink()
    ledger_with(tmp_path, paid("0.5"))
    eventually(lambda: amounts(found) == ["0.5", "0.5"], "the mended file is read")
    assert caplog.text.count("cannot be read") == 1


def test_the_sessions_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is forgotten is read again when it comes back."""
    monkeypatch.setattr(spending, "MAX_SESSIONS", 2)
    found = Spending(ledger_with(tmp_path, paid("0.1", "a"), paid("0.2", "b"), paid("0.3", "c")), lambda: NOON)
    for session, amount in (("a", "0.1"), ("b", "0.2"), ("c", "0.3"), ("a", "0.1")):
        assert amounts(found, session)[1] == amount


def test_the_sum_is_exact(tmp_path: Path) -> None:
    """A thousand times a tenth of a dollar, which no binary float holds, is a hundred."""
    path = ledger_with(tmp_path, *(paid("0.1") for _ in range(1000)))
    assert {sum_.amount for sum_ in Spending(path, lambda: NOON).of("s").values()} == {Decimal(100)}
