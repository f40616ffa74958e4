"""What real usages say about a model's estimates: an offset, with tools and without, and a slope.

One ratio per model is the wrong shape: templates and hidden system prompts add as much to short prompts as to long
ones. So short prompts tell the offsets, long ones the slope; medians keep odd reports out.
"""

from __future__ import annotations

from typing import Dict, Iterable, List, NamedTuple, Sequence, Tuple

from ..frozen import frozen

SHORT = 2000
"""Tokens up to which a prompt tells about the offset; from there on it tells fully about the slope."""
LEAST_SLOPE, MOST_SLOPE = 0.6, 1.6
MOST_OFFSET = 6000.0
LEAST_SHARE = 0.3
"""Of the estimate, that is left whatever is taken off."""
_DOUBT = 2.0  # so many long prompts that confirm the estimate are taken as seen already
_ROUNDS = 3


class Sample(NamedTuple):
    """One answer: our uncorrected estimate of its prompt, and the provider's count."""

    estimate: int
    actual: int
    has_tools: bool

    @property
    def is_plausible(self) -> bool:
        """Whether it may be learned from; beyond these bounds something else was counted."""
        within = LEAST_SHARE * self.estimate / 2 - 200 <= self.actual <= MOST_SLOPE * self.estimate + MOST_OFFSET
        return self.estimate > 0 and self.actual > 0 and within


@frozen
class Correction:
    """What is made of an estimate for one model."""

    slope: float = 1.0
    offset: float = 0.0
    """Tokens that are added to a request without tools."""
    tools_offset: float = 0.0
    """The same with tools."""
    samples: int = 0
    """The answers it was learned from."""

    def apply(self, estimate: int, has_tools: bool, media: int = 0) -> int:
        """Return the corrected estimate; ``media`` of its tokens are images and PDFs, which stay as they are."""
        text = estimate - media
        offset = self.tools_offset if has_tools else self.offset
        return media + round(max(LEAST_SHARE * text, self.slope * text + offset))

    @property
    def words(self) -> str:
        """How estimates are corrected."""
        if not self.samples:
            return "not calibrated"
        offsets = f"{self.offset:+.0f}, with tools {self.tools_offset:+.0f}"
        return f"calibrated by {self.samples} answers: x{self.slope:.2f} {offsets}"


NONE = Correction()


def fit(samples: Sequence[Sample]) -> Correction:
    """Return the correction that fits the samples: in turns the offsets for a slope, and the slope for offsets."""
    slope, offsets = 1.0, {False: 0.0, True: 0.0}
    for _ in range(_ROUNDS):
        offsets = _offsets(samples, slope)
        found = [
            ((sample.actual - offsets[sample.has_tools]) / sample.estimate, min(1.0, sample.estimate / SHORT))
            for sample in samples
        ]
        slope = min(MOST_SLOPE, max(LEAST_SLOPE, _median([*found, (1.0, _DOUBT)])))
    offsets = _offsets(samples, slope)
    return Correction(slope, offsets[False], offsets[True], len(samples))


def _offsets(samples: Iterable[Sample], slope: float) -> Dict[bool, float]:
    """Return the offsets without and with tools; what was seen only without is expected with tools too."""
    found: Dict[bool, List[Tuple[float, float]]] = {False: [], True: []}
    for sample in samples:
        if sample.estimate <= SHORT:
            weight = 1 / max(sample.actual, sample.estimate)
            found[sample.has_tools].append((sample.actual - slope * sample.estimate, weight))
    plain = _median(found[False]) if found[False] else 0.0
    tools = _median(found[True]) if found[True] else plain
    return {False: _bounded(plain), True: _bounded(tools)}


def _bounded(offset: float) -> float:
    return min(MOST_OFFSET, max(-MOST_OFFSET, offset))


def _median(weighted: Iterable[Tuple[float, float]]) -> float:
    """Return the value in the middle of the weights."""
    ordered = sorted(weighted)
    half, passed = sum(weight for _, weight in ordered) / 2, 0.0
    for value, weight in ordered:
        passed += weight
        if passed >= half:
            return value
    return ordered[-1][0]
