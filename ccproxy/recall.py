"""What was counted of the last conversations: of one that is sent again, only what is new is looked at.

Comparing JSON values that are equal takes less time than hashing their texts, and far less than walking their blocks.
"""

from __future__ import annotations

import threading
from typing import Any, Callable, List, NamedTuple, Optional, Tuple

from .tokens import Part

MOST_TOKENS = 3_000_000
MOST_ENTRIES = 100
_SPAN = 16  # values that are compared at once


class _Entry(NamedTuple):
    kind: Tuple[str, str]
    values: List[Any]
    parts: List[Part]
    tokens: float


class Recall:
    """Remembers the last lists of messages and tools with what each item counts, up to so many tokens in all."""

    def __init__(self, most_tokens: float = MOST_TOKENS, most_entries: int = MOST_ENTRIES) -> None:
        self._most_tokens, self._most_entries = most_tokens, most_entries
        self._entries_lock = threading.Lock()  # guards changes; who reads takes the list as it is
        self._entries: List[_Entry] = []

    def parts(self, kind: Tuple[str, str], values: List[Any], count: Callable[[int], Part]) -> List[Part]:
        """Return what each value counts, as ``tokens.each_part`` does, counting those that are new at their place.

        Args:
            kind: what is counted for which family.
            count: counts the value with that number.
        """
        if not values:
            return []
        last = self._last(kind, values[0])
        known = _known(last, values, count) if last is not None else []
        new = [count(number) for number in range(len(known), len(values))]
        tokens = (last.tokens if last is not None else 0.0) + sum(map(sum, new))
        self._keep(_Entry(kind, values, known + new, tokens), last)
        return known + new

    def _last(self, kind: Tuple[str, str], first: Any) -> Optional[_Entry]:
        entries = (entry for entry in reversed(self._entries) if entry.kind == kind)
        return next((entry for entry in entries if _are_equal(entry.values[0], first)), None)

    def _keep(self, entry: _Entry, last: Optional[_Entry]) -> None:
        with self._entries_lock:
            kept = [other for other in self._entries if other is not last]
            kept.append(entry)
            tokens = sum(other.tokens for other in kept)
            while len(kept) > 1 and (tokens > self._most_tokens or len(kept) > self._most_entries):
                tokens -= kept.pop(0).tokens
            self._entries = kept


def _known(last: _Entry, values: List[Any], count: Callable[[int], Part]) -> List[Part]:
    """Return the parts of the values that have one before them, in spans: most are equal as a whole."""
    parts: List[Part] = []
    for start in range(0, min(len(values), len(last.values)), _SPAN):
        before, now = last.values[start : start + _SPAN], values[start : start + _SPAN]
        if _are_equal(before, now):
            parts += last.parts[start : start + _SPAN]
            continue
        for number, (one, other) in enumerate(zip(before, now), start):
            parts.append(last.parts[number] if _are_equal(one, other) else count(number))
    return parts


def _are_equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except RecursionError:  # nested deeper than can be compared
        return False
