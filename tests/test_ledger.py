"""The ledger: whatever happens to its file, no request notices, and no row is lost that can be kept."""

from __future__ import annotations

import json
import logging
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest

from ccproxy.accounting import journal
from ccproxy.accounting import ledger as ledger_module
from ccproxy.accounting.ledger import QUEUE_SIZE, Ledger
from ccproxy.accounting.ledgerfile import MIGRATIONS
from ccproxy.encoded import dump_ascii
from ledger_rows import row, written
from processes import PATIENCE, environment, eventually

NOW = time.time()
Open = Callable[..., Ledger]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens ledgers in one folder, and closes them."""
    ledgers: List[Ledger] = []

    def open_ledger(**options: float) -> Ledger:
        ledgers.append(Ledger(tmp_path / "state", **{"busy_timeout": 0.05, **options}))  # type: ignore[arg-type]
        return ledgers[-1]

    yield open_ledger
    for ledger in ledgers:
        ledger.close()


def add(ledger: Ledger, *ids: str) -> None:
    """Record requests of now and wait for the writer."""
    for name in ids:
        ledger.add(row(request_id=name, time=NOW))
    assert ledger.flush(PATIENCE)


def test_a_row_is_kept_as_it_was(opened: Open) -> None:
    """Every column comes back, the cost to its last decimal."""
    ledger = opened()
    ledger.add(row(time=NOW, cost=Decimal("0.000000123"), claude_cost=Decimal("1E-9"), first_content=None))
    assert ledger.flush(PATIENCE)
    with closing(sqlite3.connect(str(ledger.path))) as database:
        database.row_factory = sqlite3.Row
        (found,) = [dict(line) for line in database.execute("SELECT * FROM requests")]
    assert found["cost"] == "0.000000123"
    assert found["claude_cost"] == "0.000000001"
    assert found["first_content"] is None
    assert (found["session"], found["rule"], found["output_tokens"]) == ("s", "default", 5)


def test_nothing_is_made_before_the_first_row(opened: Open) -> None:
    """Neither a folder nor a thread; and closing what was never used is nothing."""
    ledger = opened()
    ledger.close()
    assert not ledger.path.parent.exists()


def test_only_the_owner_can_read_it(opened: Open) -> None:
    """Folder 0700, files 0600, whatever the umask."""
    old = os.umask(0)
    try:
        ledger = opened()
        add(ledger, "a")
    finally:
        os.umask(old)
    assert stat.S_IMODE(ledger.path.parent.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in ledger.path.parent.iterdir()}
    assert modes == dict.fromkeys(["usage.db", "usage.db-wal", "usage.db-shm"], 0o600)


def test_the_first_row_for_a_while_is_written_at_once(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that follow it come together, unless somebody waits for them."""
    monkeypatch.setattr(ledger_module, "WRITE_EVERY", 2 * PATIENCE)
    ledger = opened()
    ledger.add(row(time=NOW, request_id="first"))

    def has_row() -> bool:
        with suppress(sqlite3.OperationalError):  # the table is being made
            return ledger.path.exists() and written(ledger.path) == ["first"]
        return False

    eventually(has_row, "the row is written")
    for number in "23":
        ledger.add(row(time=NOW, request_id=number))
    assert written(ledger.path) == ["first"]
    assert ledger.flush(PATIENCE)
    assert written(ledger.path) == ["first", "2", "3"]


def test_close_writes_what_is_there(opened: Open) -> None:
    """No row is lost at a regular end."""
    ledger = opened()
    for number in range(1200):
        ledger.add(row(time=NOW, request_id=str(number)))
    ledger.close()
    assert written(ledger.path) == [str(number) for number in range(1200)]


def test_old_rows_are_removed_at_the_start(opened: Open) -> None:
    """After the retention, counted back from the newest of an earlier day; younger ones stay."""
    ledger = opened()
    for days in (403, 401, 2):
        ledger.add(row(time=NOW - days * 86400, request_id=f"{days} days"))
    ledger.close()
    assert written(ledger.path) == ["403 days", "401 days", "2 days"]
    add(opened(), "new")
    assert written(ledger.path) == ["401 days", "2 days", "new"]


