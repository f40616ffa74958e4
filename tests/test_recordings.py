"""Recorded answers of real providers, replayed over sockets: the client gets what the recording says, nothing else.

Each recording is read twice: by ccproxy, and independently by `recordings.read`. The folder of recordings is named by
`CCPROXY_TRAFFIC` (default: `../shared/traffic` beside the checkout). Without it these tests are skipped; where `CI`
is set they fail instead.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, FrozenSet, Iterator, List, Mapping, Sequence, Tuple

import pytest
import sseclient

from ccproxy.chunk_reader import ChunkReader
from ccproxy.openai import Chunk
from ccproxy.sse import Reader
from grammar import check_error, check_grammar, error_of, fold, parse_sse
from recordings import VARIABLE, Call, Reading, Recording, folder, load
from replay import Answer, ReplayProvider, Reply, bytewise, cut, post
from responses_reading import read
from support import running_proxy

Json = Dict[str, Any]

"""The providers whose every recording must pass."""

DIALECTS = {
    "azure-ai-foundry": "azure",
    "azure-openai": "azure",
    "dashscope": "qwen",
    "deepseek": "deepseek",
    "gemini": "gemini",
    "groq": "groq",
    "llamacpp": "llamacpp",
    "lmstudio": "lmstudio",
    "mistral": "mistral",
    "moonshot": "moonshot",
    "ollama": "ollama",
    "openai": "openai",
    "openrouter": "openrouter",
    "vllm": "vllm",
    "volcengine": "doubao",
    "xai": "xai",
    "zai": "zai",
}
"""Provider -> the dialect that models.yaml names for it; the rest have none of their own."""

EXCEPTIONS: Mapping[str, Tuple[FrozenSet[str], str]] = {
    "openai/gpt-4-vision-preview--nonstream-text-image-input--cccb0e": (
        frozenset({"stop reason"}),
        "a preview model that said why it stopped in `finish_details` alone, a field no other model has",
    ),
}
"""Recording -> what of it is not compared, and why. Everything else of it is, and no recording is left out.

Quoted fragments are held to the rules as they stand: a stream without an end must reach the client as an error. Of
several choices (`n` > 1) the first is the answer, and the counts are those of all, as the provider bills them.
"""

RECORDINGS = load()
NUMBERS = {source.id: number for number, source in enumerate(RECORDINGS)}
STREAMS = [source for source in RECORDINGS if source.is_stream and not source.is_error]
COMPLETIONS = [source for source in RECORDINGS if not source.is_stream and not source.is_error]
REFUSALS = [source for source in RECORDINGS if source.is_error]

MODES: Dict[str, Callable[[Recording], Answer]] = {
    "whole": lambda source: replayed(source, [source.body]),
    "pieces": lambda source: replayed(source, cut(source.body, source.lengths or event_lengths(source.body))),
    "bytes": lambda source: replayed(source, bytewise(source.body)),
    "close": lambda source: replayed(source, [source.body], "close"),
}

FINISH = re.compile(
    rb'"finish_reason": *"|(?:event: response.completed\n)?data: [^\n]*"response\.(?:completed|incomplete)"'
)
TOOL_ID = re.compile(r"^[a-zA-Z0-9_-]{1,64}$")


def each(sources: Sequence[Recording]) -> Any:
    """Run a test for each recording; for none, say why."""
    missing = pytest.mark.skip(reason=f"no recordings in {folder().name!r}: set {VARIABLE}")
    params = [pytest.param(source, id=source.id) for source in sources] or [pytest.param(None, marks=missing)]
    return pytest.mark.parametrize("source", params)


def event_lengths(body: bytes) -> List[int]:
    """The lengths of the events of a stream: how most servers write, and most networks deliver, them."""
    return [len(event) for event in re.findall(rb".*?(?:\r?\n){2,}", body, re.DOTALL)]


def replayed(source: Recording, pieces: Sequence[bytes], framing: str = "chunked") -> Answer:
    """The recorded answer in these pieces."""
    return Answer(source.status, source.headers, pieces, framing)


@each(STREAMS)
def test_the_short_ways_read_what_the_long_ones_do(source: Recording) -> None:
    """The plain lines and chunks of every provider, wherever a read ends."""
    parsed = [event.data for event in sseclient.SSEClient(iter((source.body + b"\n\n",))).events()]
    reader = ChunkReader()
    for text in parsed:
        try:
            assert reader.read(text) == Chunk._read(json.loads(text), ("delta", "message"))
        except ValueError:
            assert "[DONE]" in text
    step = 1 + len(source.body) // 100
    cuts = [bytewise(source.body), *([source.body[:n], source.body[n:]] for n in range(0, len(source.body), step))]
    for pieces in cuts:
        lines = Reader()
        frames = [frame for piece in pieces for frame in lines.feed(piece)] + lines.finish()
        assert [frame.data for frame in frames] == parsed


@dataclass(frozen=True)
class Replay:
    """A proxy in front of a replaying provider, with one model per recording."""

    provider: ReplayProvider
    proxy_url: str

    def ask(self, source: Recording, answer: Answer, stream: bool) -> Reply:
        """Ask the model of a recording, which answers with `answer`; return the client's raw reply."""
        key = key_of(source)
        self.provider.answers[key] = answer
        return post(self.proxy_url, client_request(source, stream))


