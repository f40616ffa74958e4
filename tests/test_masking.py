"""Texts without keys, whoever quotes them."""

from __future__ import annotations

import pytest

from ccproxy.masking import mask


@pytest.mark.parametrize(
    "text", ["prompt is too long: 9000 tokens > 8192 maximum", "keyboard_interrupt", "skip_special_tokens", "tasks", ""]
)
def test_other_words_are_left_alone(text: str) -> None:
    """Only what is shaped like a key is masked."""
    assert mask(text) == text


def test_a_secret_inside_another_is_masked_whole() -> None:
    """The longer one first."""
    assert mask("abcdef", ("abc", "abcdef")) == "***"
