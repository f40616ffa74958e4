"""Pairs of samples to a report: medians and spread of both ways, what the proxy adds, and a rating.

Failed requests are counted and named; they are in no median. A pair is the same request sent both ways, one right after
the other, so that a provider that slows down does so for both.
"""

from __future__ import annotations

import math
from collections import Counter
from decimal import Decimal
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from ..accounting.pricing import plain
from ..encoded import Json
from ..frozen import frozen
from .sample import Sample

DIRECT, PROXIED = "direct", "proxied"
WAYS = (DIRECT, PROXIED)
GRADES = ("excellent", "good", "fair", "poor")


@frozen
class Spread:
    """Values of one measure: median, quartiles, extremes and how many there are."""

    median: float
    low: float
    high: float
    least: float
    most: float
    count: int

    @property
    def error(self) -> float:
        """The standard error of the median, from the distance of the quartiles (as of a normal distribution)."""
        return 1.2533 * (self.high - self.low) / 1.349 / math.sqrt(self.count)


def spread_of(values: Sequence[float]) -> Optional[Spread]:
    """Return the spread of values; None of none."""
    if not values:
        return None
    ordered = sorted(values)

    def at(share: float) -> float:
        place = share * (len(ordered) - 1)
        below, above = ordered[math.floor(place)], ordered[math.ceil(place)]
        return below + (above - below) * (place - math.floor(place))

    return Spread(at(0.5), at(0.25), at(0.75), ordered[0], ordered[-1], len(ordered))


def _time(seconds: float) -> str:
    return f"{seconds * 1000:,.1f} ms" if abs(seconds) < 1 else f"{seconds:,.2f} s"


def _bytes(size: float) -> str:
    return f"{size:,.0f} B" if size < 1000 else f"{size / 1000:,.1f} kB"


@frozen
class Measure:
    """What is measured in each answer; the value is None where it is not known. Times are in seconds."""

    title: str
    of: Callable[[Sample], Optional[float]]
    show: Callable[[float], str]


MEASURES: Dict[str, Measure] = {
    "first_content": Measure("first content", lambda sample: sample.first_content, _time),
    "total": Measure("total time", lambda sample: sample.total, _time),
    "tokens_per_second": Measure("tokens per second", lambda sample: sample.tokens_per_second, "{:,.1f}".format),
    "size": Measure("answer size", lambda sample: sample.size, _bytes),
    "output_tokens": Measure(
        "output tokens", lambda sample: sample.usage.output_tokens if sample.usage else None, "{:,.0f}".format
    ),
}


@frozen
class Way:
    """All requests that went one way."""

    samples: Tuple[Sample, ...]

    @property
    def good(self) -> List[Sample]:
        """Those that were answered."""
        return [sample for sample in self.samples if not sample.error]

    @property
    def errors(self) -> Dict[str, int]:
        """What went wrong, and how often."""
        return dict(Counter(sample.error for sample in self.samples if sample.error))

    @property
    def failed(self) -> int:
        """How many failed."""
        return sum(self.errors.values())

    @property
    def cost(self) -> Optional[Decimal]:
        """What the answers cost together, in USD; None when that of one is not known."""
        costs = [sample.cost for sample in self.good]
        return None if None in costs else sum((cost for cost in costs if cost is not None), Decimal(0))

    def spread(self, measure: str) -> Optional[Spread]:
        """Return the spread of a measure over the answers."""
        values = [MEASURES[measure].of(sample) for sample in self.good]
        return spread_of([value for value in values if value is not None])


@frozen
class Agreement:
    """Pairs whose token counts could be compared, and those in which they are equal.

    The input is the same in each pair. The output is only where the model gave the same answer both times.
    """

    input_equal: int = 0
    input_compared: int = 0
    output_equal: int = 0
    output_compared: int = 0

    @property
    def is_known(self) -> bool:
        """Whether there was anything to compare."""
        return self.input_compared > 0

    @property
    def is_whole(self) -> bool:
        """Whether no count differs."""
        return (self.input_equal, self.output_equal) == (self.input_compared, self.output_compared)


def agreement_of(pairs: Sequence[Tuple[Sample, Sample]]) -> Agreement:
    """Compare the counts of each pair that was answered both ways; the direct one's are the provider's own.

    Of the prompt all tokens: which of them a cache served may differ from request to request.
    """
    both = [(one.usage, two.usage, one.text == two.text) for one, two in pairs if not (one.error or two.error)]
    known = [(one, two, is_same) for one, two, is_same in both if one is not None and two is not None]
    same = [(one, two) for one, two, is_same in known if is_same]
    return Agreement(
        sum(one.prompt_tokens == two.prompt_tokens for one, two, _ in known),
        len(known),
        sum(one.output_tokens == two.output_tokens for one, two in same),
        len(same),
    )


