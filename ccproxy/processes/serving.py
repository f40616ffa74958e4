"""``Here``: the application and its server in this process; and what a worker process does with them."""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import socket
import threading
import time
from contextlib import suppress
from typing import Any, List, Optional

from .. import log
from ..accounting.ledger import Ledger
from ..app import App
from ..config.load import state_folder
from ..config.reload import ConfigStore
from ..counting.counter import Counter
from ..server import Server

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What ends a server, or tells it something."""
_TICK = 0.2
"""Seconds between two looks of a worker at what there is to do."""
_STUCK_AFTER = 5.0


class Here:
    """Serves in this process, in threads of its own, until it is stopped or, ``retire``d, the last client left."""

    def __init__(self, store: ConfigStore, listener: socket.socket, counter: Optional[Counter] = None) -> None:
        """Take a counter whose vocabulary is loaded already; without one, it is loaded after the start."""
        self._store = store
        self.app = App(store.config, Ledger(state_folder(store.config, os.environ)), counter)
        self.app.config_problem = store.problem
        self._is_counter_loaded = counter is not None
        self._server = Server(self.app, store.config.host, store.config.port, listener.dup())
        self._is_retired = False

    def start(self) -> None:
        """Begin to accept connections."""
        accept = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="accept", daemon=True)
        accept.start()
        if not self._is_counter_loaded:
            self.app.counter.load_in_background()

    def update(self) -> None:
        """Take the configuration in force for new requests; those in flight keep theirs."""
        self.app.config, self.app.config_problem = self._store.config, self._store.problem

    def tell_problem(self) -> None:
        """Take what is wrong with the files."""
        self.app.config_problem = self._store.problem

    def look(self) -> None:
        """Nothing is to be done from outside."""

    @property
    def is_alive(self) -> bool:
        """Whether connections are being accepted, or need not be any more."""
        return self._is_retired or time.monotonic() < self._server.last_turn + _STUCK_AFTER

    def retire(self) -> None:
        """Let others accept connections, and serve those that are there to their end."""
        self._is_retired = True
        self._server.retire()

    @property
    def is_gone(self) -> bool:
        """Whether nothing is left to do after ``retire``."""
        return self._is_retired and self._server.is_empty

    def stop(self) -> None:
        """Give running requests time to end, and let go of everything."""
        timeout = self.app.config.drain_timeout
        if not self._server.stop(timeout):
            logger.warning("requests were still running after %g s and were cut", timeout)
        self.app.close()

    def kill(self) -> None:
        """Nothing is left behind when this process ends."""


def work(store: ConfigStore, listener: socket.socket, counter: Counter, channel: socket.socket) -> None:
    """Serve as one of several workers, until SIGTERM or the end of the process at the other side of the channel.

    To there goes a byte each moment: this worker is well. From there come lines of JSON: a word, and what belongs to
    it. ``SIGNALS`` are blocked when it begins.
    """
    is_stopping = False

    def on_signal(number: int, frame: Any) -> None:
        nonlocal is_stopping
        is_stopping = True

    signal.signal(signal.SIGTERM, on_signal)  # also a second one: who cannot wait sends SIGKILL
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to all; the parent says what follows
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    here = Here(store, listener, counter)
    listener.close()  # the server has its own
    here.start()
    channel.setblocking(False)
    unread = b""
    while not is_stopping and not here.is_gone:
        if here.is_alive:
            with suppress(BlockingIOError, ConnectionError):
                channel.send(b".")
        if select.select([channel], [], [], _TICK)[0]:
            received = b""
            with suppress(ConnectionError):  # the other side was killed, with signs of life unread
                received = channel.recv(4096)
            if not received:
                break
            *lines, unread = (unread + received).split(b"\n")
            for line in lines:
                _obey(json.loads(line), store, here)
    here.stop()


def _obey(message: List[str], store: ConfigStore, here: Here) -> None:
    word = message[0]
    if word == "reload":
        store.follow()
        log.configure(store.config, lambda: store.secrets, os.environ)
        here.update()
    elif word == "problem":
        store.problem = message[1]
        here.tell_problem()
    elif word == "retire":
        here.retire()
