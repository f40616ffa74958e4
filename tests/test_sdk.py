"""The real ``anthropic`` SDK, the installed version and one from before 1.0, against the proxy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Sequence

import pytest

from ccproxy.stub import Cut, Failure, Finish, Json, Reasoning, Step, StubProvider, Text, ToolCall, content_text
from grammar import check_error, check_grammar
from grammar import fold as fold_events
from installed import installed
from processes import environment
from sdk_scenarios import PIXEL, STATUSES
from support import running_proxy

OLD = "0.79.0"
INSTALL_TIMEOUT, PLAY_TIMEOUT = 300.0, 120.0
CITIES = [ToolCall("weather", {"city": "Paris"}), ToolCall("weather", {"city": "東京"})]
EVERYTHING: List[Step] = [Reasoning("Let me see."), Text("I will ask."), *CITIES, Finish(None, 100, 20, 60)]
NEW_CLASSES = {402: "PaymentRequiredError", 413: "ContentTooLargeError"}
OLD_CLASSES = {402: "APIStatusError", 413: "RequestTooLargeError"}
CLASSES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    429: "RateLimitError",
    500: "InternalServerError",
    529: "OverloadedError",
}
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


def name_of(request: Json) -> str:
    """The scenario a request belongs to: its first user message."""
    first = next(message for message in request["messages"] if message["role"] == "user")
    return content_text(first["content"]).split("\n")[0]


class Provider:
    """The scripted provider: one reply per scenario."""

    def __init__(self) -> None:
        self.asked: Dict[str, List[Json]] = {}

    def script(self, request: Json) -> Sequence[Step]:
        """The reply to one request."""
        name = name_of(request)
        self.asked.setdefault(name, []).append(request)
        kind, _, status = name.partition(" ")
        if kind in ("error", "useless"):
            return [Failure(int(status), failure_text(kind), {"retry-after": "7"} if kind == "error" else {})]
        if name == "useful retry" and len(self.asked[name]) == 1:
            return [Failure(500, "once", {"retry-after-ms": "1"})]
        if name == "tool results" and any(message["role"] == "tool" for message in request["messages"]):
            return [Text("all results seen")]
        replies: Dict[str, List[Step]] = {
            "everything": EVERYTHING,
            "forced tool": CITIES[:1],
            "tool results": [*CITIES],
            "stop sequence": [Text("before STOP after")],
            "broken stream": [Text("half a "), Cut()],
        }
        return replies.get(name, [Text("fine")])


def failure_text(kind: str) -> str:
    """What the provider says; the useless 429 is an exhausted account."""
    return "the provider says no" if kind == "error" else "You exceeded your quota: insufficient_quota"


def old_sdk() -> Path:
    """Return the folder of the old SDK, installed into the user's cache folder on first use."""

    def install(folder: Path) -> None:
        command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder), f"anthropic=={OLD}"]
        subprocess.run(command, check=True, timeout=INSTALL_TIMEOUT, stdin=subprocess.DEVNULL)

    return installed(f"anthropic-{OLD.rpartition('.')[0]}-{sys.implementation.cache_tag}", install)


class Played:
    """What one SDK saw of all scenarios, and what the provider was asked."""

    def __init__(self, facts: Json, asked: Dict[str, List[Json]], is_old: bool) -> None:
        self.asked = asked
        self.is_old = is_old
        self._facts = facts

    def __getitem__(self, name: str) -> Any:
        """The facts of one scenario; a scenario that failed fails the test that asks."""
        facts = self._facts[name]
        assert not (isinstance(facts, dict) and "failed" in facts), facts["failed"]
        return facts


