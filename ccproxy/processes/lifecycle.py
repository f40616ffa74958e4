"""The life of a server: it starts, follows its configuration and its signals, restarts in parts, and ends.

What serves is a ``Serving``: this process, or workers. A change that new requests can simply take is handed to it. A
change of address, of the number of workers or of the state folder starts another one beside it; the old one accepts
no more and serves its clients to the end. The listening socket is kept across, unless the address is another one, so
there is no moment without one.
"""

from __future__ import annotations

import gc
import ipaddress
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, List, Optional, Protocol, Sequence

from .. import log
from ..config.load import Loaded, state_folder
from ..config.reload import ConfigStore
from ..config.schema import Config
from ..counting.counter import Counter
from ..errors import ConfigError, CrashLoop
from .listener import inherited, listen, url_of
from .notify import Notifier

logger = logging.getLogger(__name__)

_TICK = 0.2
"""Seconds between two looks at what there is to do."""


class Serving(Protocol):
    """What answers the requests."""

    def start(self) -> None:
        """Begin to accept connections."""

    def update(self) -> None:
        """Take the configuration in force for new requests."""

    def tell_problem(self) -> None:
        """Take what is wrong with the files of the configuration."""

    def look(self) -> None:
        """Do what is due."""

    @property
    def is_alive(self) -> bool:
        """Whether connections are being accepted."""

    def retire(self) -> None:
        """Accept no more, and serve those that are there to their end."""

    @property
    def is_gone(self) -> bool:
        """Whether, after ``retire``, they have all come to it."""

    def stop(self) -> None:
        """Give running requests time to end, and let go of everything."""

    def kill(self) -> None:
        """End at once what would go on without this process."""


