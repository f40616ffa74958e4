"""``Here``: the application and its server in this process; and what a worker process does with them."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import threading
import time
from contextlib import suppress
from typing import Any, Optional

from .app import App
from .config.load import state_folder
from .config.schema import Config
from .counter import Counter
from .ledger import Ledger
from .server import Server

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What ends a server, or tells it something."""
TICK = 0.2
"""Seconds between two looks of a main thread at what there is to do."""
_STUCK_AFTER = 5.0


class Here:
    """Serves in this process, in threads of its own."""

    def __init__(self, config: Config, listener: socket.socket, counter: Optional[Counter] = None) -> None:
        """Take a counter whose vocabulary is loaded already; without one, it is loaded after the start."""
        self.app = App(config, Ledger(state_folder(config, os.environ)), counter)
        self._is_loaded = counter is not None
        self._server = Server(self.app, config.host, config.port, listener)

    def start(self) -> None:
        """Begin to accept connections."""
        accept = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="accept", daemon=True)
        accept.start()
        if not self._is_loaded:
            self.app.counter.load_in_background()

    def look(self) -> None:
        """Nothing is to be done from outside."""

    @property
    def is_alive(self) -> bool:
        """Whether connections are being accepted."""
        return time.monotonic() < self._server.last_turn + _STUCK_AFTER

    def stop(self) -> None:
        """Give running requests time to end, and let go of everything."""
        timeout = self.app.config.drain_timeout
        if not self._server.stop(timeout):
            log.warning("requests were still running after %g s and were cut", timeout)
        self.app.close()

    def kill(self) -> None:
        """Nothing is left behind when this process ends."""


def work(config: Config, listener: socket.socket, counter: Counter, channel: socket.socket) -> None:
    """Serve as one of several workers, until SIGTERM or the end of the process at the other side of the channel.

    Through the channel goes a byte each moment: this worker is well. ``SIGNALS`` are blocked when it begins.
    """
    stopping = threading.Event()

    def on_signal(number: int, frame: Any) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, on_signal)  # also a second one: who cannot wait sends SIGKILL
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to all; the parent says what follows
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    here = Here(config, listener, counter)
    here.start()
    channel.setblocking(False)
    while not stopping.is_set():
        if here.is_alive:
            with suppress(BlockingIOError):
                channel.send(b".")
        if select.select([channel], [], [], TICK)[0] and not channel.recv(4096):
            break
    here.stop()
