"""Models with `direct: true`: bytes cross unchanged in both directions, over real sockets.

The answers are the recordings of Anthropic's API; see `test_recordings` for where they are found.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import queue
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple

import pytest

from ccproxy.translate.envelope import Envelope, seal, seal_id
from faults import FaultyProvider, chunk, endless, head, latency, reset_peer
from processes import eventually
from recordings import Recording, folder, recording, server_sent_data
from replay import Answer, Received, ReplayProvider, bytewise, cut, post
from sent import result, text, turn, use
from support import Answer as Got
from support import ask, running_proxy, user
from test_recordings import each, event_lengths

Json = Dict[str, Any]

KEY, TOKEN = "sk-ant-ours", "token-of-the-proxy"
JSON = {"content-type": "application/json"}
MESSAGE: Json = {
    "type": "message",
    "content": [],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 3, "output_tokens": 5, "cache_read_input_tokens": 7},
}
PASSED = ("retry-after", "retry-after-ms", "x-should-retry", "request-id", "content-type")
"""The headers of an answer that clients act on."""


def load() -> List[Tuple[Recording, bytes]]:
    """Every recorded Messages exchange, and the body of its request, written as no JSON library of ours writes it."""
    found = []
    for path in sorted(folder().glob("anthropic/*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["kind"] == "anthropic.messages":
            source = recording(data)
            request = {**(source.request or user(stream=source.is_stream)), "model": "m", "of_tomorrow": [1.0, "é", {}]}
            found.append((source, json.dumps(request, indent=1, ensure_ascii=False).encode("utf-8")))
    return found


EXCHANGES = {source.id: (source, body) for source, body in load()}
SOURCES = [source for source, _ in EXCHANGES.values()]


def lengths(source: Recording) -> List[int]:
    """Where to cut an answer: a stream between its events, a message in thirds."""
    third = len(source.body) // 3
    return event_lengths(source.body) if source.is_stream else [third, third]


MODES: Mapping[str, Callable[[Recording], Answer]] = {
    "whole": lambda source: Answer(source.status, source.headers, [source.body]),
    "pieces": lambda source: Answer(source.status, source.headers, cut(source.body, lengths(source))),
    "bytes": lambda source: Answer(source.status, source.headers, [*bytewise(source.body[:300]), source.body[300:]]),
    "close": lambda source: Answer(source.status, source.headers, [source.body], "close"),
    "length": lambda source: Answer(source.status, source.headers, [source.body], "length"),
}


@dataclass(frozen=True)
class Direct:
    """A proxy with one direct model, `m`, and the provider behind it."""

    provider: ReplayProvider
    url: str
    lines: queue.Queue[logging.LogRecord]

    def post(self, body: Any, path: str = "/v1/messages", **headers: str) -> Got:
        """Ask the proxy; header names are written with underscores."""
        plain = {name.replace("_", "-"): value for name, value in headers.items()}
        return ask(self.url, path, body, headers={**JSON, **plain})

    def sent(self, body: Any, path: str = "/v1/messages", **headers: str) -> Received:
        """What the provider is sent for a request that it answers."""
        self.post(body, path, **headers)
        return self.provider.received[-1]


@contextmanager
def direct(answer: Optional[Answer] = None, settings: Optional[Json] = None, **entry: Any) -> Iterator[Direct]:
    """Serve one direct model; `entry` adds to its keys."""
    lines: queue.Queue[logging.LogRecord] = queue.Queue()
    handler, logger = logging.handlers.QueueHandler(lines), logging.getLogger("ccproxy.handlers.record")
    level = logger.level
    with ReplayProvider() as provider:
        provider.answers["p"] = answer or Answer(200, JSON, [json.dumps(MESSAGE).encode()])
        model = {"model_id": "m", "api_base": provider.base("p"), "api_key_name": "OUR_KEY", "direct": True, **entry}
        env = {"ROUTER_DEFAULT": "m", "OUR_KEY": KEY, "MAX_RETRIES": "0", **(settings or {})}
        with running_proxy(env, [model]) as proxy:
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
            try:
                yield Direct(provider, proxy.url, lines)
            finally:
                logger.removeHandler(handler)
                logger.setLevel(level)


@pytest.fixture(scope="module")
def shared() -> Iterator[Direct]:
    """One proxy and one provider for the recordings."""
    with direct() as pair:
        yield pair


# --- the answer -------------------------------------------------------------------------------------------------


def to_its_end(body: bytes) -> bytes:
    """A stream as far as its message goes: what a gateway says behind it (OpenRouter: `[DONE]`) is not waited for."""
    message = re.match(rb".*event: message_stop\n.*?\n\n", body, re.DOTALL)
    return message[0] if message else body


@pytest.mark.parametrize("mode", MODES)
@each(SOURCES)
def test_a_recorded_exchange(shared: Direct, source: Recording, mode: str) -> None:
    """The client gets the provider's status and bytes however they arrive, and the provider gets the client's."""
    shared.provider.answers["p"] = MODES[mode](source)
    body = EXCHANGES[source.id][1]
    answer = shared.post(body)
    assert (answer.status, to_its_end(answer.body)) == (source.status, to_its_end(source.body))
    for name in PASSED:
        if name in source.headers:
            assert answer.headers[name] == source.headers[name]
    received = shared.provider.received[-1]
    assert (received.path, received.raw) == ("/p/v1/messages", body)
    assert received.headers["x-api-key"] == KEY


@each([source for source in SOURCES if source.status == 200])
def test_the_usage_is_read_on_the_way(shared: Direct, source: Recording) -> None:
    """The log line has the counts and the stop reason that the answer ends with."""
    while not shared.lines.empty():
        shared.lines.get_nowait()
    shared.provider.answers["p"] = MODES["pieces"](source)
    assert shared.post(EXCHANGES[source.id][1]).status == 200
    line = shared.lines.get(timeout=10).getMessage()
    message = fold_loosely(source.body) if source.is_stream else json.loads(source.body)
    usage = message.get("usage") or {}
    counts = [usage.get(f"{name}_tokens") or 0 for name in ("input", "cache_read_input", "output")]
    assert [int(number) for number in re.findall(r"(?:in|cached|out)=(\d+)", line)] == counts
    assert line.endswith(f" {message.get('stop_reason')}")


def fold_loosely(body: bytes) -> Json:
    """The last usage and stop reason of a stream, whatever blocks it has."""
    message: Json = {"usage": {}}
    for data in server_sent_data(body):
        event = {} if data.strip() == "[DONE]" else json.loads(data)
        found = event["message"] if event.get("type") == "message_start" else event
        message["usage"].update(found.get("usage") or {})
        if event.get("type") == "message_delta":
            message.update(event["delta"])
    return message


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 429, 500, 529])
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_crosses_unchanged(status: int, stream: bool) -> None:
    """Status, body and the headers that steer the client's next try are the provider's own."""
    body = b'{"type":"error", "error":{"type":"x","message":"the \xc3\xa9 words"},"request_id":"req_theirs"}'
    headers = {**JSON, "retry-after": "7", "x-should-retry": "true", "request-id": "req_theirs"}
    headers["anthropic-ratelimit-unified-status"] = "rejected"
    with direct(Answer(status, headers, [body])) as pair:
        answer = pair.post(user(stream=stream))
    assert (answer.status, answer.body) == (status, body)
    assert {name: answer.headers.get(name) for name in headers} == headers
    assert len(pair.provider.received) == 1


def test_text_that_was_held_back_when_a_stream_breaks_off() -> None:
    """What may have become our key, and did not, is passed on like all that came before it."""
    deltas = "".join(
        frame("content_block_delta", delta={"type": "text_delta", "text": text}) for text in ("sk-", "ant")
    )
    plan = [head(), chunk(deltas.encode()), latency(0.2), reset_peer]
    with FaultyProvider(plan) as provider, direct(api_base=provider.url) as pair:
        reply = post(pair.url, user(stream=True))
    assert not reply.complete
    *deltas, error = [json.loads(data) for data in server_sent_data(reply.body)]
    assert "".join(event["delta"]["text"] for event in deltas) == "sk-ant"
    assert error["type"] == "error"


def frame(event: str, **fields: Any) -> str:
    """One event of a stream."""
    return f"event: {event}\ndata: {json.dumps({'type': event, **fields})}\n\n"


@pytest.mark.parametrize(
    ("body", "ending"),
    [
        (json.dumps({**MESSAGE, "id": "msg_?"}).encode().replace(b"?", b"\xff"), "chunked"),
        (json.dumps({**MESSAGE, "id": "msg_?"}).encode().replace(b"?", b"\xff"), "close"),
        (b"no JSON", "chunked"),
    ],
)
def test_an_odd_document_that_is_whole(body: bytes, ending: str) -> None:
    """Crosses as it is: a spoiled character is no missing end, and a body that was counted is all there."""
    with direct(Answer(200, JSON, [body], ending)) as pair:
        assert pair.post(user()).body == body


@pytest.mark.parametrize("stream", [False, True])
def test_a_page(stream: bool) -> None:
    """What a gateway or a portal answers in place of the provider is an error, so that the next model is asked."""
    page = Answer(200, {"content-type": "text/html"}, [b"<html><title>Sign in</title></html>"])
    with direct(page) as pair:
        answer = pair.post(user(stream=stream))
    assert answer.status == 502
    assert "an HTML page: Sign in" in answer.json["error"]["message"]


@pytest.mark.parametrize("usage", [None, [], "many", 3, {"input_tokens": "3", "output_tokens_details": [1]}])
def test_an_odd_usage(usage: Any) -> None:
    """Is not counted, and crosses all the same."""
    body = json.dumps({**MESSAGE, "usage": usage}).encode()
    with direct(Answer(200, JSON, [body])) as pair:
        assert pair.post(user()).body == body
        assert " in=0 cached=0 out=0 " in pair.lines.get(timeout=10).getMessage()


WRITTEN = {"cache_creation_input_tokens": 6, "cache_creation": {"ephemeral_1h_input_tokens": 4}}
KINDS = ("input", "output", "cache_read", "cache_write", "cache_write_1h")
PRICES = {f"{kind}_cost_per_token": 10**power for power, kind in enumerate(KINDS)}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("told", "cost"),
    [
        (WRITTEN, "$42753"),
        ({**WRITTEN, "inference_geo": "us"}, "$47028.3"),
        ({**WRITTEN, "speed": "fast"}, "-"),
        ({"cache_creation_input_tokens": 2, "cache_creation": {"ephemeral_1h_input_tokens": 4}}, "$20753"),
        ({"cache_creation_input_tokens": 2, "cache_creation": [4]}, "$2753"),
    ],
    ids=str,
)
def test_each_kind_of_tokens_has_its_price(stream: bool, told: Json, cost: str) -> None:
    """What is written into the cache for an hour is told apart, also where only the start of a stream tells it."""
    usage = {**MESSAGE["usage"], **told}
    body, headers = json.dumps({**MESSAGE, "usage": usage}).encode(), JSON
    if stream:
        start = frame("message_start", message={**MESSAGE, "usage": {**usage, "output_tokens": 1}})
        delta = frame("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 5})
        body, headers = (start + delta).encode() + END, {"content-type": "text/event-stream"}
    with direct(Answer(200, headers, [body]), **PRICES) as pair:
        pair.post(user(stream=stream))
        assert f" cost={cost} " in pair.lines.get(timeout=10).getMessage()


DEEP = b'event: %s\ndata: {"content_block":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n\n"
END = frame("message_stop").encode()


@pytest.mark.parametrize(
    ("events", "told"),
    [
        (DEEP % b"content_block_start", "in=3 cached=0 out=1 "),
        (DEEP % b"message_delta", "in=3 cached=0 out=1 "),
        (b"event: message_delta\ndata: [1]\n\n", "in=3 cached=0 out=1 "),
        (b"", "in=3 cached=0 out=1 "),
        (
            frame("message_delta", delta={}, usage={"input_tokens": None, "output_tokens": 7}).encode(),
            "in=3 cached=0 out=7 ",
        ),
    ],
)
def test_odd_events(events: bytes, told: str) -> None:
    """They cross, whatever can be read of them; a count that is null is what it was before."""
    start = frame("message_start", message={"usage": {"input_tokens": 3, "output_tokens": 1}}).encode()
    with direct(Answer(200, {"content-type": "text/event-stream"}, [start + events + END])) as pair:
        assert pair.post(user(stream=True)).body == start + events + END
        line = pair.lines.get(timeout=10).getMessage()
    assert told in line
    assert line.endswith((" relayed", " None"))


# --- the request ------------------------------------------------------------------------------------------------

ODD = b'{ "messages" :[{"role":"user","content":"\\u00e9 \\ud83d"}],\n"max_tokens": 1e3 , "model":"m","top_p":1.00}'


@pytest.mark.parametrize("body", [ODD.replace(b"1e3", b"1000"), b"\xef\xbb\xbf" + ODD.replace(b"1e3", b"5"), ODD])
def test_a_body_that_nothing_must_change(body: bytes) -> None:
    """Is passed on byte for byte, or refused whole; never written anew."""
    with direct() as pair:
        status = pair.post(body).status
        assert [received.raw for received in pair.provider.received] == ([body] if status == 200 else [])


@pytest.mark.parametrize(
    ("entry", "settings", "before", "after"),
    [
        ({"model_name": "claude-x"}, {}, b'"m"', b'"claude-x"'),
        ({"max_tokens": 100}, {}, b"1000 ", b"100 "),
        ({}, {"MAX_TOKENS_LIMIT": "64"}, b"1000 ", b"64 "),
        ({"max_tokens": 5000}, {}, b"", b""),
    ],
)
def test_only_what_must_change_does(entry: Json, settings: Json, before: bytes, after: bytes) -> None:
    """Another name of the model, or a lower limit, replaces these bytes and no others."""
    body = ODD.replace(b"1e3", b"1000")
    with direct(settings=settings, **entry) as pair:
        assert pair.sent(body).raw == body.replace(before, after, 1)


def test_only_what_must_change_of_a_conversation_that_is_known() -> None:
    """Its lists are passed over unread, whatever stands between their items."""
    rows = [json.dumps(turn("user", text(f"{number} é 🙂 " * 99)), ensure_ascii=number % 2 > 0) for number in range(9)]
    lists = '"messages" : [ %s\n] ,"system":[], "tools":[]' % " ,\t".join(rows)
    body = ('{%s, "é" : "\u00fc", "max_tokens":1000,"model": "m" }' % lists).encode()
    with direct(model_name="claude-x") as pair:
        for _ in range(2):
            assert pair.sent(body).raw == body.replace(b'"m" }', b'"claude-x" }')


OURS = seal(Envelope("elsewhere.test", "x", "reasoning", "hidden"))
CLAUDE = {"type": "thinking", "thinking": "Hm. é", "signature": "EqQBCkYIBhgCKkDx/+=="}


@pytest.mark.parametrize("odd", ["é 🙂", "\ud83d"])
def test_the_traces_of_other_providers_are_removed(odd: str) -> None:
    """Our thinking blocks and what ids carry go, turns left empty too; Anthropic's own thinking stays as it is."""
    sealed = seal_id("toolu_1", "c2lnbmF0dXJl")
    messages = [
        turn("user", text(odd)),
        turn("assistant", {"type": "thinking", "thinking": "", "signature": OURS}),
        turn("user", text("Go on.")),
        turn("assistant", {"type": "thinking", "thinking": "x", "signature": OURS}, CLAUDE, use(sealed)),
        turn("user", result(sealed)),
    ]
    with direct() as pair:
        received = pair.sent(user(messages=messages, model="m"))
    assert b"ccp1_" not in received.raw
    assert json.loads(received.raw.decode("utf-8"))["messages"] == [
        messages[0],
        messages[2],
        turn("assistant", CLAUDE, use("toolu_1")),
        turn("user", result("toolu_1")),
    ]


