"""Usage and prices to money: exact, each kind of tokens apart, and unknown where nobody told."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, Dict, Optional

import pytest

from ccproxy.accounting.prices import CLAUDE_PRICES, Prices
from ccproxy.accounting.pricing import claude_cost, cost_of, plain, price_factor, prices_of, reported_cost
from ccproxy.config.schema import Config, Model
from ccproxy.message import Usage
from recordings import folder

USAGE = Usage(
    input_tokens=1000,
    output_tokens=100,
    cache_read_input_tokens=10,
    cache_creation_input_tokens=1,
    thinking_tokens=40,
)


def model(**prices: str) -> Model:
    """A model that tells some of its prices."""
    return Model("m", "http://x", **{f"{kind}_cost_per_token": Decimal(price) for kind, price in prices.items()})  # type: ignore[arg-type]


def decimal(text: Optional[str]) -> Optional[Decimal]:
    """An amount, or none."""
    return None if text is None else Decimal(text)


@pytest.mark.parametrize(
    ("prices", "cost"),
    [
        ({"input": "0.001", "output": "0.01", "cache_read": "0.1", "cache_write": "1"}, "4"),
        ({"input": "0.001", "output": "0.01"}, "2.011"),
        ({"input": "0.001", "output": "0.01", "cache_read": "0"}, "2.001"),
        ({"input": "0", "output": "0"}, "0"),
        ({"input": "0.001"}, None),
        ({"output": "0.001"}, None),
        ({}, None),
    ],
)
def test_the_cost_of_an_answer(prices: Dict[str, str], cost: Optional[str]) -> None:
    """Each kind has its price; cached tokens without one count as input; thinking is paid as output, once."""
    assert cost_of(USAGE, prices_of(model(**prices), Config())) == decimal(cost)


def test_a_kind_that_did_not_occur_needs_no_price() -> None:
    """Without output, the price of output is not missed."""
    assert cost_of(Usage(input_tokens=2), Prices(input=Decimal("0.5"))) == 1


def test_money_has_no_rounding() -> None:
    """A million answers at a price that binary floats cannot hold cost exactly a million times as much."""
    cost = cost_of(Usage(3, 7), Prices(Decimal("0.00000027"), Decimal("0.0000011")))
    assert cost == Decimal("0.00000851")
    assert sum([cost] * 1000) == Decimal("0.00851")


def test_defaults_are_for_models_that_do_not_say() -> None:
    """A model's own price wins, and its cache prices follow the input price it ends up with."""
    config = Config(default_input_cost_per_token=Decimal(2), default_output_cost_per_token=Decimal(3))
    assert prices_of(model(), config) == Prices(*map(Decimal, (2, 3, 2, 2, 2)))
    assert prices_of(model(input="5", cache_read="1"), config) == Prices(*map(Decimal, (5, 3, 1, 5, 5)))
    assert prices_of(model(input="0"), config).input == 0


@pytest.mark.parametrize(
    ("prices", "cost"),
    [
        ({"input": "1", "output": "0", "cache_write": "3", "cache_write_1h": "5"}, "21"),
        ({"input": "1", "output": "0", "cache_write": "3"}, "15"),
        ({"input": "1", "output": "0"}, "5"),
    ],
)
def test_what_the_cache_keeps_for_an_hour_has_its_own_price(prices: Dict[str, str], cost: str) -> None:
    """Without one it costs as much as other writes to the cache."""
    usage = Usage(cache_creation_input_tokens=5, cache_creation_1h_input_tokens=3)
    assert cost_of(usage, prices_of(model(**prices), Config())) == Decimal(cost)


def at_anthropic(name: str, **fields: Any) -> Model:
    """A model that Anthropic itself is asked for."""
    return Model("m", "https://api.anthropic.com/v1", model_name=name, direct=True, **fields)


