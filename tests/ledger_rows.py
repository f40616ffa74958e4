"""Rows of the ledger, for tests."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, List

from ccproxy.accounting.ledgerfile import Row


def row(**fields: Any) -> Row:
    """A row of an answer that ended; ``fields`` says what is different."""
    usual = {
        "time": 1_700_000_000.0,
        "session": "s",
        "request_id": "req_1",
        "requested_model": "claude-sonnet-4-5",
        "model": "m",
        "provider": "p",
        "rule": "default",
        "input_tokens": 10,
        "cache_read_tokens": 2,
        "cache_write_tokens": 1,
        "output_tokens": 5,
        "thinking_tokens": 3,
        "cost": None,
        "claude_cost": None,
        "outcome": "ended",
        "status": 200,
        "first_content": 0.5,
        "duration": 1.0,
        "attempts": 1,
    }
    return Row(**{**usual, **fields})


def written(path: Path, column: str = "request_id") -> List[Any]:
    """What is in a column of the file, in the order of writing."""
    with closing(sqlite3.connect(str(path))) as database:
        return [value for (value,) in database.execute(f"SELECT {column} FROM requests ORDER BY rowid")]
