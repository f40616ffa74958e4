"""``ccproxy check``: say what the configuration holds and what is wrong with it; live, what its models really can."""

from __future__ import annotations

import argparse
import json
import os
from decimal import Decimal
from typing import List, Sequence

from .. import log
from ..config.load import Loaded
from ..config.schema import Config, Model
from ..config.values import money
from ..encoded import Json
from ..errors import ConfigError
from ..routing import configured_models, plain_route
from .models import describe
from .options import add_configuration, find_model, load, seconds
from .terminal import YELLOW, Look, printable

EXAMPLES = (
    "ccproxy check",
    "ccproxy check --env-file work.env --models work.yaml",
    "ccproxy check --live",
    "ccproxy check --live deepseek-v3 openai/gpt-5-mini --max-cost 0.50",
    "ccproxy check --live --json local | jq .models[0].suggests",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "model", nargs="*", metavar="MODEL", help="only these; all that the configuration names, unless told"
    )
    parser.add_argument("--live", action="store_true", help="ask the models what they can: seven short probes each")
    parser.add_argument(
        "--timeout", type=seconds, default=30.0, help="with --live: seconds a probe may take (%(default)g)"
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


def _usd(text: str) -> Decimal:
    try:
        return money(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected {error}, not {text!r}") from None


def run(options: argparse.Namespace) -> int:
    """Say what was found; with ``--live`` 1 when a model does not answer."""
    loaded = load(options)
    models = _chosen(options.model, loaded.config)
    found = f"check: {len(loaded.config.models)} models, {len(loaded.config.warnings)} warnings"
    log.note(found, loaded.config, os.environ)
    if options.live:
        if not models:
            raise ConfigError("the configuration names no model; name one, such as anthropic/claude-sonnet-4-5")
        from . import check_live  # and the application with it, half of what a look at the files takes

        return check_live.run(loaded.config, models, options)
    if options.json:
        print(json.dumps(_configuration(loaded, models), indent=2, ensure_ascii=False))
    else:
        print("\n".join(_lines(loaded, Look.of_output())))
    return 0


def _chosen(names: Sequence[str], config: Config) -> List[Model]:
    """Return the models of the command line, or all that the configuration names."""
    return [find_model(name, config) for name in dict.fromkeys(names)] or list(configured_models(config))


def _configuration(loaded: Loaded, models: List[Model]) -> Json:
    return {
        "env_file": str(loaded.env_file) if loaded.env_file else None,
        "models_file": str(loaded.models_file) if loaded.models_file else None,
        "routes": loaded.config.routers,
        "models": [describe(model, loaded.config) for model in models],
        "warnings": list(loaded.config.warnings),
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
    rows += [(rule, ", then ".join(router)) for rule, router in config.routers.items() if router]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {printable(text)}" for name, text in rows]
    warnings = [f"{look.colored(YELLOW, 'warning'.ljust(width))}  {printable(text)}" for text in loaded.config.warnings]
    return [*lines, *warnings]