class Life:
    """One server, from its first configuration to its end; everything happens in the main thread."""

    def __init__(self, store: ConfigStore, arguments: Sequence[str], parent: Optional[int] = None) -> None:
        """Listen.

        Args:
            arguments: the options of ``serve``, for processes that are started anew.
            parent: the process with which this one ends.

        Raises:
            ConfigError: the address cannot be had.
        """
        self._store = store
        self._arguments = arguments
        self._parent = parent
        self._notifier = Notifier(os.environ)
        self._given = inherited(os.environ)
        self._check_address(store.config)
        self._listener = self._given or _listen(store.config)
        self._configure_log()
        _load_application()
        self._serving = self._new_serving()
        self._retired: List[Serving] = []
        self._is_stopping = False
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._has_terminal = _has_terminal()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_end)
        signal.signal(signal.SIGHUP, self._on_hangup)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, as some launchers leave it, no worker's end is told

    def run(self) -> int:
        """Serve until a signal; return the exit code."""
        self._tell_address()
        self._store.loaded.log_warnings()
        self._serving.start()
        self._notifier.tell("READY=1", f"STATUS=listening on {url_of(self._listener)}")
        code = 0
        try:
            while self._goes_on():
                self._look()
        except CrashLoop as error:
            logger.critical("%s", error)
            code = 1
        self._stop()
        return code

    def _goes_on(self) -> bool:
        """Wait a moment, or until a signal ends the server; return whether none did.

        A signal may come while an event's lock is held, which its handler would wait for without end. Putting something
        into a ``SimpleQueue`` may interrupt everything. One that another thread receives ends no longer wait.
        """
        with suppress(queue.Empty):
            self._wake.get(timeout=_TICK)
        return not self._is_stopping

    def _look(self) -> None:
        for serving in [self._serving, *self._retired]:
            serving.look()
        for serving in [serving for serving in self._retired if serving.is_gone]:
            self._retired.remove(serving)
            serving.stop()
        if self._parent not in (None, os.getppid()):  # its children get another parent when it ends
            self._end()
        if self._serving.is_alive:
            self._notifier.ping(time.monotonic())
        is_asked = self._store.is_asked
        if is_asked:
            self._notifier.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        self._follow_files()
        if is_asked:
            self._notifier.tell("READY=1", f"STATUS={self._store.problem or 'the configuration was read again'}")

    def _follow_files(self) -> None:
        problem = self._store.problem
        loaded = self._store.poll(time.monotonic())
        if loaded is not None:
            self._take(loaded)
        elif self._store.problem != problem:
            self._serving.tell_problem()

    # --- changes of the configuration --------------------------------------------------------------------------

    def _take(self, loaded: Loaded) -> None:
        """Take a configuration as a whole, or not at all."""
        old, new = self._store.config, loaded.config
        is_moved = (old.host, old.port) != (new.host, new.port) and self._given is None
        try:
            self._check_address(new)
            state_folder(new, os.environ)  # it says so where nothing tells one
            listener = _listen(new) if is_moved else self._listener
        except ConfigError as error:
            self._store.refuse(str(error))
            self._serving.tell_problem()
            return
        self._store.accept(loaded)
        self._configure_log()
        logger.info("the configuration was read again: %d models", len(new.models))
        loaded.log_warnings()
        if is_moved or (old.workers, old.state_dir) != (new.workers, new.state_dir):
            self._restart(listener)
        else:
            self._serving.update()

    def _restart(self, listener: socket.socket) -> None:
        """Let another ``Serving`` take over."""
        old, before = self._serving, self._listener
        self._listener = listener
        if before is not listener:
            before.close()  # the old one has its own; processes that start now must not get this one
        self._serving = self._new_serving()
        self._serving.start()
        if before is not listener:
            self._tell_address()
        logger.info("starting again; requests that run go on to their end")
        old.retire()
        self._retired.append(old)

    def _new_serving(self) -> Serving:
        from .serving import Here, work

        store, listener = self._store, self._listener
        if store.config.workers == 1:
            return Here(store, listener)
        from .workers import Workers, spawn

        counter = Counter()
        counter.load()  # what is loaded before a fork is there once
        return Workers(
            store,
            lambda channel: work(store, listener, counter, channel),
            lambda channel: spawn(self._arguments, listener, channel),
        )

    def _check_address(self, config: Config) -> None:
        check_address(config, self._given.getsockname()[0] if self._given else config.host)

    def _configure_log(self) -> None:
        log.configure(self._store.config, lambda: self._store.secrets, os.environ)

    def _tell_address(self) -> None:
        with suppress(OSError):  # the console of a full disk; past its buffer, which would be tried again
            os.write(sys.stderr.fileno(), f"ccproxy listening on {url_of(self._listener)}\n".encode())
        if log.RUN_FOLDER in os.environ:
            with suppress(OSError):
                Path(os.environ[log.RUN_FOLDER], log.RUN_URL).write_text(url_of(self._listener), encoding="ascii")

    # --- the end -----------------------------------------------------------------------------------------------

    def _on_end(self, number: int, frame: Any) -> None:
        """The first signal drains, the second one ends at once."""
        if self._is_stopping:
            for serving in [self._serving, *self._retired]:
                serving.kill()
            os._exit(128 + number)
        self._end()

    def _end(self) -> None:
        self._is_stopping = True
        self._wake.put(None)

    def _on_hangup(self, number: int, frame: Any) -> None:
        """SIGHUP reads the configuration again; unless it says that our terminal was closed."""
        if self._has_terminal and not _has_terminal():
            self._on_end(number, frame)
        else:
            self._store.ask()

    def _stop(self) -> None:
        self._notifier.tell("STOPPING=1")
        logger.info("stopping: running requests have %g s to end", self._store.config.drain_timeout)
        self._listener.close()
        threads = []
        for serving in [self._serving, *self._retired]:
            thread = threading.Thread(target=serving.stop)
            try:
                thread.start()
                threads.append(thread)
            except RuntimeError:  # no thread is left
                serving.stop()
        for thread in threads:
            while thread.is_alive():
                thread.join(_TICK)
                self._notifier.ping(time.monotonic())  # TimeoutStopSec ends an end that takes too long


def _load_application() -> None:
    """Import what serves: half of a start, and the socket listens already, so clients wait for it and are not refused.

    What is imported stays: the collector need not look through it, now (20 ms) or later. Requests comes first, for in
    the depth of our own modules' imports Python 3.11 to 3.13 map and unmap a piece of stack for every call there is in
    compiling the expressions of urllib3 (3000 times, 40 ms).
    """
    gc.disable()
    import requests  # noqa: F401

    from . import serving  # noqa: F401

    gc.freeze()
    gc.enable()


def check_address(config: Config, host: str) -> None:
    """Refuse to show the owner's keys to a network without a token."""
    if config.ccproxy_auth_token or host == "localhost":
        return
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ConfigError(f"HOST {host} is not a loopback address: set CCPROXY_AUTH_TOKEN to listen there")


def _listen(config: Config) -> socket.socket:
    try:
        return listen(config.host, config.port)
    except OSError as error:
        reason = str(error.strerror or error).partition(" (while attempting")[0]  # Python's says the address again
        raise ConfigError(f"cannot listen on {config.host} port {config.port}: {reason}") from None


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal, from which Ctrl-C may come."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
