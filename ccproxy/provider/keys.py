"""Several keys of one provider: used in turn; one that is refused or throttled rests."""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import DefaultDict, Dict, Sequence, Tuple

REFUSED_REST = 300.0
THROTTLED_REST = 30.0


class KeyRing:
    """Remembers, per variable, whose turn it is and which keys rest; ``now`` is a clock that only runs forward."""

    def __init__(self) -> None:
        self._turns: DefaultDict[str, int] = defaultdict(int)
        self._rests: Dict[Tuple[str, str], float] = {}
        self._turns_lock = threading.Lock()

    def choose(self, name: str, keys: Sequence[str], now: float) -> str:
        """Return the next key that does not rest; when all do, the one whose rest ends first."""
        if len(keys) == 1:
            return keys[0]
        with self._turns_lock:
            turn = self._turns[name]
            self._turns[name] += 1
            order = [keys[(turn + step) % len(keys)] for step in range(len(keys))]
            awake = [key for key in order if self._rests.get((name, key), 0.0) <= now]
            return awake[0] if awake else min(order, key=lambda key: self._rests[name, key])

    def rest(self, name: str, key: str, until: float) -> None:
        """Let a key rest."""
        with self._turns_lock:
            self._rests[name, key] = until

    def has_awake(self, name: str, keys: Sequence[str], now: float) -> bool:
        """Whether any key could be used now."""
        with self._turns_lock:
            return any(self._rests.get((name, key), 0.0) <= now for key in keys)
