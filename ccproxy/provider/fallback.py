"""Walks a route: the same model again, then the next one, never after the first content."""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass, field
from typing import Callable, List, Optional, Sequence, Tuple, TypeVar

from ..config.schema import Model
from ..errors import ProviderError, forget_calls
from .cancel import Cancel
from .cooldown import Cooldown
from .retry import RetryPolicy, wait_before

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass
class Walk:
    """One request's way along a route; ``failures`` names each attempt that gave no answer."""

    policy: RetryPolicy
    cooldown: Cooldown
    cancel: Cancel
    waited: float = 0.0
    attempts: int = 0
    failures: List[str] = field(default_factory=list)
    unanswered: List[str] = field(default_factory=list)
    """The models that were passed over or failed."""

    def first_answer(self, models: Sequence[Model], ask: Callable[[Model], T]) -> T:
        """Return the answer of the first model that gives one.

        ``ask`` must return only once content is certain to come, so that nothing is shown or billed twice. Models
        that rest are passed over, but for the last one.

        Raises:
            ApiError: the last failure, or the last one that passes, with all attempts named; or why the request was
                cancelled.
        """
        told: Optional[ProviderError] = None
        for position, model in enumerate(models):
            is_last = position == len(models) - 1
            if not is_last and self.cooldown.is_resting(cooldown_key(model), time.monotonic()):
                self.failures.append(f"{model.model_id}: passed over, it failed too often just now")
                self.unanswered.append(model.model_id)
                continue
            try:
                return self._ask_again(model, ask)
            except ProviderError as error:
                self.cancel.check()
                self.unanswered.append(model.model_id)
                forget_calls(error)
                if told is None or error.is_transient or error.is_refusal or not told.is_transient:
                    told = error  # a fallback without a key does not make clients give up what passes
                if error.is_refusal and not error.is_overflow:
                    break
        raise self._told(told or ProviderError("the route is empty", is_transient=False))

    def _ask_again(self, model: Model, ask: Callable[[Model], T]) -> T:
        attempt = 0
        while True:
            self.attempts += 1
            try:
                answer = ask(model)
            except ProviderError as error:
                self.cancel.check()
                log.warning("%s failed with %d: %s", model.model_id, error.status, error.message)
                self.failures.append(f"{model.model_id}: {error.message}")
                draw = random.random()  # noqa: S311 - jitter
                pause = wait_before(attempt, error, self.policy, waited=self.waited, draw=draw, now=time.time())
                if pause is None:
                    if error.is_transient or error.status >= 500:
                        self.cooldown.report(cooldown_key(model), False, time.monotonic())
                    raise
                log.info("%s is asked again in %.1f s", model.model_id, pause)
                self.cancel.pause(pause)
                self.waited += pause
                attempt += 1
            else:
                self.cooldown.report(cooldown_key(model), True, time.monotonic())
                return answer

    def _told(self, error: ProviderError) -> ProviderError:
        """Name all attempts in the error; overflows keep their words, which clients match."""
        if len(self.failures) > 1 and not (error.is_overflow or error.verbatim is not None):
            error.message = f"no model answered ({self.attempts} attempts): " + "; ".join(self.failures)
        return error


def cooldown_key(model: Model) -> Tuple[str, str]:
    """Return by what a model is known to ``Cooldown``: entries for the same one share its bad luck."""
    return model.api_base, model.name
