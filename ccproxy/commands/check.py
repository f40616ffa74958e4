"""``ccproxy check``: say what the configuration holds and what is wrong with it; live, what its models really can."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any, Dict, List, Optional, Sequence, Tuple

from .. import log
from ..accounting.ledger import Ledger
from ..accounting.pricing import plain
from ..app import App
from ..capabilities import FAILED, NO, PROBES, SKIPPED, YES, Bench, Examination, examine, probing_config, suggestions
from ..config.load import Loaded, state_folder
from ..config.schema import Config, Model, money
from ..errors import ConfigError
from ..routing import configured_models, plain_route
from .models import describe, routers
from .options import add_configuration, load
from .terminal import BOLD, GREEN, RED, YELLOW, Look, Styled, printable

Json = Dict[str, Any]

EXAMPLES = (
    "ccproxy check",
    "ccproxy check --env-file work.env --models work.yaml",
    "ccproxy check --live",
    "ccproxy check --live deepseek-v3 openai/gpt-5-mini --max-cost 0.50",
    "ccproxy check --live --json local | jq .models[0].suggests",
)
_AT_ONCE = 4
_STYLES = {YES: GREEN, NO: YELLOW, FAILED: RED}
_MAX_WORDS = 300


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "model", nargs="*", metavar="MODEL", help="only these; all that the configuration names, unless told"
    )
    parser.add_argument("--live", action="store_true", help="ask the models what they can: seven short probes each")
    parser.add_argument(
        "--timeout", type=_seconds, default=30.0, help="with --live: seconds a probe may take (%(default)g)"
    )
    parser.add_argument(
        "--max-cost",
        type=_usd,
        default=Decimal("0.10"),
        metavar="USD",
        help="with --live: what the prompt may cost that is too long on purpose, if it is not refused (%(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print an object")
    add_configuration(parser)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 600:
        raise argparse.ArgumentTypeError("more than 0 and at most 600 seconds")
    return value


def _usd(text: str) -> Decimal:
    try:
        return money(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected {error}") from None


def run(options: argparse.Namespace) -> int:
    """Say what was found; with ``--live`` 1 when a model does not answer."""
    loaded = load(options)
    models = _chosen(options.model, loaded.config)
    found = f"check: {len(loaded.config.models)} models, {len(loaded.warnings)} warnings"
    log.note(found, loaded.config, os.environ)
    if options.live:
        return _run_live(loaded.config, models, options)
    if options.json:
        print(json.dumps(_configuration(loaded, models), indent=2, ensure_ascii=False))
    else:
        print("\n".join(_lines(loaded, Look.of_output())))
    return 0


def _chosen(names: Sequence[str], config: Config) -> List[Model]:
    """Return the models of the command line, or all that the configuration names."""
    found = {name: config.find(name) for name in names}
    for name, model in found.items():
        if model is None:
            raise ConfigError(f"unknown model {name!r}; `ccproxy models` lists those of the configuration")
    return [model for model in found.values() if model is not None] or list(configured_models(config))


def _configuration(loaded: Loaded, models: List[Model]) -> Json:
    return {
        "env_file": str(loaded.env_file) if loaded.env_file else None,
        "models_file": str(loaded.models_file) if loaded.models_file else None,
        "routes": routers(loaded.config),
        "models": [describe(model, loaded.config) for model in models],
        "warnings": list(loaded.warnings),
    }


def _lines(loaded: Loaded, look: Look) -> List[str]:
    config = loaded.config
    rows = [
        ("settings", str(loaded.env_file or "no .env")),
        ("models", f"{loaded.models_file or 'no models.yaml'}: {len(config.models)}"),
        ("address", f"{config.host} port {config.port}{', with a token' if config.ccproxy_auth_token else ''}"),
    ]
    if not config.router_default:
        decision = plain_route("claude-sonnet-4-5", config)
        rows.append((decision.rule, f"{decision.reason} ({decision.models[0].model_id})"))
    rows += [(rule, ", then ".join(router)) for rule, router in routers(config).items() if router]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {printable(text)}" for name, text in rows]
    warnings = [f"{look.colored(YELLOW, 'warning'.ljust(width))}  {printable(text)}" for text in loaded.warnings]
    return [*lines, *warnings]


# --- live --------------------------------------------------------------------------------------------------------


def _run_live(config: Config, models: List[Model], options: argparse.Namespace) -> int:
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
    progress = _Progress(len(models) * len(PROBES))
    benches = [Bench(app, config, Examination(model), options.max_cost) for model in models]
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        return list(pool.map(lambda bench: examine(bench, progress.step), benches))
    finally:
        progress.close()
        app.abort()  # after Ctrl-C threads wait for providers, and the interpreter for the threads
        pool.shutdown(wait=True, cancel_futures=True)
        app.close()


class _Progress:
    """How far the probes are, on a terminal."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._lock = threading.Lock()  # guards the count and the line
        self._is_shown = sys.stderr.isatty()

    def step(self, name: str) -> None:
        """A probe begins."""
        with self._lock:
            self._done += 1
            if self._is_shown:
                print(f"\r\x1b[Kprobe {self._done} of {self._total}: {name}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave no trace."""
        if self._is_shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _table(done: List[Examination], config: Config, look: Look) -> List[str]:
    headings = ["model", *PROBES, "cost"]
    rows = [[Styled(one.model.model_id), *(_cell(one, name) for name in PROBES), _cost(one)] for one in done]
    lines = look.table(headings, rows)
    notes = [f"{one.model.model_id}: {name}: {words}" for one in done for name, words in _notes(one)]
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


def _notes(one: Examination) -> List[Tuple[str, str]]:
    """Return why probes did not succeed."""
    return [
        (name, finding.words[:_MAX_WORDS])
        for name, finding in one.findings.items()
        if finding.outcome != YES and finding.words
    ]


def _entry(one: Examination, config: Config) -> List[str]:
    """Return the lines of models.yaml for a model; one that only a router names gets a whole entry."""
    flags = suggestions(one, config)
    if not flags:
        return []
    model = one.model
    base: Dict[str, Optional[str]] = {"model_id": model.model_id}
    if model.model_id not in config.models:
        base.update(
            model_name=model.name, api_base=model.api_base, api_key_name=model.api_key_name, dialect=model.dialect.name
        )
        base["api_key_name"] = model.api_key_name if model.needs_key else None
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
