"""``ccproxy stats``: the ledger's numbers as a table, for a terminal."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any, Callable, Dict, List, Tuple

from ..accounting.budget import SESSION, limits
from ..accounting.ledger import FILE_NAME
from ..accounting.usage import PERIODS, report
from ..config.load import state_folder
from ..encoded import Json
from .options import add_configuration, load
from .terminal import BOLD, Look

EXAMPLES = (
    "ccproxy stats",
    "ccproxy stats --period 7d --watch",
    "ccproxy stats --period today --json | jq .totals.cost_usd",
)


WATCH_INTERVAL = 2.0
_CLEAR = "\x1b[H\x1b[2J"


def _known(form: str, unknown: str = "-") -> Callable[[Any], str]:
    return lambda value: unknown if value is None else form.format(value)


_money = _known("${}", "?")
_seconds = _known("{:.2f}s")
# Heading: the measure under it, and how it is shown.
COLUMNS: Dict[str, Tuple[str, Callable[[Any], str]]] = {
    "requests": ("requests", str),
    "errors": ("errors", str),
    "input": ("input_tokens", "{:,}".format),
    "cache read": ("cache_read_tokens", "{:,}".format),
    "cache write": ("cache_write_tokens", "{:,}".format),
    "output": ("output_tokens", "{:,}".format),
    "cost": ("cost_usd", _money),
    "unknown": ("unknown_cost_requests", str),
    "saving": ("saving_usd", _known("${}")),
    "p50": ("first_content_p50", _seconds),
    "p95": ("first_content_p95", _seconds),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--period", choices=PERIODS, default=SESSION, help="the newest session unless told")
    parser.add_argument("--json", action="store_true", help="print what /v1/stats answers")
    parser.add_argument("--watch", action="store_true", help="show it again every two seconds, until Ctrl-C")
    add_configuration(parser)


def run(options: argparse.Namespace) -> int:
    """Print the statistics, once or again and again."""
    config = load(options).config
    path = state_folder(config, os.environ) / FILE_NAME
    while True:
        found = report(path, options.period, time.time(), limits(config))
        shown = json.dumps(found, indent=2) if options.json else render(found, Look.of_output())
        print(f"{_CLEAR if options.watch and sys.stdout.isatty() else ''}{shown}", flush=True)
        if not options.watch:
            return 0
        time.sleep(WATCH_INTERVAL)


def render(found: Json, look: Look) -> str:
    """Return the statistics as aligned text."""
    named = f" {found['session']}" if found["session"] else ""
    since = f" since {found['since']}" if found["since"] else ""
    groups = {"": [found["totals"]], "model": found["by_model"], "rule": found["by_rule"]}
    if found["period"] != SESSION:
        groups["session"] = found["by_session"]
    rows = [_cells(name, row) for name, rows in groups.items() for row in rows]
    parts = [look.colored(BOLD, f"{found['period']}{named}{since}"), *look.table(["", *COLUMNS], rows, numbers=COLUMNS)]
    if found["totals"]["unknown_cost_requests"]:
        parts.append(f"requests of unknown cost, which are in no sum: {found['totals']['unknown_cost_requests']}")
    parts += map(_budget, found["budgets"])
    return "\n".join(parts)


def _budget(budget: Json) -> str:
    unsure = f", besides {budget['unknown_cost_requests']} of unknown cost" if budget["unknown_cost_requests"] else ""
    spent, limit = _money(budget["spent_usd"]), _money(budget["limit_usd"])
    return f"{budget['setting']}: {spent} of {limit} are spent ({budget['share']:.0%}){unsure}."


def _cells(name: str, row: Json) -> List[str]:
    label = f"{name} {row[name] or '-'}" if name else "total"
    return [label, *(show(row[measure]) for measure, show in COLUMNS.values())]
