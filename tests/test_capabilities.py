"""``ccproxy check --live``: what a model really can, seen through the whole proxy; a provider for every fault."""

from __future__ import annotations

import json
import zlib
from decimal import Decimal
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Sequence

import pytest
import yaml

from ccproxy import cli
from ccproxy.app import App
from ccproxy.capabilities import PROBES, Bench, Examination, examine, probing_config, red_square, suggestions
from ccproxy.stub import Delay, Failure, Finish, Reasoning, Script, Step, StubProvider, Text, ToolCall, content_text
from support import Json, make_config, proxy_with

WINDOW = 4000
OPENAI_WORDS = "This model's maximum context length is {} tokens. However, your messages resulted in 5400 tokens."
ALL = list(PROBES)
Steps = Sequence[Step]


def capable(request: Json) -> Steps:
    """A model that can everything."""
    messages = request["messages"]
    last = messages[-1]
    if len(json.dumps(messages)) > WINDOW * 4:
        return [Failure(400, OPENAI_WORDS.format(WINDOW))]
    if last["role"] == "tool":
        return [Reasoning("It answered."), Text("It is 18 degrees in Paris.")]
    if request.get("tools"):
        return [ToolCall("get_temperature", {"city": "Paris"})]
    if isinstance(last["content"], list) and any(part["type"] == "image_url" for part in last["content"]):
        return [Text("Red.")]
    return [Text("pong")]


def instead(applies: Callable[[Json], bool], *steps: Step) -> Script:
    """A model that can everything else."""
    return lambda request: list(steps) if applies(request) else capable(request)


def is_image(request: Json) -> bool:
    return "image_url" in json.dumps(request["messages"])


def is_long(request: Json) -> bool:
    return len(content_text(request["messages"][-1].get("content"))) > WINDOW


def has_tools(request: Json) -> bool:
    return bool(request.get("tools"))


def has_result(request: Json) -> bool:
    return bool(request["messages"][-1]["role"] == "tool")


def is_stream(request: Json) -> bool:
    return bool(request.get("stream"))


def examined(script: Script, max_cost: str = "0.10", **fields: Any) -> tuple[Examination, Json]:
    """What is found about a model that plays a script, and what its entry should say."""
    with StubProvider(script) as stub:
        entry = {"model_id": "m", "api_base": stub.url, "dialect": "openai", "max_input_tokens": WINDOW, **fields}
        config = make_config({"CCPROXY_AUTH_TOKEN": "sesame"}, [entry])
        app = App(probing_config(config, list(config.models.values()), 5.0))
        try:
            bench = Bench(app, config, Examination(config.models["m"]), Decimal(max_cost))
            done = examine(bench, lambda name: None)
            return done, suggestions(done, config)
        finally:
            app.close()


def outcomes(done: Examination) -> Dict[str, str]:
    """The outcome of each probe that is not yes."""
    return {name: finding.outcome for name, finding in done.findings.items() if finding.outcome != "yes"}


def test_a_model_that_can_everything() -> None:
    """Every probe says yes, its entry needs no change, and what it cost is known."""
    done, suggested = examined(capable, input_cost_per_token="0.000001", output_cost_per_token="0.000002")
    assert outcomes(done) == {}
    assert list(done.findings) == ALL
    assert done.findings["round trip"].words == "thinks"
    assert (done.findings["overflow"].words, done.findings["overflow"].limit) == (str(WINDOW), WINDOW)
    assert suggested == {}
    assert done.cost == done.usage.input_tokens * Decimal("0.000001") + done.usage.output_tokens * Decimal("0.000002")
    assert done.usage.input_tokens > 50


@pytest.mark.parametrize(
    ("script", "found", "suggested"),
    [
        (instead(is_stream, Failure(400, "stream is not supported")), {"stream": "no"}, {"can_stream": False}),
        (instead(is_stream, Text("po"), Failure(500, "broken")), {"stream": "failed"}, {"can_stream": False}),
        (instead(is_image, Failure(400, "no image input")), {"image": "no"}, {"supports_images": False}),
        (instead(is_image, Text("I am bored: blue")), {"image": "no"}, {"supports_images": False}),
        (instead(is_image, Failure(500, "busy")), {"image": "failed"}, {}),
        (instead(has_tools, Text("18?")), {"tool": "no", "round trip": "no", "forced tool": "no"}, {}),
        (instead(has_result, Text("I do not know")), {"round trip": "no"}, {}),
        (instead(has_result, Failure(400, "reasoning_content is missing")), {"round trip": "no"}, {}),
        (instead(is_long, Failure(400, OPENAI_WORDS.format(3000))), {}, {"max_input_tokens": 3000}),
        (instead(is_long, Failure(400, "way too much")), {"overflow": "no"}, {}),
        (instead(is_long, Failure(429, "tokens per minute")), {"overflow": "failed"}, {}),
        (instead(is_long, Text("pong"), Finish(prompt_tokens=4000)), {"overflow": "no"}, {}),
        (instead(is_long, Text("pong"), Finish(prompt_tokens=4000, completion_tokens=99000)), {"overflow": "no"}, {}),
        (instead(is_long, Text("pong"), Finish(prompt_tokens=5400)), {}, {}),
    ],
)
def test_what_a_model_cannot(script: Script, found: Dict[str, str], suggested: Json) -> None:
    """Each fault is seen by its probe alone; a failure that may pass suggests nothing but for streams."""
    done, flags = examined(script)
    assert outcomes(done) == found
    assert flags == suggested


