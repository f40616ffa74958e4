"""Usage and a model's prices to a cost in USD; what nobody told stays None.

Money is ``Decimal`` from end to end, so that sums are exact. A cost is known only when every kind of tokens that
occurred has a price.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache
from typing import Any, Mapping, Optional

from ..config.schema import Config, Model
from ..message import Usage
from .prices import ALIASES_PRICED_AS, CLAUDE_PRICES, FACTORS, Prices

_LONGEST_NAME = 100  # no Claude model's is half as long


def prices_of(model: Model, config: Config) -> Prices:
    """Return what a model costs.

    A Claude model at Anthropic's own address that tells no price has the list price. Input and output prices that a
    model does not tell are those of DEFAULT_INPUT_COST_PER_TOKEN and DEFAULT_OUTPUT_COST_PER_TOKEN. A cache price that
    it does not tell is its input price, and that of writing for an hour the one of writing: reads then count as more
    than most providers ask, and never as nothing.
    """
    listed = CLAUDE_PRICES.get(_plain(model.name[:_LONGEST_NAME])) if model.is_at_anthropic else None
    if listed and model.input_cost_per_token is None and model.output_cost_per_token is None:
        return listed
    full = _first(model.input_cost_per_token, config.default_input_cost_per_token)
    write = _first(model.cache_write_cost_per_token, full)
    return Prices(
        input=full,
        output=_first(model.output_cost_per_token, config.default_output_cost_per_token),
        cache_read=_first(model.cache_read_cost_per_token, full),
        cache_write=write,
        cache_write_1h=_first(model.cache_write_1h_cost_per_token, write),
    )


def _first(price: Optional[Decimal], default: Optional[Decimal]) -> Optional[Decimal]:
    return default if price is None else price


def cost_of(usage: Usage, prices: Prices, factor: Optional[Decimal] = Decimal(1)) -> Optional[Decimal]:
    """Return what an answer cost; thinking tokens are among the output tokens already.

    Args:
        factor: how many times their prices the tokens cost; None where that is unknown.
    """
    if factor is None:
        return None
    if prices.long is not None and usage.prompt_tokens > prices.long_above:
        prices = prices.long
    cost = Decimal(0)
    for tokens, price in (
        (usage.input_tokens, prices.input),
        (usage.cache_read_input_tokens, prices.cache_read),
        (usage.cache_creation_input_tokens - usage.cache_creation_1h_input_tokens, prices.cache_write),
        (usage.cache_creation_1h_input_tokens, prices.cache_write_1h),
        (usage.output_tokens, prices.output),
    ):
        if not tokens:
            continue
        if price is None:
            return None
        cost += tokens * price
    return cost * factor + usage.web_searches * prices.web_search


def price_factor(told: Mapping[str, Any]) -> Optional[Decimal]:
    """Return how many times their list price the tokens cost, by what Anthropic's ``usage`` tells; None: unknown."""
    factor = Decimal(1)
    for name, factors in FACTORS.items():
        one = factors.get(str(told.get(name)), Decimal(1))
        if one is None:
            return None
        factor *= one
    return factor


TELL_COSTS = ("openrouter", "xai")
"""The dialects whose answers tell what they cost."""
_TICKS = Decimal(10**10)
"""Of xAI's, in a USD: https://docs.x.ai/developers/cost-tracking."""


def reported_cost(usage: Optional[Mapping[str, Any]], dialect: str) -> Optional[Decimal]:
    """Return the cost that the provider itself tells in its ``usage``.

    OpenRouter's credits are USD. With the owner's own key at the model's vendor (``is_byok``) they are its fee alone,
    and the vendor's price stands beside them.
    """
    if dialect not in TELL_COSTS or usage is None:
        return None
    if dialect == "xai":
        ticks = _amount(usage.get("cost_in_usd_ticks"))
        return None if ticks is None else ticks / _TICKS
    cost = _amount(usage.get("cost"))
    if cost is None or usage.get("is_byok") is not True:
        return cost
    details = usage.get("cost_details")
    vendor = _amount(details.get("upstream_inference_cost")) if isinstance(details, dict) else None
    return None if vendor is None else cost + vendor


def _amount(value: Any) -> Optional[Decimal]:
    """Read a JSON number that is an amount of money; the shortest text of a float is what the provider wrote."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    amount = Decimal(str(value))
    return amount if amount.is_finite() and amount >= 0 else None


def claude_cost(requested: str, usage: Usage, table: Mapping[str, Prices] = CLAUDE_PRICES) -> Optional[Decimal]:
    """Return what the same tokens would have cost at the list price of the Claude model that was asked for."""
    rule, colon, _ = requested.partition(":")
    prices = table.get(ALIASES_PRICED_AS.get(rule + colon) or _plain(requested[:_LONGEST_NAME]))
    return None if prices is None else cost_of(usage, prices)


@lru_cache(maxsize=64)
def _plain(name: str) -> str:
    """Return a model name without date, ``-latest``, ``-0`` and Claude Code's ``[1m]``."""
    return re.sub(r"(-0)?(-\d{8}|-latest)?(\[1m\])?$", "", name)


def plain(amount: Decimal) -> str:
    """Return an amount as text, exact, without exponent and without zeros at its end."""
    shown = format(amount, "f")
    return shown.rstrip("0").rstrip(".") if "." in shown else shown
