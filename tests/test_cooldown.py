"""Models that keep failing rest for a while; a failure rate decides, not a single error."""

from __future__ import annotations

import threading
from typing import List

import pytest

from ccproxy.provider.cooldown import (
    FIRST_REST,
    LEAST_FAILURES,
    LONGEST_REST,
    MOST_MODELS,
    MOST_OUTCOMES,
    WINDOW,
    Cooldown,
)


def tired(start: float = 0.0) -> Cooldown:
    """A cooldown whose model ``m`` begins to rest at ``start``."""
    cooldown = Cooldown()
    for _ in range(LEAST_FAILURES):
        cooldown.report("m", False, start)
    return cooldown


def test_an_unknown_model_does_not_rest() -> None:
    """Nothing is known against it."""
    assert not Cooldown().is_resting("m", 0.0)


def test_single_errors_do_not_count() -> None:
    """One failure less than it takes, or failures far apart, or of other models."""
    cooldown = Cooldown()
    for count in range(LEAST_FAILURES - 1):
        cooldown.report("m", False, float(count))
        cooldown.report("other", False, float(count))
    assert not cooldown.is_resting("m", 2.0)
    for count in range(20):
        cooldown.report("rare", False, count * (WINDOW / (LEAST_FAILURES - 1) + 1))
    assert not cooldown.is_resting("rare", 20 * WINDOW)


def test_a_few_failures_among_many_answers() -> None:
    """One in ten is no reason to rest."""
    cooldown = Cooldown()
    for count in range(200):
        cooldown.report("m", count % 10 > 0, count * 0.1)
    assert not cooldown.is_resting("m", 20.0)


def test_what_was_long_ago_counts_no_more() -> None:
    """Failures that answers pushed out, by their number or by the time, are forgotten with them."""
    cooldown = Cooldown()
    for count in range(LEAST_FAILURES - 1):
        cooldown.report("m", False, float(count))
    for _ in range(MOST_OUTCOMES):
        cooldown.report("m", True, 10.0)
    cooldown.report("m", False, 10.0 + WINDOW + 1)
    cooldown.report("m", False, 10.0 + WINDOW + 1)
    assert not cooldown.is_resting("m", 10.0 + WINDOW + 1)
    cooldown.report("m", False, 10.0 + WINDOW + 1)
    assert cooldown.is_resting("m", 10.0 + WINDOW + 1)


def test_any_number_of_models() -> None:
    """A client may name any: what is known of them is bounded, and the last ones are known."""
    cooldown = tired()
    for number in range(MOST_MODELS):
        for _ in range(LEAST_FAILURES):
            cooldown.report(number, False, 0.0)
    assert not cooldown.is_resting("m", 1.0)
    assert cooldown.is_resting(0, 1.0)
    assert cooldown.is_resting(MOST_MODELS - 1, 1.0)


def test_the_rate_decides() -> None:
    """Two failures of three, for half a minute, are a model that keeps failing."""
    cooldown = Cooldown()
    rested = False
    for count in range(30):
        cooldown.report("m", count % 3 == 2, float(count))
        rested = rested or cooldown.is_resting("m", float(count))
    assert rested


def test_it_rests_and_is_probed() -> None:
    """All pass it over for a while; then one request tries it, and the others wait for that."""
    cooldown = tired()
    assert cooldown.is_resting("m", 0.0)
    assert cooldown.is_resting("m", FIRST_REST - 0.1)
    assert not cooldown.is_resting("m", FIRST_REST + 0.1)
    assert cooldown.is_resting("m", FIRST_REST + 0.2)


def test_only_one_of_many_threads_probes() -> None:
    """However many requests come at the same moment."""
    cooldown, barrier = tired(), threading.Barrier(16)
    probes: List[int] = []

    def come() -> None:
        barrier.wait(10)
        if not cooldown.is_resting("m", FIRST_REST + 1):
            probes.append(1)

    threads = [threading.Thread(target=come) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert probes == [1]


def test_rests_double() -> None:
    """A probe that fails makes the next rest twice as long, up to a bound."""
    cooldown, now, rest = tired(), 0.0, FIRST_REST
    for _ in range(10):
        assert cooldown.is_resting("m", now + rest - 0.1)
        now += rest + 0.1
        assert not cooldown.is_resting("m", now)
        cooldown.report("m", False, now)
        rest = min(rest * 2, LONGEST_REST)
    assert rest == LONGEST_REST


def test_many_that_fail_at_once_are_one_failure() -> None:
    """Requests that were under way when the rest began say nothing new: it becomes no longer by them."""
    cooldown = tired()
    for count in range(100):
        cooldown.report("m", False, count * FIRST_REST / 200)
    assert cooldown.rests_until("m") == FIRST_REST


def test_success_clears() -> None:
    """A probe that succeeds forgets all: every request may come, and the next rest is short again."""
    cooldown = tired()
    for now in (FIRST_REST + 1, 100.0):
        assert not cooldown.is_resting("m", now)
        cooldown.report("m", now == 100.0, now)
    assert not any(cooldown.is_resting("m", 101.0) for _ in range(5))
    for _ in range(LEAST_FAILURES):
        cooldown.report("m", False, 200.0)
    assert cooldown.is_resting("m", 200.0 + FIRST_REST - 1)
    assert not cooldown.is_resting("m", 200.0 + FIRST_REST + 1)


@pytest.mark.parametrize("later", [LONGEST_REST, 3600.0, 86400.0])
def test_a_probe_that_is_never_reported(later: float) -> None:
    """Its client left, or its request was refused: another request may probe after another rest."""
    cooldown = tired()
    assert not cooldown.is_resting("m", FIRST_REST + 1)
    assert not cooldown.is_resting("m", FIRST_REST + 1 + later)
