"""Recorded chat completions with their providers' counts: how far estimates are from them, before and after learning.

A request that holds images or files is left out, as it is for learning.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle, islice
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import recordings
from ccproxy.anthropic import MessagesRequest
from ccproxy.counting.calibration import Sample, fit
from ccproxy.counting.counter import Counter
from ccproxy.counting.token_families import family_of
from ccproxy.counting.tokens import count
from chat_requests import messages_request

Groups = Dict[Tuple[str, str], List[Sample]]
USAGES = 10
"""Of each model, from which is learned."""


@dataclass(frozen=True)
class Result:
    """The errors of estimates, without sign: uncorrected, and corrected by ten usages of the same model."""

    name: str
    before: List[float]
    after: List[float]

    def __str__(self) -> str:
        return f"{self.name:44} {len(self.after):5} {median(self.before):8.1%} {median(self.after):8.1%}"


def median(values: Sequence[float]) -> float:
    """The value in the middle."""
    return sorted(values)[len(values) // 2]


def load() -> Groups:
    """Return what each model of each provider counted, beside our own counts; empty without recordings."""
    counter = Counter()
    counter.load()
    groups: Groups = {}
    for recording in recordings.load():
        sample = None if recording.is_error else sample_of(recording, counter)
        if sample is not None:
            groups.setdefault((recording.provider, recording.model), []).append(sample)
    return groups


def sample_of(recording: recordings.Recording, counter: Counter) -> Optional[Sample]:
    """Return the sample of one recording, if its request is known and its provider counted."""
    usage = recordings.read(recording).usage
    body = messages_request(recording.request) if usage and recording.request.get("messages") else None
    if usage is None or body is None:
        return None
    actual = sum(usage[name] for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"))
    request = MessagesRequest.from_dict({**body, "model": recording.model})
    counted = count(request, counter.size, family_of(recording.model))
    return Sample(counted.tokens, actual, bool(request.tools)) if actual and not counted.media else None


def error(samples: Sequence[Sample], held: Sample) -> float:
    """How far the estimate of one request is off, after learning from samples."""
    learned = fit([sample for sample in samples if sample.is_plausible])
    return abs(learned.apply(held.estimate, held.has_tools) / held.actual - 1)


def each_by_the_others(groups: Groups, is_wanted: Callable[[List[Sample]], bool], name: str) -> Result:
    """Estimate each request of a model by ten usages of its other ones; fewer than ten come again."""
    before, after = [], []
    for samples in filter(is_wanted, groups.values()):
        for number, held in enumerate(samples):
            others = samples[:number] + samples[number + 1 :]
            before.append(error([], held))
            after.append(error(list(islice(cycle(others), max(USAGES, len(others)))), held))
    return Result(name, before, after)


def rest_by_ten(samples: List[Sample], name: str) -> Result:
    """Learn from ten usages and estimate the others, beginning at each usage in turn."""
    before, after = [], []
    for first in range(len(samples)):
        turned = samples[first:] + samples[:first]
        before += [error([], held) for held in turned[USAGES:]]
        after += [error(turned[:USAGES], held) for held in turned[USAGES:]]
    return Result(name, before, after)


def results(groups: Groups) -> List[Result]:
    """Return the lines of the report."""
    return [
        each_by_the_others(groups, lambda samples: len(samples) > 1, "each request by ten usages of its model"),
        *(
            rest_by_ten(samples, f"{provider} {model}")
            for (provider, model), samples in groups.items()
            if len(samples) > USAGES
        ),
    ]


def report(groups: Groups) -> str:
    """Return the table: uncalibrated beside calibrated."""
    head = f"{'':44} {'n':>5} {'without':>8} {'with'.rjust(8)}"
    return "\n".join(["Median error against providers' counts, calibrated:", head, *map(str, results(groups))])
