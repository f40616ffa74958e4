"""``Workers``: the processes that serve, forked from this one, watched and replaced.

They share one listening socket, which this process keeps as well. So a connection that waits to be accepted belongs to
all of them: it is not lost when one of them ends, and a busy one leaves it to the others. With a socket for each
(``SO_REUSEPORT``) it would be lost, or wait behind a worker that hangs, and a port in use would not be noticed.

This process has no threads, imports what a worker needs and loads the vocabulary before it forks: the workers share
that memory.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Callable, ClassVar, Deque, Dict, Optional, Sequence, Set

from .. import __name__ as PACKAGE
from ..config.reload import ConfigStore
from ..counting.counter import Counter
from ..errors import CrashLoop
from ..log import configure
from .background import environment
from .listener import INHERITED
from .serving import SIGNALS, work

log = logging.getLogger(__name__)

SILENCE = 30.0
"""Seconds after which a worker that gives no sign of life is killed."""
YOUNG = 2.0
"""Seconds after its start within which the end of a worker counts as a crash at its start."""
CRASHES = 3
"""So many crashes for each worker within ``CRASH_PERIOD`` seconds end it all."""
CRASH_PERIOD = 30.0
START_PAUSE = 1.0
"""Seconds until one that could not be started is tried again."""
_KILL_AFTER = 15.0
_POLL = 0.02


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

    def tell(self, *message: str) -> None:
        """Send it a word, and what belongs to it; a worker that lets messages pile up hangs."""
        try:
            self.channel.send(json.dumps(message).encode() + b"\n")
        except BlockingIOError:
            self.signal(signal.SIGKILL)
        except ConnectionError:
            pass  # it ends

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
    """Several processes, as many as there should be at any time; ``retire``d, as many as still have a client."""

    _channels: ClassVar[Set[socket.socket]] = set()
    """Our ends of all channels."""

    def __init__(
        self,
        store: ConfigStore,
        work: Callable[[socket.socket], None],
        spawn: Callable[[socket.socket], int],
        *,
        silence: float = SILENCE,
    ) -> None:
        """Take what each of them does with its end of the channel to this process.

        Args:
            work: does it, in a process that was forked.
            spawn: starts a process that does it, where forking is not safe, and returns its pid.
        """
        self._store = store
        self._count = store.config.workers
        self._work = work
        self._spawn = spawn
        self._silence = silence
        self._is_retired = False
        self._workers: Dict[int, Worker] = {}
        self._crashes: Deque[float] = deque()
        self._start_at = 0.0

    def start(self) -> None:
        """Start them all."""
        gc.collect()
        gc.freeze()  # the collector of a worker leaves alone, and so shared, what is there by now
        while len(self._workers) < self._count:
            self._start_one()

    def update(self) -> None:
        """Let them read the configuration, which was found valid."""
        self._tell("reload")

    def tell_problem(self) -> None:
        """Let them know what is wrong with the files."""
        self._tell("problem", self._store.problem)

    def _tell(self, *message: str) -> None:
        for worker in self._workers.values():
            worker.tell(*message)

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
                self._forget(worker)
                if not self._is_retired:
                    self._note_end(worker, how)
        if not self._is_retired and time.monotonic() >= self._start_at:
            self._fill()

    def _fill(self) -> None:
        try:
            while len(self._workers) < self._count:
                self._start_one()
        except OSError as error:  # no memory, say, which may have ended the last one
            log.warning("no worker can be started, trying again: %s", error.strerror)
            self._start_at = time.monotonic() + START_PAUSE

    @property
    def is_alive(self) -> bool:
        """Whether connections are being accepted."""
        return any(time.monotonic() < worker.last_sign + self._silence / 3 for worker in self._workers.values())

    def retire(self) -> None:
        """Let others accept connections; these processes serve their clients to the end, and end."""
        self._is_retired = True
        self._tell("retire")

    @property
    def is_gone(self) -> bool:
        """Whether nothing is left to do after ``retire``."""
        return not self._workers

    def stop(self) -> None:
        """End them; each gives its running requests time to end."""
        for worker in self._workers.values():
            worker.signal(signal.SIGTERM)
        self._wait(self._store.config.drain_timeout + _KILL_AFTER)
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
                    self._forget(worker)
            time.sleep(_POLL)

    def _forget(self, worker: Worker) -> None:
        del self._workers[worker.pid]
        self._channels.discard(worker.channel)

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

    def _start_one(self) -> None:
        ours, theirs = socket.socketpair()
        self._channels.add(ours)
        sys.stderr.flush()
        # A signal must not reach the new process before it has handlers of its own.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            pid = self._fork(theirs) if threading.active_count() == 1 else self._spawn(theirs)
        except OSError:
            self._channels.discard(ours)
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            theirs.close()
        ours.setblocking(False)
        self._workers[pid] = Worker(pid, ours)
        log.info("worker %d started", pid)

    def _fork(self, channel: socket.socket) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            for other in self._channels:
                other.close()  # else a worker would not see the end of this process by the end of its channel
            self._work(channel)
            code = 0
        except BaseException:
            log.exception("a worker failed")
        finally:
            with suppress(OSError):
                sys.stderr.flush()
            os._exit(code)


def spawn(arguments: Sequence[str], listener: socket.socket, channel: socket.socket) -> int:
    """Start ``serve`` as a worker in a process of its own making, with the same options; return its pid.

    A process that has threads cannot be forked safely: a lock that one of them holds would stay locked for ever.
    """
    descriptors = [os.dup(listener.fileno()), os.dup(channel.fileno())]
    try:
        for descriptor in descriptors:
            os.set_inheritable(descriptor, True)
        command = [sys.executable, "-m", PACKAGE, "serve", *arguments]
        variables = {**environment(), INHERITED: ",".join(map(str, descriptors))}
        return os.posix_spawn(sys.executable, command, variables)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def serve_inherited(store: ConfigStore, descriptors: str) -> int:
    """Be a worker that was started by ``spawn``."""
    listener, channel = (socket.socket(fileno=int(descriptor)) for descriptor in descriptors.split(","))
    for each in (listener, channel):
        os.set_inheritable(each.fileno(), False)
    listener.setblocking(False)
    configure(store.config, lambda: store.secrets, os.environ)
    counter = Counter()
    counter.load()
    work(store, listener, counter, channel)
    return 0
