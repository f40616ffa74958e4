"""What the Claude models cost at Anthropic: a dated table, to tell what an answer of another model saved.

The rows are Anthropic's own list prices for the standard API in USD per million tokens, with the 5-minute cache. A
model whose price is not one number, such as one that costs more above a prompt length, has no row: its saving is
unknown.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Dict

from ..frozen import frozen

_DOCS = "https://platform.claude.com/docs/"
PRICING, SONNET_5, OPUS_5_5 = (
    _DOCS + path for path in ("en/about-claude/pricing", "en/models/sonnet-5/overview", "en/models/opus-5-5/overview")
)
AS_OF = "2026-11-22"
"""The day on which the sources were looked up."""

ALIASES_PRICED_AS = {"default:": "claude-sonnet-5"}
"""The Claude model in whose place an alias is asked for, by its beginning: the cheapest that it may be.

In place of a haiku nothing is known: the price of the newest depends on the length of the prompt.
"""


@frozen
class ClaudePrice:
    """One row, in USD per million tokens."""

    model: str
    input: Decimal
    output: Decimal
    cache_write: Decimal
    cache_read: Decimal
    source: str = PRICING
    as_of: str = AS_OF


def _row(model: str, input: str, output: str, cache_write: str, cache_read: str, source: str = PRICING) -> ClaudePrice:
    return ClaudePrice(model, Decimal(input), Decimal(output), Decimal(cache_write), Decimal(cache_read), source)


CLAUDE_PRICES: Dict[str, ClaudePrice] = {
    row.model: row
    for row in (
        _row("claude-opus-5-5", "4", "20", "5", "0.20", OPUS_5_5),
        _row("claude-opus-5", "5", "25", "6.25", "0.50"),
        _row("claude-opus-4-8", "5", "25", "6.25", "0.50"),
        _row("claude-opus-4-7", "5", "25", "6.25", "0.50"),
        _row("claude-opus-4-6", "5", "25", "6.25", "0.50"),
        _row("claude-opus-4-5", "5", "25", "6.25", "0.50"),
        _row("claude-opus-4-1", "15", "75", "18.75", "1.50"),
        _row("claude-opus-4", "15", "75", "18.75", "1.50"),
        _row("claude-sonnet-5", "2", "10", "2.50", "0.20", SONNET_5),
        _row("claude-sonnet-4-6", "3", "15", "3.75", "0.30"),
        _row("claude-sonnet-4-5", "3", "15", "3.75", "0.30"),
        _row("claude-sonnet-4", "3", "15", "3.75", "0.30"),
        _row("claude-3-7-sonnet", "3", "15", "3.75", "0.30"),
        _row("claude-haiku-4-5", "1", "5", "1.25", "0.10"),
        _row("claude-3-5-haiku", "0.80", "4", "1", "0.08"),
        _row("claude-3-haiku", "0.25", "1.25", "0.30", "0.03"),
    )
}
