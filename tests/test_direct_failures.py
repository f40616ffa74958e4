"""Direct models that fail: before anything reached the client another attempt is made, later the client is told."""

from __future__ import annotations

import json
import logging
import threading
from contextlib import contextmanager
from typing import Any, Iterator, List, Optional

import pytest

from faults import END, FaultyProvider, Plan, chunk, close, endless, head, latency, reset_peer, until, whole
from fixed_provider import STREAM
from grammar import check_grammar, fold, parse_sse
from processes import eventually
from raw_http import RawConnection, request
from replay import Reply, post
from support import running_proxy, user


def event(name: str, **fields: Any) -> bytes:
    """One event of the Messages API."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), json.dumps({"type": name, **fields}).encode())


MESSAGE = {
    "id": "msg_theirs",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 1},
}
START = event("message_start", message=MESSAGE)
BLOCK = (
    event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    + event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hello"})
    + event("content_block_stop", index=0)
)
ENDING = event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 5})
STOP = event("message_stop")
PING = event("ping")
ALL = START + BLOCK + ENDING + STOP
TOLD = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded, try sk-ant-xxxxxxxxx"}}
ERROR = event("error", error=TOLD["error"])
DOCUMENT = json.dumps({**MESSAGE, "content": [{"type": "text", "text": "Hello"}], "stop_reason": "end_turn"}).encode()
OK: Plan = [head(), chunk(ALL), END]
OK_DOCUMENT: Plan = whole(200, DOCUMENT, content_type="application/json")


class Asked:
    """A proxy whose route is a direct model that follows a plan, and perhaps a second model."""

    def __init__(self, url: str, first: FaultyProvider, second: FaultyProvider, lines: List[str]) -> None:
        self.url, self.first, self.second, self.lines = url, first, second, lines

    def outcome(self) -> str:
        """How the request ended, as the log has it."""
        eventually(lambda: bool(self.lines), "the request is written down")
        return self.lines[-1]


@contextmanager
def route(plan: Plan, second: Optional[Plan] = None, second_is_direct: bool = True, **settings: str) -> Iterator[Asked]:
    """Serve a direct model, `a`, and behind it `b`, if it has a plan."""
    lines: List[str] = []
    handler, logger = logging.Handler(), logging.getLogger("ccproxy.handlers.record")
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    level = logger.level
    with FaultyProvider(plan) as a, FaultyProvider(second or OK) as b:
        models = [
            {"model_id": "a", "api_base": a.url, "direct": True},
            {"model_id": "b", "api_base": b.url, "direct": second_is_direct, "dialect": "generic"},
        ]
        env = {"ROUTER_DEFAULT": "a,b" if second else "a", **settings}
        with running_proxy(env, models) as proxy:
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
            try:
                yield Asked(proxy.url, a, b, lines)
            finally:
                logger.removeHandler(handler)
                logger.setLevel(level)


def text_of(reply: Reply) -> str:
    """The text of a stream that must be whole and legal."""
    assert (reply.status, reply.complete) == (200, True), reply.body
    events = parse_sse(reply.body)
    check_grammar(events)
    assert events[-1][0] == "message_stop"
    return str(fold(events)["content"][0]["text"])


# --- how a stream ends --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [ALL, ALL[:-1], ALL[:-2], START + BLOCK + ENDING, (START + BLOCK + ENDING)[:-1]],
    ids=["whole", "no blank line", "no line end", "no message_stop", "no line end before it"],
)
@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_a_stream_that_told_its_stop_reason(body: bytes, framing: str) -> None:
    """Is an answer: what the end of its last event, or message_stop, is missing is added."""
    plan = [head(), chunk(body), END] if framing == "chunked" else [head(200, "close"), lambda w: w.send(body), close]
    with route(plan) as asked:
        assert text_of(post(asked.url, user(stream=True))) == "Hello"
        assert asked.outcome().endswith(" end_turn")


def test_nothing_is_waited_for_after_message_stop() -> None:
    """A provider that says no more, and keeps its connection, keeps no client waiting."""
    gate = threading.Event()
    with route([head(), chunk(ALL), until(gate), END]) as asked:
        assert text_of(post(asked.url, user(stream=True))) == "Hello"
        gate.set()


CUTS: List[bytes] = [
    START,
    START + BLOCK,
    START + BLOCK[:-30],
    START + BLOCK + ENDING[:-20],
    START + event("message_delta", delta={"stop_reason": None}, usage={"output_tokens": 5}),
]


@pytest.mark.parametrize("cut", CUTS, ids=["start", "block", "half an event", "half an ending", "no stop reason"])
@pytest.mark.parametrize("end", [[END], [close], [latency(0.1), reset_peer]], ids=["end", "cut", "reset"])
def test_a_stream_that_breaks_off(cut: bytes, end: Plan) -> None:
    """Ends with an error event behind whole events, and then without the end of a body; it is recorded as failed."""
    with route([head(), chunk(cut), *end]) as asked:
        reply = post(asked.url, user(stream=True))
        assert asked.outcome().endswith("failed in mid-stream with 502")
        assert len(asked.first.attempts) == 1
    assert (reply.status, reply.complete) == (200, False)
    *events, (last, error) = parse_sse(reply.body)
    assert (
        b"".join(event(**{"name": name, **data}) for name, data in map(without_type, events))
        == cut[: cut.rindex(b"\n\n") + 2]
    )
    assert (last, error["error"]["type"]) == ("error", "api_error")


def without_type(told: Any) -> Any:
    """An event's name and its other fields."""
    name, data = told
    return name, {key: value for key, value in data.items() if key != "type"}