# --- headers ----------------------------------------------------------------------------------------------------


def test_the_headers_that_change_the_answer() -> None:
    """All that are Anthropic's are passed on as they came; cookies and the client's credential are not."""
    beta = "claude-code-20250219,of-tomorrow-2027-01-01"
    with direct() as pair:
        sent = pair.sent(
            user(),
            anthropic_beta=beta,
            anthropic_version="2026-10-21",
            anthropic_workspace_id="wrkspc_1",
            x_api_key="theirs",
            cookie="a=b",
        )
    assert sent.headers["anthropic-beta"] == beta
    assert sent.headers["anthropic-workspace-id"] == "wrkspc_1"
    assert sent.headers["anthropic-version"] == "2026-10-21"
    assert sent.headers["x-api-key"] == KEY
    assert "cookie" not in sent.headers
    assert "theirs" not in str(sent.headers)


@pytest.mark.parametrize("name", ["x_api_key", "authorization"])
@pytest.mark.parametrize("has_key", [True, False], ids=["with our key", "without a key of ours"])
def test_the_clients_own_credential(name: str, has_key: bool) -> None:
    """Is passed on with `forward_client_key` alone, in the header it came in, and then ours is not sent."""
    credential = "Bearer sk-ant-theirs" if name == "authorization" else "sk-ant-theirs"
    entry = {} if has_key else {"api_key_name": ""}
    with direct(forward_client_key=True, **entry) as pair:
        headers = pair.sent(user(), **{name: credential}).headers
    assert headers[name.replace("_", "-")] == credential
    assert KEY not in str(headers)


