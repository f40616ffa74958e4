"""A report in words: the cells that the table of a terminal and the HTML page share."""

from __future__ import annotations

from typing import List

from ..accounting.pricing import plain
from .summary import DIRECT, MEASURES, PROXIED, Report, Way

NOTE = "Added times are graded by what exceeds their standard error; shares are of the direct median."
CRITERIA = ("criterion", "grade", "seen", "asked")
HEADINGS = ("median (quartiles)", "direct", "through ccproxy", "added")


def figures(report: Report) -> List[List[str]]:
    """Return the rows of the table under ``HEADINGS``."""
    ways = report.ways
    rows = [
        [measure.title, *(_spread(way, name) for way in ways.values()), _added(report, name)]
        for name, measure in MEASURES.items()
    ]
    rows.append(["cost", *(_cost(way) for way in ways.values()), ""])
    rows.append(["failed", *(f"{way.failed} of {len(way.samples)}" for way in ways.values()), ""])
    return rows


def _spread(way: Way, measure: str) -> str:
    spread, show = way.spread(measure), MEASURES[measure].show
    if spread is None:
        return "-"
    if spread.low == spread.high:
        return show(spread.median)
    return f"{show(spread.median)} ({show(spread.low)} - {show(spread.high)})"


def _added(report: Report, measure: str) -> str:
    added = report.added(measure)
    if added is None:
        return "-"
    sign = "-" if added.difference < 0 else "+"
    return sign + MEASURES[measure].show(abs(added.difference)) if added.difference else "none"


def _cost(way: Way) -> str:
    return "-" if not way.good else "unknown" if way.cost is None else f"${plain(way.cost)}"


def criteria(report: Report) -> List[List[str]]:
    """Return a row per criterion, under ``CRITERIA``."""
    return [[item.name, item.grade or "-", item.seen, item.asked] for item in report.criteria]


def failures(report: Report) -> List[str]:
    """Return a line per kind of failure."""
    names = {DIRECT: "directly", PROXIED: "through ccproxy"}
    return [
        f"failed {count} times {names[name]}: {error}"
        for name, way in report.ways.items()
        for error, count in way.errors.items()
    ]


def headline(report: Report) -> str:
    """Return what was measured."""
    settings = report.settings
    return (
        f"{report.model}: {settings['requests']} requests each way, {settings['concurrency']} at a time, "
        f"prompts of about {settings['prompt_tokens']} tokens, at most {settings['max_tokens']} tokens of answer"
    )


def verdict(report: Report) -> str:
    """Return the rating in one line."""
    return f"rating: {report.rating}" if report.rating else "rating: none, there are no answers of both ways to compare"
