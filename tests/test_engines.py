"""A real inference engine behind the proxy: what llama-server truly says, and what it does when the client leaves.

`make test-engines` installs it (160 MB, once) and runs these tests; everywhere else they are skipped.
"""

from __future__ import annotations

import http.client
import json
import os
import re
from dataclasses import dataclass
from typing import Any, Dict, Iterator
from urllib.parse import urlsplit

import pytest

from engine import CONTEXT, Engine, running_engine
from grammar import check_grammar, fold, parse_sse
from processes import eventually
from support import Answer, ask, running_proxy, user

VARIABLE = "CCPROXY_ENGINES"
pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(os.environ.get(VARIABLE) != "1", reason=f"a real engine: make test-engines sets {VARIABLE}=1"),
]

Json = Dict[str, Any]
WEATHER = {
    "name": "weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
    },
}
each_way = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@dataclass(frozen=True)
class Setup:
    """The engine, and a proxy in front of it."""

    engine: Engine
    url: str

    def ask(self, text: str, stream: bool = False, **fields: Any) -> Answer:
        """Ask through the proxy, with the same answer each time."""
        return ask(self.url, "/v1/messages", {**user(text, stream=stream, temperature=0), "model": "small", **fields})

    def message(self, text: str, stream: bool = False, **fields: Any) -> Json:
        """The message that the answer is; of a stream, one whose events are grammatical."""
        answer = self.ask(text, stream, **fields)
        assert answer.status == 200, answer.body
        if not stream:
            return answer.json
        events = parse_sse(answer.body)
        check_grammar(events)
        return fold(events)


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    """One engine for all tests."""
    with running_engine(tmp_path_factory.mktemp("engine")) as engine:
        entry = {"model_id": "small", "api_base": f"{engine.url}/v1", "dialect": "llamacpp"}
        models = [
            {**entry, "max_input_tokens": CONTEXT},
            {**entry, "model_id": "of unknown window"},
            {**entry, "model_id": "endless", "max_input_tokens": CONTEXT, "extra_body": {"ignore_eos": True}},
        ]
        with running_proxy({}, models) as proxy:
            yield Setup(engine, proxy.url)


def text_of(message: Json) -> str:
    return "".join(block["text"] for block in message["content"] if block["type"] == "text")


def prompt_tokens(message: Json) -> int:
    usage = message["usage"]
    total: int = usage["input_tokens"] + usage["cache_read_input_tokens"] + usage["cache_creation_input_tokens"]
    return total


@each_way
def test_text_and_its_counts(setup: Setup, stream: bool) -> None:
    """The text comes whole, and the prompt has as many tokens as the engine itself counts in it."""
    question = "Name three colours."
    message = setup.message(question, stream, max_tokens=60)
    assert text_of(message).strip()
    assert message["stop_reason"] in ("end_turn", "max_tokens")
    assert prompt_tokens(message) == setup.engine.count(question)
    assert 0 < message["usage"]["output_tokens"] <= 60


def test_the_stream_says_what_the_message_says(setup: Setup) -> None:
    """Streamed or not, it is the same text; the stream brings it in many pieces."""
    whole, streamed = (setup.ask("Name three colours.", stream, max_tokens=40) for stream in (False, True))
    events = parse_sse(streamed.body)
    assert text_of(fold(events)) == text_of(whole.json)
    assert sum(name == "content_block_delta" for name, _ in events) > 10


def test_a_prompt_again(setup: Setup) -> None:
    """What the engine kept of a prompt is told as read from a cache, and counted once."""
    question = "Tell me about rivers and mountains."
    first, second = (setup.message(question, max_tokens=4) for _ in range(2))
    assert prompt_tokens(first) == prompt_tokens(second)
    assert second["usage"]["cache_read_input_tokens"] > 0


