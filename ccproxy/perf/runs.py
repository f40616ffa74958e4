"""The load: pairs of requests, one each way, in turns and from several threads."""

from __future__ import annotations

import queue
import threading
from typing import Iterator, Sequence, Tuple, Union

from ..errors import CcproxyError
from .sample import Sample
from .ways import Way

Pair = Tuple[Sample, Sample]
"""The direct request and the proxied one."""


class NoAnswer(CcproxyError):
    """One of the ways gives no answer at all, so there is nothing to measure."""


def warm_up(ways: Tuple[Way, Way], names: Sequence[str], times: int) -> None:
    """Ask each way a few times, so that connections, caches and repairs are in place.

    Raises:
        NoAnswer: every attempt at one of the ways failed.
    """
    for way, name in zip(ways, names):
        samples = [way.warm_up() for _ in range(times)]
        if all(sample.error for sample in samples):
            raise NoAnswer(f"{name}: no answer in {times} attempts: {samples[-1].error}")


def run_pairs(ways: Tuple[Way, Way], pairs: int, concurrency: int) -> Iterator[Pair]:
    """Yield each pair when it is through; every second one begins with the proxied request.

    The threads are daemons: whoever stops reading does not wait for answers that are still coming.
    """
    numbers = iter(range(pairs))
    numbers_lock = threading.Lock()
    done: queue.Queue[Union[Pair, Exception]] = queue.Queue()

    def work() -> None:
        try:
            while True:
                with numbers_lock:
                    number = next(numbers, None)
                if number is None:
                    return
                first, second = (way.ask() for way in (reversed(ways) if number % 2 else ways))
                done.put((second, first) if number % 2 else (first, second))
        except Exception as error:  # noqa: BLE001 - a thread's top; raised where the pairs are read
            done.put(error)

    for number in range(min(concurrency, pairs)):
        threading.Thread(target=work, name=f"perf-{number}", daemon=True).start()
    for _ in range(pairs):
        found = done.get()
        if isinstance(found, Exception):
            raise found
        yield found
