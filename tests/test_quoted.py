"""A key that an answer quotes is taken out of it, however it comes."""

from __future__ import annotations

import itertools
import json
from typing import Any, Dict, Iterable, List, Tuple

import pytest

from ccproxy.config.credentials import secret_headers
from ccproxy.message import BlockStart, BlockStop, Event, InputJsonDelta, TextDelta, ThinkingDelta, text_block
from ccproxy.provider.quoted import Quoted, QuotedEvents, QuotedStream
from replay import Answer, ReplayProvider, bytewise, cut
from support import Json, ask, events_of, running_proxy, user

KEY, HEADER = "sk-quoted-0123456789abcdef", "gateway-secret-fedcba98"
SAID = f"asked with Bearer {KEY} and {HEADER}; again: {KEY}"
MASKED = "asked with Bearer *** and ***; again: ***"


def through(pieces: List[bytes], *secrets: str) -> bytes:
    """What comes out for these pieces."""
    quoted = Quoted(secrets)
    return b"".join(map(quoted.feed, pieces)) + quoted.finish()


def test_every_cut() -> None:
    """In two pieces, cut anywhere, and byte by byte."""
    data, wanted = SAID.encode(), MASKED.encode()
    assert {through([data[:at], data[at:]], KEY, HEADER) for at in range(len(data) + 1)} == {wanted}
    assert through(bytewise(data), KEY, HEADER) == wanted


@pytest.mark.parametrize(
    ("secrets", "data", "wanted"),
    [
        (["aabaab1"], "aabaabaab1", "aab***"),  # begins again in the middle of itself
        (["secret-1", "secret-2"], "secret-2 secret-1", "*** ***"),
        (["secret-1"], "secret-", "secret-"),  # the beginning alone is none
        (["short"], "short", "short"),
        ([], SAID, SAID),
    ],
)
def test_what_is_a_secret(secrets: List[str], data: str, wanted: str) -> None:
    """The whole of it; its beginning, or a placeholder of a local server, is text."""
    assert through([data.encode()], *secrets) == wanted.encode()
    assert through(bytewise(data.encode()), *secrets) == wanted.encode()


def test_an_event_is_not_held_back() -> None:
    """Whatever ends with a line, or a document with its bracket, goes on at once."""
    quoted = Quoted([KEY])
    for data in (b'data: {"text":"s"}\n\n', b'{"text":"sk-quoted-"}'):
        assert quoted.feed(data) == data


def test_only_headers_that_may_be_secret_are() -> None:
    """A beta's name or a client's version is what an answer may be about."""
    public = {
        "anthropic-beta": "interleaved-thinking-2025-05-14",
        "User-Agent": "some-client/1.2.3-of-2026-11-25",
        "content-type": "application/json;charset=utf-8",
    }
    assert list(secret_headers({**public, "authorization": f"Bearer {KEY}", "x-team": HEADER})) == [KEY, HEADER]


# --- through the proxy --------------------------------------------------------------------------------------------


def chat(stream: bool) -> bytes:
    """An answer of chat completions that quotes."""
    if not stream:
        choice = {"index": 0, "message": {"role": "assistant", "content": SAID}, "finish_reason": "stop"}
        return json.dumps({"id": "c", "choices": [choice]}).encode()
    choices: List[Dict[str, Any]] = [{"delta": {"content": SAID}}, {"delta": {}, "finish_reason": "stop"}]
    events = [{"id": "c", "choices": [{"index": 0, **choice}]} for choice in choices]
    return b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in events) + b"data: [DONE]\n\n"


def anthropic(stream: bool) -> bytes:
    """The same as Anthropic's own providers say it."""
    message = {"type": "message", "content": [{"type": "text", "text": SAID}], "stop_reason": "end_turn", "usage": {}}
    if not stream:
        return json.dumps(message).encode()
    events: List[Tuple[str, Dict[str, Any]]] = [
        ("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": SAID}}),
        ("message_stop", {}),
    ]
    return b"".join(b"event: %s\ndata: %s\n\n" % (name.encode(), json.dumps(data).encode()) for name, data in events)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("direct", [False, True], ids=["translated", "passed through"])
