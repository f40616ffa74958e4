"""``Workers``: the processes that serve, forked from this one, watched and replaced.

They share one listening socket, which this process keeps as well. So a connection that waits to be accepted belongs to
all of them: it is not lost when one of them ends, and a busy one leaves it to the others. With a socket for each
(``SO_REUSEPORT``) it would be lost, or wait behind a worker that hangs, and a port in use would not be noticed.

This process has no threads, imports what a worker needs and loads the vocabulary before it forks: the workers share
that memory.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Callable, Deque, Dict, Optional

from .errors import CcproxyError
from .serving import SIGNALS

log = logging.getLogger(__name__)

SILENCE = 30.0
"""Seconds after which a worker that gives no sign of life is killed."""
YOUNG = 2.0
"""Seconds after its start within which the end of a worker counts as a crash at its start."""
CRASHES = 3
"""So many crashes for each worker within ``CRASH_PERIOD`` seconds end it all."""
CRASH_PERIOD = 30.0
_KILL_AFTER = 15.0
_POLL = 0.02


class CrashLoop(CcproxyError):
    """The workers end as soon as they are started."""


@dataclass
class Worker:
    """One process, and our end of the channel to it."""

    pid: int
    channel: socket.socket
    started: float = field(default_factory=time.monotonic)
    last_sign: float = field(default_factory=time.monotonic)

    def listen(self) -> None:
        """Take in its signs of life."""
        with suppress(BlockingIOError, ConnectionError):
            if self.channel.recv(4096):
                self.last_sign = time.monotonic()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def has_ended(self) -> Optional[str]:
        """Return how it ended, or None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            return None
        self.channel.close()
        code = os.waitstatus_to_exitcode(status)
        return f"with exit code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"


class Workers:
    """Several processes, as many as there should be at any time."""

    def __init__(
        self,
        count: int,
        listener: socket.socket,
        drain_timeout: float,
        work: Callable[[socket.socket], None],
        *,
        silence: float = SILENCE,
    ) -> None:
        """Take the socket they share, and what each of them does with its end of the channel to this process."""
        self._silence = silence
        self._count = count
        self._listener = listener
        self._drain_timeout = drain_timeout
        self._work = work
        self._workers: Dict[int, Worker] = {}
        self._crashes: Deque[float] = deque()

    def start(self) -> None:
        """Start them all."""
        gc.collect()
        gc.freeze()  # the collector of a worker leaves alone, and so shared, what is there by now
        while len(self._workers) < self._count:
            self._fork()

    def look(self) -> None:
        """Replace the workers that ended or hang.

        Raises:
            CrashLoop: replacing them is of no use.
        """
        for worker in list(self._workers.values()):
            worker.listen()
            if time.monotonic() > worker.last_sign + self._silence:
                log.warning("worker %d gives no sign of life: killing it", worker.pid)
                worker.signal(signal.SIGKILL)
            how = worker.has_ended()
            if how is not None:
                del self._workers[worker.pid]
                self._note_end(worker, how)
                self._fork()

    @property
    def is_alive(self) -> bool:
        """Whether connections are being accepted."""
        return any(time.monotonic() < worker.last_sign + self._silence / 3 for worker in self._workers.values())

    def stop(self) -> None:
        """End them; each gives its running requests time to end."""
        self._listener.close()
        for worker in self._workers.values():
            worker.signal(signal.SIGTERM)
        self._wait(self._drain_timeout + _KILL_AFTER)
        if self._workers:
            log.warning("workers did not end in time: killing them")
            self.kill()
            self._wait(_KILL_AFTER)

    def kill(self) -> None:
        """End them at once."""
        for worker in list(self._workers.values()):
            worker.signal(signal.SIGKILL)

    def _wait(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while self._workers and time.monotonic() < deadline:
            for worker in list(self._workers.values()):
                if worker.has_ended() is not None:
                    del self._workers[worker.pid]
            time.sleep(_POLL)

    def _note_end(self, worker: Worker, how: str) -> None:
        now = time.monotonic()
        log.warning(
            "worker %d ended %s after %.1f s; another one takes its place", worker.pid, how, now - worker.started
        )
        if now < worker.started + YOUNG:
            self._crashes.append(now)
        while self._crashes and self._crashes[0] < now - CRASH_PERIOD:
            self._crashes.popleft()
        if len(self._crashes) >= CRASHES * self._count:
            raise CrashLoop(f"the workers end as soon as they are started, the last one {how}: giving up")

    def _fork(self) -> None:
        ours, theirs = socket.socketpair()
        sys.stderr.flush()
        # A signal must not reach the new process before it has handlers of its own.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        pid = os.fork()
        if not pid:
            ours.close()
            self._be_worker(theirs)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        theirs.close()
        ours.setblocking(False)
        self._workers[pid] = Worker(pid, ours)
        log.info("worker %d started", pid)

    def _be_worker(self, channel: socket.socket) -> None:
        """Do the work, and never return."""
        code = 1
        try:
            for worker in self._workers.values():
                worker.channel.close()  # else a worker would not see the end of this process by the end of its channel
            self._work(channel)
            code = 0
        except BaseException:
            log.exception("a worker failed")
        finally:
            with suppress(OSError):
                sys.stderr.flush()
            os._exit(code)