def test_claude_has_its_list_price() -> None:
    """At Anthropic's own address, with or without an entry, where the entry tells no price; defaults are for others."""
    config = Config(default_input_cost_per_token=Decimal(2), default_output_cost_per_token=Decimal(3))
    found = config.find("anthropic/claude-sonnet-4-5-20250929")
    assert found is not None
    assert prices_of(found, config) == CLAUDE_PRICES["claude-sonnet-4-5"]
    assert prices_of(at_anthropic("claude-opus-5-5"), Config()) == CLAUDE_PRICES["claude-opus-5-5"]
    assert prices_of(at_anthropic("claude-opus-5-5", input_cost_per_token=Decimal(7)), config).input == 7
    assert prices_of(at_anthropic("claude-of-tomorrow"), config).input == 2
    elsewhere = Model("m", "https://gateway.example/v1", model_name="claude-opus-5-5", direct=True)
    assert prices_of(elsewhere, Config()).input is None


def test_each_kind_of_claude_tokens_has_its_list_price() -> None:
    """A million of each, of Sonnet 4.5: input, output, read, written for five minutes, for an hour; and a search."""
    usage = Usage(10**6, 10**6, 10**6, 2 * 10**6, web_searches=1, cache_creation_1h_input_tokens=10**6)
    prices = prices_of(at_anthropic("claude-sonnet-4-5"), Config())
    assert cost_of(usage, prices) == Decimal("3") + 15 + Decimal("0.30") + Decimal("3.75") + 6 + Decimal("0.01")


def test_a_long_prompt_of_haiku_costs_more() -> None:
    """All of its tokens, the output too, once the prompt, cached or not, is above the limit."""
    assert claude_cost("claude-haiku-5-5", Usage(90_000, 1000, 10_000)) == Decimal("0.0096")
    assert claude_cost("claude-haiku-5-5", Usage(90_001, 1000, 10_000)) == Decimal("0.0480005")


@pytest.mark.parametrize(
    ("told", "factor"),
    [
        ({}, "1"),
        ({"service_tier": "standard", "inference_geo": "global", "speed": "standard"}, "1"),
        ({"service_tier": None, "inference_geo": "not_available", "speed": ["?"]}, "1"),
        ({"inference_geo": "us"}, "1.1"),
        ({"inference_geo": "us", "service_tier": "batch"}, "0.55"),
        ({"speed": "fast"}, None),
        ({"service_tier": "priority", "inference_geo": "us"}, None),
    ],
)
def test_what_changes_the_list_price(told: Any, factor: Optional[str]) -> None:
    """Anthropic's ``usage`` tells of batches and of inference in the US; a price of a tier's own is not guessed."""
    found = price_factor(told)
    assert found == decimal(factor)
    usage = Usage(input_tokens=100, web_searches=2)
    cost = cost_of(usage, Prices(input=Decimal("0.5"), web_search=Decimal(3)), found)
    assert cost == (None if found is None else 50 * found + 6)


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        ({"cost": 3.6e-06}, "0.0000036"),
        ({"cost": 0}, "0"),
        ({"cost": 1, "is_byok": False, "cost_details": {"upstream_inference_cost": 9}}, "1"),
        ({"cost": 0.01, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.2}}, "0.21"),
        ({"cost": 0, "is_byok": True, "cost_details": {"upstream_inference_cost": None}}, None),
        ({"cost": 0, "is_byok": True}, None),
        ({"cost": "1"}, None),
        ({"cost": True}, None),
        ({"cost": -1}, None),
        ({"cost": float("inf")}, None),
        ({"cost": {"total_cost": 1}}, None),
        ({}, None),
        (None, None),
    ],
)
def test_the_cost_that_openrouter_tells(usage: Any, cost: Optional[str]) -> None:
    """Its credits are USD; with a key of the owner's at the vendor, the vendor's price comes on top."""
    assert reported_cost(usage, "openrouter") == decimal(cost)
    assert reported_cost(usage, "generic") is None


@pytest.mark.parametrize(
    ("ticks", "cost"), [(37_756_000, "0.0037756"), (0, "0"), (None, None), ("1", None), (-1, None)]
)
def test_the_cost_that_xai_tells(ticks: Any, cost: Optional[str]) -> None:
    """In ticks, of which a USD has ten thousand million; where others pass them on, they are nobody's price."""
    usage = {"cost_in_usd_ticks": ticks}
    assert reported_cost(usage, "xai") == decimal(cost)
    assert reported_cost(usage, "openrouter") is None


