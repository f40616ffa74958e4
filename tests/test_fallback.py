"""A route is walked until a model answers: retries, the next model, and what the failure that is left says."""

from __future__ import annotations

import threading
import time
from typing import Any, Dict, List, Optional, Tuple

import pytest

from ccproxy.errors import ApiError, ClientGone, InvalidRequest, ProviderError, Stopping
from ccproxy.provider.cancel import Cancel
from ccproxy.provider.cooldown import LEAST_FAILURES, Cooldown
from ccproxy.provider.fallback import Walk
from ccproxy.provider.retry import RetryPolicy
from ccproxy.translate.failure import Target, translate_failure
from sent import model_of

MODELS = [model_of(model_id=name) for name in ("a", "b", "c")]
OVERFLOW = b'{"error":{"message":"Your input exceeds the context window of this model."}}'
AT_ONCE = {"retry-after": "0"}


def failure(status: int, headers: Optional[Dict[str, str]] = None, body: bytes = b"") -> ProviderError:
    """What an answer with this status becomes; unless told, the provider asks for no pause."""
    body = body or b'{"error":{"message":"no"}}'
    return translate_failure(status, AT_ONCE if headers is None else headers, body, Target("p", "m", 8192, 9000))


class Route:
    """Three models with scripted outcomes, and who was asked; an outcome that is an error is raised."""

    def __init__(self, *outcomes: Any, retries: int = 0, max_wait: float = 30.0) -> None:
        self.asked: List[str] = []
        self.cooldown, self.cancel = Cooldown(), Cancel()
        self.walk = Walk(RetryPolicy(retries, max_wait), self.cooldown, self.cancel)
        self._outcomes = outcomes

    def ask(self, model: Any) -> Any:
        """Ask one model."""
        self.asked.append(model.model_id)
        outcome = self._outcomes[len(self.asked) - 1]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def go(self, models: Any = None) -> Any:
        """Walk; return the answer or the error."""
        try:
            return self.walk.first_answer(MODELS if models is None else models, self.ask)
        except ApiError as error:
            return error

    def tire(self, *models: str) -> None:
        """Let models fail until they rest."""
        for model in models:
            for _ in range(LEAST_FAILURES):
                self.cooldown.report(("http://p.test/v1", model), False, time.monotonic())


def walk(*outcomes: Any, retries: int = 0) -> Tuple[Any, str]:
    """Return what came of a walk, and the models asked, in order."""
    route = Route(*outcomes, retries=retries)
    return route.go(), "".join(route.asked)


# --- the next model -----------------------------------------------------------------------------------------------


def test_the_first_model_answers() -> None:
    """The others are not asked."""
    assert walk("answer") == ("answer", "a")


@pytest.mark.parametrize("status", [301, 302, 307, 401, 402, 403, 404, 408, 409, 429, 500, 502, 503, 504, 529])
def test_the_next_model_answers_when_one_fails(status: int) -> None:
    """Load, faults, keys, debts, missing models and addresses that moved are that provider's own."""
    assert walk(failure(status), failure(status), "answer") == ("answer", "abc")


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_request_ends_the_walk(status: int) -> None:
    """The next model would see the same request; the words are passed on as they are."""
    error, asked = walk(failure(status), retries=2)
    assert (error.message, asked) == (failure(status).message, "a")


def test_our_own_errors_are_not_the_models() -> None:
    """A request that cannot be translated is the client's to mend."""
    error, asked = walk(InvalidRequest("tools: no"), retries=2)
    assert (error.message, asked) == ("tools: no", "a")


def test_an_overflow_goes_on() -> None:
    """The next model may have a larger window."""
    assert walk(failure(400, body=OVERFLOW), "answer") == ("answer", "ab")


def test_an_overflow_keeps_its_words() -> None:
    """Claude Code compacts on the exact wording, also when another model failed before."""
    error, asked = walk(failure(529), failure(529), failure(400, body=OVERFLOW))
    assert (error.message, asked) == ("prompt is too long: 9000 tokens > 8192 maximum", "abc")


def test_a_single_failure_is_passed_on() -> None:
    """Nothing is added to it."""
    assert Route(failure(529)).go(MODELS[:1]).message == failure(529).message


def test_an_empty_route_is_an_error() -> None:
    """Nobody is asked."""
    assert isinstance(Route().go([]), ProviderError)


# --- retries ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_the_same_model_is_asked_again(status: int) -> None:
    """What may pass is tried again first."""
    assert walk(failure(status), failure(status), "answer", retries=2) == ("answer", "aaa")


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_what_does_not_pass_is_not_tried_again(status: int) -> None:
    """The next model is asked at once."""
    assert walk(failure(status), "answer", retries=2) == ("answer", "ab")


