"""``Totals``: what rows of the ledger add up to, to the last decimal."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Dict, List, Optional

from .ledgerfile import UNKNOWN_COST
from .pricing import plain

# What is counted: how SQLite does it for rows that belong together.
COUNTS: Dict[str, str] = {
    "requests": "COUNT(*)",
    "errors": "SUM(outcome = 'failed')",
    "cancelled": "SUM(outcome = 'cancelled')",
    "attempts": "SUM(attempts)",
    "input_tokens": "SUM(input_tokens)",
    "cache_read_tokens": "SUM(cache_read_tokens)",
    "cache_write_tokens": "SUM(cache_write_tokens)",
    "output_tokens": "SUM(output_tokens)",
    "thinking_tokens": "SUM(thinking_tokens)",
    "unknown_cost_requests": f"SUM({UNKNOWN_COST})",
}
# What SQLite cannot sum exactly, or order: it lists the values, which takes a fifth of a call for each.
LISTS: Dict[str, str] = {
    "cost": "group_concat(cost)",
    "compared": "group_concat(CASE WHEN claude_cost IS NOT NULL THEN cost END)",
    "claude_cost": "group_concat(CASE WHEN cost IS NOT NULL THEN claude_cost END)",
    "first_content": "group_concat(first_content)",
}
COLUMNS = ["MAX(time)", *COUNTS.values(), *LISTS.values()]


@dataclass
class Totals:
    """Sums that grow by other sums."""

    newest: float = 0.0
    """When the last request ended, in seconds since 1970."""
    counts: Dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    cost: Optional[Decimal] = None
    """USD; None when no request's is known."""
    saving: Optional[Decimal] = None
    """Against the Claude models that were asked for; None when nothing can be compared."""
    times: List[float] = field(default_factory=list)
    """Seconds to the first content."""

    @classmethod
    def of(cls, newest: float, *values: Any) -> Totals:
        """Return what one row of ``COLUMNS`` says."""
        cost, compared, claude_cost, times = values[len(COUNTS) :]
        saved = None if claude_cost is None else _sum(claude_cost) - _sum(compared)
        known = None if cost is None else _sum(cost)
        return cls(newest, dict(zip(COUNTS, values)), known, saved, list(map(float, times.split(","))) if times else [])

    def add(self, other: Totals) -> None:
        """Grow by another one's sums."""
        self.newest = max(self.newest, other.newest)
        for name, count in other.counts.items():
            self.counts[name] += count
        self.cost = _plus(self.cost, other.cost)
        self.saving = _plus(self.saving, other.saving)
        self.times += other.times

    def to_dict(self, *, has_times: bool = True) -> Dict[str, Any]:
        """Return it as JSON has it; a cost that is missing only because there is nothing is 0."""
        counts = dict(self.counts)
        unknown = counts.pop("unknown_cost_requests")
        cost = Decimal(0) if self.cost is None and not unknown else self.cost
        shown: Dict[str, Any] = {
            **counts,
            "cost_usd": None if cost is None else plain(cost),
            "unknown_cost_requests": unknown,
            "saving_usd": None if self.saving is None else plain(self.saving),
        }
        if has_times:
            times = sorted(self.times)
            shown.update(first_content_p50=_rank(times, 0.5), first_content_p95=_rank(times, 0.95))
        return shown


def amount(listed: Optional[str]) -> Decimal:
    """Return the sum of a list that SQLite made of a column of amounts."""
    return _sum(listed) if listed else Decimal(0)


def _sum(listed: str) -> Decimal:
    return sum(map(Decimal, listed.split(",")), Decimal(0))


def _plus(one: Optional[Decimal], other: Optional[Decimal]) -> Optional[Decimal]:
    if one is None or other is None:
        return other if one is None else one
    return one + other


def _rank(ordered: List[float], share: float) -> Optional[float]:
    """Return the value that a share of the values does not exceed (nearest rank)."""
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else None
