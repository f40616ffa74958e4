"""What is tried again, and after how long."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import Mapping, Optional

from ..errors import ProviderError
from ..frozen import frozen

FIRST_WAIT = 0.5
LONGEST_OWN_WAIT = 8.0


@frozen
class RetryPolicy:
    """How often a model is asked again, and how many seconds all waiting may take."""

    max_retries: int
    max_wait: float


def wait_before(
    attempt: int, error: ProviderError, policy: RetryPolicy, *, waited: float, draw: float, now: float
) -> Optional[float]:
    """Return the seconds to wait before the same model is asked again, or None when it is not.

    Exponential with full jitter, so that clients that failed together do not come back together. What the provider
    asks for counts instead; a longer wait than the policy allows is the client's to decide.

    Args:
        attempt: how many retries there were so far.
        waited: the seconds already waited for this request.
        draw: a random number from 0 to 1.
        now: seconds since the epoch, for dates in ``Retry-After``.
    """
    if not error.is_transient or attempt >= policy.max_retries:
        return None
    asked = retry_after(error.headers, now)
    wait = asked if asked is not None else draw * min(LONGEST_OWN_WAIT, FIRST_WAIT * 2 ** (attempt + 1))
    return wait if waited + wait <= policy.max_wait else None


def retry_after(headers: Mapping[str, str], now: float) -> Optional[float]:
    """Return the seconds a provider asks to wait: ``retry-after-ms``, or ``retry-after`` in seconds or as a date."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        return seconds if 0 <= seconds < 1e7 else None
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - now)
    except (KeyError, ValueError, TypeError, OverflowError, IndexError):  # the last one up to Python 3.9
        return None
