"""One thread that looks after all running requests; it lives while there are any."""

from __future__ import annotations

import logging
import socket
import threading
from typing import List, Optional

import pytest

from ccproxy.watch import Watch
from processes import eventually


class Item:
    """Something watched; ``seen`` is what was called."""

    def __init__(self, connection: Optional[socket.socket] = None, fault: Optional[Exception] = None) -> None:
        self.seen: List[str] = []
        self._connection, self._fault = connection, fault

    def fileno(self) -> int:
        """The client's socket."""
        return self._connection.fileno() if self._connection is not None else -1

    def tick(self, now: float) -> None:
        """Note it; fail where that is the test."""
        self.seen.append("tick")
        if self._fault is not None:
            raise self._fault

    def on_gone(self) -> None:
        """Note it."""
        self.seen.append("gone")
        if self._fault is not None:
            raise self._fault


class Broken(Item):
    """One of which nothing can be found out."""

    def fileno(self) -> int:
        """Fail."""
        raise RuntimeError("no socket")


def ticks(item: Item, count: int = 2) -> None:
    """Wait until an item was looked at some more times."""
    already = len(item.seen)
    eventually(lambda: len(item.seen) >= already + count, "it is looked at")


def watchers() -> int:
    """How many watching threads there are."""
    return sum(thread.name == "watch" for thread in threading.enumerate())


def test_one_thread_for_all() -> None:
    """It starts with the first, ends after the last, and starts again."""
    eventually(lambda: watchers() == 0, "the threads of other tests end")
    watch = Watch()
    for _ in range(2):
        items = [Item() for _ in range(5)]
        for item in items:
            watch.add(item)
        for item in items:
            ticks(item)
        assert watchers() == 1
        assert set(watch.all()) == set(items)
        for item in items:
            watch.remove(item)
        assert watch.all() == []
        eventually(lambda: watchers() == 0, "the thread ends")


def test_a_client_that_left() -> None:
    """Is told once; the others are looked after."""
    near, far = socket.socketpair()
    with near:
        watch, leaver, other = Watch(), Item(near), Item()
        watch.add(leaver)
        watch.add(other)
        ticks(leaver)
        far.close()
        eventually(lambda: "gone" in leaver.seen, "the end is noticed")
        ticks(other)
        assert leaver.seen.count("gone") == 1
        assert leaver.seen[-1] == "gone"
        watch.remove(leaver)
        watch.remove(other)


def test_a_client_that_says_more_has_not_left() -> None:
    """The next request, sent early, is no goodbye."""
    near, far = socket.socketpair()
    with near, far:
        watch, item = Watch(), Item(near)
        watch.add(item)
        far.sendall(b"GET / HTTP/1.1\r\n")
        ticks(item, 3)
        watch.remove(item)
    assert set(item.seen) == {"tick"}


def test_a_socket_that_is_closed_here() -> None:
    """Is not asked about any more."""
    near, far = socket.socketpair()
    far.close()
    near.close()
    watch, item = Watch(), Item(near)
    watch.add(item)
    ticks(item)
    watch.remove(item)


def test_a_fault_of_one_is_not_the_others() -> None:
    """What raises is watched no more; the thread goes on."""
    near, far = socket.socketpair()
    far.close()
    with near:
        watch, other = Watch(), Item()
        bad = [Item(fault=RuntimeError("no")), Item(near, fault=RuntimeError("no"))]
        for item in (*bad, other):
            watch.add(item)
        ticks(other, 3)
        assert [item.seen for item in bad] == [["tick"], ["gone"]]
        assert watch.all() == [other]
        watch.remove(other)


def test_no_thread_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request is served unwatched then; with the next one, both are looked after."""
    watch, first, second = Watch(), Item(), Item()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        watch.add(first)
    watch.add(second)
    for item in (first, second):
        ticks(item)
        watch.remove(item)


def test_a_look_that_fails_is_not_the_last(caplog: pytest.LogCaptureFixture) -> None:
    """The log says why, and whatever can be looked after is, from the next look on."""
    watch, broken, other = Watch(), Broken(), Item()
    with caplog.at_level(logging.ERROR):
        watch.add(broken)
        watch.add(other)
        eventually(lambda: "no socket" in caplog.text, "it is told")
        watch.remove(broken)
        ticks(other)
    assert watchers() == 1
    watch.remove(other)


def test_what_is_removed_is_not_looked_at() -> None:
    """From the moment ``remove`` returns, for its socket may belong to somebody else."""
    watch, stays, removed = Watch(), Item(), [Item() for _ in range(50)]
    watch.add(stays)
    for item in removed:
        watch.add(item)
    ticks(stays)
    for item in removed:
        watch.remove(item)
    seen = [len(item.seen) for item in removed]
    ticks(stays)
    assert [len(item.seen) for item in removed] == seen
    watch.remove(stays)
