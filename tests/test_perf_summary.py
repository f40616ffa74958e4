"""The performance tool's arithmetic: reads to samples, samples to medians, spread, agreement and rating."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any, Dict, List, Sequence, Tuple

import pytest

from ccproxy.message import Usage
from ccproxy.perf.sample import Sample, read, see_chunk, see_event
from ccproxy.perf.summary import Added, Agreement, Report, Spread, agreement_of, spread_of

USAGE = Usage(100, 20)
GOOD = Sample("", 0.1, 0.5, 1000, "one, two", USAGE, Decimal("0.01"))
SETTINGS = {"requests": 2, "concurrency": 1, "prompt_tokens": 100, "max_tokens": 50}


def report(*pairs: Tuple[Sample, Sample]) -> Report:
    """A report about these pairs."""
    return Report("m", SETTINGS, pairs)


def timed(*events: Any, every: float = 0.1) -> List[Tuple[float, bytes]]:
    """Reads that hold one event each, the first after ``every`` seconds."""
    return [
        (every * number, b"data: %s\n\n" % (event if isinstance(event, bytes) else json.dumps(event).encode()))
        for number, event in enumerate(events, 1)
    ]


def chunk(delta: Dict[str, Any], finish: Any = None) -> Dict[str, Any]:
    """One chunk of a chat completion."""
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


# --- one answer ---------------------------------------------------------------------------------------------------

ROLE, COUNTS = chunk({"role": "assistant", "content": ""}), {"prompt_tokens": 7, "completion_tokens": 2}
START = {"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}}
OPEN = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
DELTA = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}
END = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}
STOP = {"type": "message_stop"}


def test_first_content_is_not_the_first_chunk() -> None:
    """A chunk that only names the role, and an event that only opens a block, hold no content."""
    chat = timed(ROLE, chunk({"content": "Hi"}), chunk({}, "stop"), {"choices": [], "usage": COUNTS}, b"[DONE]")
    sample, counts = read(chat, see_chunk)
    assert (sample.first_content, sample.total, sample.text) == (pytest.approx(0.2), pytest.approx(0.5), "Hi")
    assert (sample.size, counts) == (sum(len(data) for _, data in chat), COUNTS)

    sample, counts = read(timed(START, OPEN, DELTA, END, STOP), see_event)
    assert (sample.first_content, sample.total, sample.text) == (pytest.approx(0.3), pytest.approx(0.5), "Hi")
    assert counts == {"input_tokens": 9, "output_tokens": 2}


@pytest.mark.parametrize("delta", [{"reasoning_content": "Hm"}, {"tool_calls": [{"function": {"name": "Read"}}]}])
def test_thinking_and_tool_calls_are_content(delta: Dict[str, Any]) -> None:
    """Whatever the model says first counts."""
    assert read(timed(ROLE, chunk(delta), chunk({}, "stop")), see_chunk)[0].first_content == pytest.approx(0.2)


def test_events_torn_across_reads() -> None:
    """The content is there when the read that completes its event is."""
    whole = b"".join(data for _, data in timed(ROLE, chunk({"content": "Hi"}), chunk({}, "stop"), b"[DONE]"))
    reads = [(float(number), whole[number : number + 1]) for number in range(len(whole))]
    assert read(reads, see_chunk)[0].first_content == whole.index(b"\n\n", whole.index(b"Hi")) + 1


def test_a_whole_completion() -> None:
    """What does not come in pieces is there when its last byte is."""
    body = json.dumps({"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}], "usage": COUNTS}).encode()
    sample, counts = read([(0.1, body[:9]), (0.4, body[9:])], see_chunk)
    assert (sample.first_content, sample.total, sample.text, counts) == (0.4, 0.4, "Hi", COUNTS)


@pytest.mark.parametrize(
    ("reads", "see", "words"),
    [
        ([], see_chunk, "empty"),
        (timed(ROLE, chunk({"content": "Hi"})), see_chunk, "cut"),
        (timed(START, OPEN, DELTA), see_event, "cut"),
        (
            timed(*({**event, "content_block": 1, "delta": None, "message": []} for event in (START, OPEN, DELTA))),
            see_event,
            "cut",
        ),
        (timed(ROLE, chunk({}, "length")), see_chunk, "no content"),
        (timed(ROLE, {"error": {"message": "bad luck"}}), see_chunk, "bad luck"),
        (timed(START, {"type": "error", "error": {"message": "bad luck"}}), see_event, "bad luck"),
    ],
)
def test_a_failed_answer(reads: Any, see: Any, words: str) -> None:
    """What was cut, failed on the way or says nothing is a failure, whatever its status was."""
    assert words in read(reads, see)[0].error


# --- many answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], None),
        ([3.0], Spread(3.0, 3.0, 3.0, 3.0, 3.0, 1)),
        ([4.0, 1.0, 3.0, 2.0], Spread(2.5, 1.75, 3.25, 1.0, 4.0, 4)),
        ([5.0, 1.0, 2.0, 4.0, 3.0], Spread(3.0, 2.0, 4.0, 1.0, 5.0, 5)),
    ],
)
def test_spread(values: Sequence[float], expected: Any) -> None:
    """Median and quartiles, between two values where they fall there."""
    assert spread_of(values) == expected


def test_the_error_shrinks_with_the_number() -> None:
    """Four times the values halve the standard error of the median."""
    few, many = Spread(0, -1, 1, -2, 2, 25), Spread(0, -1, 1, -2, 2, 100)
    assert few.error == pytest.approx(2 * many.error) == pytest.approx(0.3716, rel=1e-3)


def test_failures_are_counted_and_in_no_median() -> None:
    """A fast refusal makes nobody faster."""
    refused = Sample("refused")
    ways = report((GOOD, GOOD), (refused, GOOD), (refused, GOOD)).ways
    assert ways["direct"].errors == {"refused": 2}
    assert (ways["direct"].failed, ways["proxied"].failed) == (2, 0)
    assert ways["direct"].spread("total") == spread_of([0.5])


def test_cost_is_exact_or_unknown() -> None:
    """Decimals add up; one unknown cost makes the sum unknown."""
    ten = [(GOOD, replace(GOOD, cost=Decimal("0.1")))] * 3
    assert report(*ten).ways["proxied"].cost == Decimal("0.3")
    assert report(*ten, (GOOD, replace(GOOD, cost=None))).ways["proxied"].cost is None
    assert report(*ten).to_dict()["proxied"]["cost_usd"] == "0.3"


@pytest.mark.parametrize(
    ("proxied", "expected"),
    [
        (GOOD, Agreement(1, 1, 1, 1)),
        (replace(GOOD, usage=Usage(40, 20, 50, 10)), Agreement(1, 1, 1, 1)),
        (replace(GOOD, usage=Usage(101, 20)), Agreement(0, 1, 1, 1)),
        (replace(GOOD, usage=Usage(100, 21)), Agreement(1, 1, 0, 1)),
        (replace(GOOD, usage=Usage(100, 21), text="another answer"), Agreement(1, 1, 0, 0)),
        (replace(GOOD, usage=None), Agreement()),
        (Sample("refused"), Agreement()),
    ],
)
def test_token_agreement(proxied: Sample, expected: Agreement) -> None:
    """The input must agree in total, wherever caches served it; the output only where the answer is the same."""
    assert agreement_of([(GOOD, proxied)]) == expected


@pytest.mark.parametrize(
    ("difference", "error", "base", "grade"),
    [
        (-0.1, 0, 1, "excellent"),
        (0.005, 0, 0.01, "excellent"),
        (0.006, 0, 0.01, "good"),
        (0.020, 0, 1, "excellent"),
        (0.021, 0, 1, "good"),
        (0.021, 0.002, 1, "excellent"),
        (0.051, 0, 1, "fair"),
        (0.151, 0, 1, "poor"),
        (0.151, 0.2, 1, "excellent"),
    ],
)
def test_grades(difference: float, error: float, base: float, grade: str) -> None:
    """A time is graded by milliseconds or by share, whichever allows more, and only by what is no chance."""
    assert Added(difference, error, base).grade == grade


@pytest.mark.parametrize(
    ("pairs", "rating"),
    [
        ([(GOOD, GOOD)], "excellent"),
        ([(GOOD, replace(GOOD, first_content=0.115))], "good"),
        ([(GOOD, replace(GOOD, total=0.59))], "fair"),
        ([(GOOD, replace(GOOD, usage=Usage(1, 20)))], "poor"),
        ([(GOOD, GOOD), (GOOD, Sample("refused"))], "poor"),
        ([(GOOD, GOOD), (Sample("refused"), Sample("refused"))], "excellent"),
        ([(GOOD, replace(GOOD, usage=None))], "excellent"),
        ([(GOOD, Sample("refused"))], ""),
        ([(Sample("refused"), GOOD)], ""),
    ],
)
def test_rating(pairs: List[Tuple[Sample, Sample]], rating: str) -> None:
    """The worst criterion decides; what cannot be told is not graded; without times there is no rating."""
    assert report(*pairs).rating == rating


def test_the_criteria_tell_what_was_seen() -> None:
    """A reader can check the rating."""
    seen = {item.name: item.seen for item in report((GOOD, replace(GOOD, total=0.6)), (GOOD, Sample("no"))).criteria}
    assert seen["total time"] == "+100.0 ms ± 0.0 (+20.0%)"
    assert seen["failures"] == "1 through the proxy, 0 directly"
    assert seen["token counts"] == "input equal in 1 of 1 pairs, output in 1 of 1 with the same answer"


def test_the_report_as_json() -> None:
    """Every pair is in it, failed ones with their words, and it is JSON."""
    found = json.loads(json.dumps(report((GOOD, Sample("refused"))).to_dict()))
    assert found["pairs"][0]["proxied"] == {"error": "refused"}
    assert found["pairs"][0]["direct"]["total"] == 0.5
    assert found["direct"]["total"]["median"] == 0.5
    assert (found["proxied"]["total"], found["rating"], found["added"]["total"]) == (None, None, None)
