"""``ccproxy perf``: a model asked directly and through a real proxy, over real sockets."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from itertools import count
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

import pytest

from ccproxy.perf.runs import NoAnswer, run_pairs, warm_up
from ccproxy.perf.sample import Sample
from ccproxy.stub import Delay, Failure, Finish, Script, StubProvider, Text
from processes import PATIENCE, configuration, environment, eventually
from responses_provider import ResponsesProvider
from support import running_proxy

HELLO = [Text("Hello there")]


def perf(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """What the command did, with nothing of the developer's configuration around it."""
    return subprocess.run(
        [sys.executable, "-m", "ccproxy", "perf", *arguments],
        cwd=folder,
        env=environment(folder, {"TMPDIR": str(folder), **variables}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )


def measured(folder: Path, script: Script, *arguments: str, **model: Any) -> Dict[str, Any]:
    """The report about the model ``stub``, which plays a script."""
    with StubProvider(script) as stub:
        variables = configuration(folder, stub.url)
        row = {"model_id": "stub", "api_base": stub.url, "dialect": "generic", **model}
        (folder / "models.yaml").write_text(json.dumps([row]))
        done = perf(folder, "--model_id", "stub", "--json", *arguments, **variables)
    assert done.stdout, done.stderr
    return {"code": done.returncode, "received": stub.requests, **json.loads(done.stdout)}


# --- the whole command --------------------------------------------------------------------------------------------


def test_without_a_key(tmp_path: Path) -> None:
    """It measures the demo, says how fast, and leaves a line in simple.log: no usage, no proxy, no temporary file."""
    done = perf(tmp_path, "--requests", "3", "--html", "report.html")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("demo/echo: 3 requests each way, 1 at a time")
    for row in ("first content", "total time", "tokens per second", "answer size", "output tokens", "cost", "failed"):
        assert re.search(rf"^{row}  ", done.stdout, re.MULTILINE), row
    assert "input equal in 3 of 3 pairs, output in 3 of 3 with the same answer" in done.stdout
    assert re.search("^rating: (excellent|good|fair|poor)$", done.stdout, re.MULTILINE)
    assert "<h1>ccproxy perf: demo/echo</h1>" in (tmp_path / "report.html").read_text()
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {name for name in left if not name.startswith("data-gym-cache")} == {  # tiktoken's own folder
        "report.html",
        ".local/state/ccproxy/simple.log",
    }


def test_both_ways_send_the_same(tmp_path: Path) -> None:
    """The provider cannot tell the ways apart, gets each request once, and is asked both ways in turns."""
    answers = count(1)
    prices = {"input_cost_per_token": 0.01, "output_cost_per_token": 0.1}
    script = lambda _: [Text("Hello"), Finish(prompt_tokens=200, completion_tokens=next(answers))]  # noqa: E731
    found = measured(tmp_path, script, "--requests", "4", "--prompt-tokens", "50", "--max-tokens", "77", **prices)
    assert found["code"] == 0
    assert len(found["received"]) == 2 * (2 + 4)
    assert len({json.dumps(received.body, sort_keys=True) for received in found["received"]}) == 1
    assert found["received"][0].body["max_tokens"] == 77
    assert 40 <= len(found["received"][0].body["messages"][0]["content"].split()) <= 60
    outputs = [(pair["direct"]["output_tokens"], pair["proxied"]["output_tokens"]) for pair in found["pairs"]]
    assert outputs == [(5, 6), (8, 7), (9, 10), (12, 11)]  # after four of the warm-up
    assert found["pairs"][0]["direct"]["cost_usd"] == "2.5"
    assert found["proxied"]["cost_usd"] == "11.4"


def test_over_the_responses_api(tmp_path: Path) -> None:
    """Both ways go there, and both read the provider's counts."""
    with ResponsesProvider(lambda _: HELLO) as provider:
        variables = configuration(tmp_path, provider.url)
        row = {"model_id": "stub", "api_base": provider.url, "api": "responses"}
        (tmp_path / "models.yaml").write_text(json.dumps([row]))
        done = perf(tmp_path, "--model_id", "stub", "--json", "--requests", "2", **variables)
    found = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert {received.path for received in provider.received} == {"/v1/responses"}
    assert [pair["direct"]["output_tokens"] for pair in found["pairs"]] == [12, 12]
    assert found["agreement"] == {"input_equal": 2, "input_compared": 2, "output_equal": 2, "output_compared": 2}


def test_failures_are_shown(tmp_path: Path) -> None:
    """A request that fails is counted on its way, named, in no median, and the exit code says so."""
    turns = count(1)

    def script(_: Any) -> Sequence[Any]:
        return [Failure(503, "too much")] if next(turns) == 6 else HELLO  # the second of the first pair

    found = measured(tmp_path, script, "--requests", "3")
    assert found["code"] == 1
    assert (found["direct"]["failed"], found["proxied"]["failed"]) == (0, 1)
    [(words, times)] = found["proxied"]["errors"].items()
    assert ("too much" in words, times) == (True, 1)
    assert (found["direct"]["total"]["count"], found["proxied"]["total"]["count"]) == (3, 2)
    assert found["rating"] == "poor"


def test_wrong_counts_are_seen(tmp_path: Path) -> None:
    """A count that is another one through the proxy makes the rating poor."""
    turns = count(1)
    found = measured(tmp_path, lambda _: [*HELLO, Finish(prompt_tokens=next(turns))], "--requests", "2")
    assert found["agreement"] == {"input_equal": 0, "input_compared": 2, "output_equal": 2, "output_compared": 2}
    assert found["rating"] == "poor"


def test_a_refused_field_is_mended_on_both_ways(tmp_path: Path) -> None:
    """What the proxy mends in the first request is mended in the direct one too, before anything is measured."""

    def script(request: Any) -> Sequence[Any]:
        refusal = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'."
        return [Failure(400, refusal)] if "max_tokens" in request else HELLO

    found = measured(tmp_path, script, "--requests", "2")
    assert (found["direct"]["failed"], found["proxied"]["failed"]) == (0, 0)


def test_a_model_that_cannot_stream(tmp_path: Path) -> None:
    """Its completion is measured whole."""
    found = measured(tmp_path, lambda _: HELLO, "--requests", "2", can_stream=False)
    assert found["direct"]["first_content"] == found["direct"]["total"]
    assert found["agreement"]["output_equal"] == 2


def test_an_anthropic_format_provider_and_a_running_proxy(tmp_path: Path) -> None:
    """Both ways speak the Messages API; ``--url`` names the proxy, and its token is the configured one."""
    entry = {"model_id": "claude-like", "model_name": "demo/echo", "direct": True}
    with running_proxy() as provider:
        entry["api_base"] = provider.url
        (tmp_path / "models.yaml").write_text(json.dumps([{**entry, "api_key_name": "A_KEY"}]))
        settings = {"CCPROXY_AUTH_TOKEN": "the-token", "A_KEY": "k"}
        with running_proxy(settings, [{**entry, "api_key_name": "A_KEY"}]) as proxy:
            arguments = ("--model_id", "claude-like", "--requests", "2", "--concurrency", "2", "--json")
            done = perf(tmp_path, *arguments, "--url", proxy.url + "/", **settings)
            refused = perf(tmp_path, *arguments, "--url", proxy.url, **{**settings, "CCPROXY_AUTH_TOKEN": "wrong"})
    found = json.loads(done.stdout)
    assert (found["direct"]["failed"], found["proxied"]["failed"], done.returncode) == (0, 0, 0)
    assert found["agreement"]["output_equal"] == 2
    assert refused.returncode == 2
    assert "CCPROXY_AUTH_TOKEN" in refused.stderr
    assert "wrong" not in refused.stderr


def test_a_url_that_is_no_proxy(tmp_path: Path) -> None:
    """An answer that no ccproxy gave for this model is no measurement."""
    with running_proxy() as other, StubProvider() as stub:
        variables = configuration(tmp_path, stub.url)
        for url, words in ((other.url, "model: stub"), (stub.url, "no such path")):
            done = perf(tmp_path, "--model_id", "stub", "--url", url, **variables)
            assert (done.returncode, done.stdout) == (2, "")
            assert words in done.stderr
            assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model_id", "nothing"], "unknown model 'nothing'"),
        (["--model_id", "openai/gpt-5"], "OPENAI_API_KEY is not set"),
        (["--html", "no/such/folder.html"], "no/such/folder.html"),
        (["--requests", "0"], "from 1 to 10000, not '0'"),
        (["--concurrency", "x"], "from 1 to 256, not 'x'"),
        (["--model_id", "ollama/m"], "directly: no answer in 2 attempts"),
    ],
)
def test_what_its_user_can_mend(tmp_path: Path, arguments: List[str], words: str) -> None:
    """One line that says what was wrong, before anything is measured, and exit code 2."""
    done = perf(tmp_path, *arguments, OLLAMA_API_BASE="http://127.0.0.1:1/v1")
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_progress_on_a_terminal_only(tmp_path: Path) -> None:
    """A terminal shows a bar that goes away at the end; nothing else does (the other tests see an empty stderr)."""
    master, terminal = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-m", "ccproxy", "perf", "--requests", "2"],
            cwd=tmp_path,
            env=environment(tmp_path, {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=terminal,
            timeout=2 * PATIENCE,
            check=True,
        )
        drawn = os.read(master, 65536).decode()
    finally:
        os.close(terminal)
        os.close(master)
    assert "[###############...............] 1/2" in drawn
    assert drawn.endswith("\r\x1b[K")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(tmp_path: Path, number: int) -> None:
    """Whoever ends it in the middle waits for no answer, and the proxy it started ends with it."""
    reached, release = threading.Event(), threading.Event()
    turns = count(1)

    def script(_: Any) -> Sequence[Any]:
        if next(turns) > 5:  # the proxied request of the first pair
            reached.set()
            release.wait(PATIENCE)
        return HELLO

    with StubProvider(script) as stub:
        variables = configuration(tmp_path, stub.url)
        process = subprocess.Popen(
            [sys.executable, "-m", "ccproxy", "perf", "--model_id", "stub"],
            cwd=tmp_path,
            env=environment(tmp_path, {"TMPDIR": str(tmp_path), **variables}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert reached.wait(PATIENCE)
        [pid_file] = tmp_path.glob("ccproxy-*/ccproxy.pid")
        proxy = int(pid_file.read_text())
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE)
        release.set()
    assert (process.returncode, said) == (130, b"")
    eventually(lambda: not is_running(proxy), "the proxy ends")
    assert list(tmp_path.glob("ccproxy-*")) == []


def is_running(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# --- the load -----------------------------------------------------------------------------------------------------


class Fake:
    """A way that takes down when it was asked, and gives scripted samples."""

    def __init__(self, name: str, asked: List[str], samples: Optional[Mapping[int, Sample]] = None) -> None:
        self.name, self.asked, self.samples = name, asked, samples or {}

    def ask(self) -> Sample:
        """Answer."""
        self.asked.append(self.name)
        return self.samples.get(self.asked.count(self.name), Sample(text=self.name))

    warm_up = ask


def test_pairs_take_turns() -> None:
    """Neither way is always the first, which would meet the colder cache; each pair is direct, then proxied."""
    asked: List[str] = []
    ways: Any = (Fake("d", asked), Fake("p", asked))
    pairs = list(run_pairs(ways, 4, 1))
    assert "".join(asked) == "dppddppd"
    assert [(one.text, two.text) for one, two in pairs] == [("d", "p")] * 4


def test_pairs_at_the_same_time() -> None:
    """As many pairs as asked for are on their way at once, and no more requests than asked for are sent."""
    asked: List[str] = []
    barrier = threading.Barrier(3)

    class Together(Fake):
        """Answers only when three are asking."""

        def ask(self) -> Sample:
            barrier.wait(PATIENCE)
            return super().ask()

    ways: Any = (Together("d", asked), Together("p", asked))
    assert len(list(run_pairs(ways, 6, 3))) == 6
    assert (asked.count("d"), asked.count("p")) == (6, 6)


def test_a_bug_in_a_thread_is_raised() -> None:
    """A thread that dies does not leave the reader waiting."""

    class Broken(Fake):
        """Fails as no way should."""

        def ask(self) -> Sample:
            raise ZeroDivisionError

    ways: Any = (Broken("d", []), Broken("p", []))
    with pytest.raises(ZeroDivisionError):
        list(run_pairs(ways, 2, 1))


def test_warm_up() -> None:
    """A way that answers now and then is measured; one that never does is named, with its words."""
    refused = Sample("refused")
    ways: Any = (Fake("d", [], {1: refused}), Fake("p", [], {1: refused, 2: refused}))
    with pytest.raises(NoAnswer, match=r"^through it: no answer in 2 attempts: refused$"):
        warm_up(ways, ("directly", "through it"), 2)


def test_a_request_that_takes_too_long(tmp_path: Path) -> None:
    """Silence ends a request after ``--timeout``, and counts as a failure."""
    turns = count(1)
    found = measured(
        tmp_path, lambda _: [Delay(3.0), *HELLO] if next(turns) == 5 else HELLO, "--requests", "1", "--timeout", "1"
    )
    assert "did not answer in time" in next(iter(found["direct"]["errors"]))
