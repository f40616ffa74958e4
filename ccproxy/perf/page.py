"""A report as one HTML page with plots, which needs nothing from elsewhere and runs no script."""

from __future__ import annotations

import math
from html import escape
from typing import Iterable, List, Sequence, Tuple

from . import shown
from .summary import DIRECT, MEASURES, WAYS, Report, Way

_TITLES = {DIRECT: "direct", WAYS[1]: "through ccproxy"}
_WIDTH, _LEFT, _RIGHT = 760, 130, 20
_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --text: #1c1e21; --faint: #5c636b; --line: #d4d8dd;
  --direct: #0b63c4; --proxied: #b4500a; }
@media (prefers-color-scheme: dark) { :root { --ground: #15181c; --text: #e8eaed; --faint: #a3abb5; --line: #3a4048;
  --direct: #6cb1ff; --proxied: #ffa45c; } }
body { margin: 2rem auto; padding: 0 1rem; max-width: 60rem; background: var(--ground); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem .3rem 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th, .note { color: var(--faint); font-weight: normal; }
.rating { font-size: 1.2rem; font-weight: 600; }
svg { width: 100%; min-width: 34rem; height: auto; font: 13px system-ui, sans-serif; }
svg text { fill: var(--text); } svg .tick { fill: var(--faint); } svg .grid { stroke: var(--line); }
.direct { --own: var(--direct); } .proxied { --own: var(--proxied); }
.mark { fill: var(--own); fill-opacity: .55; } .box { fill: none; stroke: var(--own); stroke-width: 2; }
"""
# Nothing may be loaded, run or sent, whatever a model's name or an error says.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(report: Report) -> str:
    """Return the page."""
    failures = "".join(f"<li>{escape(line)}</li>" for line in shown.failures(report))
    parts = [
        f"<h1>ccproxy perf: {escape(report.model)}</h1>",
        f"<p>{escape(shown.headline(report))}</p>",
        f'<p class="rating">{escape(shown.verdict(report))}</p>',
        _table(shown.CRITERIA, shown.criteria(report)),
        f'<p class="note">{escape(shown.NOTE)}</p>',
        "<h2>Figures</h2>",
        _table(shown.HEADINGS, shown.figures(report)),
        f"<h2>Failures</h2><ul>{failures}</ul>" if failures else "",
        *(
            f"<h2>{MEASURES[name].title.capitalize()}</h2>{_spreads(report, name)}"
            for name in ("first_content", "total")
        ),
        f"<h2>Total time in the order of the requests</h2>{_course(report)}",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>ccproxy perf: {escape(report.model)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body></html>\n"
    )


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _spreads(report: Report, measure: str) -> str:
    """Draw each answer as a dot on its way's line, around the box of the quartiles and the median."""
    ways = {name: way for name, way in report.ways.items() if way.good}
    ticks = _ticks(max((value for way in ways.values() for value in _values(way, measure)), default=0.0))
    height = 46 * len(ways)
    drawn = [_axis_below(ticks, height)]
    for row, (name, way) in enumerate(ways.items()):
        spread, middle = way.spread(measure), 23 + 46 * row
        assert spread is not None
        low, median, high = (_x(value, ticks) for value in (spread.low, spread.median, spread.high))
        dots = "".join(
            f'<circle class="mark" cx="{_x(value, ticks):.1f}" cy="{middle}" r="4"/>' for value in _values(way, measure)
        )
        drawn.append(
            f'<g class="{name}"><text x="0" y="{middle + 4}">{_TITLES[name]}</text>{dots}'
            f'<rect class="box" x="{low:.1f}" y="{middle - 12}" width="{max(high - low, 1):.1f}" height="24"/>'
            f'<path class="box" d="M{median:.1f} {middle - 16}v32"/></g>'
        )
    return (
        _svg(height + 30, f"{MEASURES[measure].title} of every answer, by way", drawn) if ways else "<p>No answers.</p>"
    )


def _course(report: Report) -> str:
    """Draw the total time of each answer over its number: a drift, or a hiccup of the provider, shows here."""
    marks: List[Tuple[str, int, float]] = [
        (name, number, sample.total)
        for number, pair in enumerate(report.pairs)
        for name, sample in zip(WAYS, pair)
        if not sample.error
    ]
    if not marks:
        return "<p>No answers.</p>"
    ticks, height = _ticks(max(total for _, _, total in marks)), 220
    step = (_WIDTH - _LEFT - _RIGHT) / len(report.pairs)
    drawn = [_line_across(_y(tick, ticks, height), _label(tick)) for tick in ticks]
    for place, (name, title) in enumerate(_TITLES.items()):
        x, y = _LEFT + 130 * place, height + 24
        drawn.append(f'<g class="{name}">{_mark(name, x + 6, y - 4)}<text x="{x + 16}" y="{y}">{title}</text>')
        drawn += [
            _mark(name, _LEFT + step * (number + 0.5), _y(total, ticks, height))
            for way, number, total in marks
            if way == name
        ]
        drawn.append("</g>")
    return _svg(height + 32, "total time of every answer in the order of the requests, by way", drawn)


def _mark(name: str, x: float, y: float) -> str:
    """A circle or a square: the ways differ in more than their colour."""
    if name == DIRECT:
        return f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
    return f'<rect class="mark" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>'


def _values(way: Way, measure: str) -> List[float]:
    found = (MEASURES[measure].of(sample) for sample in way.good)
    return [value for value in found if value is not None]


def _ticks(most: float) -> List[float]:
    """Return round values from 0 up to the first that is not below ``most``."""
    rough = max(most, 1e-6) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [step * number for number in range(math.ceil(most / step) + 1)] if most else [0.0, step]


def _label(seconds: float) -> str:
    return f"{seconds * 1000:g} ms"


def _x(value: float, ticks: Sequence[float]) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * value / ticks[-1]


def _y(value: float, ticks: Sequence[float], height: float) -> float:
    return height - (height - 10) * value / ticks[-1]


def _line_across(y: float, label: str) -> str:
    return (
        f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>'
        f'<text class="tick" text-anchor="end" x="{_LEFT - 8}" y="{y + 4:.1f}">{label}</text>'
    )


def _axis_below(ticks: Sequence[float], height: float) -> str:
    return "".join(
        f'<path class="grid" d="M{_x(tick, ticks):.1f} 0v{height}"/>'
        f'<text class="tick" text-anchor="middle" x="{_x(tick, ticks):.1f}" y="{height + 20}">{_label(tick)}</text>'
        for tick in ticks
    )


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    opening = f'<svg viewBox="0 0 {_WIDTH} {height:g}" role="img" aria-label="{escape(title)}">'
    return f'<div class="wide">{opening}<title>{escape(title)}</title>{"".join(parts)}</svg></div>'