@pytest.fixture(scope="module")
def replay() -> Iterator[Replay]:
    """One provider and one proxy for all recordings."""
    with ReplayProvider() as provider:
        models = [model_entry(source, provider) for source in RECORDINGS]
        # One attempt each: a retry would only get the same answer, later.
        with running_proxy({"REPLAY_KEY": "sk-replay", "MAX_RETRIES": "0"}, models) as proxy:
            yield Replay(provider, proxy.url)


def key_of(source: Recording) -> str:
    """The model id, and the path prefix at the provider, of a recording."""
    return f"recording-{NUMBERS[source.id]}"


def model_entry(source: Recording, provider: ReplayProvider) -> Json:
    """The models.yaml entry for a recording."""
    return {
        "model_id": key_of(source),
        "model_name": source.model,
        "api_base": provider.base(key_of(source)),
        "api_key_name": "REPLAY_KEY",
        "dialect": DIALECTS.get(source.provider, "generic"),
        "api": source.api,
    }


def client_request(source: Recording, stream: bool) -> Json:
    """A request whose tools are those the recorded answer calls."""
    names = sorted({call.name for call in read(source).calls})
    body: Json = {
        "model": key_of(source),
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": "Go on."}],
        "stream": stream,
    }
    if names:
        body["tools"] = [{"name": name, "input_schema": {"type": "object"}} for name in names]
    return body


# --- the tests --------------------------------------------------------------------------------------------------


def test_the_recordings_are_there() -> None:
    """Where CI runs, the recordings must be: a run without them proves nothing."""
    if not RECORDINGS and not os.environ.get("CI"):
        pytest.skip(f"no recordings in {folder().name!r}: set {VARIABLE}")
    assert RECORDINGS, f"no recordings in {folder()}: set {VARIABLE}"


@pytest.mark.parametrize("mode", MODES)
@each(STREAMS)
def test_a_recorded_stream(replay: Replay, source: Recording, mode: str) -> None:
    """However the bytes of a stream arrive, the client gets one grammatical stream that says the same."""
    reply = replay.ask(source, MODES[mode](source), stream=True)
    assert stream_faults(source, reply) == []
    if mode == "bytes" and read(source).has_begun:
        assert reply.status == 200, "what arrived before a failure is shown at once"


@each(STREAMS)
def test_a_recorded_stream_for_a_client_that_does_not_stream(replay: Replay, source: Recording) -> None:
    """Events answered to a request without `stream` make the message that the stream folds to."""
    streamed = replay.ask(source, MODES["whole"](source), stream=True)
    reply = replay.ask(source, MODES["whole"](source), stream=False)
    assert message_faults(source, reply) == []
    if reply.status == 200:
        assert comparable(reply.json()) == comparable(fold(parse_sse(streamed.body)))


