"""A key that an answer quotes is taken out of it, however it comes."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Tuple

import pytest

from ccproxy.config.credentials import secret_headers
from ccproxy.provider.quoted import Quoted
from replay import Answer, ReplayProvider, bytewise, cut
from support import ask, running_proxy, user

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
