"""Real usages correct the estimates of their model: how, from what, for how long; never in a stream's way."""

from __future__ import annotations

import json
import os
import statistics
from pathlib import Path
from typing import Any, List, Optional, Sequence

import pytest

import recorded_usages
from ccproxy.accounting.ledger import Ledger
from ccproxy.anthropic import MessagesRequest
from ccproxy.config.schema import Model
from ccproxy.counting import estimates, learned
from ccproxy.counting.calibration import LEAST_SHARE, MOST_OFFSET, MOST_SLOPE, NONE, Correction, Sample, fit
from ccproxy.counting.counter import Counter
from ccproxy.counting.estimates import Estimator
from ccproxy.counting.learned import KEPT, Learned
from ccproxy.counting.tokens import count
from ccproxy.stub import Cut, Finish, Json, Step, StubProvider, Text
from ledger_rows import row
from processes import configuration, eventually, running, serve_command
from recordings import VARIABLE, folder
from support import ask, running_proxy, user
from test_image_size import b64, png

GROUPS = recorded_usages.load()


# --- against recorded usages --------------------------------------------------------------------------------------


def test_the_recordings_are_there() -> None:
    """Where CI runs, they must be: a run without them proves nothing."""
    if not GROUPS and not os.environ.get("CI"):
        pytest.skip(f"no recordings in {folder().name!r}: set {VARIABLE}")
    assert sum(map(len, GROUPS.values())) > 300, f"no recordings in {folder()}: set {VARIABLE}"


@pytest.mark.skipif(not GROUPS, reason=f"no recordings: set {VARIABLE}")
def test_ten_usages_bring_estimates_near() -> None:
    """The median error is at most 5 %, for all models together and for each of which there are enough requests."""
    results = recorded_usages.results(GROUPS)
    assert len(results) > 2
    for result in results:
        assert recorded_usages.median(result.after) <= 0.05, str(result)
        assert recorded_usages.median(result.after) < recorded_usages.median(result.before), str(result)


# --- the correction -----------------------------------------------------------------------------------------------


def samples(slope: float, offset: float, estimates: Sequence[int], has_tools: bool = False) -> List[Sample]:
    return [Sample(size, round(slope * size + offset), has_tools) for size in estimates]


SHORT, LONG = [20, 50, 100, 300, 500, 900], [5000, 10_000, 20_000, 50_000, 80_000, 120_000]


@pytest.mark.parametrize(
    ("slope", "offset"), [(1.0, 0), (1.0, 65), (1.0, 950), (1.0, -90), (1.2, 65), (0.85, 300), (1.4, 0)]
)
def test_short_prompts_tell_the_offset_and_long_ones_the_slope(slope: float, offset: float) -> None:
    """Whatever a template adds, and however many tokens the vocabulary makes of a text."""
    found = fit(samples(slope, offset, SHORT + LONG))
    for size in (1000, 30_000, 200_000):
        assert found.apply(size, False) == pytest.approx(slope * size + offset, rel=0.03)


def test_tools_have_their_own_offset() -> None:
    """A template explains them; what was seen only without them is expected with them too."""
    plain, with_tools = samples(1.0, 60, SHORT), samples(1.0, 260, SHORT, has_tools=True)
    found = fit(plain + with_tools)
    assert (found.apply(100, False), found.apply(100, True)) == (160, 360)
    assert fit(plain).apply(100, True) == 160
    assert fit(with_tools).apply(100, False) == 100


def test_one_report_moves_no_slope() -> None:
    """It takes several long prompts that agree."""
    assert fit(samples(1.5, 0, [50_000])).slope == 1.0
    assert fit(samples(1.3, 0, [50_000] * 10)).apply(100_000, False) == 130_000


def test_odd_reports_are_outvoted() -> None:
    """A third of nonsense changes nothing."""
    good = samples(1.1, 100, SHORT + LONG)
    odd = [Sample(400, 3, False), Sample(300, 5000, False), Sample(20_000, 9000, False), Sample(50_000, 70_000, False)]
    assert fit(good + odd).apply(30_000, False) == pytest.approx(33_100, rel=0.02)
    assert fit(good + odd).apply(200, False) == pytest.approx(320, rel=0.1)


@pytest.mark.parametrize("actual", [1, 10**7])
def test_a_correction_is_bounded(actual: int) -> None:
    """However long a provider reports the same nonsense."""
    found = fit([Sample(size, actual, False) for size in SHORT + LONG])
    assert LEAST_SHARE * 10_000 <= found.apply(10_000, False) <= MOST_SLOPE * 10_000 + MOST_OFFSET


