"""``ccproxy perf``: what the proxy costs in time, by asking a model directly and through it."""

from __future__ import annotations

import argparse
import json
import os
import signal
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Callable, Iterator, List

from .. import log
from ..config.providers import DEMO_BASE
from ..config.schema import Config, Model
from ..errors import ConfigError
from ..perf import shown
from ..perf.page import page
from ..perf.runs import Pair, run_pairs, warm_up
from ..perf.summary import Report
from ..perf.ways import direct_way, proxied_way, request_body
from ..processes.background import temporary
from ..provider.client import ProviderClient
from ..stub import StubProvider
from .options import add_configuration, configuration_arguments, find_model, load
from .terminal import BOLD, DIM, GREEN, RED, YELLOW, Cell, Look, Styled, printable, progress

EXAMPLES = (
    "ccproxy perf",
    "ccproxy perf --model_id deepseek/deepseek-chat --html report.html",
    "ccproxy perf --model_id gpt-5 --concurrency 8 --prompt-tokens 20000",
    "ccproxy perf --url http://127.0.0.1:8082 --json | jq .rating",
)
_STYLES = {"excellent": GREEN, "good": GREEN, "fair": YELLOW, "poor": RED}
_BAR = 30
# Of the proxy we start: every failure is seen, and nobody's budget decides.
_OWN_SETTINGS = {
    "MAX_RETRIES": "0",
    "WORKERS": "1",
    "LOG_LEVEL": "ERROR",
    "SESSION_BUDGET_USD": "",
    "DAILY_BUDGET_USD": "",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--model_id", "--model-id", default="demo/echo", help="model to ask (%(default)s)")
    parser.add_argument("--requests", type=_between(1, 10_000), default=20, help="requests each way (%(default)s)")
    parser.add_argument("--concurrency", type=_between(1, 256), default=1, help="pairs at a time (%(default)s)")
    parser.add_argument(
        "--prompt-tokens", type=_between(1, 1_000_000), default=200, help="length of the prompt, about (%(default)s)"
    )
    parser.add_argument(
        "--max-tokens", type=_between(1, 1_000_000), default=1000, help="most tokens of an answer (%(default)s)"
    )
    parser.add_argument("--timeout", type=_between(1, 3600), default=120, help="seconds for a request (%(default)s)")
    parser.add_argument("--url", help="a running proxy; without it one is started for the measurement")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots as well")
    add_configuration(parser)


def run(options: argparse.Namespace) -> int:
    """Measure and print; 0 when every request was answered."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the proxy we start ends with us
    config = load(options).config
    model = find_model(options.model_id, config, "--model_id:")
    if not config.is_ready(model):
        raise ConfigError(f"{model.model_id}: no key: {model.api_key_name} is not set")
    if options.html:
        _check_writable(options.html)
    with ExitStack() as stack:
        pairs = list(_progress(_measure(options, config, model, stack), options.requests))
    names = ("requests", "concurrency", "prompt_tokens", "max_tokens")
    report = Report(model.model_id, {name: getattr(options, name) for name in names}, tuple(pairs))
    if options.html:
        options.html.write_text(page(report), encoding="utf-8")
    print(json.dumps(report.to_dict(), indent=2) if options.json else render(report, Look.of_output()))
    log.note(f"perf: {model.model_id}, {options.requests} requests each way", config, os.environ)
    return 1 if any(way.failed for way in report.ways.values()) else 0


def _measure(options: argparse.Namespace, config: Config, model: Model, stack: ExitStack) -> Iterator[Pair]:
    """Start what has to run, warm it up, and yield the pairs."""
    variables = dict(_OWN_SETTINGS)
    if model.api_base == DEMO_BASE:  # both ways to the same one
        demo = stack.enter_context(StubProvider())
        model = replace(model, api_base=demo.url)
        variables["DEMO_API_BASE"] = demo.url
    arguments = ["--host", "127.0.0.1", "--port", "0", *configuration_arguments(options)]
    url = options.url or stack.enter_context(temporary(arguments, variables))
    clients = [ProviderClient(lambda: "") for _ in range(2)]
    for client in clients:
        stack.callback(client.close)
    body = request_body(model.model_id, options.prompt_tokens, options.max_tokens)
    ways = (
        replace(direct_way(clients[0], config, model, body), timeout=options.timeout),
        replace(proxied_way(clients[1], config, model, body, url.rstrip("/")), timeout=options.timeout),
    )
    warm_up(ways, ("directly", f"through {url}"), max(2, options.concurrency))
    yield from run_pairs(ways, options.requests, options.concurrency)


def _progress(pairs: Iterator[Pair], count: int) -> Iterator[Pair]:
    """Pass the pairs on, and draw a bar on a terminal."""
    for number, pair in enumerate(pairs, 1):
        done = _BAR * number // count
        failed = "  failures" if any(sample.error for sample in pair) else ""
        progress(f"[{'#' * done}{'.' * (_BAR - done)}] {number}/{count}{failed}")
        yield pair
    progress("")


def render(report: Report, look: Look) -> str:
    """Return the report as text."""
    criteria: List[List[Cell]] = [
        [name, Styled(grade, _STYLES.get(grade, "")), *rest] for name, grade, *rest in shown.criteria(report)
    ]
    lines: List[str] = [
        look.colored(BOLD, printable(shown.headline(report))),
        "",
        *look.table(shown.HEADINGS, shown.figures(report), numbers=shown.HEADINGS[1:]),
        "",
        *map(printable, shown.failures(report)),
        look.colored(_STYLES.get(report.rating, BOLD), shown.verdict(report)),
        *look.table(shown.CRITERIA, criteria),
        look.colored(DIM, shown.NOTE),
    ]
    return "\n".join(lines)


def _between(least: int, most: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        if not text.isdigit() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {most}, not {text!r}")
        return int(text)

    return whole_number


def _check_writable(path: Path) -> None:
    """Refuse before anything was paid for, not after."""
    try:
        path.open("a", encoding="utf-8").close()
    except OSError as error:
        raise ConfigError(f"--html: {path}: {error.strerror}") from None