@pytest.mark.parametrize("forwards", [True, False])
@pytest.mark.parametrize("header", ["x_api_key", "authorization"])
def test_the_proxys_own_token_goes_nowhere(forwards: bool, header: str) -> None:
    """The token that opens the proxy is never sent to a provider."""
    token = f"Bearer {TOKEN}" if header == "authorization" else TOKEN
    with direct(settings={"CCPROXY_AUTH_TOKEN": TOKEN}, forward_client_key=forwards) as pair:
        answer = pair.post(user(), **{header: token})
    assert answer.status == 200
    assert TOKEN not in str(pair.provider.received[-1].headers)
    assert pair.provider.received[-1].headers["x-api-key"] == KEY


# --- counting ---------------------------------------------------------------------------------------------------

COUNT = "/v1/messages/count_tokens"


def test_counting_is_forwarded() -> None:
    """The provider counts: its answer and the client's body cross unchanged."""
    body = b'{"model" : "m", "messages":[{"role":"user","content":"Hi"}]}'
    with direct(Answer(200, JSON, [b'{ "input_tokens":12345 }'])) as pair:
        answer = pair.post(body, COUNT, anthropic_beta="token-counting")
        received = pair.provider.received[-1]
    assert (answer.status, answer.body) == (200, b'{ "input_tokens":12345 }')
    assert (received.path, received.raw) == ("/p" + COUNT, body)
    assert received.headers["anthropic-beta"] == "token-counting"


