"""The families of models: which name belongs to which, under every provider's spelling."""

from __future__ import annotations

import pytest

from ccproxy.counting.token_families import FAMILIES, family_of


@pytest.mark.parametrize(
    ("model", "name", "tools"),
    [
        ("claude-opus-5", "Claude 4.7 and later", 290),
        ("claude-fable-5", "Claude 4.7 and later", 290),
        ("claude-opus-4-8", "Claude 4.7 and later", 290),
        ("anthropic/claude-opus-4.8", "Claude 4.7 and later", 290),
        ("claude-sonnet-5-20260201", "Claude 4.7 and later", 354),
        ("claude-opus-4-7", "Claude 4.7 and later", 675),
        ("claude-of-tomorrow-7", "Claude 4.7 and later", 290),
        ("claude-sonnet-4-6", "Claude up to 4.6", 497),
        ("anthropic/claude-sonnet-4.5", "Claude up to 4.6", 497),
        ("anthropic.claude-haiku-4-5-20251001-v1:0", "Claude up to 4.6", 497),
        ("claude-opus-4-20250514", "Claude up to 4.6", 313),
        ("claude-opus-4-1", "Claude up to 4.6", 313),
        ("claude-sonnet-4@20250514", "Claude up to 4.6", 313),
        ("claude-3-7-sonnet-latest", "Claude up to 4.6", 313),
        ("claude-3-5-haiku-20241022", "Claude up to 4.6", 264),
        ("claude-3-opus-20240229", "Claude up to 4.6", 530),
        ("gpt-4o", "OpenAI", 10),
        ("openai/o3-mini", "OpenAI", 10),
        ("openai/gpt-oss-120b", "gpt-oss", 25),
        ("deepseek-chat", "DeepSeek, Kimi, GLM, Qwen", 120),
        ("Qwen/Qwen3-32B", "DeepSeek, Kimi, GLM, Qwen", 120),
        ("gemini-2.5-pro", "Gemini", 0),
        ("meta-llama/Llama-3.3-70B", "Llama", 120),
        ("mistral-large-latest", "Mistral", 0),
        ("echo", "other", 120),
        ("", "other", 120),
    ],
)
def test_a_name_has_a_family(model: str, name: str, tools: int) -> None:
    """Dots and dashes, dates, providers before it and after it."""
    assert (family_of(model).name, family_of(model).tools) == (name, tools)


def test_every_row_can_be_reached() -> None:
    """No row hides behind an earlier one: a family's own spelling leads to it."""
    names = ("claude-opus-5", "claude-sonnet-5", "claude-opus-4-7", "claude-sonnet-4-6", "claude-haiku-4-5")
    names += ("claude-3-opus", "claude-3-haiku", "claude-3-5-sonnet", "claude-2", "claude-opus-4-8")
    names += ("gpt-oss:20b", "gpt-5", "kimi-k2", "gemini-3", "llama-4", "codestral", "x")
    assert [family_of(name) for name in names] == list(FAMILIES)
