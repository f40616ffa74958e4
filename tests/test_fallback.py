"""A route is walked until a model answers; the failure that is left names all of them."""

from __future__ import annotations

from typing import Any, List

import pytest

from ccproxy.errors import ApiError, InvalidRequest, ProviderError
from ccproxy.provider.fallback import first_answer
from ccproxy.translate.failure import Target, translate_failure
from sent import model_of

MODELS = [model_of(model_id=name) for name in ("a", "b", "c")]
OVERFLOW = b'{"error":{"message":"Your input exceeds the context window of this model."}}'


def failure(status: int) -> ProviderError:
    return translate_failure(status, {}, b'{"error":{"message":"no"}}', Target("p", "m"))


def walk(*outcomes: Any) -> Any:
    """Ask the models in order, where an error is raised; return what came of it, and who was asked."""
    asked: List[str] = []

    def ask(model: Any) -> Any:
        asked.append(model.model_id)
        outcome = outcomes[len(asked) - 1]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    try:
        return first_answer(MODELS, ask), asked
    except ApiError as error:
        return error, asked


def test_the_first_model_answers() -> None:
    """The others are not asked."""
    assert walk("answer") == ("answer", ["a"])


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 529, 401, 402, 403, 404])
def test_the_next_model_answers_when_one_fails(status: int) -> None:
    """Load, faults, keys, debts and missing models are that provider's own."""
    assert walk(failure(status), failure(status), "answer") == ("answer", ["a", "b", "c"])


def test_a_refused_request_ends_the_walk() -> None:
    """The next model would see the same request; the words are passed on as they are."""
    error, asked = walk(failure(400))
    assert (error.status, asked) == (400, ["a"])


def test_our_own_errors_are_not_the_models() -> None:
    """A request that cannot be translated is the client's to mend."""
    error, asked = walk(InvalidRequest("tools: no"))
    assert (error.message, asked) == ("tools: no", ["a"])


def test_the_last_failure_names_all() -> None:
    """Its status, and what each model said."""
    error, asked = walk(failure(529), failure(529), failure(500))
    assert (error.status, asked) == (500, ["a", "b", "c"])
    assert all(f"{name}: " in error.message for name in asked)


def test_an_overflow_keeps_its_words() -> None:
    """Claude Code compacts on the exact wording, also when another model failed before."""
    overflow = translate_failure(400, {}, OVERFLOW, Target("p", "m", 8192, 9000))
    error, _ = walk(failure(529), overflow)
    assert error.message == "prompt is too long: 9000 tokens > 8192 maximum"


def test_a_single_failure_is_passed_on() -> None:
    """Nothing is added to it."""
    with pytest.raises(ProviderError) as caught:
        first_answer(MODELS[:1], lambda model: (_ for _ in ()).throw(failure(529)))
    assert caught.value.message == failure(529).message