@pytest.mark.parametrize("status", [404, 405, 500])
def test_a_provider_that_does_not_count(status: int) -> None:
    """Then the count is estimated: clients would otherwise count by asking for an answer."""
    with direct(Answer(status, JSON, [b'{"error":{"message":"no such path"}}'])) as pair:
        answer = pair.post({"model": "m", "messages": [turn("user", "Hi there")]}, COUNT)
    assert answer.status == 200
    assert 1 <= answer.json["input_tokens"] < 100


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"[]", b'{"input_tokens": "many"}', b"[" * 100_000])
def test_an_answer_that_is_no_count(body: bytes) -> None:
    """Is none: the count is estimated."""
    with direct(Answer(200, JSON, [body])) as pair:
        assert pair.post({"model": "m", "messages": [turn("user", "Hi there")]}, COUNT).json["input_tokens"] < 100


def test_a_count_that_does_not_come() -> None:
    """It is waited for as long as an exchange may take, however its provider keeps the connection alive."""
    drips = [head(200, "5000", content_type="application/json"), endless(b" ", 0.05)]
    with (
        FaultyProvider(drips) as provider,
        direct(None, {"PROVIDER_TOTAL_TIMEOUT": "0.5"}, api_base=provider.url) as pair,
    ):
        answer = pair.post({"model": "m", "messages": [turn("user", "Hi there")]}, COUNT)
        assert answer.json["input_tokens"] < 100
        eventually(provider.all_left, "the connection is closed")
