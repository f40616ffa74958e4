"""What the answers of each model taught about estimates, remembered in the ledger: for restarts and other processes.

An answer of this process counts at once. The ledger is read when the process is young, and later by a thread, once in
a while; what cannot be read is not known.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Deque, Dict, Iterable, Optional, Sized, Tuple

from ..accounting.ledgerfile import Row, bounded_name
from ..accounting.usage import LedgerUnreadable, open_ledger
from ..config.schema import Model
from .calibration import NONE, Correction, Sample, fit

log = logging.getLogger(__name__)

KEPT = 24
"""The newest samples of a model that count, with tools and without each."""
MAX_MODELS = 500
REFRESH_AFTER = 30.0
FIT_AFTER = 1.0
"""Seconds for which a correction by that many samples is good: one more moves it little, and a fit takes 0.3 ms."""
_READ = 5000  # rows
_READ_FIRST = 500
"""Rows that the first request waits for (2 ms, where all take 15); a thread reads them all beside the next one."""
_SELECT = """SELECT model, provider, estimate, input_tokens + cache_read_tokens + cache_write_tokens, has_tools
    FROM requests WHERE estimate IS NOT NULL ORDER BY time DESC LIMIT ?"""

_Key = Tuple[str, str]
_Samples = Dict[bool, Deque[Sample]]  # with tools and without, the oldest first


class Learned:
    """The corrections of all models; without a ledger, from the start of the process."""

    def __init__(self, path: Optional[Path]) -> None:
        self._path = path
        self._samples_lock = threading.Lock()  # guards changes of the samples, and of the corrections with them
        self._samples: Dict[_Key, _Samples] = {}
        self._corrections: Dict[_Key, Correction] = {}
        self._fitted: Dict[_Key, float] = {}
        self._read_at: Optional[float] = None

    def correction(self, model: Model) -> Correction:
        """Return what is made of estimates for a model."""
        if self._path is not None:
            self._keep_current()
        key = _key(model)
        known = self._corrections.get(key)
        if known is None and key in self._samples:
            with self._samples_lock:
                samples = [sample for alike in self._samples.get(key, {}).values() for sample in alike]
                known = self._corrections[key] = fit(samples)
                self._fitted[key] = time.monotonic()
        return known or NONE

    def is_settled(self, model: Model, has_tools: bool) -> bool:
        """Whether one more sample of a model would not be used, for there are enough, and the last fit is new."""
        key = _key(model)
        return self._is_settled(key, self._samples.get(key, {}).get(has_tools, ()))

    def _is_settled(self, key: _Key, alike: Sized) -> bool:
        return len(alike) == KEPT and time.monotonic() <= self._fitted.get(key, 0.0) + FIT_AFTER

    def add(self, row: Row) -> None:
        """Learn from an answer of this process, if it can be learned from."""
        if row.estimate is not None:
            sample = Sample(row.estimate, row.prompt_tokens, row.has_tools)
            with self._samples_lock:
                self._add((row.model, row.provider), sample)

    def forget(self) -> None:
        """Let go of what the ledger knows too: the next request reads it again."""
        if self._path is not None:
            with self._samples_lock:
                for known in (self._samples, self._corrections, self._fitted):
                    known.clear()
                self._read_at = None

    def _add(self, key: _Key, sample: Sample) -> None:
        alike = self._samples.setdefault(key, {}).setdefault(sample.has_tools, deque(maxlen=KEPT))
        is_settled = self._is_settled(key, alike)
        alike.append(sample)
        if len(self._samples) > MAX_MODELS:
            self._samples.pop(next(iter(self._samples)))
        if not is_settled:
            self._corrections.pop(key, None)

    def _keep_current(self) -> None:
        now = time.monotonic()
        if self._read_at is None:
            self._read_at = now
            if self._read(_READ_FIRST) == _READ_FIRST:
                self._read_at -= REFRESH_AFTER
        elif now - self._read_at >= REFRESH_AFTER:
            self._read_at = now
            with suppress(RuntimeError):  # out of threads: some later request tries again
                threading.Thread(target=self._read, args=[_READ], name="learned", daemon=True).start()

    def _read(self, most: int) -> int:
        """Read the newest rows; return how many there were."""
        try:
            with open_ledger(self._path) as database:
                rows = database.execute(_SELECT, [most]).fetchall()
        except LedgerUnreadable as error:  # a file of an older version, or none that can be read
            log.debug("%s: nothing is learned from it: %s", self._path, error.__cause__)
            return 0
        samples = _newest(rows)
        with self._samples_lock:
            self._samples.update(samples)  # the same mappings, for others would lie where a crowd's memory was
            for key in self._samples.keys() - samples.keys():
                del self._samples[key]
            self._corrections.clear()
            self._fitted.clear()
        return len(rows)


def _key(model: Model) -> _Key:
    return bounded_name(model.model_id), model.provider


def _newest(rows: Iterable[Tuple[str, str, int, int, int]]) -> Dict[_Key, _Samples]:
    """Return the samples that count of rows, newest first: those of each model from the oldest on."""
    found: Dict[_Key, _Samples] = {}
    for model, provider, estimate, actual, has_tools in rows:
        key, sample = (model, provider), Sample(estimate, actual, bool(has_tools))
        if key in found or len(found) < MAX_MODELS:
            alike = found.setdefault(key, {}).setdefault(sample.has_tools, deque(maxlen=KEPT))
            if len(alike) < KEPT:
                alike.appendleft(sample)
    return dict(reversed(list(found.items())))
