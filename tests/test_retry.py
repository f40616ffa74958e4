"""What is tried again, and after how long."""

from __future__ import annotations

from email.utils import formatdate
from typing import Any, Dict, Optional

import pytest

from ccproxy.errors import ProviderError
from ccproxy.provider.retry import FIRST_WAIT, LONGEST_OWN_WAIT, RetryPolicy, retry_after, wait_before

NOW = 1_700_000_000.0
POLICY = RetryPolicy(max_retries=2, max_wait=30.0)


def wait(
    attempt: int = 0,
    headers: Optional[Dict[str, str]] = None,
    *,
    waited: float = 0.0,
    draw: float = 1.0,
    policy: RetryPolicy = POLICY,
    **error: Any,
) -> Optional[float]:
    """The pause before the next attempt."""
    failed = ProviderError("no", headers=headers, **error)
    return wait_before(attempt, failed, policy, waited=waited, draw=draw, now=NOW)


ASKED = [
    ({}, None),
    ({"retry-after": "7"}, 7.0),
    ({"retry-after": "0"}, 0.0),
    ({"retry-after": " 2.5 "}, 2.5),
    ({"retry-after-ms": "1500"}, 1.5),
    ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
    ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
    ({"retry-after": formatdate(NOW + 20, usegmt=True)}, 20.0),
    ({"retry-after": formatdate(NOW - 20, usegmt=True)}, 0.0),
    ({"retry-after-ms": "soon", "retry-after": formatdate(NOW + 20, usegmt=True)}, 20.0),
    *(
        ({"retry-after": value}, None)
        for value in ("", "soon", "-1", "nan", "inf", "-inf", "1e400", "1e9", "9" * 400, "1;2", "Wed, 99 Foo 2024")
    ),
    ({"retry-after": "Fri, 31 Dec 99999 23:59:59 GMT"}, None),
    ({"retry-after": "Thu,26, Nov 2026 , :00800 G+T"}, None),
]


@pytest.mark.parametrize(("headers", "seconds"), ASKED)
def test_what_a_provider_asks(headers: Dict[str, str], seconds: Optional[float]) -> None:
    """Milliseconds before seconds before a date; what makes no sense is not asked."""
    assert retry_after(headers, NOW) == seconds


@pytest.mark.parametrize("attempt", [0, 1, 2, 3, 9])
def test_jitter_is_full(attempt: int) -> None:
    """From nothing to twice as long each time, from a second to eight: clients do not come back together."""
    policy = RetryPolicy(10, 30.0)
    highest = min(LONGEST_OWN_WAIT, FIRST_WAIT * 2 ** (attempt + 1))
    assert wait(attempt, draw=0.0, policy=policy) == 0
    assert wait(attempt, draw=0.5, policy=policy) == highest / 2
    assert wait(attempt, draw=1.0, policy=policy) == highest


def test_the_number_of_retries() -> None:
    """MAX_RETRIES attempts after the first; 0 means none."""
    assert [wait(attempt) is not None for attempt in range(4)] == [True, True, False, False]
    assert wait(policy=RetryPolicy(0, 30.0)) is None


def test_what_does_not_pass() -> None:
    """Is never tried again, whatever the headers say."""
    assert wait(is_transient=False) is None
    assert wait(headers={"retry-after": "1"}, is_transient=False) is None


ROWS = [
    ("30", 0.0, 30.0),
    ("30.1", 0.0, None),
    ("3600", 0.0, None),
    ("10", 20.0, 10.0),
    ("10", 20.1, None),
    ("0", 30.0, 0.0),
]


@pytest.mark.parametrize(("asked", "waited", "seconds"), ROWS)
def test_the_budget(asked: str, waited: float, seconds: Optional[float]) -> None:
    """What is asked counts instead of our own pause, as long as all pauses together stay in RETRY_MAX_WAIT."""
    assert wait(headers={"retry-after": asked}, waited=waited, draw=0.3) == seconds


def test_our_own_pause_is_in_the_budget_too() -> None:
    """A budget of a tenth of a second is not exceeded by jitter."""
    assert wait(policy=RetryPolicy(2, 0.1), draw=1.0) is None
    assert wait(policy=RetryPolicy(2, 0.1), draw=0.05) == 0.05


def test_an_absurd_wish_is_our_own_pause() -> None:
    """A provider that asks for nonsense is asked again as one that asks for nothing."""
    assert wait(headers={"retry-after": "nan"}, draw=0.5) == FIRST_WAIT
