"""``OpenStreams``: one thread that carries the streams under way, whose handler threads sleep meanwhile.

A chunk that a thread of its own reads, translates and writes costs three hand-overs of the interpreter's lock and two
switches of threads, twice as much as the work itself. So a handler thread that has sent the begin of a stream gives it
away, and takes it back for all that is not plain: its end, a failure, a provider that is silent too long, a client
that takes no more. Nothing is read for that one until it does.

Where there is no epoll (macOS), and for a body that its socket does not tell everything about (compressed, without
chunks), the handler threads do it all.
"""

from __future__ import annotations

import logging
import select
import threading
import time
from contextlib import suppress
from typing import Any, Dict, Optional

from .outgoing import ClientLine
from .web import Source, Stream

log = logging.getLogger(__name__)

TICK = 0.25
"""Seconds between looks at who was silent too long; the thread ends when it has nothing to do for one."""


class _Carried:
    """One stream while it is carried."""

    def __init__(self, body: Stream, source: Source, line: ClientLine) -> None:
        self._body, self._source, self._line = body, source, line
        self._last = time.monotonic()
        self._away = threading.Lock()  # held until it is given back; an event is seven objects
        self._away.acquire()
        self._fault: Optional[Exception] = None
        self.is_registered = False

    def turn(self, now: float) -> bool:
        """Pass on what has come; return whether the stream can be carried on."""
        self._last = now
        try:
            part = self._body.plain() if self._source.is_dry else b""
            if part:
                return self._line.write_now(self._line.chunk(part))
            while True:
                part = next(self._body)
                if part and not self._line.write_now(self._line.chunk(part)):
                    return False
                if self._body.source is None:
                    return False
                if self._source.is_dry:
                    return True
        except StopIteration:
            return False  # the handler thread will be told so again
        except Exception as fault:  # noqa: BLE001 - the handler thread's; the other streams go on
            self._fault = fault
            return False

    def is_silent(self, now: float) -> bool:
        """Whether nothing came for too long."""
        return self.is_registered and now >= self._last + self._source.patience

    def give_back(self) -> None:
        """Let the handler thread go on."""
        self._away.release()

    def wait(self) -> None:
        """Sleep until the stream is given back."""
        self._away.acquire()

    def take_back(self) -> None:
        """Prepare to go on without the others; raise what went wrong."""
        self._source.wait_again(time.monotonic() - self._last)
        if self._fault is not None:
            try:
                raise self._fault
            finally:
                self._fault = None  # it knows this call, and what knows itself is left to the collector
        self._line.write(b"")  # what the client did not take


class OpenStreams:
    """The thread; it lives while there are streams."""

    def __init__(self) -> None:
        self._carried: Dict[int, _Carried] = {}
        self._carried_lock = threading.Lock()
        self._epoll: Any = None

    def carry(self, body: Stream, line: ClientLine) -> None:
        """Pass the parts of a body on as they come; return when the next one is the caller's to make.

        Raises:
            Exception: what the body or the client's connection raised.
        """
        source = body.source
        if source is None or not hasattr(select, "epoll"):
            return
        descriptor = source.stop_waiting()
        if descriptor < 0:
            return
        carried = _Carried(body, source, line)
        if carried.turn(time.monotonic()) and self._add(descriptor, carried):
            carried.wait()
        carried.take_back()

    def _add(self, descriptor: int, carried: _Carried) -> bool:
        with self._carried_lock:
            self._carried[descriptor] = carried  # first: its turn may come at once
            try:
                if self._epoll is None:
                    epoll = select.epoll()
                    threading.Thread(target=self._run, args=(epoll,), name="streams", daemon=True).start()
                    self._epoll = epoll
            except (OSError, RuntimeError):  # no descriptor or thread is left
                del self._carried[descriptor]
                return False
            epoll = self._epoll
        try:
            # Not under the lock: it lets other threads run, and many streams that begin would wait for each other.
            epoll.register(descriptor, select.EPOLLIN)
        except OSError:  # the system allows no more
            del self._carried[descriptor]
            return False
        carried.is_registered = True
        return True

    def _run(self, epoll: Any) -> None:
        try:
            self._carry_all(epoll)
        except Exception:  # a thread's top
            log.exception("streams are carried by their own threads")
            with self._carried_lock:
                self._epoll, carried = None, list(self._carried.values())
                self._carried.clear()
            for stream in carried:
                stream.give_back()

    def _carry_all(self, epoll: Any) -> None:
        looked = time.monotonic()
        while True:
            ready = epoll.poll(TICK)
            now = time.monotonic()
            for descriptor, _ in ready:
                carried = self._carried.get(descriptor)
                if carried is None or not carried.turn(now):
                    self._remove(epoll, descriptor)
            if now >= looked + TICK:
                looked = now
                for descriptor, carried in list(self._carried.items()):
                    if carried.is_silent(now):
                        self._remove(epoll, descriptor)
                with self._carried_lock:
                    if not self._carried and not ready:
                        self._epoll = None
                        epoll.close()
                        return

    def _remove(self, epoll: Any, descriptor: int) -> None:
        """Give a stream back; its socket is open until then, so its number is nobody else's."""
        with suppress(OSError):  # it is closed already
            epoll.unregister(descriptor)
        carried = self._carried.pop(descriptor, None)
        if carried is not None:
            carried.give_back()
