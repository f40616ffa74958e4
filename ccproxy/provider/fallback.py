"""Walks a route: the next model when one fails, never after the first content."""

from __future__ import annotations

import logging
from typing import Callable, Iterable, List, TypeVar

from ..config.schema import Model
from ..errors import ApiError, ProviderError

log = logging.getLogger(__name__)
T = TypeVar("T")


def first_answer(models: Iterable[Model], ask: Callable[[Model], T]) -> T:
    """Return the answer of the first model that gives one.

    ``ask`` must return only once content is certain to come, so that nothing was shown or billed twice.

    Raises:
        ApiError: the last model's failure, with the earlier ones named.
    """
    failures: List[str] = []
    last: ApiError = ProviderError("the route is empty", is_transient=False)
    for model in models:
        try:
            return ask(model)
        except ProviderError as error:
            log.warning("%s failed with %d: %s", model.model_id, error.status, error.message)
            failures.append(f"{model.model_id}: {error.message}")
            last = error
            if not error.is_transient and error.status not in (401, 402, 403, 404):
                break  # the request itself is refused: the next model would see the same request
    if len(failures) > 1 and not (isinstance(last, ProviderError) and last.is_overflow):  # clients match its words
        last.message = "no model of the route answered: " + "; ".join(failures)
    raise last