def test_a_model_that_says_nothing() -> None:
    """An answer without text is none."""
    done, suggested = examined(lambda request: [Text("")])
    assert {name: done.findings[name].words for name in ("text", "stream", "tool")} == {
        "text": "no text",
        "stream": "no text",
        "tool": "no call",
    }
    assert suggested == {}


def test_flags_do_not_hide_what_it_can() -> None:
    """A model whose entry denies streams and images is asked for them all the same."""
    done, suggested = examined(capable, can_stream=False, supports_images=False, max_input_tokens="5k")
    assert outcomes(done) == {}
    assert suggested == {"can_stream": True, "supports_images": True, "max_input_tokens": WINDOW}


@pytest.mark.parametrize(("step", "words"), [(Failure(401, "bad key"), "401"), (Delay(30.0), "504")])
def test_a_model_that_does_not_answer(step: Step, words: str) -> None:
    """Is asked once, for as long as it is told, and no more."""
    with StubProvider(lambda request: [step]) as stub:
        config = make_config({}, [{"model_id": "m", "api_base": stub.url}])
        app = App(probing_config(config, list(config.models.values()), 0.3))
        done = examine(Bench(app, config, Examination(config.models["m"]), Decimal(1)), lambda name: None)
        app.close()
        assert len(stub.requests) == 1
    assert outcomes(done) == {**dict.fromkeys(ALL, "skipped"), "text": "failed"}
    assert done.findings["text"].words.startswith(words)


@pytest.mark.parametrize(
    ("fields", "is_asked"),
    [
        ({"api_key_name": "KEY", "max_input_tokens": "1m"}, False),
        ({"api_key_name": "KEY", "max_input_tokens": 4000}, True),
        ({"api_key_name": "KEY", "max_input_tokens": "16k", "input_cost_per_token": "0.01"}, False),
        ({"max_input_tokens": "64k"}, True),
    ],
)
def test_the_long_prompt_has_a_limit(fields: Json, is_asked: bool) -> None:
    """It is sent where it can cost no more than was allowed; a price that nobody told is assumed, but for servers
    that need no key."""
    lengths: List[int] = []

    def script(request: Json) -> Steps:
        lengths.append(len(json.dumps(request["messages"])))
        return capable(request)

    with StubProvider(script) as stub:
        config = make_config({"KEY": "k"}, [{"model_id": "m", "api_base": stub.url, **fields}])
        app = App(probing_config(config, list(config.models.values()), 5.0))
        done = examine(Bench(app, config, Examination(config.models["m"]), Decimal("0.10")), lambda name: None)
        app.close()
    assert (done.findings["overflow"].outcome != "skipped") is is_asked
    assert (max(lengths) > WINDOW * 4) is is_asked


def test_an_anthropic_format_provider_is_asked_too() -> None:
    """Behind a proxy of our own, which speaks the Messages API: what it can is what the model behind it can."""
    with proxy_with(capable, dialect="openai") as (proxy, _):
        entry = {"model_id": "m", "api_base": proxy.url, "direct": True, "max_input_tokens": WINDOW}
        config = make_config({}, [entry])
        app = App(probing_config(config, list(config.models.values()), 5.0))
        done = examine(Bench(app, config, Examination(config.models["m"]), Decimal(1)), lambda name: None)
        app.close()
    assert outcomes(done) == {}
    assert suggestions(done, config) == {}


def test_the_image_is_one() -> None:
    """A PNG with intact checksums, of one colour."""
    data = red_square(4)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert int.from_bytes(data[29:33], "big") == zlib.crc32(data[12:29])
    start = data.index(b"IDAT") + 4
    assert zlib.decompress(data[start:-16]) == (b"\0" + b"\xff\0\0" * 4) * 4


