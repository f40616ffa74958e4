"""The estimates of one request, for each model that is asked about, and what a process remembers to make them."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Optional

from ..anthropic import MessagesRequest
from ..config.schema import Model
from .calibration import MOST_OFFSET, MOST_SLOPE, Sample
from .counter import Counter
from .learned import Learned
from .token_families import Family, family_of
from .tokens import Counted, ceiling, count, is_text, spared


class Estimator:
    """Makes the estimates of a process: measures each text once, and learns from what providers count."""

    def __init__(self, counter: Counter, ledger: Optional[Path] = None) -> None:
        self.counter = counter
        self.learned = Learned(ledger)

    def of(self, request: MessagesRequest, body_bytes: int) -> Estimates:
        """Return the estimates of a request, of which nothing is counted before somebody asks."""
        return Estimates(request, body_bytes, self)


class Estimates:
    """The input tokens of one request by model; for each family they are counted once."""

    def __init__(self, request: MessagesRequest, body_bytes: int, estimator: Estimator) -> None:
        self._request, self._bytes, self._estimator = request, body_bytes, estimator
        self._counted: Dict[Family, Counted] = {}

    def of(self, model: Model) -> int:
        """Return the input tokens for a model, as far as we know them before its provider counts."""
        counted = self._count(model)
        correction = self._estimator.learned.correction(model)
        return correction.apply(counted.tokens, bool(self._request.tools), counted.media)

    def surely_fit(self, model: Model, limit: int) -> bool:
        """Whether no count can exceed a limit; False says nothing.

        Texts are counted only until that is certain: the rest has time until the provider works.
        """
        if not is_text(self._request):
            return False
        most = float(ceiling(self._bytes))
        if MOST_SLOPE * most + MOST_OFFSET <= limit:  # whatever was learned
            return True
        correction, has_tools = self._estimator.learned.correction(model), bool(self._request.tools)
        counter = self._estimator.counter
        less = spared(self._request, counter.size, family_of(model.name), counter.has_vocabulary)
        while correction.apply(round(most), has_tools) > limit:
            known = next(less, None)
            if known is None:
                return False
            most -= known
        return True

    def how(self, model: Model) -> str:
        """Return how the estimate for a model is made, in words."""
        made = "by cl100k tokens" if self._estimator.counter.has_vocabulary else "by characters"
        return f"{made}, family {family_of(model.name).name}; {self._estimator.learned.correction(model).words}"

    def is_settled(self, model: Model) -> bool:
        """Whether the provider's count of this request would teach next to nothing about a model."""
        return self._estimator.learned.is_settled(model, bool(self._request.tools))

    def sample(self, model: Model) -> Optional[Sample]:
        """Return what a provider's count can teach, without that count; None where nothing was counted before.

        Images, PDFs and Anthropic's own tools cost what each provider thinks, and say nothing about text.
        """
        counted = self._counted.get(family_of(model.name))
        if counted is None or counted.media or any(tool.input_schema is None for tool in self._request.tools):
            return None
        return Sample(counted.tokens, 0, bool(self._request.tools))

    def _count(self, model: Model) -> Counted:
        family = family_of(model.name)
        if family not in self._counted:
            counter = self._estimator.counter
            self._counted[family] = count(self._request, counter.size, family, counter.has_vocabulary)
        return self._counted[family]
