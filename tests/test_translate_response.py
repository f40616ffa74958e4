"""How an answer ends: finish reasons to stop reasons, usage to Anthropic's counts."""

from __future__ import annotations

from typing import Any, Dict, Optional

import pytest

from ccproxy.message import Usage
from ccproxy.provider.dialects import DIALECTS
from ccproxy.translate.response import stop_reason, translate_usage

GENERIC = DIALECTS["generic"]
ENDS = ["stop", "eos", "eos_token", "COMPLETE", "STOP", "", None, "something_new"]
CALLS = ["tool_calls", "function_call", "TOOL_CALL"]
LENGTH = ["length", "max_tokens", "MAX_TOKENS", "model_length"]
WINDOW = ["model_context_window_exceeded"]
REFUSED = [
    "content_filter",
    "content_filter: hate",
    "SAFETY",
    "RECITATION",
    "PROHIBITED_CONTENT",
    "BLOCKLIST",
    "SPII",
    "LANGUAGE",
    "sensitive",
    "guardrail_intervened",
]
ROWS = [
    *((reason, "end_turn", "tool_use") for reason in [*ENDS, *CALLS]),
    *((reason, "max_tokens", "max_tokens") for reason in LENGTH),
    *((reason, reason, reason) for reason in WINDOW),
    *((reason, "refusal", "tool_use") for reason in REFUSED),
]


@pytest.mark.parametrize(("finish", "plain", "with_call"), ROWS)
def test_the_stop_reason(finish: Optional[str], plain: str, with_call: str) -> None:
    """A call decides, whatever the provider says; only a cut by length outranks it."""
    assert (stop_reason(finish, False), stop_reason(finish, True)) == (plain, with_call)


def details(prompt: int, completion: int, total: int = 0, **more: Any) -> Dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": total or prompt + completion,
        **more,
    }


USAGES = [
    # provider, usage, the counts: input, output, cache read, cache creation, thinking
    ("openai", details(120, 20), Usage(120, 20)),
    (
        "openai",
        details(
            120, 20, prompt_tokens_details={"cached_tokens": 100}, completion_tokens_details={"reasoning_tokens": 12}
        ),
        Usage(20, 20, 100, 0, 12),
    ),
    (
        "openai",
        details(120, 20, prompt_tokens_details={"cached_tokens": 50, "cache_write_tokens": 30}),
        Usage(40, 20, 50, 30),
    ),
    ("openai", details(120, 20, prompt_tokens_details=None, completion_tokens_details=None), Usage(120, 20)),
    ("openai", details(120, 20, prompt_tokens_details={"cached_tokens": None}), Usage(120, 20)),
    ("deepseek", details(120, 20, prompt_cache_hit_tokens=64, prompt_cache_miss_tokens=56), Usage(56, 20, 64)),
    (
        "deepseek",
        details(120, 20, prompt_cache_hit_tokens=64, prompt_tokens_details={"cached_tokens": 64}),
        Usage(56, 20, 64),
    ),
    ("moonshot", details(120, 20, cached_tokens=100), Usage(20, 20, 100)),
    ("generic", details(120, 20, cache_read_input_tokens=70, cache_creation_input_tokens=10), Usage(40, 20, 70, 10)),
    (
        "openrouter",
        details(120, 20, prompt_tokens_details={"cached_tokens": 0, "cache_creation_tokens": 9}),
        Usage(111, 20, 0, 9),
    ),
    # xAI leaves the reasoning out of completion_tokens
    ("xai", details(120, 20, 150, completion_tokens_details={"reasoning_tokens": 10}), Usage(120, 30, 0, 0, 10)),
    ("openai", details(120, 20, 140, completion_tokens_details={"reasoning_tokens": 10}), Usage(120, 20, 0, 0, 10)),
    # Gemini counts thoughts in the total alone
    ("gemini", details(120, 20, 150), Usage(120, 30, 0, 0, 10)),
    ("gemini", details(120, 20, 140), Usage(120, 20)),
    ("generic", details(120, 20, 150), Usage(120, 20)),
    ("mistral", details(120, 20, num_cached_tokens=48), Usage(72, 20, 48)),
    # Azure counts what it puts before the prompt itself among Grok's cached tokens alone: the prompt was cached
    ("azure", details(371, 40, 411, prompt_tokens_details={"cached_tokens": 493}), Usage(0, 40, 371)),
    (
        "generic",
        details(10, 2, prompt_tokens_details={"cached_tokens": 7, "cache_write_tokens": 9}),
        Usage(0, 2, 7, 3),
    ),
    # unless the total says that the cached tokens come on top
    ("generic", details(10, 2, 62, cache_read_input_tokens=30, cache_creation_input_tokens=20), Usage(10, 2, 30, 20)),
    # thinking is never more than the output
    ("generic", details(10, 2, 12, completion_tokens_details={"reasoning_tokens": 5}), Usage(10, 2, 0, 0, 2)),
    ("generic", details(10, 2, reasoning_tokens=1), Usage(10, 2, 0, 0, 1)),
    # what is missing or no number is 0
    ("generic", {}, Usage()),
    ("generic", {"prompt_tokens": None, "completion_tokens": "5", "total_tokens": []}, Usage()),
    ("generic", {"prompt_tokens": -1, "completion_tokens": True}, Usage()),
    ("generic", {"prompt_tokens": 5.0, "completion_tokens": 2}, Usage(5, 2)),
]


@pytest.mark.parametrize(("dialect", "usage", "counts"), USAGES)
def test_the_counts(dialect: str, usage: Dict[str, Any], counts: Usage) -> None:
    """Input excludes cache reads and writes; the three add up to the provider's prompt."""
    assert translate_usage(usage, DIALECTS[dialect]) == counts


@pytest.mark.parametrize("usage", [row[1] for row in USAGES if isinstance(row[1].get("prompt_tokens"), int)])
def test_the_counts_add_up(usage: Dict[str, Any]) -> None:
    """Claude Code compacts by this sum."""
    counts = translate_usage(usage, GENERIC)
    total = counts.input_tokens + counts.cache_read_input_tokens + counts.cache_creation_input_tokens
    assert total in (max(0, usage["prompt_tokens"]), usage.get("total_tokens", 0) - usage["completion_tokens"])
