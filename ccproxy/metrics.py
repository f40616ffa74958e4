"""Counts of this process since its start, in Prometheus' text format.

The label sets are bounded: a client may name any model of a provider, so beyond ``MAX_MODELS`` models all count as
``other``.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from decimal import Decimal
from itertools import accumulate
from typing import DefaultDict, Dict, List, Sequence, Tuple, Union

from .accounting.ledgerfile import Row
from .accounting.pricing import plain

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_MODELS = 200
OTHER = "other"

_Number = Union[int, float, Decimal]
_Labels = Tuple[str, ...]
_TOKENS = ("input", "cache_read", "cache_write", "output", "thinking")

# name: (type, help, label names)
FAMILIES: Dict[str, Tuple[str, str, _Labels]] = {
    "ccproxy_requests_total": ("counter", "Requests that ended.", ("model", "rule", "outcome")),
    "ccproxy_attempts_total": ("counter", "Times a model was asked, retries and fallbacks included.", ("model",)),
    "ccproxy_tokens_total": ("counter", "Tokens; thinking is a part of output.", ("model", "kind")),
    "ccproxy_cost_usd_total": ("counter", "Known costs in USD.", ("model",)),
    "ccproxy_unknown_cost_requests_total": ("counter", "Requests whose cost nobody told.", ("model",)),
    "ccproxy_saving_usd": ("gauge", "Price of the Claude model asked for, less the cost, in USD.", ("model",)),
}


class Histogram:
    """Observed seconds by upper bound."""

    def __init__(self, name: str, help: str, bounds: Sequence[float]) -> None:
        self.name, self.help, self.bounds = name, help, bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds

    def lines(self) -> List[str]:
        """Return the samples; buckets are cumulative."""
        totals = list(accumulate(self.counts))
        bounds = [*(f"{bound:g}" for bound in self.bounds), "+Inf"]
        lines = [f'{self.name}_bucket{{le="{bound}"}} {total}' for bound, total in zip(bounds, totals)]
        return [
            *_head(self.name, "histogram", self.help),
            *lines,
            f"{self.name}_sum {self.sum!r}",
            f"{self.name}_count {totals[-1]}",
        ]


class Metrics:
    """Counts rows as they are recorded; any thread may add, any may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: Dict[str, DefaultDict[_Labels, _Number]] = {name: defaultdict(int) for name in FAMILIES}
        self._models = {OTHER}
        self._first_content = Histogram(
            "ccproxy_first_content_seconds",
            "Seconds from the request to the first content.",
            (0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120),
        )
        self._duration = Histogram(
            "ccproxy_request_duration_seconds",
            "Seconds from the request to the end of its answer.",
            (0.5, 1, 2, 5, 10, 20, 40, 80, 160, 320, 640, 1280, 3600),
        )

    def add(self, row: Row) -> None:
        """Count one request."""
        with self._lock:
            model = self._bounded(row.model)
            self._count("ccproxy_requests_total", 1, model, row.rule, row.outcome)
            self._count("ccproxy_attempts_total", row.attempts, model)
            tokens = self._values["ccproxy_tokens_total"]
            for kind in _TOKENS:
                tokens[model, kind] += getattr(row, f"{kind}_tokens")
            self._count("ccproxy_cost_usd_total", row.cost or Decimal(0), model)
            self._count("ccproxy_unknown_cost_requests_total", int(row.has_unknown_cost), model)
            if row.cost is not None and row.claude_cost is not None:
                self._count("ccproxy_saving_usd", row.claude_cost - row.cost, model)
            if row.first_content is not None:
                self._first_content.observe(row.first_content)
            self._duration.observe(row.duration)

    def _bounded(self, model: str) -> str:
        if model not in self._models:
            if len(self._models) > MAX_MODELS:
                return OTHER
            self._models.add(model)
        return model

    def _count(self, name: str, amount: _Number, *labels: str) -> None:
        self._values[name][labels] += amount  # type: ignore[operator]

    def text(self) -> str:
        """Return all of it in the text format."""
        lines: List[str] = []
        with self._lock:
            for name, (kind, words, names) in FAMILIES.items():
                lines += _head(name, kind, words)
                for labels, value in self._values[name].items():
                    pairs = ",".join(f'{label}="{_escape(text)}"' for label, text in zip(names, labels))
                    lines.append(f"{name}{{{pairs}}} {plain(value) if isinstance(value, Decimal) else value}")
            lines += [*self._first_content.lines(), *self._duration.lines()]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, help: str) -> List[str]:
    return [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
