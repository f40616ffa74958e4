"""The other half of ``ccproxy check``: its models asked, and shown in a table."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Dict, List, Optional

from .. import log
from ..accounting.ledger import Ledger
from ..accounting.pricing import plain
from ..app import App
from ..capabilities import FAILED, NO, PROBES, SKIPPED, YES, Bench, Examination, examine, probing_config, suggestions
from ..config.load import state_folder
from ..config.schema import Config, Model
from ..encoded import Json
from .terminal import BOLD, GREEN, RED, YELLOW, Look, Styled, printable, progress

_AT_ONCE = 4
_STYLES = {YES: GREEN, NO: YELLOW, FAILED: RED}
_MAX_WORDS = 300


def run(config: Config, models: List[Model], options: argparse.Namespace) -> int:
    """Ask the models and say what they can; return 1 when one does not answer."""
    ready = [model for model in models if config.is_ready(model)]
    done = _examine_all(config, ready, options)
    for one in done:
        outcomes = " ".join(f"{name}={finding.outcome}" for name, finding in one.findings.items())
        log.note(f"check --live {one.model.model_id}: {outcomes}", config, os.environ)
    if options.json:
        found = {"models": [_object(one, config) for one in done]}
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        print("\n".join(_table(done, config, Look.of_output())))
    for model in models:
        if model not in ready:
            print(f"ccproxy: {model.model_id}: not asked: {model.api_key_name} is not set", file=sys.stderr)
    return 0 if done and all(one.findings["text"].outcome == YES for one in done) else 1


def _examine_all(config: Config, models: List[Model], options: argparse.Namespace) -> List[Examination]:
    """Ask the models, some at a time; what that costs is in the usage records like every other request."""
    logging.getLogger("ccproxy").addHandler(logging.NullHandler())  # failures are in the table
    app = App(probing_config(config, models, options.timeout), Ledger(state_folder(config, os.environ)))
    app.counter.load()
    numbers, line_lock = count(1), threading.Lock()

    def on_probe(name: str) -> None:
        with line_lock:
            progress(f"probe {next(numbers)} of {len(models) * len(PROBES)}: {name}")

    benches = [Bench(app, config, Examination(model), options.max_cost) for model in models]
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        return list(pool.map(lambda bench: examine(bench, on_probe), benches))
    finally:
        progress("")
        app.abort()  # after Ctrl-C threads wait for providers, and the interpreter for the threads
        pool.shutdown(wait=True, cancel_futures=True)
        app.close()


def _table(done: List[Examination], config: Config, look: Look) -> List[str]:
    headings = ["model", *PROBES, "cost"]
    rows = [[Styled(one.model.model_id), *(_cell(one, name) for name in PROBES), _cost(one)] for one in done]
    lines = look.table(headings, rows)
    notes = [
        f"{one.model.model_id}: {name}: {finding.words[:_MAX_WORDS]}"
        for one in done
        for name, finding in one.findings.items()
        if finding.outcome != YES and finding.words
    ]
    lines += ["", *map(printable, notes)] if notes else []
    entries = [entry for entry in (_entry(one, config) for one in done) if entry]
    if entries:
        lines += [
            "",
            look.colored(BOLD, "models.yaml should say:"),
            *(printable(line) for entry in entries for line in entry),
        ]
    return lines


def _cell(one: Examination, name: str) -> Styled:
    finding = one.findings[name]
    if finding.outcome == SKIPPED:
        return Styled("-")
    is_fact = finding.outcome == YES
    words = finding.words or (f"{finding.seconds:.2f}s" if name in ("text", "stream") else YES)
    return Styled(words if is_fact else finding.outcome, _STYLES[finding.outcome])


def _cost(one: Examination) -> Styled:
    return Styled("?" if one.cost is None else f"${plain(one.cost)}")


def _entry(one: Examination, config: Config) -> List[str]:
    """Return the lines of models.yaml for a model; one that only a router names gets a whole entry."""
    flags = suggestions(one, config)
    if not flags:
        return []
    model = one.model
    base: Dict[str, Optional[str]] = {"model_id": model.model_id}
    if model.model_id not in config.models:
        key_name = model.api_key_name if model.needs_key else None
        base.update(model_name=model.name, api_base=model.api_base, api_key_name=key_name, dialect=model.dialect.name)
    lines = [f"  {name}: {json.dumps(value)}" for name, value in {**base, **flags}.items() if value is not None]
    return ["- " + lines[0].strip(), *lines[1:]]


def _object(one: Examination, config: Config) -> Json:
    return {
        "model_id": one.model.model_id,
        "probes": {
            name: {"outcome": finding.outcome, "words": finding.words, "seconds": round(finding.seconds, 3)}
            for name, finding in one.findings.items()
        },
        "suggests": suggestions(one, config),
        "input_tokens": one.usage.input_tokens,
        "output_tokens": one.usage.output_tokens,
        "cost_usd": None if one.cost is None else plain(one.cost),
    }
