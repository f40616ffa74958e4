"""The kill of a process that serves connections, and which of them it cut."""

from __future__ import annotations

import math
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Set

from processes import eventually

ESTABLISHED = "01"


class Kill:
    """One process's end: it alone excuses what was cut."""

    def __init__(self, pid: int, port: int) -> None:
        """Stop it, so that what it has now is what it dies with. ``port`` is the one it serves at."""
        self._pid = pid
        self._began, self._ended = time.monotonic(), math.inf
        os.kill(pid, signal.SIGSTOP)
        eventually(lambda: " T " in Path(f"/proc/{pid}/stat").read_text(), "it stops")
        self._clients = clients_of(pid, port)

    def end(self) -> None:
        """Let it die, until its socket takes no more connections."""
        os.kill(self._pid, signal.SIGKILL)
        eventually(lambda: not sockets_of(self._pid), "it is dead")
        self._ended = time.monotonic()

    def excuses(self, port: int, started: float, connected: float) -> bool:
        """Whether it cut the connection of a client's port, made between two moments: the process had it, or got it
        while it died."""
        is_meanwhile = started <= self._ended and connected >= self._began
        return is_meanwhile or (port in self._clients and started <= self._began)


def sockets_of(pid: int) -> Set[str]:
    """The inodes of a process's sockets; none when it ended."""
    with suppress(OSError):
        links = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")]
        return {link[len("socket:[") : -1] for link in links if link.startswith("socket:")}
    return set()


def clients_of(pid: int, port: int) -> Set[int]:
    """The ports of the clients that a process has at a port, and of those that no process has taken yet."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = sockets_of(pid) | {"0"}
    here = [row for row in rows if int(row[1][-4:], 16) == port and row[3] == ESTABLISHED]
    return {int(row[2][-4:], 16) for row in here if row[9] in inodes}