@pytest.fixture(scope="module", params=["installed", OLD])
def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Play all scenarios with one version, in a process of its own."""
    folder = tmp_path_factory.mktemp("sdk")
    variables = environment(folder, {"NO_PROXY": "127.0.0.1"})
    if request.param == OLD:
        variables["PYTHONPATH"] = os.pathsep.join([str(old_sdk()), variables["PYTHONPATH"]])
    provider = Provider()
    with StubProvider(provider.script) as stub:
        models = [{"model_id": name, "api_base": stub.url, "dialect": "generic"} for name in ("stub", "b", "c/d")]
        with running_proxy({"ROUTER_DEFAULT": "stub"}, models) as proxy:
            done = subprocess.run(
                [sys.executable, str(Path(__file__).with_name("sdk_scenarios.py")), proxy.url],
                env=variables,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=PLAY_TIMEOUT,
                check=False,
            )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["version"].startswith("0.79") is (request.param == OLD)
    return Played(facts, provider.asked, facts["version"] < "1")


def content_of(message: Json) -> List[Json]:
    """The blocks of a message without ids."""
    varying = ("id", "signature")
    return [{key: value for key, value in block.items() if key not in varying} for block in message["content"]]


EXPECTED = [
    {"type": "thinking", "thinking": "Let me see."},
    {"type": "text", "text": "I will ask."},
    {"type": "tool_use", "name": "weather", "input": {"city": "Paris"}},
    {"type": "tool_use", "name": "weather", "input": {"city": "東京"}},
]


def check_everything(message: Json) -> None:
    """The message that the scenario must give, however it was asked for."""
    blocks = [{key: block[key] for key in wanted} for block, wanted in zip(content_of(message), EXPECTED)]
    assert blocks == EXPECTED
    assert len(message["content"]) == len(EXPECTED)
    assert (message["role"], message["model"], message["stop_reason"]) == ("assistant", "claude-sonnet-4-5", "tool_use")
    usage = message["usage"]
    counts = (usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"])
    assert counts == (40, 60, 20)
    ids = [block["id"] for block in message["content"] if block["type"] == "tool_use"]
    assert len(set(ids)) == 2


@pytest.mark.parametrize("way", ["whole", "helper", "async whole", "async helper"])
def test_the_same_message_every_way(played: Played, way: str) -> None:
    """Thinking, text and parallel calls arrive whole, in order and with the provider's counts."""
    facts = played["everything"][way]
    check_everything(facts.get("message", facts))


@pytest.mark.parametrize("way", ["raw", "async raw"])
def test_the_raw_events(played: Played, way: str) -> None:
    """The SDK's events follow the grammar, and make the same message."""
    events = [(event["type"], event) for event in played["everything"][way]]
    check_grammar(events)
    check_everything(fold_events(events))


def test_the_texts(played: Played) -> None:
    """The text stream is the text, nothing else."""
    assert played["everything"]["text"] == played["everything"]["async text"] == "I will ask."


def test_many_at_once(played: Played) -> None:
    """Requests that an asynchronous application sends together are each answered."""
    for message in played["everything"]["async many"]:
        check_everything(message)


def test_request_ids(played: Played) -> None:
    """The id is there where the SDK looks for it, and another one each time."""
    facts = played["everything"]
    ids = [facts["whole"]["request_id"], facts["helper"]["request_id"], facts["async whole"]["request_id"]]
    assert len(set(ids)) == 3
    assert all(each.startswith("req_") for each in ids)


def test_what_the_provider_is_asked(played: Played) -> None:
    """System prompt, tools, stop sequences and temperature are passed on; streams ask for a stream."""
    requests = played.asked["everything"]
    for body in requests:
        assert body["messages"][0] == {"role": "system", "content": "Be brief."}
        assert body["tools"][0]["function"]["name"] == "weather"
        assert (body["stop"], body["temperature"], body["model"]) == (["STOP"], 0.5, "stub")
    assert sum(bool(body.get("stream")) for body in requests) == 5


def test_a_forced_tool(played: Played) -> None:
    """The choice of one tool reaches the provider, and its one call the application."""
    (body,) = played.asked["forced tool"]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert content_of(played["forced tool"])[0]["input"] == {"city": "Paris"}


def test_tool_results_go_back(played: Played) -> None:
    """The calls go back under the ids their results name; the image is seen, and the failure is told."""
    _, body = played.asked["tool results"]
    assistant = next(message for message in body["messages"] if message["role"] == "assistant")
    called = [(call["id"], json.loads(call["function"]["arguments"])) for call in assistant["tool_calls"]]
    results = {message["tool_call_id"]: message for message in body["messages"] if message["role"] == "tool"}
    assert [arguments for _, arguments in called] == [{"city": "Paris"}, {"city": "東京"}]
    assert list(results) == [call_id for call_id, _ in called]
    first, second = (content_text(message["content"]) for message in results.values())
    assert "sunny" in first
    assert "no such city" in second
    assert second.strip() != "no such city", "that it is an error is told"
    assert f"data:image/png;base64,{PIXEL}" in json.dumps(body["messages"])
    assert content_of(played["tool results"]["answer"])[0]["text"] == "all results seen"


