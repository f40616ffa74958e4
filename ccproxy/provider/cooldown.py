"""Models that keep failing rest for a while; a failure rate decides, not a single error."""

from __future__ import annotations

import threading
from array import array
from dataclasses import dataclass, field
from typing import Dict, Hashable

WINDOW = 60.0
LEAST_FAILURES = 3
FAILURE_RATE = 0.5
MOST_OUTCOMES = 100
MOST_MODELS = 1000
"""A client may name any model of a provider: beyond so many, the one known longest is forgotten."""
FIRST_REST = 15.0
LONGEST_REST = 300.0


@dataclass
class _State:
    times: array[float] = field(default_factory=lambda: array("d"))
    """When the last requests ended, the oldest first. No objects: these would be strewn over all the memory that many
    clients at once took, and keep it."""
    were_good: bytearray = field(default_factory=bytearray)
    """Which of them ended well."""
    failures: int = 0
    """Of them."""
    rest: float = 0.0
    rests_until: float = 0.0
    is_probed: bool = False


class Cooldown:
    """What the last minute of each model looked like; ``now`` is a clock that only runs forward."""

    def __init__(self) -> None:
        self._states: Dict[Hashable, _State] = {}
        self._states_lock = threading.Lock()

    def is_resting(self, key: Hashable, now: float) -> bool:
        """Whether a model is to be passed over. After each rest one request may try it; the others wait for that."""
        with self._states_lock:
            state = self._states.get(key)
            if state is None or not state.rest:
                return False
            if now < state.rests_until:
                return True
            state.is_probed = True
            state.rests_until = now + state.rest  # a probe that is never reported brings another one
            return False

    def rests_until(self, key: Hashable) -> float:
        """Return the time until which a model is passed over; of one that never rested long past."""
        with self._states_lock:
            state = self._states.get(key)
            return state.rests_until if state is not None else 0.0

    def report(self, key: Hashable, is_good: bool, now: float) -> None:
        """Take down how a request to a model ended."""
        with self._states_lock:
            state = self._states.setdefault(key, _State())
            if len(self._states) > MOST_MODELS:
                del self._states[next(iter(self._states))]
            if is_good and state.rest:
                self._states[key] = _State()
                return
            if state.is_probed and not is_good:
                self._rest(state, now)
                return
            if now < state.rests_until:
                return  # it was under way when the rest began
            state.times.append(now)
            state.were_good.append(is_good)
            state.failures += not is_good
            while state.times[0] < now - WINDOW or len(state.times) > MOST_OUTCOMES:
                state.times.pop(0)
                state.failures -= not state.were_good.pop(0)
            if state.failures >= max(LEAST_FAILURES, FAILURE_RATE * len(state.times)):
                self._rest(state, now)

    @staticmethod
    def _rest(state: _State, now: float) -> None:
        state.rest = min(LONGEST_REST, state.rest * 2 or FIRST_REST)
        state.rests_until = now + state.rest
        state.is_probed = False
        del state.times[:], state.were_good[:]
        state.failures = 0