def test_each_model_has_its_retries() -> None:
    """At most 1 + MAX_RETRIES attempts at each."""
    error, asked = walk(*[failure(500)] * 6, retries=1)
    assert (error.status, asked) == (500, "aabbcc")


def test_a_long_wait_is_not_slept_out() -> None:
    """What exceeds RETRY_MAX_WAIT goes to the next model, or to the client with the provider's own words."""
    later = failure(429, {"retry-after": "31"})
    assert walk(later, "answer", retries=2) == ("answer", "ab")
    error, asked = walk(later, later, later, retries=2)
    assert (error.status, error.headers["retry-after"], asked) == (429, "31", "abc")


def test_waits_add_up() -> None:
    """RETRY_MAX_WAIT is the budget of the whole request, not of each pause."""
    soon = failure(500, {"retry-after-ms": "60"})
    route = Route(*[soon] * 6, retries=2, max_wait=0.1)
    assert route.go().status == 500
    assert "".join(route.asked) == "aabc"


def test_the_last_failure_names_all() -> None:
    """Its status, and what each attempt at each model met, counted."""
    first, second, third = (failure(529, body=b'{"error":"%s"}' % word) for word in (b"one", b"two", b"three"))
    error, _ = walk(first, first, second, second, third, third, retries=1)
    told = [word for word in error.message.replace(";", "").split() if word in ("one", "two", "three", "a:", "b:")]
    assert error.status == 529
    assert told == ["a:", "one", "a:", "one", "b:", "two", "b:", "two", "three", "three"]
    assert "6 attempts" in error.message


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_what_passes_is_told_before_what_does_not(status: int) -> None:
    """Clients come back later for a model that is busy, though its fallback has no key: they would give up for that."""
    error, asked = walk(failure(429, {"retry-after": "60"}), failure(status), failure(status))
    assert (error.status, error.headers, asked) == (429, {"retry-after": "60"}, "abc")
    assert "3 attempts" in error.message
    error, _ = walk(failure(429), failure(status), failure(529))
    assert error.status == 529
    error, _ = walk(failure(429), failure(status), failure(400))
    assert error.status == 400, "the request itself was refused"


# --- rest ---------------------------------------------------------------------------------------------------------


def test_a_model_that_rests_is_passed_over() -> None:
    """The next one is asked."""
    route = Route("answer")
    route.tire("a")
    assert (route.go(), route.asked) == ("answer", ["b"])


def test_the_last_model_never_rests() -> None:
    """A request is not refused unasked; the error tells who was passed over."""
    route = Route(failure(529))
    route.tire("a", "b", "c")
    error = route.go()
    assert route.asked == ["c"]
    assert "a: passed over" in error.message
    assert "1 attempt" in error.message


def test_a_success_wakes_a_model() -> None:
    """The next request asks it again."""
    route = Route("answer", "answer")
    route.tire("c")
    assert route.go(MODELS[2:]) == "answer"
    assert (route.go([MODELS[2], MODELS[0]]), route.asked) == ("answer", ["c", "c"])


@pytest.mark.parametrize("status", [400, 401, 404])
def test_an_answer_about_the_request_is_no_load(status: int) -> None:
    """A model that refuses requests does not rest."""
    route = Route(*[failure(status)] * 9)
    for _ in range(9):
        route.go(MODELS[:1])
    assert not route.cooldown.is_resting(("http://p.test/v1", "a"), time.monotonic())


# --- cancelled ----------------------------------------------------------------------------------------------------

REASONS = [
    ClientGone("left"),
    Stopping("stop"),
    ProviderError("PROVIDER_TOTAL_TIMEOUT", status=504, is_transient=False),
]


@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: type(reason).__name__)
def test_a_cancel_ends_a_pause(reason: ApiError) -> None:
    """At once, without another attempt at any model; the error says why, whatever failed before."""
    route = Route(failure(500), failure(500, {"retry-after": "25"}), retries=2)
    timer = threading.Timer(0.05, route.cancel.cancel, (reason,))
    timer.start()
    started = time.monotonic()
    error = route.go()
    assert time.monotonic() - started < 10
    assert route.asked == ["a", "a"]
    assert type(error) is type(reason)
    assert str(reason) in error.message
    timer.join()


@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: type(reason).__name__)
def test_a_cancel_during_an_attempt(reason: ApiError) -> None:
    """The broken connection is our own doing: no retry, no next model, no failure of the model's."""
    route = Route(retries=2)

    def ask(model: Any) -> Any:
        route.asked.append(model.model_id)
        route.cancel.cancel(reason)
        raise ProviderError("broke the connection")

    with pytest.raises(type(reason), match=str(reason)):
        route.walk.first_answer(MODELS, ask)
    assert route.asked == ["a"]
    assert route.walk.failures == []