# Cut before its end, the second call is not shown: it waits for the arguments of the first, which never come.
WAITING = frozenset({"openai/gpt-4o-2024-08-06--stream-parallel-tool-calls--a0627c"})


@pytest.mark.parametrize("framing", ["close", "torn"])
@each(STREAMS)
def test_a_stream_that_ends_in_the_middle(replay: Replay, source: Recording, framing: str) -> None:
    """Half an answer is never passed off as a whole one: it ends in an error, after all that had come."""
    half = replace(source, body=FINISH.split(source.body)[0][: len(source.body) // 2])
    if framing == "torn" and b"\n\n" in half.body:  # an event without its blank line goes down with the connection
        half = replace(half, body=half.body[: half.body.rindex(b"\n\n") + 2])
    assert read(half).failure is not None
    reply = replay.ask(half, replayed(half, [half.body], framing), stream=True)
    faults = stream_faults(half, reply)
    assert [fault for fault in faults if not (source.id in WAITING and fault.startswith("calls "))] == []


@each(COMPLETIONS)
def test_a_recorded_completion(replay: Replay, source: Recording) -> None:
    """A completion becomes one message."""
    reply = replay.ask(source, replayed(source, [source.body], "length"), stream=False)
    assert message_faults(source, reply) == []


@each(COMPLETIONS)
def test_a_recorded_completion_for_a_client_that_streams(replay: Replay, source: Recording) -> None:
    """A completion answered to a request with `stream` becomes a whole stream of events."""
    reply = replay.ask(source, replayed(source, [source.body], "length"), stream=True)
    assert stream_faults(source, reply) == []


@pytest.mark.parametrize("stream", [False, True], ids=["message", "stream"])
@each(REFUSALS)
def test_a_recorded_error(replay: Replay, source: Recording, stream: bool) -> None:
    """An HTTP error of the provider is an HTTP error in Anthropic's words, streaming or not."""
    reply = replay.ask(source, replayed(source, [source.body], "length"), stream=stream)
    assert error_faults(read(source), reply) == []


# --- comparing --------------------------------------------------------------------------------------------------


def stream_faults(source: Recording, reply: Reply) -> List[str]:
    """Say where a streamed reply differs from the reading of its recording.

    A failure that comes in one read with the first content may still be a plain HTTP error: nothing was shown yet.
    """
    reading = read(source)
    if reading.failure is not None and (reply.status != 200 or not reading.has_begun):
        return error_faults(reading, reply)
    if reply.status != 200:
        return [f"status {reply.status}: {reply.body[:300]!r}"]
    events = parse_sse(reply.body)
    check_grammar(events)
    message, error = fold(events), error_of(events)
    if reading.failure is not None:
        fault = reading.failure.differs(None, error) if error else "the stream ends as if nothing had happened"
        return ([fault] if fault else []) + content_faults(reading, message)
    if error is not None:
        return [f"the stream ends with {error}"]
    return faults_of(source, message) + ([] if reply.complete else ["the body breaks off after message_stop"])


def message_faults(source: Recording, reply: Reply) -> List[str]:
    """Say where a reply that is one message differs from the reading of its recording."""
    if read(source).failure is not None:
        return error_faults(read(source), reply)
    if reply.status != 200:
        return [f"status {reply.status}: {reply.body[:300]!r}"]
    return faults_of(source, reply.json())


def error_faults(reading: Reading, reply: Reply) -> List[str]:
    """Say where an error differs from the expected one; its request id is the one of the header."""
    if reply.status < 400 or reading.failure is None:
        return [f"status {reply.status}, expected {reading.failure}: {reply.body[:300]!r}"]
    body = reply.json()
    check_error(body)
    fault = reading.failure.differs(reply.status, body["error"])
    named = reply.headers.get("request-id") == body.get("request_id") is not None
    return ([fault] if fault else []) + ([] if named else ["request_id is not the request-id header"])


def faults_of(source: Recording, message: Json) -> List[str]:
    """Say where a whole message differs from the reading of its recording."""
    reading, left_out = read(source), EXCEPTIONS.get(source.id, (frozenset[str](), ""))[0]
    faults = content_faults(reading, message)
    if message["model"] != key_of(source):
        faults.append(f"model {message['model']!r} is not the requested one")
    if message["stop_reason"] not in reading.stop_reasons and "stop reason" not in left_out:
        faults.append(f"stop reason {message['stop_reason']!r}, expected one of {sorted(reading.stop_reasons)}")
    return faults + usage_faults(reading, message)


def content_faults(reading: Reading, message: Json) -> List[str]:
    """Say where text, reasoning, calls or their order differ."""
    blocks = message["content"]
    faults = []
    for name, kind, expected in (("text", "text", reading.text), ("reasoning", "thinking", reading.reasoning)):
        seen = "".join(block[kind] for block in blocks if block["type"] == kind)
        if seen != expected and not (reading.is_tagged and seen.strip() == expected.strip()):
            faults.append(f"{name} {seen[:200]!r}, expected {expected[:200]!r}")
    calls = [block for block in blocks if block["type"] == "tool_use"]
    if [call["name"] for call in calls] != [call.name for call in reading.calls]:
        return [*faults, f"calls {[call['name'] for call in calls]}, expected {[c.name for c in reading.calls]}"]
    ids = Counter(call.id for call in reading.calls)
    for seen_call, call in zip(calls, reading.calls):
        faults += call_faults(seen_call, call, is_own=ids[call.id] == 1)
    if order_of(blocks) != list(reading.order):
        faults.append(f"order {order_of(blocks)}, expected {list(reading.order)}")
    return faults


def call_faults(seen: Json, call: Call, is_own: bool) -> List[str]:
    """Say where a tool call differs; the provider's id is kept where it is legal and its own."""
    faults = []
    if call.inputs and seen["input"] not in call.inputs:
        faults.append(f"input {seen['input']!r} of {call.name}, expected {call.inputs[0]!r}")
    if is_own and TOOL_ID.match(call.id) and seen["id"].split("--ccp1_")[0] != call.id:
        faults.append(f"tool id {seen['id']!r}, expected {call.id!r}")
    return faults


def usage_faults(reading: Reading, message: Json) -> List[str]:
    """Say where the counts differ; without counts from the provider they are estimates above zero."""
    usage = message["usage"]
    seen = {name: usage.get(name) for name in (reading.usage or {}) if name != "thinking_tokens"}
    seen["thinking_tokens"] = (usage.get("output_tokens_details") or {}).get("thinking_tokens", 0)
    if reading.usage is not None:
        return [] if seen == reading.usage else [f"usage {seen}, expected {reading.usage}"]
    expected = ["input_tokens", "output_tokens"] if order_of(message["content"]) else ["input_tokens"]
    return [f"no estimate of {name}" for name in expected if not usage.get(name)]


def order_of(blocks: Sequence[Json]) -> List[str]:
    """Block types in order, neighbours of one type counted once; empty thinking and text blocks are not seen."""
    order: List[str] = []
    for block in blocks:
        kind = block["type"]
        if kind == "tool_use" or (block[kind] and order[-1:] != [kind]):
            order.append(kind)
    return order


def comparable(message: Json) -> Json:
    """A message without what two answers to one request never share: its id, made-up tool ids, half an input."""
    blocks = []
    for block in message["content"]:
        made_up = {"id": None} if str(block.get("id", "")).startswith("toolu_") else {}
        half = {"input": None} if block["type"] == "tool_use" and message["stop_reason"] == "max_tokens" else {}
        blocks.append({**block, **made_up, **half})
    return {**message, "id": None, "content": blocks}