@pytest.mark.parametrize("framing", ["chunked", "close", "length"])
def test_no_answer_has_a_key(direct: bool, stream: bool, framing: str) -> None:
    """Nor a secret header, in the body or the head, whole or cut in the middle of it."""
    body = (anthropic if direct else chat)(stream)
    at = body.index(KEY.encode()) + 9
    kind = "text/event-stream" if stream else "application/json"
    entry = {"model_id": "m", "dialect": "generic", "direct": direct, "api_key_name": "OUR_KEY"}
    entry["extra_headers"] = {"x-gateway": HEADER}
    for pieces in ([body], cut(body, [at]), bytewise(body)):
        with ReplayProvider() as provider:
            provider.answers["p"] = Answer(200, {"content-type": kind, "request-id": KEY}, pieces, framing)
            model = {**entry, "api_base": provider.base("p")}
            with running_proxy({"ROUTER_DEFAULT": "m", "OUR_KEY": KEY}, [model]) as proxy:
                answer = ask(proxy.url, "/v1/messages", user(stream=stream))
        assert answer.status == 200, answer.body
        assert MASKED in answer.body.decode()
        for secret in (KEY, HEADER):
            assert secret not in str(answer.headers) + answer.body.decode()


# --- spelled over several deltas ----------------------------------------------------------------------------------

SPELLED = f"It is {KEY}, and {HEADER}."
UNSPELLED = "It is sk***, and ga***."
FIELDS = {TextDelta: "text", ThinkingDelta: "thinking", InputJsonDelta: "partial_json"}


def splits(text: str, parts: int) -> List[List[str]]:
    """Every cut of a text into so many pieces."""
    places = itertools.combinations(range(1, len(text)), parts - 1)
    return [[text[a:b] for a, b in zip((0, *cuts), (*cuts, len(text)))] for cuts in places]


def spoken(pieces: Iterable[str], *secrets: str, kind: Any = TextDelta) -> List[str]:
    """The texts of the deltas that come out when each piece is a delta of one block, and a read."""
    quoted = QuotedEvents(secrets)
    events: List[Event] = [event for piece in pieces for event in quoted.feed([kind(3, piece)])]
    events += quoted.feed([BlockStop(3)])
    assert events.pop() == BlockStop(3)
    assert all(isinstance(event, kind) and event.index == 3 for event in events)
    return [getattr(event, FIELDS[kind]) for event in events]


def frame(name: str, **fields: Any) -> bytes:
    """An event as Anthropic-format providers send it."""
    return f"event: {name}\ndata: {json.dumps({'type': name, **fields})}\n\n".encode()


def delta(text: str, name: str = "text", index: int = 3) -> bytes:
    """A delta of theirs."""
    return frame("content_block_delta", index=index, delta={"type": f"{name}_delta", name: text})


def relayed(pieces: Iterable[str], *secrets: str, ending: bytes = b"\n") -> str:
    """The text that comes out of a stream of theirs, event by event."""
    quoted = QuotedStream(secrets)
    frames = [*map(delta, pieces), frame("content_block_stop", index=3)]
    told = b"".join(quoted.feed(data.replace(b"\n", ending)) for data in frames) + quoted.finish()
    *deltas, stop = events_of(told)
    assert stop == {"type": "content_block_stop", "index": 3}
    return "".join(event["delta"]["text"] for event in deltas)


@pytest.mark.parametrize("parts", [2, 3])
def test_every_split_over_deltas(parts: int) -> None:
    """No delta has the key, nor do all together; two characters of it are shown, since they were sent."""
    for pieces in splits(SPELLED, parts):
        assert "".join(spoken(pieces, KEY, HEADER)) == UNSPELLED, pieces
    for pieces in splits(f"a {KEY}", parts):
        assert relayed(pieces, KEY) == "a sk***", pieces


@pytest.mark.parametrize("kind", FIELDS)
def test_a_character_in_each_delta(kind: Any) -> None:
    """Of text, thinking and the arguments of a tool."""
    assert "".join(spoken(SPELLED, KEY, HEADER, kind=kind)) == UNSPELLED


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_a_character_in_each_delta_of_a_relayed_stream(ending: bytes) -> None:
    """Whatever its lines end with."""
    assert relayed(SPELLED, KEY, HEADER, ending=ending) == UNSPELLED


@pytest.mark.parametrize(
    ("pieces", "secrets", "wanted"),
    [
        (["The desk", "-top is a task"], ["sk-top-of-all"], ["The desk", "-top is a task"]),  # the key goes on
        (["sk-top-of", "-all"], ["sk-top-of-all"], ["sk", "***"]),
        (["sk-top", "-of", "-a"], ["sk-top-of-all"], ["sk", "-top-of-a"]),  # the end: it is none
        (["sk-top", "-of", "ten"], ["sk-top-of-all"], ["sk", "-top-often"]),
        (["aaba", "abaab1"], ["aabaab1"], ["aa", "baa***"]),  # begins again in the middle of itself
        (["sec", "ret-2 se", "cret-", "1"], ["secret-1", "secret-2"], ["se", "*** se", "***"]),
        (["sho", "rt"], ["short"], ["sho", "rt"]),  # a placeholder of a local server
        (["sho", "rt"], [], ["sho", "rt"]),
        (['{"a": "sk-top-', 'of-all"}'], ["sk-top-of-all"], ['{"a": "sk', '***"}']),
    ],
)
def test_what_is_held_back(pieces: List[str], secrets: List[str], wanted: List[str]) -> None:
    """What may well become a key, until it is none: the other deltas are as they came."""
    assert spoken(pieces, *secrets) == wanted
    assert relayed(pieces, *secrets) == "".join(wanted)


