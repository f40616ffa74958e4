"""The scripted provider: the same steps as a stream and as a whole, and every way to fail."""

from __future__ import annotations

import http.client
import json
import threading
import time
from typing import Any, Dict, Iterable, List, Sequence

import pytest

from ccproxy.stub import (
    Cut,
    Delay,
    Failure,
    Finish,
    Json,
    RawChunk,
    Reasoning,
    Step,
    StubProvider,
    Text,
    ToolCall,
    demo_script,
)
from support import Answer, ask

PROMPT = [{"role": "user", "content": "Hello"}]


def completion(stub: StubProvider, **fields: Any) -> Answer:
    """Ask the provider itself, with no proxy in between."""
    return ask(stub.url, "/v1/chat/completions", {"model": "m", "messages": PROMPT, **fields})


def chunks_of(body: bytes) -> List[Json]:
    """The chunks of a stream, which must end with [DONE]."""
    frames = body.decode().split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""]
    return [json.loads(frame[len("data: ") :]) for frame in frames[:-2]]


def message_of(chunks: Iterable[Json]) -> Json:
    """What a stream's deltas make: text, reasoning, calls, and how it ended."""
    message: Json = {"content": "", "reasoning_content": "", "calls": {}, "finish": None}
    for chunk in chunks:
        for choice in chunk["choices"]:
            delta = choice["delta"]
            message["content"] += delta.get("content") or ""
            message["reasoning_content"] += delta.get("reasoning_content") or ""
            for call in delta.get("tool_calls", []):
                known = message["calls"].setdefault(call["index"], {"id": call.get("id"), "name": "", "arguments": ""})
                known["name"] += call["function"].get("name", "")
                known["arguments"] += call["function"].get("arguments", "")
            message["finish"] = choice["finish_reason"] or message["finish"]
    return message


CALL = ToolCall("Read", {"path": "/a", "limit": [1, 2, None]}, id="call_1")
SCRIPTS: Dict[str, Sequence[Step]] = {
    "nothing": [],
    "text": [Text("Hello there,\n  you   ")],
    "reasoning": [Reasoning("Let me think."), Text("Done.")],
    "one call": [CALL],
    "parallel calls": [Text("Both."), CALL, ToolCall("Grep", '{"q": "東京"}', id="call_2")],
    "arguments as they are": [ToolCall("Read", '{"half', id="call_1")],
    "cut by length": [Text("and so"), Finish("length", 10, 20, 5)],
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_stream_and_whole_are_the_same(name: str) -> None:
    """The deltas of the stream add up to the message of the completion, and the counts are equal."""
    with StubProvider(lambda request: SCRIPTS[name]) as stub:
        whole = completion(stub).json
        streamed = completion(stub, stream=True, stream_options={"include_usage": True})
    assert streamed.headers["content-type"] == "text/event-stream"
    chunks = chunks_of(streamed.body)
    made, message = message_of(chunks), whole["choices"][0]["message"]
    assert made["content"] == (message["content"] or "")
    assert made["reasoning_content"] == message.get("reasoning_content", "")
    assert made["finish"] == whole["choices"][0]["finish_reason"]
    calls = [dict(call["function"], id=call["id"]) for call in message.get("tool_calls", [])]
    assert list(made["calls"].values()) == calls
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole["usage"]


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([Text("a")], "stop"),
        ([ToolCall("a")], "tool_calls"),
        ([ToolCall("a"), Finish("stop")], "stop"),
        ([Text("a"), Finish(None, 1)], "stop"),
    ],
)
def test_the_finish_reason_fits_the_steps(steps: Sequence[Step], reason: str) -> None:
    """Unless the script says otherwise."""
    with StubProvider(lambda request: steps) as stub:
        assert completion(stub).json["choices"][0]["finish_reason"] == reason