@pytest.mark.parametrize("jump", [14 * 365, -50 * 365])
def test_a_clock_that_jumps_removes_nothing(opened: Open, monkeypatch: pytest.MonkeyPatch, jump: int) -> None:
    """Though requests are written meanwhile, several processes start, and others do when it is right again."""
    add(opened(), "before")
    with monkeypatch.context() as wrong:
        wrong.setattr(time, "time", lambda: NOW + jump * 86400)
        for name in ("first", "second"):
            ledger = opened()
            ledger.add(row(time=time.time(), request_id=name))
            ledger.close()
    add(opened(), "after")
    assert {"before", "after"} <= set(written(ledger.path))


def test_an_older_file_is_brought_up_to_date(tmp_path: Path) -> None:
    """Each missing step is taken once, and the rows stay."""
    ledger = Ledger(tmp_path)
    add(ledger, "before")
    ledger.close()
    steps = (*MIGRATIONS, ("ALTER TABLE requests ADD COLUMN note TEXT NOT NULL DEFAULT ''",))
    for name in ("after", "again"):
        ledger = Ledger(tmp_path, migrations=steps)
        add(ledger, name)
        ledger.close()
    assert written(ledger.path) == ["before", "after", "again"]
    assert written(ledger.path, "note") == ["", "", ""]
    with closing(sqlite3.connect(str(ledger.path))) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)


def test_a_newer_file_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A version that this ccproxy does not know is not written, and not taken for damage."""
    newer = Ledger(tmp_path, migrations=(*MIGRATIONS, ("ALTER TABLE requests ADD COLUMN note TEXT",)))
    add(newer, "newer")
    newer.close()
    older = Ledger(tmp_path)
    add(older, "older")
    older.close()
    assert written(older.path) == ["newer"]
    assert sorted(path.name for path in tmp_path.iterdir() if "damaged" in path.name) == []
    assert f"it has version {len(MIGRATIONS) + 1}, this ccproxy knows {len(MIGRATIONS)}" in caplog.text


def warnings(caplog: pytest.LogCaptureFixture) -> List[str]:
    """The warnings so far."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_locked_database_is_waited_for(opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    """Adding does not wait; one warning for the whole outage; all rows are there in the end."""
    ledger = opened()
    add(ledger, "0")
    with closing(sqlite3.connect(str(ledger.path), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for number in range(1, 21):
            started = time.monotonic()
            ledger.add(row(time=NOW, request_id=str(number)))
            assert time.monotonic() - started < 0.5
            ledger.flush(1)
        assert [text for text in warnings(caplog) if "locked" in text] == warnings(caplog)
        assert len(warnings(caplog)) == 1
        other.execute("ROLLBACK")
    eventually(lambda: len(written(ledger.path)) == 21, "the rows are written")
    assert written(ledger.path) == [str(number) for number in range(21)]
    eventually(lambda: "0 rows were lost" in warnings(caplog)[-1], "it is said")


@pytest.mark.parametrize("damage", ["no database", "half a database"])
def test_a_damaged_file_is_moved_aside(opened: Open, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    """Its owner may still want it; the rows go into a new one."""
    first = opened()
    add(first, *map(str, range(300)))
    first.close()
    data = first.path.read_bytes()
    page = int.from_bytes(data[16:18], "big")
    bad = b"no database " * 1000 if damage == "no database" else data[:page] + b"\xff" * (len(data) - page)
    first.path.write_bytes(bad)
    second = opened()
    add(second, "new")
    assert written(second.path) == ["new"]
    (aside,) = second.path.parent.glob("usage.db.damaged-*")
    assert aside.read_bytes() == bad
    assert "moved aside" in warnings(caplog)[0]


def test_damage_while_it_is_in_use(opened: Open) -> None:
    """The row at hand is not lost either."""
    ledger = opened()
    add(ledger, "a")
    ledger.path.with_name("usage.db-wal").unlink()
    ledger.path.unlink()
    ledger.path.write_bytes(b"x" * 5000)
    add(ledger, "b")
    assert written(ledger.path) == ["b"]


def test_a_file_that_was_removed_is_made_again(opened: Open) -> None:
    """Rows do not go into a file that nobody can find."""
    ledger = opened()
    add(ledger, "a")
    for path in ledger.path.parent.iterdir():
        path.unlink()
    add(ledger, "b")
    assert written(ledger.path) == ["b"]


def test_a_folder_that_cannot_be_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One warning, and nothing else."""
    (tmp_path / "file").write_text("")
    ledger = Ledger(tmp_path / "file" / "state")
    for number in range(50):
        add(ledger, str(number))
    ledger.close()
    assert len([text for text in warnings(caplog) if "cannot be recorded" in text]) == 1
    assert "50 rows could not be written" in warnings(caplog)[-1]


