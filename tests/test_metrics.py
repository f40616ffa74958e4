"""``GET /metrics``: valid Prometheus text, the ledger's numbers, and label sets that cannot grow without end."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Dict, List, Tuple

import pytest

from ccproxy.accounting.ledger import Ledger
from ccproxy.metrics import FAMILIES, MAX_MODELS, Metrics
from ccproxy.stub import Failure, Finish, StubProvider, Text, content_text
from ledger_rows import row
from support import ask, running_proxy, user

Labels = Tuple[Tuple[str, str], ...]
Samples = Dict[str, Dict[Labels, float]]

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf"({NAME})(?:\{{(.*)\}})? (\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)')


def parse(text: str) -> Samples:
    """Read the text format strictly: each family once, with help and type before its samples, and no sample twice."""
    assert text.endswith("\n")
    samples: Samples = {}
    types: Dict[str, str] = {}
    family = ""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("# HELP "):
            family = line.split(" ")[2]
            assert family not in types
            assert lines[number + 1].startswith(f"# TYPE {family} ")
        elif line.startswith("# TYPE "):
            types[family] = line.split(" ")[3]
            assert types[family] in ("counter", "gauge", "histogram")
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            name, inside, value = match.groups()
            suffixes = ("_bucket", "_sum", "_count") if types[family] == "histogram" else ("",)
            assert name in [family + suffix for suffix in suffixes], line
            labels = tuple(LABEL.findall(inside or ""))
            assert LABEL.sub("", inside or "") == "", line
            assert labels not in samples.setdefault(name, {}), line
            samples[name][labels] = float(value)
    for name, kind in types.items():
        assert kind != "counter" or name.endswith("_total")
        if kind == "histogram":
            check_histogram(samples, name)
    return samples


def check_histogram(samples: Samples, name: str) -> None:
    """Bounds rise to +Inf, counts never fall, and the last one is the count."""
    buckets = [(float(dict(labels)["le"]), value) for labels, value in samples[f"{name}_bucket"].items()]
    assert buckets == sorted(buckets)
    assert [value for _, value in buckets] == sorted(value for _, value in buckets)
    assert buckets[-1] == (float("inf"), samples[f"{name}_count"][()])


def promtool(text: str) -> str:
    """What Prometheus' own checker says about it."""
    command = shutil.which("promtool")
    if command is None:
        assert not os.environ.get("CI"), "promtool is not installed (Debian, Ubuntu: apt-get install prometheus)"
        pytest.skip("promtool is not installed (Debian, Ubuntu: apt-get install prometheus)")
    done = subprocess.run([command, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    return f"{done.returncode}{done.stdout}{done.stderr}"


def full() -> Metrics:
    """Some of everything, with names that need quoting."""
    metrics = Metrics()
    metrics.add(row(cost=Decimal("0.1"), claude_cost=Decimal("0.05")))
    metrics.add(row(cost=Decimal("0.2"), model='a"b\\c\nd', rule="think", first_content=None, duration=5000.0))
    metrics.add(row(outcome="failed", first_content=None, attempts=3))
    metrics.add(row(outcome="cancelled"))
    return metrics


@pytest.mark.parametrize("metrics", [Metrics(), full()], ids=["nothing", "everything"])
def test_prometheus_accepts_it(metrics: Metrics) -> None:
    """Without an error and without advice."""
    assert promtool(metrics.text()) == "0"


@pytest.mark.parametrize("metrics", [Metrics(), full()], ids=["nothing", "everything"])
def test_the_format(metrics: Metrics) -> None:
    """Our own strict reader accepts it."""
    parse(metrics.text())


def test_the_numbers() -> None:
    """What the rows say, added up."""
    samples = parse(full().text())
    m = ("model", "m")
    assert samples["ccproxy_requests_total"] == {
        (m, ("rule", "default"), ("outcome", "ended")): 1,
        (("model", 'a\\"b\\\\c\\nd'), ("rule", "think"), ("outcome", "ended")): 1,
        (m, ("rule", "default"), ("outcome", "failed")): 1,
        (m, ("rule", "default"), ("outcome", "cancelled")): 1,
    }
    assert samples["ccproxy_attempts_total"][(m,)] == 5
    assert samples["ccproxy_tokens_total"][(m, ("kind", "input"))] == 30
    assert samples["ccproxy_cost_usd_total"][(m,)] == 0.1
    assert samples["ccproxy_unknown_cost_requests_total"][(m,)] == 1
    assert samples["ccproxy_saving_usd"][(m,)] == -0.05
    assert samples["ccproxy_first_content_seconds_count"][()] == 2
    assert samples["ccproxy_request_duration_seconds_sum"][()] == 5003
    assert samples["ccproxy_request_duration_seconds_bucket"][(("le", "3600"),)] == 3


def test_labels_are_bounded() -> None:
    """A client that names ever new models makes no new lines beyond a limit, and nothing is lost in the sum."""
    metrics = Metrics()
    for number in range(MAX_MODELS + 500):
        metrics.add(row(model=f"openai/{number}"))
    requests = parse(metrics.text())["ccproxy_requests_total"]
    assert len(requests) == MAX_MODELS + 1
    assert sum(requests.values()) == MAX_MODELS + 500
    assert max(requests.values()) == 500


def test_the_endpoint_agrees_with_the_statistics(tmp_path: Path) -> None:
    """The same requests give the same numbers in both places."""

    def script(body: Dict[str, object]) -> List[object]:
        text = content_text(body["messages"][-1]["content"])  # type: ignore[index]
        return [Failure(500)] if text == "fail" else [Text("Hello"), Finish(None, 100, 7)]

    with StubProvider(script) as stub:  # type: ignore[arg-type]
        prices = {"input_cost_per_token": "0.001", "output_cost_per_token": "0.01"}
        models = [{"model_id": "stub", "api_base": stub.url, "dialect": "generic", **prices}]
        with running_proxy({"ROUTER_DEFAULT": "stub"}, models, Ledger(tmp_path)) as proxy:
            for number in range(10):
                ask(proxy.url, "/v1/messages", user("fail" if number == 3 else "ok", stream=number % 2 == 0))
            answer = ask(proxy.url, "/metrics")
            totals = ask(proxy.url, "/v1/stats").json["totals"]
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples = parse(answer.body.decode())
    assert set(FAMILIES) <= set(samples) | {"ccproxy_saving_usd"}
    sums = {name: sum(values.values()) for name, values in samples.items()}
    assert sums["ccproxy_requests_total"] == totals["requests"] == 10
    assert samples["ccproxy_tokens_total"][(("model", "stub"), ("kind", "input"))] == totals["input_tokens"] == 900
    assert samples["ccproxy_tokens_total"][(("model", "stub"), ("kind", "output"))] == totals["output_tokens"] == 63
    assert sums["ccproxy_cost_usd_total"] == float(totals["cost_usd"]) == 1.53
    assert sums["ccproxy_first_content_seconds_count"] == 9


def test_a_token_guards_it() -> None:
    """Like everything but /health."""
    with running_proxy({"CCPROXY_AUTH_TOKEN": "t"}) as proxy:
        for path in ("/metrics", "/v1/stats"):
            assert ask(proxy.url, path).status == 401
        assert ask(proxy.url, "/metrics", headers={"x-api-key": "t"}).status == 200
