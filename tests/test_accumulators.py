"""The final message that the real SDKs accumulate from the proxy's events: Python today and before 1.0, TypeScript.

Every case of `accumulator_cases` is sent by a replaying provider over sockets; the SDKs are asked in processes of their
own. `accumulate.py` and `accumulate.mjs` tell the same facts of each.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Sequence

import pytest

from accumulator_cases import CASES, Case
from ccproxy.stub import Finish, Step, StubProvider, Text, ToolCall
from ccproxy.translate.envelope import is_ours, unseal
from npm import package
from processes import environment
from replay import ReplayProvider
from support import running_proxy
from test_sdk import OLD, old_sdk

Json = Dict[str, Any]
HERE = Path(__file__).parent
TYPESCRIPT = "@anthropic-ai/sdk"
PLAY_TIMEOUT = 240.0
SDKS = ["installed", OLD, "typescript"]
KEYS = {name: f"case-{number}" for number, name in enumerate(CASES)}
"""Case -> its model, and its path prefix at the provider."""
each_case = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


def run_sdk(sdk: str, folder: Path, *arguments: str) -> Json:
    """Run one SDK's program and return its facts."""
    variables = environment(folder, {"NO_PROXY": "127.0.0.1"})
    command = [sys.executable, str(HERE / "accumulate.py")]
    if sdk == "typescript":
        missing = [name for name in ("npm", "node") if shutil.which(name) is None]
        if missing:
            pytest.skip(f"there is no {' and no '.join(missing)}")
        command = ["node", str(HERE / "accumulate.mjs"), str(package(TYPESCRIPT))]
    elif sdk == OLD:
        variables["PYTHONPATH"] = os.pathsep.join([str(old_sdk()), variables["PYTHONPATH"]])
    done = subprocess.run(
        [*command, *arguments],
        env=variables,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PLAY_TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    facts: Json = json.loads(done.stdout)
    assert facts["version"].startswith("0.79") is (sdk == OLD)
    return facts


@pytest.fixture(scope="module", params=SDKS)
def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Json:
    """What one SDK made of all cases."""
    with ReplayProvider() as provider:
        models = []
        for name, case in CASES.items():
            provider.answers[KEYS[name]] = case.answer()
            entry = {"model_id": KEYS[name], "api_base": provider.base(KEYS[name]), "dialect": case.dialect}
            models.append({**entry, "api_key_name": "REPLAY_KEY"})
        with running_proxy({"REPLAY_KEY": "sk-replay", "MAX_RETRIES": "0"}, models) as proxy:
            return run_sdk(request.param, tmp_path_factory.mktemp("sdk"), proxy.url, *KEYS.values())


def facts_of(played: Json, case: Case, way: str) -> Json:
    """The facts of one case; an exception that no application expects fails the test that asks."""
    facts: Json = played[KEYS[case.name]][way]
    assert "failed" not in facts, facts["failed"]
    return facts


def short(blocks: Sequence[Json]) -> List[Any]:
    """The blocks as a case writes them."""
    return [
        block["text"]
        if block["type"] == "text"
        else ("thinking", block["thinking"])
        if block["type"] == "thinking"
        else (block["name"], block["input"])
        for block in blocks
    ]


def check_message(case: Case, message: Json) -> None:
    """The final message is the expected one, with real counts or with estimates, and with whole signatures."""
    assert short(message["content"])[: None if case.is_usable else -1] == [
        *case.content[: None if case.is_usable else -1]
    ]
    head = {"type": "message", "role": "assistant", "model": KEYS[case.name], "stop_reason": case.stop_reason}
    assert {name: message[name] for name in head} == head
    assert message["id"].startswith("msg_")
    assert message["stop_sequence"] is None
    calls = [block["id"] for block in message["content"] if block["type"] == "tool_use"]
    assert len(set(calls)) == len(calls)
    assert [*case.ids] in ([], calls)
    for block in message["content"]:
        if block["type"] == "thinking":
            assert is_ours(block["signature"])
            assert unseal(block["signature"]) is not None
    check_usage(case, message["usage"])


def check_usage(case: Case, usage: Json) -> None:
    """The counts are the provider's last ones; without any they are estimates, above zero where there is content."""
    seen = (usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"])
    assert usage["cache_creation_input_tokens"] == 0
    if case.usage is not None:
        assert seen == case.usage
    else:
        assert seen[0] > 0
        assert seen[1] == 0
        assert (seen[2] > 0) is any(case.content)


def check_error(case: Case, error: Json) -> None:
    """The exception carries Anthropic's error object; a failure in mid-stream came under status 200, or without one."""
    assert error is not None
    body = error["body"]
    assert body["error"]["type"] == case.error
    assert body["error"]["message"]
    if case.status == 200:
        assert error["status"] in (200, None)
    else:
        assert error["status"] // 100 == case.status // 100


@each_case
def test_the_final_message(played: Json, case: Case) -> None:
    """The helper's final message is exactly what the provider said; a failed stream raises and gives no message."""
    facts = facts_of(played, case, "streamed")
    if case.error:
        check_error(case, facts["error"])
        assert facts["message"] is None
    else:
        assert facts["error"] is None
        check_message(case, facts["message"])


def test_a_refusal_says_so(played: Json) -> None:
    """`stop_details` comes with the last event; before 1.0 the Python helper did not take it from there."""
    case = CASES["a filter"]
    assert facts_of(played, case, "whole")["message"]["stop_details"]["type"] == "refusal"
    if not played["version"].startswith("0."):
        assert facts_of(played, case, "streamed")["message"]["stop_details"]["type"] == "refusal"


@each_case
def test_what_a_failed_stream_has_shown(played: Json, case: Case) -> None:
    """Whatever the provider said before it failed was shown, and its message has no stop reason."""
    facts = facts_of(played, case, "streamed")
    if not case.error or case.status != 200:
        assert (facts["snapshot"] is None) is bool(case.error)
        return
    assert short(facts["snapshot"]["content"]) == [*case.content]
    assert facts["snapshot"]["stop_reason"] is None
    assert "message" not in [told[0] for told in facts["trace"]]


@each_case
def test_incremental_callbacks(played: Json, case: Case) -> None:
    """Each callback's snapshot is what all callbacks of its block said so far, and the blocks are those of the end."""
    facts = facts_of(played, case, "streamed")
    blocks: List[Json] = []
    kind, text, inputs = "", "", []
    for name, *values in facts["trace"]:
        if name == "start":
            kind, text, inputs = values[0], "", []
        elif name in ("text", "thinking"):
            text += values[0]
            assert (name, values[1]) == (kind, text)
        elif name == "input_json":
            assert kind == "tool_use"
            text += values[0]
            inputs.append(values[1])
        elif name == "block":
            blocks.append(values[0])
            said = inputs[-1:] if kind == "tool_use" else [text]
            assert said == [values[0]["input" if kind == "tool_use" else kind]]
            assert kind != "tool_use" or not case.is_usable or json.loads(text) == values[0]["input"]
        elif name == "message":
            assert values[0]["content"] == blocks == facts["message"]["content"]
    assert (facts["trace"][-1:] or [[""]])[0][0] == "message" or case.error


@each_case
def test_the_same_without_a_stream(played: Json, case: Case) -> None:
    """Asked without a stream, the same chunks make the same message; what fails in mid-stream fails with a status."""
    facts = facts_of(played, case, "whole")
    if case.error:
        assert facts["message"] is None
        assert facts["error"]["status"] >= 500
        assert facts["error"]["body"]["error"]["type"] == case.error
        return
    check_message(case, facts["message"])
    streamed = facts_of(played, case, "streamed")["message"]
    for name in ("stop_reason", "stop_sequence"):
        assert facts["message"][name] == streamed[name]
    counts = ("input_tokens", "output_tokens", "cache_read_input_tokens", "output_tokens_details")
    assert [facts["message"]["usage"].get(name) for name in counts] == [streamed["usage"].get(name) for name in counts]


# --- the tool runner --------------------------------------------------------------------------------------------


def script(request: Json) -> Sequence[Step]:
    """A model that calls a tool for two cities, one after the other, and then answers."""
    results = sum(message["role"] == "tool" for message in request["messages"])
    cities = ["Paris", "東京"]
    if results < len(cities):
        return [Text("I will ask."), ToolCall("weather", {"city": cities[results]}), Finish(None, 10, 5)]
    return [Text("Sunny everywhere."), Finish(None, 30, 3)]


@pytest.mark.parametrize("way", ["whole", "streamed"])
@pytest.mark.parametrize("sdk", SDKS)
def test_the_tool_runner(sdk: str, way: str, tmp_path: Path) -> None:
    """The runner, whose first request asks for a thread held by the server, goes on with whole conversations.

    The refusal of the thread is no round of the model: the provider sees each turn once, with all that was said.
    """
    with StubProvider(script) as stub:
        entry = {"model_id": "stub", "api_base": stub.url, "dialect": "generic"}
        with running_proxy({"ROUTER_DEFAULT": "stub"}, [entry]) as proxy:
            told = run_sdk(sdk, tmp_path, proxy.url, "--tools", "stub")
    facts = told[way]
    assert "failed" not in facts, facts["failed"]
    assert facts["calls"] == ["Paris", "東京"]
    assert facts["kinds"] == ["tool_use", "tool_use", "end_turn"]
    assert short(facts["final"]["content"]) == ["Sunny everywhere."]
    asked = facts["asked"]
    assert (asked[0].get("thread") == {"type": "create"}) is told["threads"]
    assert not any(body.get("thread") for body in asked[1:])
    turns = [
        received.body["messages"]
        for received in stub.requests
        if bool(received.body.get("stream")) is (way == "streamed")
    ]
    assert [[message["role"] for message in turn] for turn in turns] == [
        ["user"],
        ["user", "assistant", "tool"],
        ["user", "assistant", "tool", "assistant", "tool"],
    ]
    assert [message["content"] for message in turns[-1] if message["role"] == "tool"] == [
        "sunny in Paris",
        "sunny in 東京",
    ]
