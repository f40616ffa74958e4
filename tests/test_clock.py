"""Durations are measured by a clock that nobody sets: the wall clock is for what is written down."""

from __future__ import annotations

import ast
import itertools
import time
from pathlib import Path
from typing import Dict, List, Set

import pytest

from ccproxy.accounting.ledger import Ledger
from faults import END, FaultyProvider, Plan, chunk, head, latency, whole
from fixed_provider import STREAM
from ledger_rows import written
from replay import post
from support import running_proxy, user
from test_layers import MODULES

# Who asks what time of day it is, and what for.
WALL_CLOCK = {
    "commands.stats": "the day that is today",
    "handlers.dashboard": "when a request began, for its reader",
    "handlers.record": "the time in the ledger",
    "handlers.usage": "the day that is today",
    "accounting.ledgerfile": "rows that are older than 400 days",
    "outgoing": "the date header",
    "provider.client": "a date in Retry-After",
    "provider.fallback": "a date in Retry-After",
    "server": "the date header",
    "accounting.spending": "the day that is today",
    "stub": "the creation time that a completion tells",
    "accounting.usage": "the day of a row",
}
_READS = {"time.time", "time.time_ns", "time.localtime", "time.gmtime", "datetime.now", "datetime.today", "date.today"}


def readers() -> Set[str]:
    """The modules that look at the wall clock; ``perf`` names its reports by it."""
    found = set()
    for name, tree in MODULES.items():
        calls = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, (ast.Attribute, ast.Name))}
        if calls & _READS:
            found.add(name)
    return {name for name in found if not name.startswith("perf")}


def test_the_wall_clock_is_for_timestamps() -> None:
    """Each module that reads it is in the table, with its reason, which is no duration."""
    assert readers() == set(WALL_CLOCK)


def test_a_clock_that_is_set_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a year, forth and back, at every look: retries, pings and answers are what they are, and so are durations."""
    real, jumps = time.time, itertools.cycle([0.0, 3e7, -3e7, 6e7])
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    plans: List[Plan] = [whole(503, b"{}", retry_after="0"), [head(), latency(0.4), chunk(STREAM), END]]
    settings: Dict[str, str] = {"MAX_RETRIES": "2", "COMMIT_AFTER": "0.05", "PING_INTERVAL": "0.05"}
    ledger = Ledger(tmp_path)
    with FaultyProvider(*plans) as provider:
        model = {"model_id": "m", "api_base": provider.url, "dialect": "generic"}
        with running_proxy({"ROUTER_DEFAULT": "m", **settings}, [model], ledger) as proxy:
            began = time.monotonic()
            replies = [post(proxy.url, user(stream=True)) for _ in range(4)]
            took = time.monotonic() - began
    assert all(reply.complete and b"message_stop" in reply.body for reply in replies)
    assert all(b"event: ping" in reply.body for reply in replies)
    assert len(provider.attempts) == 5
    durations = written(ledger.path, "duration")
    firsts = written(ledger.path, "first_content")
    assert len(durations) == len(firsts) == 4
    assert all(0.3 < first <= duration <= took for first, duration in zip(firsts, durations))
