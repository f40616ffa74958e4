"""``ccproxy models``: the models it can reach, whether each has its key, and what is known about them."""

from __future__ import annotations

import argparse
import json
from decimal import Decimal
from typing import Any, Dict, Optional

from ..accounting.pricing import plain, prices_of
from ..config.credentials import without_password
from ..config.providers import PROVIDERS
from ..config.schema import Config, Model
from ..encoded import Json
from ..routing import configured_models
from .options import add_configuration, load
from .terminal import GREEN, YELLOW, Look, Styled

EXAMPLES = (
    "ccproxy models",
    "ccproxy models --json | jq '.models[] | select(.key == \"missing\").key_name'",
)
_KEY_STYLES = {"present": GREEN, "missing": YELLOW}
_MILLION = Decimal(1_000_000)
NUMBERS = frozenset({"input", "output", "$/M in", "$/M out"})


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--json", action="store_true", help="print it for a script: limits in tokens, USD per token")
    add_configuration(parser)


def run(options: argparse.Namespace) -> int:
    """Print the models."""
    config = load(options).config
    rows = [describe(model, config) for model in configured_models(config)]
    keys = [row.name for row in PROVIDERS.values() if row.api_key_name and config.variables.get(row.api_key_name)]
    if options.json:
        print(json.dumps({"models": rows, "providers": keys}, indent=2, ensure_ascii=False))
        return 0
    cells = [_cells(row) for row in rows]
    if cells:
        print(
            "\n".join(Look.of_output().table(list(cells[0]), [list(row.values()) for row in cells], NUMBERS)),
            end="\n\n",
        )
    print(f"{'Also a' if cells else 'A'}ny <provider>/<model name>; there are keys for: {', '.join(keys) or 'none'}")
    return 0


def describe(model: Model, config: Config) -> Json:
    """Return what is known about a model."""
    prices = prices_of(model, config)
    return {
        "model_id": model.model_id,
        "model_name": model.name,
        "provider": model.provider,
        "api_base": without_password(model.api_base),
        "key": ("present" if config.keys_of(model) else "missing") if model.needs_key else "not needed",
        "key_name": model.api_key_name or None,
        "max_input_tokens": config.window(model),
        "max_tokens": config.output_limit(model),
        "input_cost_per_token": _amount(prices.input),
        "output_cost_per_token": _amount(prices.output),
        "dialect": model.dialect.name,
        "api": "messages" if model.direct else model.api,
        "direct": model.direct,
        "can_stream": model.can_stream,
        "images": model.direct or model.takes_images,
        "fallbacks": list(model.fallbacks),
        "routes": [rule for rule, router in config.routers.items() if model in map(config.find, router)],
    }


def _amount(price: Optional[Decimal]) -> Optional[str]:
    return None if price is None else plain(price)


def _cells(row: Json) -> Dict[str, Any]:
    """Return the cells of a model by their headings."""
    key = row["key"] if row["key"] == "not needed" else f"{row['key_name']} {row['key']}"
    return {
        "model": row["model_id"],
        "key": Styled(key, _KEY_STYLES.get(row["key"], "")),
        "input": _short(row["max_input_tokens"]),
        "output": _short(row["max_tokens"]),
        "$/M in": _per_million(row["input_cost_per_token"]),
        "$/M out": _per_million(row["output_cost_per_token"]),
        "images": "yes" if row["images"] else "no",
        "api": row["api"],
        "dialect": "" if row["direct"] else row["dialect"],
        "routes": ", ".join(row["routes"]),
    }


def _short(tokens: int) -> str:
    return f"{tokens // 1000}k" if tokens % 1000 == 0 else str(tokens)


def _per_million(price: Optional[str]) -> str:
    return "?" if price is None else plain(Decimal(price) * _MILLION)
