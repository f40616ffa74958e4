"""The soak test sees what it is there for: growth, cut and wrong answers, and answers that nobody recorded."""

from __future__ import annotations

import math
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, List

import pytest

from crowd import Levels
from killing import Kill
from soak import Findings, growing, report

FLAT = [Levels(8, 30, 100.0)] * 40


def rising(**per_sample: float) -> List[Levels]:
    """A process that takes up more with each sample."""
    return [
        Levels(
            8 + int(number * per_sample.get("threads", 0)),
            30 + int(number * per_sample.get("descriptors", 0)),
            100.0 + number * per_sample.get("memory", 0),
        )
        for number in range(40)
    ]


def findings(**fields: Any) -> Findings:
    """Those of a run in which all was well, but for some fields."""
    good = Findings(answered=["a", "b"], recorded=Counter("ab"), levels={"parent": FLAT, "worker": FLAT})
    good.found.update({"right: stream": 9, "killed: stream": 1})
    for name, value in fields.items():
        if name == "found":
            good.found.update(value)
        else:
            setattr(good, name, value)
    return good


def test_all_is_well() -> None:
    """Nothing grows, and what was cut had a worker that was killed."""
    text, code = report(findings(), 40)
    assert code == 0
    assert "worker, MiB by quarter:  100  100  100  100 " in text
    assert text.endswith('{"ok": true}')


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"found": {"cut: slow": 1}}, "cut: slow"),
        ({"found": {"wrong: whole": 1}}, "wrong: whole"),
        ({"recorded": Counter("a")}, "missing in the ledger"),
        ({"recorded": Counter("aab")}, "in the ledger twice"),
        ({"is_alive": False}, "ended"),
        ({"levels": {"worker": rising(memory=0.9)}}, "memory of the worker"),
        ({"levels": {"parent": rising(memory=0.9)}}, "memory of the parent"),
        ({"levels": {"parent": rising(descriptors=1)}}, "descriptors of the parent"),
        ({"levels": {"worker": rising(threads=1)}}, "threads of the worker"),
    ],
)
def test_what_is_not_well_is_told(fields: Any, told: str) -> None:
    """And the run fails."""
    text, code = report(findings(**fields), 40)
    assert code == 1
    assert any(line.startswith("FAILED") and told in line for line in text.splitlines()), text


SERVER = """
import os, socket, sys
listener, taken = socket.socket(), []
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
listener.bind(("127.0.0.1", int(sys.argv[1])))
listener.listen()
print(listener.getsockname()[1], flush=True)
while True:
    taken.append(listener.accept()[0])
    taken[-1].sendall(b"%d" % os.getpid())
"""


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="looks for connections in /proc")
def test_only_a_process_that_was_killed_excuses() -> None:
    """For the connections that it had, and those made while it died; not for those of others, before or after."""
    port, servers, clients = 0, {}, {}
    with ExitStack() as stack:
        for _ in range(2):
            server = stack.enter_context(
                subprocess.Popen([sys.executable, "-c", SERVER, str(port)], stdout=subprocess.PIPE, text=True)
            )
            stack.callback(server.kill)
            assert server.stdout is not None
            port, servers[server.pid] = int(server.stdout.readline()), server
        while len(clients) < 2:  # the system chooses who gets it
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            clients[int(client.recv(20))] = client.getsockname()[1]
        (dead, his), (_, other) = clients.items()
        before = time.monotonic()
        kill = Kill(dead, port)
        meanwhile = time.monotonic()
        kill.end()
        after = time.monotonic()
        assert servers[dead].wait(30) == -signal.SIGKILL
    assert kill.excuses(his, before, before)
    assert not kill.excuses(other, before, before)
    assert kill.excuses(other, meanwhile, math.inf)
    assert not kill.excuses(his, after, math.inf)  # another client has the port by then


def test_what_wavers_is_no_growth() -> None:
    """One large prompt more or less at the time of a sample says nothing."""
    wavering = [Levels(8 + number % 5, 30 + number % 7, 100.0 + number % 9) for number in range(40)]
    assert growing(wavering) == []


def test_what_fills_at_first_is_no_growth() -> None:
    """Caches fill; what is full in the second quarter may stay so."""
    filling = [Levels(8, 30, min(200.0, 100.0 + number * 10)) for number in range(60)]
    assert growing(filling) == []
