"""One thread that looks after all running requests: clients that left, silence, deadlines.

Handler threads wait in reads of a provider's socket and can do nothing else meanwhile. A look at every running request
each quarter of a second costs less than a thread, or a timer, for each of them.
"""

from __future__ import annotations

import logging
import select
import threading
import time
from contextlib import suppress
from typing import Dict, List, Protocol, Set

log = logging.getLogger(__name__)

TICK = 0.25
# A client that closed its side; Linux tells it apart from one that merely sends more.
_GONE = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR | select.POLLNVAL


class Watched(Protocol):
    """What can be watched. The calls come from the watching thread and must not block."""

    def fileno(self) -> int:
        """Return the client's socket, or -1."""

    def tick(self, now: float) -> None:
        """Do what is due."""

    def on_gone(self) -> None:
        """The client left."""


class Watch:
    """The thread; it lives while something is watched."""

    def __init__(self) -> None:
        self._watched: Set[Watched] = set()
        self._watched_lock = threading.Lock()
        self._is_running = False

    def add(self, item: Watched) -> None:
        """Watch something, until it is removed."""
        with self._watched_lock:
            self._watched.add(item)
            if not self._is_running:
                with suppress(RuntimeError):  # no thread is left; the next one that is added tries again
                    threading.Thread(target=self._run, name="watch", daemon=True).start()
                    self._is_running = True

    def remove(self, item: Watched) -> None:
        """Stop watching; its socket may be closed from now on."""
        with self._watched_lock:
            self._watched.discard(item)

    def all(self) -> List[Watched]:
        """Return what is watched now."""
        with self._watched_lock:
            return list(self._watched)

    def _run(self) -> None:
        while True:
            time.sleep(TICK)
            with self._watched_lock:
                if not self._watched:
                    self._is_running = False
                    return
                try:
                    self._look(time.monotonic())
                except Exception:  # a thread's top: the next look may find more, and nobody would look in its place
                    log.exception("a look at the running requests failed")

    def _look(self, now: float) -> None:
        poll = select.poll()
        by_socket: Dict[int, Watched] = {}
        for item in list(self._watched):
            descriptor = item.fileno()
            if descriptor >= 0:
                by_socket[descriptor] = item
                poll.register(descriptor, _GONE)
        left = {by_socket[descriptor] for descriptor, _ in poll.poll(0)}
        for item in list(self._watched):
            try:
                if item in left:
                    self._watched.discard(item)
                    item.on_gone()
                else:
                    item.tick(now)
            except Exception:
                log.exception("watching a request failed")
                self._watched.discard(item)