def test_every_recorded_openrouter_answer_tells_its_cost() -> None:
    """In the recordings every whole answer with a cost is read, and none costs more than ten cents."""
    found = []
    for path in sorted(folder().glob("openrouter/*.json")):
        body = json.loads(path.read_text(encoding="utf-8"))["response"].get("body")
        usage = body.get("usage") if isinstance(body, dict) else None
        if usage and "cost" in usage:
            found.append(reported_cost(usage, "openrouter"))
    assert found
    assert all(cost is not None and 0 < cost < Decimal("0.1") for cost in found)


@pytest.mark.parametrize(
    ("requested", "row"),
    [
        ("claude-opus-4-5-20251101", "claude-opus-4-5"),
        ("claude-sonnet-4-20250514", "claude-sonnet-4"),
        ("claude-sonnet-4-0", "claude-sonnet-4"),
        ("claude-opus-5-5[1m]", "claude-opus-5-5"),
        ("claude-3-5-haiku-latest", "claude-3-5-haiku"),
        ("claude-3-5-haiku-20241022", "claude-3-5-haiku"),
    ],
)
def test_a_name_finds_its_price(requested: str, row: str) -> None:
    """Date, ``-latest`` and Claude Code's ``[1m]`` are no part of the model."""
    assert claude_cost(requested, Usage(1)) == CLAUDE_PRICES[row].input


def test_an_alias_has_a_price() -> None:
    """What ``ccproxy code`` calls the models counts as the cheapest of Claude's that it may stand for."""
    assert claude_cost("default:deepseek/deepseek-chat", USAGE) == claude_cost("claude-sonnet-5-5", USAGE)
    assert claude_cost("background:deepseek/deepseek-chat", USAGE) == claude_cost("claude-haiku-5-5", USAGE)


@pytest.mark.parametrize(
    "requested", ["gpt-5", "default", "claude-opus-4-55", "claude-of-tomorrow", "my-claude-opus-5", ""]
)
def test_an_unknown_model_has_no_price(requested: str) -> None:
    """Nothing is guessed from a name that is only similar."""
    assert claude_cost(requested, USAGE) is None


def test_the_price_of_the_model_asked_for() -> None:
    """The same tokens, each kind at its own price."""
    row = Prices(Decimal("0.001"), Decimal("0.01"), Decimal("0.1"), Decimal(1))
    assert claude_cost("claude-x", USAGE, {"claude-x": row}) == 4


def test_the_price_table() -> None:
    """Reads of the cache are cheaper than input, writes dearer."""
    for model in CLAUDE_PRICES.values():
        for row in filter(None, (model, model.long)):
            prices = (row.cache_read, row.input, row.cache_write, row.cache_write_1h, row.output)
            known = [price for price in prices if price is not None]
            assert len(known) == 5
            assert known[0] > 0
            assert known == sorted(set(known))


def test_the_price_table_agrees_with_a_bill() -> None:
    """OpenRouter tells what Anthropic takes for a recorded answer of Claude Opus 5: the table says the same."""
    bills = list(folder().glob("openrouter/anthropic-claude-opus-5--*.json"))
    assert bills
    for path in bills:
        usage = json.loads(path.read_text(encoding="utf-8"))["response"]["body"]["usage"]
        counts = Usage(usage["prompt_tokens"], usage["completion_tokens"])
        assert claude_cost("claude-opus-5", counts) == reported_cost(usage, "openrouter")


@pytest.mark.parametrize(
    ("amount", "text"),
    [("0.000500", "0.0005"), ("1E-7", "0.0000001"), ("10", "10"), ("0", "0"), ("1E+2", "100"), ("-0.10", "-0.1")],
)
def test_an_amount_as_text(amount: str, text: str) -> None:
    """No exponent, no zeros at the end, nothing rounded."""
    assert plain(Decimal(amount)) == text