def test_images(played: Played) -> None:
    """Images become image_url parts, in their place."""
    (body,) = played.asked["images"]
    urls = [part["image_url"]["url"] for part in body["messages"][-1]["content"] if part["type"] == "image_url"]
    assert urls == [f"data:image/png;base64,{PIXEL}", "https://example.com/a.png"]


def test_a_stop_sequence(played: Played) -> None:
    """What comes from the stop sequence on is not shown, and the message says which one it was."""
    message = played["stop sequence"]
    assert content_of(message)[0]["text"] == "before "
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "STOP")


def test_counting(played: Played) -> None:
    """count_tokens gives the count that a stream starts with, both corrected by what earlier answers said."""
    facts = played["counting"]
    assert facts["counted"] == facts["started with"] > 50


def test_addresses(played: Played) -> None:
    """The address may end with /v1 and with a slash."""
    assert played["addresses"] == ["fine"] * 4


def test_models(played: Played) -> None:
    """Every page size lists all models, each once; going back from the last one lists the others."""
    facts = played["models"]
    listed = facts["pages"]["20"]
    assert listed == ["stub", "b", "c/d", "claude-stub", "claude-b", "claude-c/d"]
    assert all(page == listed for page in facts["pages"].values())
    assert sorted(facts["backwards"]) == sorted(listed[:-1])
    assert (facts["one"]["id"], facts["one"]["type"]) == ("stub", "model")
    assert facts["missing"]["class"] == "NotFoundError"


def check_error_facts(facts: Json, status: int) -> None:
    """Type, and the request id in both places."""
    assert (facts["status"], facts["body"]["error"]["type"]) == (status, TYPES[status])
    check_error(facts["body"])
    assert facts["request_id"] == facts["body"]["request_id"]
    assert facts["request_id"].startswith("req_")


@pytest.mark.parametrize("form", ["", " streamed"])
@pytest.mark.parametrize("status", STATUSES)
def test_errors(played: Played, status: int, form: str) -> None:
    """Each status is the SDK's own exception, with the provider's words, and the provider's wish when to come back."""
    facts = played["errors"][f"{status}{form}"]
    check_error_facts(facts, status)
    assert facts["class"] == {**CLASSES, **(OLD_CLASSES if played.is_old else NEW_CLASSES)}[status]
    assert "the provider says no" in facts["body"]["error"]["message"]
    if status in (429, 529):
        assert facts["headers"]["retry-after"] == "7"


def test_an_unknown_path_and_a_bad_request(played: Played) -> None:
    """The proxy's own errors look like all others."""
    check_error_facts(played["errors"]["path"], 404)
    check_error_facts(played["errors"]["request"], 400)
    assert "max_tokens" in played["errors"]["request"]["body"]["error"]["message"]
    assert "request" not in played.asked


def test_useless_retries_are_not_made(played: Played) -> None:
    """The SDK is told not to repeat what cannot succeed, and asks once."""
    for prompt, facts in played["useless retries"].items():
        assert facts["headers"]["x-should-retry"] == "false", prompt
        assert len(played.asked[prompt]) == 1, prompt


def test_a_useful_retry_is_made(played: Played) -> None:
    """A failure that passes is repeated, by the proxy or by the SDK."""
    assert content_of(played["useful retry"])[0]["text"] == "fine"
    assert len(played.asked["useful retry"]) == 2


def test_a_broken_stream_raises(played: Played) -> None:
    """After the first event the failure is an exception, never a message that looks complete; nothing is repeated."""
    for facts in played["broken stream"].values():
        assert facts["class"] is not None
        assert facts["body"]["error"]["type"] == "api_error"
        assert "content_block_delta" in facts["kinds"]
        assert "message_stop" not in facts["kinds"]
    assert len(played.asked["broken stream"]) == 2
