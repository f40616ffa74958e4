"""The estimates against Anthropic's own counts: `CCPROXY_TRAFFIC` names the folder; without it they are skipped."""

from __future__ import annotations

import os

import pytest

from recordings import VARIABLE, folder
from token_counts import Accuracy, Pair, by, load, report

PAIRS = load()


def test_the_counts_are_there() -> None:
    """Where CI runs, the counts must be: a run without them proves nothing."""
    if not PAIRS and not os.environ.get("CI"):
        pytest.skip(f"no token counts in {folder().name!r}: set {VARIABLE}")
    assert len(PAIRS) > 500, f"no token counts in {folder()}: set {VARIABLE}"


@pytest.mark.skipif(not PAIRS, reason=f"no token counts: set {VARIABLE}")
@pytest.mark.parametrize("generation", ["older", "newer"])
def test_estimates_are_near_the_counts(generation: str) -> None:
    """Half within 5 %, nine of ten within 12 %, and not on one side, for each of Claude's two vocabularies."""
    pairs = by(lambda pair: pair.generation, PAIRS)[generation]
    found = Accuracy.of(pairs)
    assert found.median <= 0.05, report(pairs)
    assert found.p90 <= 0.12, report(pairs)
    assert abs(found.bias) <= 0.02, report(pairs)


def test_the_report_is_a_table() -> None:
    """A line for each generation and each model."""
    pairs = [Pair("claude-opus-5", 100, 110), Pair("claude-opus-5", 100, 98), Pair("claude-3-opus", 10, 10)]
    lines = [line.split() for line in report(pairs).splitlines() if line]
    assert lines == [
        ["n", "median", "p90", "bias"],
        ["newer", "2", "10.0%", "10.0%", "+4.0%"],
        ["older", "1", "0.0%", "0.0%", "+0.0%"],
        ["claude-3-opus", "1", "0.0%", "0.0%", "+0.0%"],
        ["claude-opus-5", "2", "10.0%", "10.0%", "+4.0%"],
    ]
