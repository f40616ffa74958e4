"""Requests with Anthropic's own counts of their tokens, and how far our estimates are from them.

`make token-report` prints the table, and what calibration and counting again make of it; `FILE=...` takes other counts
than those of the recordings. A line of the file is an object with `model`, `input_tokens`, `request` and `plain`: false
where a server adds what the request does not show.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence

import counting_cost
import recorded_usages
from ccproxy.anthropic import MessagesRequest
from ccproxy.counting.counter import Counter
from ccproxy.counting.token_families import family_of
from ccproxy.counting.tokens import count
from recordings import folder

NEWER = re.compile(r"opus-4-[789]|(opus|sonnet|haiku|fable)-5")


@dataclass(frozen=True)
class Pair:
    """One request: its true count, and our estimate."""

    model: str
    tokens: int
    estimate: int

    @property
    def generation(self) -> str:
        """Which of Claude's two vocabularies counted."""
        return "newer" if NEWER.search(self.model) else "older"

    @property
    def error(self) -> float:
        """The relative error; above zero the estimate is too high."""
        return self.estimate / self.tokens - 1


@dataclass(frozen=True)
class Accuracy:
    """The errors of many pairs: medians and the 90th percentile without sign, and the mean with it."""

    count: int
    median: float
    p90: float
    bias: float

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> Accuracy:
        """Sum pairs up."""
        errors = sorted(abs(pair.error) for pair in pairs)
        count = len(errors)
        bias = sum(pair.error for pair in pairs) / count
        return cls(count, errors[count // 2], errors[int(count * 0.9)], bias)


def load(path: Optional[Path] = None) -> List[Pair]:
    """Return the plain pairs of a file, by default the recordings'; [] when there is none."""
    path = path or folder() / "anthropic_token_counts.jsonl"
    if not path.is_file():
        return []
    counter = Counter()
    counter.load()
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [_pair(row, counter) for row in rows if row["plain"]]


def _pair(row: Dict[str, Any], counter: Counter) -> Pair:
    request = MessagesRequest.from_dict(row["request"], needs_max_tokens=False)
    return Pair(row["model"], row["input_tokens"], count(request, counter.size, family_of(row["model"])).tokens)


def by(key: Callable[[Pair], str], pairs: Iterable[Pair]) -> Dict[str, List[Pair]]:
    """Return the pairs in groups."""
    groups: Dict[str, List[Pair]] = {}
    for pair in pairs:
        groups.setdefault(key(pair), []).append(pair)
    return dict(sorted(groups.items()))


def report(pairs: Sequence[Pair]) -> str:
    """Return the table: each generation, then each model."""
    lines = [f"{'':28} {'n':>5} {'median':>8} {'p90':>8} {'bias':>8}"]
    for groups in (by(lambda pair: pair.generation, pairs), by(lambda pair: pair.model, pairs)):
        for name, group in groups.items():
            found = Accuracy.of(group)
            lines.append(f"{name:28} {found.count:5} {found.median:8.1%} {found.p90:8.1%} {found.bias:+8.1%}")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(report(load(Path(sys.argv[1]) if sys.argv[1:] else None)))
    print(recorded_usages.report(recorded_usages.load()), end="\n\n")
    print(counting_cost.report())