@each_way
def test_max_tokens(setup: Setup, stream: bool) -> None:
    """An answer that is cut says so, and is as long as it was allowed to be."""
    message = setup.message("Tell me a long story.", stream, max_tokens=8)
    assert message["stop_reason"] == "max_tokens"
    assert message["usage"]["output_tokens"] == 8


@each_way
def test_a_stop_sequence(setup: Setup, stream: bool) -> None:
    """The text ends before the stop sequence. The engine does not tell that one fired: that is no lie of ours."""
    question = "Tell me a long story."
    full = text_of(setup.message(question, stream, max_tokens=30))
    stop = re.findall(r"[a-z]{3,}", full)[3]
    message = setup.message(question, stream, max_tokens=30, stop_sequences=[stop])
    assert text_of(message) == full.partition(stop)[0]
    assert (message["stop_reason"], message["stop_sequence"]) in (("end_turn", None), ("stop_sequence", stop))


@each_way
@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "weather"}], ids=["any", "named"])
def test_a_tool_call_and_its_result(setup: Setup, choice: Json, stream: bool) -> None:
    """The tool that must be called is called, with an input by its schema; its result can be sent."""
    question = "What is the weather in Paris?"
    message = setup.message(question, stream, max_tokens=100, tools=[WEATHER], tool_choice=choice)
    assert message["stop_reason"] == "tool_use"
    (call,) = (block for block in message["content"] if block["type"] == "tool_use")
    assert (call["name"], list(call["input"])) == ("weather", ["city"])
    assert isinstance(call["input"]["city"], str)
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "sunny"}
    turns = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": message["content"]},
        {"role": "user", "content": [result]},
    ]
    answer = setup.message("", stream, max_tokens=20, messages=turns, tools=[WEATHER])
    assert prompt_tokens(answer) > prompt_tokens(message)


def test_structured_output(setup: Setup) -> None:
    """A schema for the answer is kept."""
    schema = {**WEATHER["input_schema"], "additionalProperties": False}  # type: ignore[dict-item]
    output = {"format": {"type": "json_schema", "schema": schema}}
    message = setup.message("Which city is the capital of France?", max_tokens=100, output_config=output)
    assert list(json.loads(text_of(message))) == ["city"]


@each_way
@pytest.mark.parametrize("model", ["small", "of unknown window"])
def test_a_prompt_that_is_too_long(setup: Setup, model: str, stream: bool) -> None:
    """The error has the words that clients look for, with the engine's own numbers, whether we know its window or not.

    Slightly too long, so that the proxy leaves the decision to the engine.
    """
    text = "hello " * CONTEXT
    answer = setup.ask(text, stream, model=model)
    assert answer.status == 400
    assert answer.json["error"]["type"] == "invalid_request_error"
    tokens = setup.engine.count(text)
    assert answer.json["error"]["message"] == f"prompt is too long: {tokens} tokens > {CONTEXT} maximum"


@each_way
def test_a_full_window(setup: Setup, stream: bool) -> None:
    """An answer that the window cuts, not `max_tokens`, says that it was the window."""
    message = setup.message("hello " * (CONTEXT - 100), stream, model="endless", max_tokens=4096)
    assert message["stop_reason"] == "model_context_window_exceeded"
    assert prompt_tokens(message) + message["usage"]["output_tokens"] >= CONTEXT - 1


def test_a_client_that_leaves(setup: Setup) -> None:
    """When the client hangs up in mid-answer the engine stops working for it, long before the answer's end."""
    address = urlsplit(setup.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    body = {**user("Tell me a very long story.", stream=True), "model": "endless", "max_tokens": 900}
    connection.request("POST", "/v1/messages", json.dumps(body))
    response = connection.getresponse()
    while b"text_delta" not in response.readline():
        pass
    assert setup.engine.is_busy
    response.close()
    connection.close()
    eventually(lambda: not setup.engine.is_busy, "the engine is idle")
    (slot,) = setup.engine.ask("/slots")
    assert slot["n_prompt_tokens"] < 450, "what the slot holds: the prompt, and what was answered to it"