def test_a_key_is_in_one_block() -> None:
    """What another block begins with does not go on with it; what was held goes out before the block ends."""
    quoted, begun, rest = QuotedEvents([KEY]), KEY[:9], KEY[9:]
    events: List[Event] = [TextDelta(0, begun), BlockStop(0), BlockStart(1, text_block()), TextDelta(1, rest)]
    sent = [TextDelta(0, begun[:2]), TextDelta(0, begun[2:]), *events[1:]]
    assert quoted.feed(events) == sent


def test_a_relayed_stream_that_is_cut() -> None:
    """What was held comes out all the same."""
    quoted = QuotedStream([KEY])
    told = quoted.feed(delta("say " + KEY[:9])) + quoted.finish()
    assert "".join(event["delta"]["text"] for event in events_of(told)) == "say " + KEY[:9]


def test_other_bytes_of_a_relayed_stream_stay() -> None:
    """Pings between deltas, deltas of another kind, escapes, and spaces that JSON allows."""
    odd = 'data: {"type" : "content_block_delta", "delta" : { "type":"text_delta", "text" : "\\u0041\\"sk"}}\n\n'
    signed = delta("sk-not-a-key", "signature")
    stream = [frame("ping"), odd.encode(), frame("ping"), signed, delta("-x"), frame("content_block_stop", index=3)]
    quoted = QuotedStream([KEY])
    assert b"".join(map(quoted.feed, stream)) + quoted.finish() == b"".join(stream)


def chunks(*deltas: Json) -> bytes:
    """A stream of chat completions."""
    ends: List[Json] = [{"delta": {}, "finish_reason": "stop"}]
    choices = [{"delta": delta} for delta in deltas] + ends
    events = [{"id": "c", "choices": [{"index": 0, **choice}]} for choice in choices]
    return b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in events) + b"data: [DONE]\n\n"


def call(arguments: str, **fields: Any) -> Json:
    """A delta with a piece of a tool's arguments."""
    return {
        "tool_calls": [{"index": 0, "function": {"arguments": arguments, **fields}, **({"id": "c1"} if fields else {})}]
    }


IN_CHUNKS = chunks(
    *({"reasoning_content": piece} for piece in SPELLED),
    *({"content": piece} for piece in SPELLED),
    call("", name="look"),
    *map(call, json.dumps({"at": SPELLED})),
)
IN_REFUSAL = chunks(*({"refusal": piece} for piece in SPELLED))
IN_EVENTS = b"".join(
    [
        *(delta(piece, "thinking") for piece in SPELLED),
        frame("content_block_stop", index=3),
        *map(delta, SPELLED),
        frame("content_block_stop", index=3),
        frame("message_stop"),
    ]
)


@pytest.mark.parametrize(
    ("body", "times", "stream"),
    [
        (IN_CHUNKS, 3, False),
        (IN_CHUNKS, 3, True),
        (IN_REFUSAL, 2, False),
        (IN_REFUSAL, 2, True),
        (IN_EVENTS, 2, True),  # a direct model that streams unasked gives no answer
    ],
    ids=["chunks-False", "chunks-True", "refusal-False", "refusal-True", "events-True"],
)
def test_no_answer_spells_a_key(body: bytes, times: int, stream: bool) -> None:
    """Wherever text comes in pieces, streamed or put together, and however it is cut into reads."""
    direct = body is IN_EVENTS
    entry = {"model_id": "m", "dialect": "generic", "direct": direct, "api_key_name": "OUR_KEY"}
    entry["extra_headers"] = {"x-gateway": HEADER}
    with ReplayProvider() as provider:
        provider.answers["p"] = Answer(200, {"content-type": "text/event-stream"}, cut(body, [70] * (len(body) // 70)))
        model = {**entry, "api_base": provider.base("p")}
        with running_proxy({"ROUTER_DEFAULT": "m", "OUR_KEY": KEY}, [model]) as proxy:
            answer = ask(proxy.url, "/v1/messages", user(stream=stream))
    assert answer.status == 200, answer.body
    said = answer.body.decode()
    if stream:
        fields = [value for event in events_of(answer.body) for value in event.get("delta", {}).items()]
        said = "".join(str(value) for name, value in fields if name != "type")
    assert said.count(UNSPELLED) == times, said
