"""Tool ids and tool names that both sides accept, without memory."""

from __future__ import annotations

import re
from typing import Set

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccproxy.provider.dialects import DIALECTS
from ccproxy.translate.ids import ToolNames, client_tool_id, provider_tool_id

ANY = DIALECTS["generic"].tool_id_pattern
IDS = ["call_abc", "toolu_01AbC-_", "functions.Bash:0", "a|b", "x" * 65, "ünï", "call 1", "functions.Read:12"]


@pytest.mark.parametrize("provider_id", IDS)
def test_a_providers_id_comes_back(provider_id: str) -> None:
    """Ids outside Anthropic's alphabet are carried in one that is inside; the provider gets its own back."""
    shown = client_tool_id(provider_id, set())
    assert re.fullmatch(r"[a-zA-Z0-9_-]+", shown)
    back = provider_tool_id(shown, r".*")
    assert back == provider_id
    if re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", provider_id):
        assert shown == provider_id


@given(st.lists(st.sampled_from(IDS) | st.text(min_size=1, max_size=70), max_size=8))
def test_ids_are_unique_in_a_conversation(provider_ids: list) -> None:
    """A second use gets a number: clients key results by id."""
    taken: Set[str] = set()
    shown = [client_tool_id(provider_id, taken) for provider_id in provider_ids]
    assert len(set(shown)) == len(shown)
    assert taken == set(shown)


def test_an_id_of_the_history_is_not_used_again() -> None:
    """Kimi and some local servers restart their counters in every answer."""
    assert client_tool_id("call_0", {"call_0"}) == "call_0_2"
    assert client_tool_id("call_0", {"call_0", "call_0_2"}) == "call_0_3"


@pytest.mark.parametrize("name", sorted(DIALECTS))
@pytest.mark.parametrize("client_id", ["toolu_01AbCdEfGhIjKlMnOpQrStUv", "call_" + "x" * 80, "ünï", "a b", "toolu_x!!"])
def test_a_provider_gets_ids_it_accepts(name: str, client_id: str) -> None:
    """What does not conform becomes a stable hash, so that call and result match without memory."""
    pattern = DIALECTS[name].tool_id_pattern
    sent = provider_tool_id(client_id, pattern)
    assert re.fullmatch(pattern, sent)
    assert sent == provider_tool_id(client_id, pattern)


def test_mistral_ids_have_nine_letters_or_digits() -> None:
    """Its own pass; others are hashed, different ones differently."""
    pattern = DIALECTS["mistral"].tool_id_pattern
    assert provider_tool_id("aB3dE6gH9", pattern) == "aB3dE6gH9"
    hashed = {provider_tool_id(f"toolu_{n}", pattern) for n in range(200)}
    assert len(hashed) == 200
    assert all(re.fullmatch(r"[a-zA-Z0-9]{9}", item) for item in hashed)


def test_openai_ids_have_at_most_forty_characters() -> None:
    """Longer ones are hashed."""
    assert len(provider_tool_id("x" * 50, DIALECTS["openai"].tool_id_pattern)) <= 40


LONG = "mcp__server__" + "long_tool_name_" * 6


@pytest.mark.parametrize("name", ["Read", "a-b_C9", "x" * 64])
def test_conforming_names_pass(name: str) -> None:
    """Up to 64 of letters, digits, underscore and hyphen."""
    assert ToolNames.to_provider(name) == name


@pytest.mark.parametrize("name", [LONG, "my.tool", "tool with space", "wörk", "x" * 65, "a" * 200])
def test_other_names_are_cut_and_hashed(name: str) -> None:
    """The first 55 characters with bad ones replaced, and eight of a hash; the model's call is given back."""
    sent = ToolNames.to_provider(name)
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,55}_[0-9a-f]{8}", sent)
    assert ToolNames([name]).to_client(sent) == name


def test_names_that_begin_alike_stay_apart() -> None:
    """The hash is of the whole name."""
    assert ToolNames.to_provider(LONG + "1") != ToolNames.to_provider(LONG + "2")


def test_a_name_the_model_wrote() -> None:
    """Exact, else in any case, else as it is: the client answers an unknown tool."""
    names = ToolNames(["Read", "read_all"])
    called = ["Read", "read", "READ_ALL", "Unknown"]
    assert [names.to_client(name) for name in called] == ["Read", "Read", "read_all", "Unknown"]
