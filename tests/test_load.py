"""A thousand streams at once in one process: all come to their end, and the process is as small after as before."""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from pathlib import Path
from typing import List

import pytest

from ccproxy.processes.listener import raise_descriptor_limit
from crowd import Levels, PacedProvider, connect, health_times, is_whole, stream
from processes import configuration, running, serve_command

STREAMS, IDLE, WORDS, INTERVAL = 1000, 2000, 12, 1.0
MEMORY_PER_STREAM = 0.3
"""MiB."""
MEMORY_KEPT = 20 if sys.version_info[:2] == (3, 10) else 12
"""MiB, the most that a process may keep: some 7 of 90, 13 in 3.10; nearly all of them where nothing is given back."""
HEALTH_WITHIN = 5.0
"""Seconds: one on a machine that has nothing else to do, which tests cannot count on."""
RETURN_WITHIN = 20.0
"""Seconds: fifteen, and some for a machine that runs other tests as well."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads threads and memory from /proc"),
]


def test_a_thousand_streams_and_two_thousand_idle_connections(tmp_path: Path) -> None:
    """All streams are whole, /health answers meanwhile, memory stays small, and all goes back to idle, each time."""
    raise_descriptor_limit()
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 3 * (STREAMS + IDLE):
        pytest.skip("this system does not allow as many descriptors")
    print(asyncio.run(load(tmp_path)))


async def load(folder: Path) -> str:
    """Do it; return what was measured."""
    async with PacedProvider(WORDS, INTERVAL) as provider:
        variables = configuration(folder, provider.url)
        with running(serve_command("--port", "0"), folder, variables) as process:
            url = process.address()
            assert is_whole(await stream(url, "warm up"), WORDS)
            idle_level = Levels.of(process.popen.pid)
            silent = [await connect(url) for _ in range(IDLE)]
            before = Levels.of(process.popen.pid)
            done = asyncio.Event()
            health = asyncio.ensure_future(health_times(url, done))
            started = time.monotonic()
            tasks = [asyncio.ensure_future(stream(url, f"client {number}")) for number in range(STREAMS)]
            peak = await peak_of(process.popen.pid, tasks)
            answers = await asyncio.gather(*tasks)
            took = time.monotonic() - started
            done.set()
            times = sorted(await health)
            for _, writer in silent:
                writer.close()
            wanted = Levels(*(level + kept for level, kept in zip(vars(idle_level).values(), (10, 10, MEMORY_KEPT))))
            after = await level_after(process.popen.pid, wanted)
            again = await asyncio.gather(*(stream(url, f"again {number}") for number in range(STREAMS)))
            second = await level_after(process.popen.pid, wanted)
            assert process.popen.poll() is None
    p99 = times[int(len(times) * 0.99)]
    per_stream = (peak.memory - before.memory) / STREAMS
    report = (
        f"{STREAMS} streams in {took:.1f} s, /health p99 {p99:.3f} s of {len(times)}, {per_stream:.3f} MiB per stream, "
        f"idle {idle_level}, peak {peak}, after {after}, after as many again {second}"
    )
    for round_ in (answers, again):
        assert sum(is_whole(answer, WORDS) for answer in round_) == STREAMS, report
    assert p99 < HEALTH_WITHIN, report
    assert per_stream <= MEMORY_PER_STREAM, report
    for level in (after, second):
        assert level.is_within(wanted), report
    return report


async def peak_of(pid: int, tasks: List[asyncio.Future[bytes]]) -> Levels:
    """Watch a process until the tasks are done; return the most that it took up."""
    peak = Levels.of(pid)
    while not all(task.done() for task in tasks):
        now = Levels.of(pid)
        peak = Levels(*(max(pair) for pair in zip(vars(peak).values(), vars(now).values())))
        await asyncio.sleep(0.2)
    return peak


async def level_after(pid: int, wanted: Levels) -> Levels:
    """Wait until a process is within a level, or for as long as that may take."""
    deadline = time.monotonic() + RETURN_WITHIN
    while not Levels.of(pid).is_within(wanted) and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    return Levels.of(pid)
