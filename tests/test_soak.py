"""The soak test sees what it is there for: growth, cut and wrong answers, and answers that nobody recorded."""

from __future__ import annotations

from typing import Any, List

import pytest

from crowd import Levels
from soak import CLIENTS, Findings, growing, report

FLAT = [Levels(8, 30, 100.0)] * 40


def rising(**per_sample: float) -> List[Levels]:
    """A process that takes up more with each sample."""
    return [
        Levels(
            8 + int(number * per_sample.get("threads", 0)),
            30 + int(number * per_sample.get("descriptors", 0)),
            100.0 + number * per_sample.get("memory", 0),
        )
        for number in range(40)
    ]


def findings(**fields: Any) -> Findings:
    """Those of a run in which all was well, but for some fields."""
    good = Findings(answers=9, recorded=9, levels={"parent": FLAT, "worker": FLAT}, kills=[1.0])
    good.found.update({"right: stream": 9, "killed: stream": CLIENTS})
    for name, value in fields.items():
        if name == "found":
            good.found.update(value)
        else:
            setattr(good, name, value)
    return good


def test_all_is_well() -> None:
    """Nothing grows, and no more was cut by a kill than was being answered."""
    text, code = report(findings(), 40)
    assert code == 0
    assert text.endswith('{"ok": true}')


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"found": {"cut: slow": 1}}, "cut: slow"),
        ({"found": {"wrong: whole": 1}}, "wrong: whole"),
        ({"found": {"killed: whole": 1}}, "more was cut"),
        ({"recorded": 8}, "missing in the statistics"),
        ({"is_alive": False}, "ended"),
        ({"levels": {"worker": rising(memory=3)}}, "memory of the worker"),
        ({"levels": {"parent": rising(descriptors=1)}}, "descriptors of the parent"),
        ({"levels": {"worker": rising(threads=1)}}, "threads of the worker"),
    ],
)
def test_what_is_not_well_is_told(fields: Any, told: str) -> None:
    """And the run fails."""
    text, code = report(findings(**fields), 40)
    assert code == 1
    assert any(line.startswith("FAILED") and told in line for line in text.splitlines()), text


def test_what_fills_at_first_is_no_growth() -> None:
    """Caches fill; what is full in the second quarter may stay so."""
    filling = [Levels(8, 30, min(200.0, 100.0 + number * 10)) for number in range(60)]
    assert growing(filling) == []