@frozen
class Criterion:
    """One point of the rating: what was seen, its grade (empty: it cannot be told), and what the grades ask for."""

    name: str
    grade: str
    seen: str
    asked: str


# Grade: the most that the proxy may add, in seconds or as a share of the direct time, whichever is more.
LIMITS: Dict[str, Tuple[float, float]] = {"excellent": (0.005, 0.02), "good": (0.02, 0.05), "fair": (0.1, 0.15)}
_ASKED = ", ".join(f"{grade} to {seconds * 1000:g} ms or {share:.0%}" for grade, (seconds, share) in LIMITS.items())


@frozen
class Added:
    """What the proxy adds to a measure: the difference of the medians, with its standard error."""

    difference: float
    error: float
    base: float

    @property
    def grade(self) -> str:
        """The grade of an added time, by the part of it that is no chance."""
        certain = self.difference - self.error
        fits = (grade for grade, (seconds, share) in LIMITS.items() if certain <= max(seconds, share * self.base))
        return next(fits, GRADES[-1])


@frozen
class Report:
    """All that a run found out."""

    model: str
    settings: Json
    pairs: Tuple[Tuple[Sample, Sample], ...]

    @property
    def ways(self) -> Dict[str, Way]:
        """The requests by way."""
        return {name: Way(tuple(pair[place] for pair in self.pairs)) for place, name in enumerate(WAYS)}

    def added(self, measure: str) -> Optional[Added]:
        """Return what the proxy adds to a measure; None when one of the ways has no value of it."""
        direct, proxied = (way.spread(measure) for way in self.ways.values())
        if direct is None or proxied is None:
            return None
        return Added(proxied.median - direct.median, math.hypot(direct.error, proxied.error), direct.median)

    @property
    def agreement(self) -> Agreement:
        """How far the proxy's token counts are the provider's."""
        return agreement_of(self.pairs)

    @property
    def criteria(self) -> List[Criterion]:
        """The points of the rating."""
        ways, agreement = self.ways, self.agreement
        failed = {name: way.failed for name, way in ways.items()}
        return [
            self._added_time("first_content"),
            self._added_time("total"),
            Criterion(
                "failures",
                GRADES[0] if failed[PROXIED] <= failed[DIRECT] else GRADES[-1],
                f"{failed[PROXIED]} through the proxy, {failed[DIRECT]} directly",
                "no more than directly, else poor",
            ),
            Criterion(
                "token counts",
                "" if not agreement.is_known else GRADES[0] if agreement.is_whole else GRADES[-1],
                f"input equal in {agreement.input_equal} of {agreement.input_compared} pairs, output in "
                f"{agreement.output_equal} of {agreement.output_compared} with the same answer",
                "all equal, else poor",
            ),
        ]

    def _added_time(self, measure: str) -> Criterion:
        title, added = MEASURES[measure].title, self.added(measure)
        if added is None:
            return Criterion(title, "", "not measured both ways", _ASKED)
        share = f" ({added.difference / added.base:+.1%})" if added.base else ""
        seen = f"{added.difference * 1000:+.1f} ms ± {added.error * 1000:.1f}{share}"
        return Criterion(title, added.grade, seen, _ASKED)

    @property
    def rating(self) -> str:
        """The worst grade of all; empty when the times could not be compared."""
        if self.added("total") is None:
            return ""
        return max((item.grade for item in self.criteria if item.grade), key=GRADES.index)

    def to_dict(self) -> Json:
        """Return the report as JSON values; times in seconds, money as text in USD."""
        return {
            "model": self.model,
            "settings": self.settings,
            **{name: _way_object(way) for name, way in self.ways.items()},
            "added": {name: _added_object(self.added(name)) for name in MEASURES},
            "agreement": vars(self.agreement),
            "rating": self.rating or None,
            "criteria": [vars(criterion) for criterion in self.criteria],
            "pairs": [dict(zip(WAYS, map(_sample_object, pair))) for pair in self.pairs],
        }


def _way_object(way: Way) -> Json:
    return {
        "requests": len(way.samples),
        "failed": way.failed,
        "errors": way.errors,
        "cost_usd": None if way.cost is None else plain(way.cost),
        **{name: vars(spread) if spread else None for name, spread in ((name, way.spread(name)) for name in MEASURES)},
    }


def _added_object(added: Optional[Added]) -> Optional[Json]:
    return None if added is None else {"median": added.difference, "standard_error": added.error}


def _sample_object(sample: Sample) -> Json:
    if sample.error:
        return {"error": sample.error}
    return {
        **{name: measure.of(sample) for name, measure in MEASURES.items()},
        "usage": sample.usage.to_dict() if sample.usage else None,
        "cost_usd": None if sample.cost is None else plain(sample.cost),
    }