@pytest.mark.parametrize("end", [[END], [close], [latency(0.1), reset_peer]], ids=["end", "cut", "reset"])
@pytest.mark.parametrize("rest", [b"", STOP[:9], STOP[:-12]], ids=len)
def test_what_breaks_off_behind_the_stop_reason(rest: bytes, end: Plan) -> None:
    """Is whole, for client and ledger alike: nothing may follow a stop reason but message_stop."""
    with route([head(), chunk(START + BLOCK + ENDING), *([chunk(rest)] if rest else []), *end]) as asked:
        assert text_of(post(asked.url, user(stream=True))) == "Hello"
        assert asked.outcome().endswith(" end_turn")


def test_an_error_event_in_mid_stream() -> None:
    """Comes apart from what was before, as it is but for keys, and the body does not end."""
    with route([head(), chunk(START + BLOCK + ERROR), END], OK) as asked:
        with RawConnection(asked.url) as client:
            client.send(request("POST", "/v1/messages", user(stream=True)))
            client.head()
            assert client.chunk() == START + BLOCK
            assert client.chunk() == ERROR.replace(b"sk-ant-xxxxxxxxx", b"***")
            assert client.chunk() == b""
            assert not client._ended_well
        assert asked.outcome().endswith("failed in mid-stream with 529")
        assert asked.second.attempts == []


# --- before anything reached the client ---------------------------------------------------------------------------

NO_ANSWERS: List[Plan] = [
    [head(), chunk(ERROR), END],
    [head(), chunk(ERROR[:-2]), END],
    [head(), chunk(b": wait\n\n" + PING), chunk(ERROR), END],
    [head(), END],
    [head(), chunk(PING), END],
    [head(), chunk(START[:40]), close],
    [head(), close],
    whole(200, b"<html>", content_type="text/html"),
]
NO_DOCUMENTS: List[Plan] = [
    whole(200, json.dumps(TOLD).encode(), content_type="application/json"),
    whole(200, b"", content_type="application/json"),
    [head(200, str(len(DOCUMENT)), content_type="application/json"), lambda wire: wire.send(DOCUMENT[:40]), close],
    [head(200, "close", content_type="application/json"), lambda wire: wire.send(DOCUMENT[:40]), close],
    [head(), chunk(ALL), END],
]


@pytest.mark.parametrize("plan", NO_ANSWERS, ids=range(len(NO_ANSWERS)))
def test_a_stream_that_is_no_answer(plan: Plan) -> None:
    """Its model is asked again, then the next one; the client is given that one's stream alone."""
    with route(plan, OK, MAX_RETRIES="1", RETRY_MAX_WAIT="5") as asked:
        reply = post(asked.url, user(stream=True))
        assert text_of(reply) == "Hello"
        assert reply.headers["x-ccproxy-model"] == "b"
        assert len(asked.first.attempts) == 2


@pytest.mark.parametrize("plan", NO_DOCUMENTS, ids=range(len(NO_DOCUMENTS)))
def test_a_document_that_is_no_answer(plan: Plan) -> None:
    """The same for a client that wants no stream; one that was not asked for is no answer either."""
    with route(plan, OK_DOCUMENT) as asked:
        reply = post(asked.url, user())
        assert (reply.status, reply.body, reply.headers["x-ccproxy-model"]) == (200, DOCUMENT, "b")


