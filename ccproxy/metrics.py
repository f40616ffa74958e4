"""Counts of this process since its start, in Prometheus' text format.

The label sets are bounded: a client may name any model of a provider, so beyond ``MAX_MODELS`` models all count as
``other``. Numbers are kept in arrays, not as objects: each sum would be a new one with every request, and the last ones
of a crowd of clients would each hold a MiB of the memory that these took (``processes/memory.py``).
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left
from itertools import accumulate
from typing import Dict, List, Sequence, Tuple

from .accounting.ledgerfile import Row

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_MODELS = 200
OTHER = "other"

_Labels = Tuple[str, ...]
# kind: field. Names put together with each request would stay in the interpreter's cache of attributes.
_TOKENS = {
    "input": "input_tokens",
    "cache_read": "cache_read_tokens",
    "cache_write": "cache_write_tokens",
    "output": "output_tokens",
    "thinking": "thinking_tokens",
}

# name: (type, help, label names)
FAMILIES: Dict[str, Tuple[str, str, _Labels]] = {
    "ccproxy_requests_total": ("counter", "Requests that ended.", ("model", "rule", "outcome")),
    "ccproxy_attempts_total": ("counter", "Times a model was asked, retries and fallbacks included.", ("model",)),
    "ccproxy_tokens_total": ("counter", "Tokens; thinking is a part of output.", ("model", "kind")),
    "ccproxy_cost_usd_total": ("counter", "Known costs in USD.", ("model",)),
    "ccproxy_unknown_cost_requests_total": ("counter", "Requests whose cost nobody told.", ("model",)),
    "ccproxy_saving_usd": ("gauge", "Price of the Claude model asked for, less the cost, in USD.", ("model",)),
}


class Sums:
    """Sums by their labels; exact for whole numbers below 2^53, as Prometheus' own are."""

    def __init__(self) -> None:
        self._places: Dict[_Labels, int] = {}
        self._sums = array("d")

    def add(self, amount: float, *labels: str) -> None:
        """Add to one of them."""
        place = self._places.get(labels)
        if place is None:
            place = self._places[labels] = len(self._sums)
            self._sums.append(0)
        self._sums[place] += amount

    def lines(self, name: str, names: _Labels) -> List[str]:
        """Return the samples."""
        lines = []
        for labels, place in self._places.items():
            pairs = ",".join(f'{label}="{_escape(text)}"' for label, text in zip(names, labels))
            lines.append(f"{name}{{{pairs}}} {self._sums[place]:.15g}")
        return lines


class Histogram:
    """Observed seconds by upper bound."""

    def __init__(self, name: str, help: str, bounds: Sequence[float]) -> None:
        self.name, self.help, self.bounds = name, help, bounds
        self._counts = array("Q", [0] * (len(bounds) + 1))
        self._sum = array("d", [0])

    def observe(self, seconds: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self.bounds, seconds)] += 1
        self._sum[0] += seconds

    def lines(self) -> List[str]:
        """Return the samples; buckets are cumulative."""
        totals = list(accumulate(self._counts))
        bounds = [*(f"{bound:g}" for bound in self.bounds), "+Inf"]
        lines = [f'{self.name}_bucket{{le="{bound}"}} {total}' for bound, total in zip(bounds, totals)]
        return [
            *_head(self.name, "histogram", self.help),
            *lines,
            f"{self.name}_sum {self._sum[0]!r}",
            f"{self.name}_count {totals[-1]}",
        ]


class Metrics:
    """Counts rows as they are recorded; any thread may add, any may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums = {name: Sums() for name in FAMILIES}
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
        sums = self._sums
        with self._lock:
            model = self._bounded(row.model)
            sums["ccproxy_requests_total"].add(1, model, row.rule, row.outcome)
            sums["ccproxy_attempts_total"].add(row.attempts, model)
            tokens = sums["ccproxy_tokens_total"]
            for kind, field in _TOKENS.items():
                tokens.add(getattr(row, field), model, kind)
            sums["ccproxy_cost_usd_total"].add(float(row.cost or 0), model)
            sums["ccproxy_unknown_cost_requests_total"].add(row.has_unknown_cost, model)
            if row.cost is not None and row.claude_cost is not None:
                sums["ccproxy_saving_usd"].add(float(row.claude_cost - row.cost), model)
            if row.first_content is not None:
                self._first_content.observe(row.first_content)
            self._duration.observe(row.duration)

    def _bounded(self, model: str) -> str:
        if model not in self._models:
            if len(self._models) > MAX_MODELS:
                return OTHER
            self._models.add(model)
        return model

    def text(self) -> str:
        """Return all of it in the text format."""
        lines: List[str] = []
        with self._lock:
            for name, (kind, words, names) in FAMILIES.items():
                lines += _head(name, kind, words)
                lines += self._sums[name].lines(name, names)
            lines += [*self._first_content.lines(), *self._duration.lines()]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, help: str) -> List[str]:
    return [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
