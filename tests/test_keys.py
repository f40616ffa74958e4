"""Several keys of one provider: used in turn; one that is refused or throttled rests."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import List

import pytest

from ccproxy.errors import ProviderError
from ccproxy.provider.client import rest_of_key
from ccproxy.provider.keys import REFUSED_REST, THROTTLED_REST, KeyRing
from ccproxy.translate.failure import Target, translate_failure

KEYS = ("one", "two", "three")


def chosen(ring: KeyRing, count: int, now: float = 0.0, name: str = "A_KEY") -> List[str]:
    """The next keys."""
    return [ring.choose(name, KEYS, now) for _ in range(count)]


def test_turns() -> None:
    """In order, over and over; each variable has its own."""
    ring = KeyRing()
    assert chosen(ring, 4) == ["one", "two", "three", "one"]
    assert chosen(ring, 2, name="B_KEY") == ["one", "two"]
    assert chosen(ring, 1) == ["two"]


def test_a_key_that_rests_is_left_out() -> None:
    """Until its rest ends; the same key under another variable works on."""
    ring = KeyRing()
    ring.rest("A_KEY", "two", 10.0)
    assert "two" not in chosen(ring, 6, now=9.9)
    assert "two" in chosen(ring, 3, now=10.0)
    assert "two" in chosen(ring, 3, now=0.0, name="B_KEY")


def test_all_rest() -> None:
    """The one whose rest ends first is used all the same."""
    ring = KeyRing()
    for key, until in (("one", 30.0), ("two", 10.0), ("three", 20.0)):
        assert ring.has_awake("A_KEY", KEYS, 5.0)
        ring.rest("A_KEY", key, until)
    assert not ring.has_awake("A_KEY", KEYS, 5.0)
    assert chosen(ring, 3, now=5.0) == ["two", "two", "two"]
    assert ring.has_awake("A_KEY", KEYS, 10.0)


def test_keys_that_change() -> None:
    """After a reload another list is served, shorter or longer."""
    ring = KeyRing()
    chosen(ring, 5)
    assert ring.choose("A_KEY", ("four",), 0.0) == "four"
    assert ring.choose("A_KEY", (*KEYS, "four"), 0.0) in (*KEYS, "four")


def test_turns_are_fair_between_threads() -> None:
    """No key does the work of two."""
    ring = KeyRing()
    with ThreadPoolExecutor(8) as threads:
        used = list(threads.map(lambda _: ring.choose("A_KEY", KEYS, 0.0), range(300)))
    assert {key: used.count(key) for key in KEYS} == dict.fromkeys(KEYS, 100)


def failure(status: int, words: str = "", **headers: str) -> ProviderError:
    """A failed call."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    error = translate_failure(status, named, words.encode(), TARGET)
    error.provider_status = status
    return error


TARGET = Target("p", "m")
RESTS = [
    (failure(429), THROTTLED_REST),
    (failure(429, retry_after="7"), 7.0),
    (failure(429, retry_after_ms="1500"), 1.5),
    (failure(429, retry_after="soon"), THROTTLED_REST),
    (failure(401), REFUSED_REST),
    (failure(402), REFUSED_REST),
    (failure(403), REFUSED_REST),
    (failure(400, "Incorrect API key provided."), REFUSED_REST),  # xAI
    (failure(400, "API key not valid. Please pass a valid API key."), REFUSED_REST),  # Gemini
    (failure(429, "insufficient_quota"), REFUSED_REST),  # OpenAI
    (failure(429, "engine_overloaded_error"), None),  # Moonshot
    (failure(403, "Content violates usage guidelines."), None),  # xAI
    (failure(403, '{"error":{"code":403,"metadata":{"reasons":["violence"]}}}'), None),  # OpenRouter
    (failure(413, "Request too large: Limit 6000 tokens per minute"), None),  # Groq
    *((failure(status), None) for status in (400, 404, 408, 413, 500, 503, 529)),
]


@pytest.mark.parametrize(("error", "seconds"), RESTS, ids=lambda value: str(getattr(value, "status", value)))
def test_how_long_a_key_rests(error: ProviderError, seconds: float) -> None:
    """As long as the provider asks, when it throttles; what is no fault of the key's lets it go on.

    The fault counts, not the status: a text that is refused would be refused with every key.
    """
    assert rest_of_key(error) == seconds