@pytest.mark.parametrize(
    ("type", "status", "attempts"),
    [
        ("overloaded_error", 529, 2),
        ("rate_limit_error", 429, 2),
        ("api_error", 500, 2),
        ("timeout_error", 504, 2),
        ("invalid_request_error", 400, 1),
        ("authentication_error", 401, 1),
        ("of_tomorrow", 500, 2),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_in_a_200(type: str, status: int, attempts: int, stream: bool) -> None:
    """Is an HTTP error of the status that goes with its type, in the provider's own words."""
    told = json.dumps({"type": "error", "error": {"type": type, "message": "no"}}).encode()
    plan = (
        [head(), chunk(b"event: error\ndata: %s\n\n" % told), END]
        if stream
        else whole(200, told, content_type="application/json")
    )
    with route(plan, MAX_RETRIES="1", RETRY_MAX_WAIT="5") as asked:
        reply = post(asked.url, user(stream=stream))
        assert asked.outcome().endswith(f"failed with {status}")
        assert len(asked.first.attempts) == attempts
    assert (reply.status, reply.body, reply.headers["content-type"]) == (status, told, "application/json")


# --- while a client waits -----------------------------------------------------------------------------------------

SOON = {"COMMIT_AFTER": "0.05", "PING_INTERVAL": "0.3"}


def test_a_client_that_waits_for_a_mixed_route() -> None:
    """Is given pings, and then the direct model's stream from its start: nothing of another one was told."""
    with route([latency(0.8), *OK], OK, second_is_direct=False, **SOON) as asked:
        reply = post(asked.url, user(stream=True))
    assert reply.body.startswith(b"event: ping\n")
    assert reply.body.endswith(ALL)
    assert text_of(reply) == "Hello"


def test_a_translated_model_behind_a_direct_one() -> None:
    """Begins the stream itself when pings are all that went out."""
    translated = [latency(0.5), head(), chunk(STREAM), END]
    with route([latency(0.8), *whole(500, b"{}")], translated, second_is_direct=False, **SOON) as asked:
        reply = post(asked.url, user(stream=True))
    assert reply.body.startswith(b"event: ping\n")
    assert text_of(reply) == "Hello"


@pytest.mark.parametrize("plan", [[head(), chunk(ERROR), END], OK_DOCUMENT], ids=["error", "document"])
def test_a_failure_behind_pings(plan: Plan) -> None:
    """Is an error event, the status is gone; so is a document, which nobody can take for a stream."""
    no: Plan = whole(400, b"{}")
    with route([latency(0.8), *plan], no, second_is_direct=False, **SOON) as asked:
        reply = post(asked.url, user(stream=True))
    assert (reply.status, reply.complete) == (200, False)
    assert parse_sse(reply.body)[-1][0] == "error"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_waits_for_direct_models_alone(stream: bool) -> None:
    """Is given nothing before the answer, whose status and headers are the provider's."""
    with route([latency(0.8), *whole(429, b"{}", request_id="req_theirs")], **SOON) as asked:
        reply = post(asked.url, user(stream=stream))
    assert (reply.status, reply.headers["request-id"]) == (429, "req_theirs")


def test_a_direct_model_that_gives_signs_of_life() -> None:
    """They reach the client after COMMIT_AFTER, while the model is still at work."""
    with route([head(), endless(b"%x\r\n%s\r\n" % (len(PING), PING), 0.02)], COMMIT_AFTER="0.1") as asked:
        with RawConnection(asked.url) as client:
            client.send(request("POST", "/v1/messages", user(stream=True)))
            assert client.head().status == 200
            assert client.chunk().startswith(PING)
        eventually(asked.first.all_left, "the connection is closed")


def test_a_direct_stream_that_is_silent() -> None:
    """Pings come between its events, never within one."""
    plan = [head(), chunk(START + BLOCK[:60]), latency(0.9), chunk(BLOCK[60:] + ENDING + STOP), END]
    with route(plan, **SOON) as asked:
        reply = post(asked.url, user(stream=True))
    assert text_of(reply) == "Hello"
    assert reply.body.replace(b'event: ping\ndata: {"type":"ping"}\n\n', b"") == ALL
    assert reply.body != ALL
