"""What the Claude models cost at Anthropic: a dated table, for its own answers, and for what another model's saved.

The rows are Anthropic's own list prices for the standard API in USD per million tokens, as of 2026-11-26:
https://platform.claude.com/docs/en/about-claude/pricing, and for the factors
https://platform.claude.com/docs/en/build-with-claude/data-residency.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Dict, Mapping, Optional

from ..frozen import frozen

_MILLION = Decimal(1_000_000)
_SEARCH = Decimal("0.01")
_HOUR = 2
"""What it costs to write a token into the cache for an hour, in prices of an input token: the same for all models."""

ALIASES_PRICED_AS = {"default:": "claude-sonnet-5-5", "background:": "claude-haiku-5-5"}
"""The Claude model in whose place an alias is asked for, by its beginning: the cheapest that it may be."""


@frozen
class Prices:
    """USD per token of each kind; None where nobody told."""

    input: Optional[Decimal] = None
    output: Optional[Decimal] = None
    cache_read: Optional[Decimal] = None
    cache_write: Optional[Decimal] = None
    cache_write_1h: Optional[Decimal] = None
    web_search: Decimal = Decimal(0)
    """USD per search that the provider ran."""
    long_above: int = 0
    """Prompts of more tokens have the prices ``long``, where there are such."""
    long: Optional[Prices] = None


def _prices(input: str, output: str, cache_write: str, cache_read: str) -> Prices:
    full, out, write, read = (Decimal(price) / _MILLION for price in (input, output, cache_write, cache_read))
    return Prices(full, out, read, write, full * _HOUR, _SEARCH)


CLAUDE_PRICES: Dict[str, Prices] = {
    "claude-fable-5-1": _prices("10", "50", "12.50", "0.25"),
    "claude-fable-5": _prices("10", "50", "12.50", "1"),
    "claude-opus-5-5": _prices("4", "20", "5", "0.20"),
    "claude-opus-5": _prices("5", "25", "6.25", "0.50"),
    "claude-opus-4-8": _prices("5", "25", "6.25", "0.50"),
    "claude-opus-4-7": _prices("5", "25", "6.25", "0.50"),
    "claude-opus-4-6": _prices("5", "25", "6.25", "0.50"),
    "claude-opus-4-5": _prices("5", "25", "6.25", "0.50"),
    "claude-opus-4-1": _prices("15", "75", "18.75", "1.50"),
    "claude-opus-4": _prices("15", "75", "18.75", "1.50"),
    "claude-sonnet-5-5": _prices("2", "10", "2.50", "0.10"),
    "claude-sonnet-5": _prices("2", "10", "2.50", "0.20"),
    "claude-sonnet-4-6": _prices("3", "15", "3.75", "0.30"),
    "claude-sonnet-4-5": _prices("3", "15", "3.75", "0.30"),
    "claude-sonnet-4": _prices("3", "15", "3.75", "0.30"),
    "claude-3-7-sonnet": _prices("3", "15", "3.75", "0.30"),
    "claude-haiku-5-5": replace(
        _prices("0.10", "0.50", "0.125", "0.01"), long_above=100_000, long=_prices("0.50", "2.50", "0.625", "0.05")
    ),
    "claude-haiku-4-5": _prices("1", "5", "1.25", "0.10"),
    "claude-3-5-haiku": _prices("0.80", "4", "1", "0.08"),
    "claude-3-haiku": _prices("0.25", "1.25", "0.30", "0.03"),
}

FACTORS: Mapping[str, Mapping[str, Optional[Decimal]]] = {
    "service_tier": {"batch": Decimal("0.5"), "priority": None},
    "inference_geo": {"us": Decimal("1.1")},
    "speed": {"fast": None},
}
"""What an answer's ``usage`` tells beside its tokens: the factor of their price, None where it is each model's own or
was agreed upon; what is not here is at the list price."""