def test_nothing_learned_changes_nothing() -> None:
    """And images stay as they are."""
    assert [NONE.apply(size, True) for size in (0, 1, 12_345)] == [0, 1, 12_345]
    assert Correction(slope=1.5, offset=10).apply(1100, False, media=1000) == 1000 + 150 + 10


@pytest.mark.parametrize(
    ("estimate", "actual", "expected"),
    [
        (100, 100, True),
        (15, 1574, True),  # a provider's own system prompt
        (200, 17, True),  # tools that were left out
        (0, 100, False),
        (100, 0, False),
        (100, -5, False),
        (16, 10_000, False),  # a provider that asked several models
        (20_000, 12, False),  # only what was not cached
        (100_000, 10**9, False),
    ],
)
def test_what_is_learned_from(estimate: int, actual: int, expected: bool) -> None:
    """A count that may be one of the same prompt."""
    assert Sample(estimate, actual, False).is_plausible == expected


# --- what is remembered -------------------------------------------------------------------------------------------

MODEL = Model("m", "http://p/v1")
_numbers = iter(range(10**9))


def answered(estimate: Optional[int], actual: int, **fields: Any) -> Any:
    counts = {"input_tokens": actual, "cache_read_tokens": 0, "cache_write_tokens": 0}
    return row(estimate=estimate, request_id=f"req_{next(_numbers)}", **{**counts, **fields})


def test_each_model_learns_its_own() -> None:
    """By its id and its provider; all of the prompt counts, cached or not."""
    found = Learned(None)
    for _ in range(3):
        found.add(answered(100, 60, cache_read_tokens=80, cache_write_tokens=20))
        found.add(answered(100, 100, model="other"))
    assert found.correction(MODEL).apply(100, False) == 160
    assert found.correction(Model("other", "http://p/v1")).apply(100, False) == 100
    assert found.correction(Model("m", "http://elsewhere/v1")) is NONE


def test_the_newest_count() -> None:
    """A model that was replaced by another one is learned anew, with tools and without apart."""
    found = Learned(None)
    found.add(answered(100, 900, has_tools=True))
    for actual in [150] * KEPT + [200] * KEPT:
        found.add(answered(100, actual))
    correction = found.correction(MODEL)
    assert (correction.apply(100, False), correction.samples) == (200, KEPT + 1)
    assert correction.apply(100, True) == 900


def test_enough_answers_are_fitted_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy server does not begin anew with each of them."""
    found = Learned(None)
    monkeypatch.setattr(learned, "FIT_AFTER", 3600.0)
    for number in range(KEPT):
        found.add(answered(100, 150))
        assert found.correction(MODEL).samples == number + 1
    for _ in range(KEPT):
        found.add(answered(100, 200))
    assert found.correction(MODEL).apply(100, False) == 150
    assert found.is_settled(MODEL, has_tools=False)
    assert not found.is_settled(MODEL, has_tools=True)
    monkeypatch.setattr(learned, "FIT_AFTER", -1.0)
    assert not found.is_settled(MODEL, has_tools=False)
    found.add(answered(100, 200))
    assert found.correction(MODEL).apply(100, False) == 200


@pytest.mark.parametrize("actual", [1, 100_000])
def test_what_surely_fits_fits_whatever_was_learned(actual: int) -> None:
    """Also after the largest corrections that there are."""
    counter = Counter()
    counter.load()
    estimator = Estimator(counter)
    for _ in range(KEPT):
        estimator.learned.add(answered(SHORT[-1], actual))
        estimator.learned.add(answered(LONG[-1], actual * 10))
    body = json.dumps(user("{[(<>)]}!?" * 500, max_tokens=1))
    asked = estimator.of(MessagesRequest.from_dict(json.loads(body)), len(body))
    fitting = [limit for limit in range(0, 60_000, 50) if asked.surely_fit(MODEL, limit)]
    assert asked.of(MODEL) <= fitting[0]
    assert fitting == list(range(fitting[0], 60_000, 50))


def test_the_models_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client may name ever new ones."""
    monkeypatch.setattr(learned, "MAX_MODELS", 2)
    found = Learned(None)
    for name in ("a", "b", "c"):
        found.add(answered(100, 200, model=name))
    assert [found.correction(Model(name, "http://p/v1")).samples for name in ("a", "b", "c")] == [0, 1, 1]


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    """The ledger remembers; rows that teach nothing are passed over."""
    ledger = Ledger(tmp_path, keep_days=10**6)
    for estimate in (100, None, 200, 300):
        ledger.add(answered(estimate, (estimate or 0) + 65))
    assert ledger.flush(10)
    ledger.close()
    assert Learned(ledger.path).correction(MODEL) == fit(samples(1.0, 65, [100, 200, 300]))


