"""How long a provider asks to wait, wherever it says so: headers, bodies, reset durations."""

from __future__ import annotations

import json
from typing import Any, Dict, Optional

import pytest

from ccproxy.translate.failure import Target, error_in_stream, translate_failure

GEMINI = {
    "error": {
        "code": 429,
        "message": "You exceeded your current rate limit.",
        "status": "RESOURCE_EXHAUSTED",
        "details": [
            {"@type": "type.googleapis.com/google.rpc.QuotaFailure"},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "37s"},
        ],
    }
}
OPENROUTER = {
    "error": {
        "message": "Provider returned error",
        "code": 429,
        "metadata": {"raw": "busy", "provider_name": "X", "headers": {"Retry-After": "9", "x-other": "1"}},
    }
}
BUSY = {"error": {"message": "Rate limit reached"}}


def hint(body: Any, status: int = 429, **headers: str) -> Optional[str]:
    """The retry-after of the error that an answer becomes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return translate_failure(status, named, json.dumps(body).encode(), Target("p", "m")).headers.get("retry-after")


def spent(name: str, reset: str, remaining: str = "0") -> Dict[str, str]:
    """OpenAI's headers about one limit."""
    return {f"x_ratelimit_remaining_{name}": remaining, f"x_ratelimit_reset_{name}": reset}


def fractional(delay: str) -> Any:
    """Gemini's body with another delay."""
    return json.loads(json.dumps(GEMINI).replace("37s", delay))


BODIES = [
    (GEMINI, "37"),
    ([GEMINI], "37"),
    (fractional("0.402s"), "1"),
    (fractional("36.001s"), "37"),
    (OPENROUTER, "9"),
    (json.loads(json.dumps(OPENROUTER).replace('"9"', "9")), "9"),
    (BUSY, None),
    (json.loads(json.dumps(GEMINI).replace("37s", "soon")), None),
]


@pytest.mark.parametrize(("body", "seconds"), BODIES)
def test_bodies(body: Any, seconds: Optional[str]) -> None:
    """Gemini's RetryInfo and OpenRouter's copy of the inner headers, rounded up to whole seconds."""
    assert hint(body) == seconds


def test_a_long_body() -> None:
    """RetryInfo stands behind long lists of quotas."""
    long = json.loads(json.dumps(GEMINI))
    long["error"]["details"].insert(0, {"violations": [{"quotaId": "x" * 60} for _ in range(60)]})
    assert hint(long) == "37"


DURATIONS = [
    ("1s", "1"),
    ("6m0s", "360"),
    ("1m2.5s", "63"),
    ("1h0m1s", "3601"),
    ("20ms", "1"),
    ("1m59.999s", "120"),
    ("7.66s", "8"),
    ("0s", None),
    ("", None),
    ("soon", None),
    ("1700000000", None),
    ("-1s", None),
]


WORDS = [
    ("Limit 6000, Used 4093, Requested 3531. Please try again in 16.239999999s. Need more tokens?", "17"),
    ("Limit 3, Used 3, Requested 1. Please try again in 20s. Visit the site.", "20"),
    ("Please try again in 6ms.", "1"),
    ("Please try again in 1m2.5s", "63"),
    ("You exceeded your quota. Please retry in 42.36s.", "43"),
    ("Requests have exceeded the limit. Please retry after 26 seconds.", "26"),
    ("Please retry after 1 second.", "1"),
    ("Please try again in a moment.", None),
    ("Please try again in 5 minutes.", None),
    ("Please try again in 0s.", None),
    ("Please try again later.", None),
]


@pytest.mark.parametrize(("words", "seconds"), WORDS)
def test_words(words: str, seconds: Optional[str]) -> None:
    """OpenAI's, Groq's and Azure's limits say it in the message; inside a stream there are no headers."""
    body = {"message": f"Rate limit reached. {words}", "type": "tokens", "code": "rate_limit_exceeded"}
    assert hint({"error": body}) == seconds
    in_stream = error_in_stream(body, Target("p", "m"))
    assert (in_stream.status, in_stream.headers.get("retry-after")) == (429, seconds)


def test_words_say_more_than_the_time_of_a_full_limit() -> None:
    """They are about this request, and a header is before both."""
    body = {"error": {"message": "Please try again in 2s."}}
    assert hint(body, **spent("tokens", "6m0s")) == "2"
    assert hint(body, retry_after="3") == "3"


@pytest.mark.parametrize("limit", ["requests", "tokens"])
@pytest.mark.parametrize(("reset", "seconds"), DURATIONS)
def test_reset_durations(limit: str, reset: str, seconds: Optional[str]) -> None:
    """OpenAI and Groq tell when a limit that is used up is filled again."""
    assert hint(BUSY, **spent(limit, reset)) == seconds


def test_only_a_limit_that_is_used_up_counts() -> None:
    """The other's reset is no reason to wait; of two, the later one is."""
    assert hint(BUSY, **spent("requests", "6m0s", "5"), **spent("tokens", "2s")) == "2"
    assert hint(BUSY, **spent("requests", "6m0s"), **spent("tokens", "2s")) == "360"
    assert hint(BUSY, **spent("requests", "6m0s", "5")) is None


def test_a_plain_header_counts_first() -> None:
    """It was written for this answer."""
    assert hint(GEMINI, retry_after="3") == "3"
    assert hint(BUSY, retry_after="3", **spent("tokens", "6m0s")) == "3"


@pytest.mark.parametrize("status", [502, 503, 529])
def test_overload_has_hints_too(status: int) -> None:
    """Not only 429."""
    assert hint(GEMINI, status) == "37"


@pytest.mark.parametrize("status", [400, 401, 404])
def test_other_failures_have_none(status: int) -> None:
    """A number in the words of a refusal is no promise."""
    assert hint({"error": {"message": 'Invalid "retry-after": 5, retryDelay: "5s", try again in 5s'}}, status) is None


@pytest.mark.parametrize("value", ["1\r\nset-cookie: a=b", "x" * 101, "\x00", "ü"])
def test_a_header_with_anything_in_it(value: str) -> None:
    """What is not a short line of plain characters is not passed on."""
    assert hint(BUSY, retry_after=value) is None