# --- the command -------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a model that can everything, one that is blind, and one without its key."""
    blind = instead(is_image, Failure(400, "no \x1b[31mimages"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("ROUTER_DEFAULT", raising=False)
    with StubProvider(capable) as first, StubProvider(blind) as second:
        rows = [
            {"model_id": "good", "api_base": first.url, "dialect": "openai", "max_input_tokens": WINDOW},
            {"model_id": "blind", "api_base": second.url, "dialect": "openai", "max_input_tokens": WINDOW},
            {"model_id": "far", "api_base": "https://far.example/v1", "api_key_name": "FAR_API_KEY"},
        ]
        (tmp_path / "models.yaml").write_text(json.dumps(rows))  # JSON is YAML
        monkeypatch.setenv("OLLAMA_API_BASE", second.url)
        yield tmp_path


@pytest.mark.usefixtures("folder")
def test_the_table_and_what_to_change(capsys: pytest.CaptureFixture[str]) -> None:
    """A line a model, why something failed, and lines for models.yaml; no key, no request."""
    assert cli.main(["check", "--live"]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0].split() == [
        "model",
        "text",
        "stream",
        "tool",
        "round",
        "trip",
        "image",
        "forced",
        "tool",
        "overflow",
        "cost",
    ]
    assert lines[1].split()[3:] == ["yes", "thinks", "yes", "yes", str(WINDOW), "?"]
    assert lines[2].split()[5] == "no"
    assert "blind: image: 400 127.0.0.1" in said.out
    assert "\x1b" not in said.out
    changes = yaml.safe_load(said.out.partition("models.yaml should say:\n")[2])
    assert changes == [{"model_id": "blind", "supports_images": False}]
    assert said.err == "ccproxy: far: not asked: FAR_API_KEY is not set\n"


def test_for_scripts_and_for_models_by_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the models that are named, as JSON; what was asked is in the usage records, as it costs."""
    assert cli.main(["check", "--live", "--json", "good", "ollama/x", "--max-cost", "0"]) == 0
    good, local = json.loads(capsys.readouterr().out)["models"]
    assert good["probes"]["tool"]["outcome"] == "yes"
    assert local["suggests"]["supports_images"] is False
    assert cli.main(["stats", "--period", "all", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["requests"] == 16
    assert "check --live good: text=yes" in (folder / "state" / "simple.log").read_text(encoding="utf-8")


def test_an_entry_for_a_model_that_only_a_name_tells(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is whole: pasted into models.yaml it is valid, and says what was found."""
    cli.main(["check", "--live", "ollama/x"])
    entry = capsys.readouterr().out.partition("models.yaml should say:\n")[2]
    (folder / "models.yaml").write_text(entry)
    assert cli.main(["models", "--json"]) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert (model["model_id"], model["model_name"], model["dialect"]) == ("ollama/x", "x", "ollama")
    assert (model["images"], model["max_input_tokens"]) == (False, WINDOW)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("arguments", [["far", "--live"], ["nobody", "--live"], ["nobody"]])
def test_failures_have_exit_codes(arguments: List[str], capsys: pytest.CaptureFixture[str]) -> None:
    """1 when no model answers, 2 when there is no such model; in one line each."""
    assert cli.main(["check", *arguments]) == (1 if arguments[0] == "far" else 2)
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.usefixtures("folder")
def test_the_configuration_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --live nobody is asked: files, address, routes and warnings."""
    monkeypatch.setenv("ROUTER_DEFAULT", "good,blind")
    assert cli.main(["check"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "settings  no .env",
        "models    models.yaml: 3",
        "address   127.0.0.1 port 8082",
        "default   good, then blind",
        "warning   far: no key: FAR_API_KEY is not set",
    ]
    assert cli.main(["check", "--json", "good"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["routes"]["default"] == ["good", "blind"]
    assert [model["model_id"] for model in found["models"]] == ["good"]


@pytest.mark.parametrize(
    ("variable", "line"),
    [
        ("OTHER", "default   no model is configured: the built-in demo answers (demo/echo)"),
        (
            "ANTHROPIC_API_KEY",
            "default   ROUTER_DEFAULT is not set: passed through to Anthropic (anthropic/claude-sonnet-4-5)",
        ),
    ],
)
def test_what_answers_without_a_router(
    variable: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no router is set, it says what answers all the same, and why."""
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "STATE_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    for name in ("ROUTER_DEFAULT", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "key")
    assert cli.main(["check"]) == 0
    assert line in capsys.readouterr().out.splitlines()