def test_what_is_let_go_is_read_again(tmp_path: Path) -> None:
    """From the ledger; without one nothing is let go."""
    ledger = Ledger(tmp_path, keep_days=10**6)
    ledger.add(answered(100, 165))
    assert ledger.flush(10)
    read, own = Learned(ledger.path), Learned(None)
    known = read.correction(MODEL)
    ledger.add(answered(200, 265))
    own.add(answered(100, 165))
    assert ledger.flush(10)
    ledger.close()
    for found in (read, own):
        assert found.correction(MODEL) == known == fit(samples(1.0, 65, [100]))
        found.forget()
    assert own.correction(MODEL) == known
    assert read.correction(MODEL) == fit(samples(1.0, 65, [100, 200]))


def test_of_a_long_ledger_the_newest_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this process had given the answers: so many of each model, with tools and without, and so many models."""
    monkeypatch.setattr(learned, "MAX_MODELS", 2)
    ledger, own = Ledger(tmp_path, keep_days=10**6), Learned(None)
    for number in range(2 * KEPT):
        for name in ("a", "b", "c"):
            for has_tools in (False, True):
                ended = 1e9 + len("abc") * number + "abc".index(name)
                one = answered(100, 150 + number, model=name, has_tools=has_tools, time=ended)
                ledger.add(one)
                if name != "a":
                    own.add(one)
    assert ledger.flush(10)
    ledger.close()
    read, (a, b, c) = Learned(ledger.path), [Model(name, "http://p/v1") for name in ("a", "b", "c")]
    assert read.correction(a) is NONE
    assert read.correction(b).samples == 2 * KEPT
    assert (read.correction(b), read.correction(c)) == (own.correction(b), own.correction(c))


def test_others_are_read_once_in_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another process learned, by a thread, not for each request."""
    found = Learned(tmp_path / "usage.db")
    assert found.correction(MODEL) is NONE
    ledger = Ledger(tmp_path, keep_days=10**6)
    ledger.add(answered(100, 165))
    assert ledger.flush(10)
    ledger.close()
    assert found.correction(MODEL) is NONE
    monkeypatch.setattr(learned, "REFRESH_AFTER", -1.0)
    eventually(lambda: found.correction(MODEL).samples == 1, "the other's answer is read")