def test_a_value_that_cannot_be_stored_holds_nothing_up(opened: Open) -> None:
    """The rows that come later are written."""
    ledger = opened()
    add(ledger, "a")
    ledger.add(row(time=NOW, request_id="b", input_tokens=10**30))
    assert ledger.flush(PATIENCE)
    add(ledger, "c")
    assert written(ledger.path) == ["a", "c"]


def test_the_queue_is_bounded(opened: Open) -> None:
    """While nothing can be written, memory is not filled without end, and adding goes on at once."""
    ledger = opened(busy_timeout=30)
    add(ledger, "a")
    with closing(sqlite3.connect(str(ledger.path), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        for number in range(QUEUE_SIZE + 2000):
            ledger.add(row(time=NOW, request_id=str(number)))
        assert time.monotonic() - started < 10
        other.execute("ROLLBACK")
    assert ledger.flush(PATIENCE)
    ledger.close()
    assert QUEUE_SIZE <= len(written(ledger.path)) < QUEUE_SIZE + 2001


# --- several processes ----------------------------------------------------------------------------------------

WRITER = """
import sys, time
from pathlib import Path
from ccproxy.accounting.ledger import Ledger
from ledger_rows import row
name, count = sys.argv[2], int(sys.argv[3])
ledger = Ledger(Path(sys.argv[1]))
for number in range(count):
    ledger.add(row(time=time.time(), session=name, request_id=str(number)))
    if number % 50 == 0:
        assert ledger.flush(30)
        print(number, flush=True)
ledger.close()
"""


def writer(folder: Path, name: str, count: int, before: str = "") -> subprocess.Popen[str]:
    """Start a process that records ``count`` requests and tells which of them are certain."""
    command = [sys.executable, "-c", before + WRITER, str(folder), name, str(count)]
    variables = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}
    return subprocess.Popen(command, env=environment(folder, variables), stdout=subprocess.PIPE, text=True)


def test_several_processes_share_it(tmp_path: Path) -> None:
    """Processes that start together make one file, and every row of each is in it, in order."""
    names = ["a", "b", "c"]
    children = [writer(tmp_path, name, 500) for name in names]
    for child in children:
        child.communicate(timeout=PATIENCE * 2)
        assert child.returncode == 0
    with closing(sqlite3.connect(str(tmp_path / "usage.db"))) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for name in names:
            found = database.execute("SELECT request_id FROM requests WHERE session = ? ORDER BY rowid", [name])
            assert [int(number) for (number,) in found] == list(range(500))


def test_a_killed_process_takes_nothing_with_it(tmp_path: Path) -> None:
    """After ``kill -9`` in the middle of writing, all that was written is there and the next process goes on."""
    child = writer(tmp_path, "killed", 10_000_000)
    assert child.stdout
    certain = [int(next(child.stdout)) for _ in range(5)][-1]
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    after = writer(tmp_path, "after", 100)
    after.communicate(timeout=PATIENCE)
    assert after.returncode == 0
    with closing(sqlite3.connect(str(tmp_path / "usage.db"))) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        found = [
            int(number) for (number,) in database.execute("SELECT request_id FROM requests WHERE session = 'killed'")
        ]
        assert found == list(range(len(found)))
        assert len(found) > certain
        assert database.execute("SELECT COUNT(*) FROM requests WHERE session = 'after'").fetchone() == (100,)


def test_a_full_disk(tmp_path: Path) -> None:
    """Where the file cannot grow the process goes on, and what was written before stays readable."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
    child = writer(tmp_path, "full", 5000, before=limit)
    child.communicate(timeout=PATIENCE * 2)
    assert child.returncode == 0
    with closing(sqlite3.connect(str(tmp_path / "usage.db"))) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert 0 < database.execute("SELECT COUNT(*) FROM requests").fetchone()[0] < 5000


# --- rows on their way ------------------------------------------------------------------------------------------


KILLED = """
import os, signal, sys, time
from pathlib import Path
from ccproxy.accounting import ledger
from ledger_rows import row
ledger.WRITE_EVERY = 60
found = ledger.Ledger(Path(sys.argv[1]))
found._written_at = time.monotonic()
for number in range(20):
    found.add(row(time=time.time(), request_id=f"killed{number}"))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_added_outlives_its_process(tmp_path: Path, opened: Open) -> None:
    """Killed before its writer wrote anything: the next writer finds the rows, once, and leaves no file behind."""
    state = tmp_path / "state"
    command = [sys.executable, "-c", KILLED, str(state)]
    assert subprocess.run(command, env=environment(tmp_path, {}), check=False).returncode == -signal.SIGKILL
    assert len(list(state.glob("*.rows"))) == 1
    ledger = opened()
    assert ledger.flush(PATIENCE)
    assert written(ledger.path) == [f"killed{number}" for number in range(20)]
    assert list(state.glob("*.rows")) == []


def test_what_is_there_already_is_not_written_twice(opened: Open) -> None:
    """A process may be killed after it wrote its rows and before it removed their file."""
    first = opened()
    add(first, "a", "b")
    leftover = first.path.with_name(f"{first.path.name}-999999-1.rows")
    lines = [dump_ascii(row(request_id=name, time=NOW, cost=Decimal("0.1")).values) for name in ("b", "c")]
    damaged = ["5", "null", '"x"', '{"cost": "much"}', '{"time": []}', lines[0].replace("0.1", "O.1"), lines[0][:30]]
    leftover.write_text(journal._NAMES + "\n".join([*lines, *damaged]), encoding="utf-8")
    older = {**vars(row(request_id="d", time=NOW)), "cost": "0.1", "claude_cost": None}
    leftover.with_name(f"{first.path.name}-999999-2.rows").write_text(json.dumps(older) + "\n", encoding="utf-8")
    assert first.flush(PATIENCE)
    assert sorted(written(first.path)) == ["a", "b", "c", "d"]
    assert not leftover.exists()


@pytest.mark.parametrize(
    "odd",
    [
        {"input_tokens": 10**30},
        {"input_tokens": "many"},
        {"input_tokens": None},
        {"input_tokens": True},
        {"time": "today"},
        {"time": float("inf")},
        {"session": [1]},
        {"session": "\ud800"},
        {"cost": "NaN"},
        {"cost": "1e999999"},
        {"of_tomorrow": 1},
    ],
    ids=str,
)
def test_a_line_that_is_no_row_holds_nothing_up(
    odd: Dict[str, Any], opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """Its file is kept aside, which is told once; the other rows, before and after it, get into the ledger."""
    ledger = opened()
    leftover = ledger.path.with_name(f"{ledger.path.name}-999999-1.rows")
    leftover.parent.mkdir()
    rows = [{**vars(row(request_id=name, time=NOW)), **more} for name, more in (("a", {}), ("b", odd), ("c", {}))]
    content = "".join(f"{json.dumps(one)}\n" for one in rows)
    leftover.write_text(content, encoding="utf-8")
    add(ledger, "d")
    add(ledger, "e")
    assert written(ledger.path) == ["a", "c", "d", "e"]
    assert leftover.with_name(f"{leftover.name}.damaged").read_text(encoding="utf-8") == content
    assert [line for line in warnings(caplog) if ".rows" in line] == [
        f"{leftover}: lines that are no rows: 1; it is kept as {leftover.name}.damaged"
    ]


def test_rows_of_a_process_that_lives_are_left_to_it(opened: Open) -> None:
    """Its lock says so."""
    one, other = opened(), opened()
    add(one, "a")
    one._journal.append(row(request_id="b", time=NOW))
    add(other, "c")
    assert written(other.path) == ["a", "c"]
    assert len(list(other.path.parent.glob("*.rows"))) == 1


def test_the_journal_leaves_nothing_behind(opened: Open) -> None:
    """Once its rows are in the ledger."""
    ledger = opened()
    for number in range(50):
        add(ledger, str(number))
    ledger.close()
    assert sorted(path.name for path in ledger.path.parent.iterdir()) == ["usage.db"]