def test_usage_as_scripted() -> None:
    """Scripted counts are the counts, and they add up."""
    with StubProvider(lambda request: [Finish(None, 100, 20, 60)]) as stub:
        usage = completion(stub).json["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (100, 20, 120)
    assert usage["prompt_tokens_details"] == {"cached_tokens": 60}


def test_usage_comes_to_those_who_ask() -> None:
    """As at most providers, a stream has no usage without stream_options."""
    with StubProvider() as stub:
        assert all("usage" not in chunk for chunk in chunks_of(completion(stub, stream=True).body))


def test_reasoning_in_a_field_of_any_name() -> None:
    """Providers differ in it."""
    with StubProvider(lambda request: [Reasoning("Hm.", "reasoning")]) as stub:
        assert completion(stub).json["choices"][0]["message"]["reasoning"] == "Hm."


def test_raw_chunks() -> None:
    """A chunk is passed on exactly as given."""
    odd = {"choices": None, "note": "odd"}
    with StubProvider(lambda request: [Text("a"), RawChunk(odd)]) as stub:
        assert odd in chunks_of(completion(stub, stream=True).body)


# --- failures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_first_is_the_status(stream: bool) -> None:
    """With its message and headers, for a stream as well."""
    with StubProvider(lambda request: [Failure(429, "slow down", {"retry-after": "3"}), Text("never")]) as stub:
        answer = completion(stub, stream=stream)
    assert (answer.status, answer.headers["retry-after"]) == (429, "3")
    assert answer.json["error"]["message"] == "slow down"


def test_a_failure_later_is_an_error_in_the_stream() -> None:
    """After the text, an error object ends a body that is otherwise regular, without [DONE]."""
    with StubProvider(lambda request: [Text("a"), Failure(503, "gone")]) as stub:
        answer = completion(stub, stream=True)
    last = json.loads(answer.body.decode().rstrip("\n").split("\n\n")[-1][len("data: ") :])
    assert (answer.status, last) == (200, {"error": {"code": 503, "message": "gone"}})


def test_a_cut_breaks_the_body() -> None:
    """The connection ends before the body does."""
    steps = [Text("a"), Cut()]
    with StubProvider(lambda request: steps) as stub, pytest.raises(http.client.IncompleteRead) as broken:
        completion(stub, stream=True)
    assert b'"content": "a"' in broken.value.partial


@pytest.mark.parametrize("stream", [False, True])
def test_a_cut_first_is_no_answer(stream: bool) -> None:
    """The connection ends without a byte."""
    with StubProvider(lambda request: [Cut()]) as stub, pytest.raises(http.client.RemoteDisconnected):
        completion(stub, stream=stream)


@pytest.mark.parametrize("steps", [[Delay(0.02), Text("a")], [Text("a"), Delay(0.02)]])
@pytest.mark.parametrize("stream", [False, True])
def test_delays_are_waited_for(steps: Sequence[Step], stream: bool) -> None:
    """Before the status or after it, whole or streamed."""
    with StubProvider(lambda request: steps) as stub:
        begin = time.monotonic()
        assert completion(stub, stream=stream).status == 200
        assert time.monotonic() - begin >= 0.02


# --- what it saw, and the rest of its API -------------------------------------------------------------------------


def test_it_keeps_what_it_received() -> None:
    """Path, headers in lower case, and body of each request, in order."""
    with StubProvider() as stub:
        for number in range(3):
            ask(stub.url, "/v1/chat/completions", {"messages": [], "n": number}, headers={"X-Number": str(number)})
        assert [received.body["n"] for received in stub.requests] == [0, 1, 2]
        assert [received.headers["x-number"] for received in stub.requests] == ["0", "1", "2"]
        assert stub.requests[0].path == "/v1/chat/completions"


def test_the_script_may_change() -> None:
    """A test that goes on in another mood assigns another script."""
    with StubProvider(lambda request: [Text("a")]) as stub:
        stub.script = lambda request: [Text("b")]
        assert completion(stub).json["choices"][0]["message"]["content"] == "b"


def test_other_paths() -> None:
    """It lists its model; anything else is not there."""
    with StubProvider() as stub:
        assert ask(stub.url, "/v1/models").json["data"][0]["id"] == "echo"
        assert ask(stub.url, "/v1/other").status == 404
        assert ask(stub.url, "/v1/other", {}).status == 404


def test_it_answers_at_the_same_time() -> None:
    """One slow reply holds up no other."""
    meet = threading.Barrier(3, timeout=30)

    def script(request: Json) -> Sequence[Step]:
        meet.wait()
        return [Text("met")]

    with StubProvider(script) as stub:
        statuses: List[int] = []
        threads = [threading.Thread(target=lambda: statuses.append(completion(stub).status)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert statuses == [200] * 3


def test_it_ends() -> None:
    """After close() nobody listens, and its thread is gone."""
    with StubProvider() as stub:
        pass
    with pytest.raises(ConnectionRefusedError):
        completion(stub)


# --- the demo script --------------------------------------------------------------------------------------------


def said(*contents: Any) -> Sequence[Step]:
    """What the demo answers to messages: texts are the user's, others are messages as they are."""
    messages = [content if isinstance(content, dict) else {"role": "user", "content": content} for content in contents]
    return demo_script({"messages": messages})


RESULT = {"role": "tool", "tool_call_id": "x", "content": "ok"}


@pytest.mark.parametrize(
    ("prompt", "steps"),
    [
        ("demo: text Hello there", [Text("Hello there")]),
        ("  demo:   text  spaces  ", [Text("spaces")]),
        ("demo: think Hm.\ndemo: text So.", [Reasoning("Hm."), Text("So.")]),
        ('demo: tool Read {"path": "a b"}', [ToolCall("Read", '{"path": "a b"}')]),
        ("demo: tool Read", [ToolCall("Read", "{}")]),
        ("demo: error 429 slow down", [Failure(429, "slow down")]),
        ("demo: error 500", [Failure(500, "scripted failure")]),
        ("demo: delay 0.5", [Delay(0.5)]),
        ("demo: delay 9999", [Delay(600.0)]),
        ([{"type": "text", "text": "first"}, {"type": "text", "text": "demo: text second"}], [Text("second")]),
    ],
)
def test_directives(prompt: Any, steps: Sequence[Step]) -> None:
    """Each line of the prompt that is a directive is one step."""
    assert list(said(prompt)) == steps


@pytest.mark.parametrize("prompt", ["demo: error soon", "demo: delay long"])
def test_a_directive_that_makes_no_sense(prompt: str) -> None:
    """Says so, instead of failing."""
    (step,) = said(prompt)
    assert isinstance(step, Text)
    assert "does not understand" in step.text


def test_the_next_step_after_each_result() -> None:
    """A reply ends with a call; the call's result brings what follows."""
    prompt = "demo: tool A {}\ndemo: text between\ndemo: tool B {}\ndemo: text last"
    assert list(said(prompt)) == [ToolCall("A", "{}")]
    assert list(said(prompt, RESULT)) == [Text("between"), ToolCall("B", "{}")]
    assert list(said(prompt, RESULT, RESULT)) == [Text("last")]
    assert list(said(prompt, RESULT, RESULT, RESULT)) == [Text("last")]
    assert list(said("demo: tool A {}", RESULT)) == [Text("Done.")]


def test_without_a_directive() -> None:
    """The demo repeats the prompt and says what to configure."""
    (step,) = said("What are you?")
    assert isinstance(step, Text)
    assert step.text.startswith("You said: What are you?")
    assert "API_KEY" in step.text
    assert list(said()) != []


def test_a_new_prompt_ends_the_old_directives() -> None:
    """Directives of an earlier prompt, answered long ago, are not played again."""
    (step,) = said("demo: text old", {"role": "assistant", "content": "old"}, "And now?")
    assert isinstance(step, Text)
    assert "And now?" in step.text