def test_the_first_request_waits_for_the_newest_answers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long ledger; the others are read by a thread beside the next request."""
    monkeypatch.setattr(learned, "_READ_FIRST", 3)
    ledger = Ledger(tmp_path, keep_days=10**6)
    for number in range(5):
        ledger.add(answered(100, 165, time=1e9 + number))
    assert ledger.flush(10)
    ledger.close()
    found = Learned(ledger.path)
    assert found.correction(MODEL).samples == 3
    eventually(lambda: found.correction(MODEL).samples == 5, "the older answers are read")


def test_a_file_that_cannot_be_read_teaches_nothing(tmp_path: Path) -> None:
    """And fails nothing."""
    path = tmp_path / "usage.db"
    path.write_bytes(b"no database" * 1000)
    found = Learned(path)
    assert found.correction(MODEL) is NONE
    found.add(answered(100, 165))
    assert found.correction(MODEL).samples == 1


# --- over HTTP ----------------------------------------------------------------------------------------------------


class Provider:
    """A model whose template adds 500 tokens and whose vocabulary makes a fifth more of a text."""

    def __init__(self) -> None:
        self.reports = True
        self.is_cut = False

    def __call__(self, body: Json) -> Sequence[Step]:
        count = 500 + round(1.2 * len(str(body["messages"])) / 5)
        ending: List[Step] = [Cut()] if self.is_cut else [Finish(None, count if self.reports else 0, 1)]
        return [Text("Hello"), *ending]


def prompts() -> List[str]:
    return ["word " * size for size in (5, 20, 60, 150, 300, 2500, 4000, 6000, 8000, 9000)]


def count_of(url: str, content: Any) -> Any:
    return ask(url, "/v1/messages/count_tokens", user(content))


def error_of(url: str, provider: Provider, text: str) -> float:
    """How far an estimate is from what the provider counts."""
    answer = ask(url, "/v1/messages", user(text)).json["usage"]["input_tokens"]
    return abs(count_of(url, text).json["input_tokens"] / answer - 1)


def test_ten_answers_teach_a_model(tmp_path: Path) -> None:
    """Then counts are near the provider's, and say why; other models' are as before; a restart forgets nothing."""
    provider = Provider()
    with StubProvider(provider) as stub:
        models = [{"model_id": name, "api_base": stub.url, "dialect": "generic"} for name in ("stub", "other")]
        with running_proxy({"ROUTER_DEFAULT": "stub"}, models, Ledger(tmp_path)) as proxy:
            before = count_of(proxy.url, "word " * 500)
            for text in prompts():
                assert ask(proxy.url, "/v1/messages", user(text, stream=len(text) % 2 == 0)).status == 200
            errors = [error_of(proxy.url, provider, "word " * size) for size in (50, 500, 1500, 5000, 20_000)]
            after = count_of(proxy.url, "word " * 500)
            other = ask(proxy.url, "/v1/messages/count_tokens", {**user("word " * 500), "model": "other"})
            shown = ask(proxy.url, "/v1/messages/test_conversion?dry_run=1&model=stub", user("word " * 500)).json
        with running_proxy({"ROUTER_DEFAULT": "stub"}, models, Ledger(tmp_path)) as proxy:
            assert count_of(proxy.url, "word " * 500).json["input_tokens"] == after.json["input_tokens"]
    assert statistics.median(errors) <= 0.05
    assert before.headers["x-ccproxy-estimate"] == "by cl100k tokens, family other; not calibrated"
    assert "calibrated by 15 answers: x1." in after.headers["x-ccproxy-estimate"]
    assert list(after.json) == ["input_tokens"]
    assert after.json["input_tokens"] > before.json["input_tokens"] + 400
    assert other.json == before.json
    assert shown["input_tokens"]["estimate"] == after.json["input_tokens"]
    assert shown["input_tokens"]["how"] == after.headers["x-ccproxy-estimate"]


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": b64(png(280, 280))}}


@pytest.mark.parametrize("what", ["image", "no usage", "cut", "absurd"])
def test_what_may_mislead_teaches_nothing(what: str) -> None:
    """Images cost what each provider thinks; without a count, and without an end, there is nothing to learn."""
    provider = Provider()
    provider.reports, provider.is_cut = what != "no usage", what == "cut"
    absurd = [Text("Hello"), Finish(None, 10**9, 1)]
    with StubProvider(lambda body: absurd if what == "absurd" else provider(body)) as stub:
        models = [{"model_id": "stub", "api_base": stub.url, "dialect": "generic"}]
        with running_proxy({"ROUTER_DEFAULT": "stub"}, models) as proxy:
            for text in prompts()[:3]:
                content: Any = [{"type": "text", "text": text}, *([IMAGE] if what == "image" else [])]
                ask(proxy.url, "/v1/messages", user(content))
            assert count_of(proxy.url, "Hi").headers["x-ccproxy-estimate"].endswith("not calibrated")


def test_whole_answers_of_a_settled_model_are_not_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody sees such an estimate or learns from it; a stream begins with it, and it is told where no count came."""
    made: List[str] = []
    monkeypatch.setattr(estimates, "count", lambda request, *rest: made.append("") or count(request, *rest))
    monkeypatch.setattr(learned, "FIT_AFTER", 3600.0)
    provider = Provider()
    with StubProvider(provider) as stub:
        models = [{"model_id": "stub", "api_base": stub.url, "dialect": "generic"}]
        with running_proxy({"ROUTER_DEFAULT": "stub"}, models) as proxy:
            for number in range(KEPT):
                ask(proxy.url, "/v1/messages", user(f"number {number}"))
                assert len(made) == number + 1
            counted = ask(proxy.url, "/v1/messages", user("and one more")).json["usage"]
            assert len(made) == KEPT
            ask(proxy.url, "/v1/messages", user("and one more", stream=True))
            assert len(made) == KEPT + 1
            provider.reports = False
            shown = ask(proxy.url, "/v1/messages", user("and one more")).json["usage"]
            assert len(made) == KEPT + 2
    assert counted["input_tokens"] > 500
    assert shown["input_tokens"] == pytest.approx(counted["input_tokens"], rel=0.1)


def test_two_processes_learn_together(tmp_path: Path) -> None:
    """One state folder, two servers: what one learned, one that starts later knows."""
    with StubProvider(Provider()) as stub:
        variables = configuration(tmp_path, stub.url, STATE_DIR=str(tmp_path / "state"))
        command = serve_command("--port", "0")
        with running(command, tmp_path, variables) as one, running(command, tmp_path, variables) as two:
            for url in (one.address(), two.address()):
                for text in prompts()[:3]:
                    assert ask(url, "/v1/messages", user(text)).status == 200
        with running(command, tmp_path, variables) as three:
            how = count_of(three.address(), "Hi").headers["x-ccproxy-estimate"]
    assert "calibrated by 6 answers" in how
