"""What each path answers, in which shape, under which names and methods."""

from __future__ import annotations

import json
import logging
from contextlib import ExitStack
from typing import Any, Dict, Iterator, List, Tuple
from urllib.parse import quote

import pytest

from ccproxy.stub import StubProvider
from grammar import check_error, fold, parse_sse
from support import Answer, Json, Proxy, ask, events_of, running_proxy, user

KEY, HEADER_KEY = "sk-secret-0123456789abcdef", "header-secret-4711"


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    """A proxy with three models: one plain, one with keys and headers of its own, one with a slash in its id."""
    with StubProvider() as stub:
        models = [
            {"model_id": "first", "api_base": stub.url, "max_tokens": 1000, "max_input_tokens": 32000},
            {
                "model_id": "second",
                "model_name": "second-name",
                "api_base": stub.url,
                "api_key_name": "SECOND_KEY",
                "extra_headers": {"X-Team": HEADER_KEY},
                "extra_body": {"user_tier": "gold"},
            },
            {"model_id": "org/third", "api_base": stub.url},
            {"model_id": "claude-own", "api_base": stub.url},
        ]
        with running_proxy({"ROUTER_DEFAULT": "first", "SECOND_KEY": KEY}, models) as proxy:
            yield proxy


def check_refused(answer: Answer, status: int) -> Json:
    """An error in Anthropic's shape; returns its error object."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    check_error(answer.json)
    assert answer.json["request_id"] == answer.headers["request-id"]
    return dict(answer.json["error"])


# --- paths ------------------------------------------------------------------------------------------------------

SAME = ["/v1/messages", "/v1/messages?beta=true", "/v1/v1/messages", "/messages", "/v1/messages/", "//v1/messages"]


@pytest.mark.parametrize("path", SAME)
def test_messages_under_every_base(proxy: Proxy, path: str) -> None:
    """People write the base address with and without /v1 and a slash; clients add queries."""
    assert ask(proxy.url, path, user("demo: text hi")).json["content"] == [{"type": "text", "text": "hi"}]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/", "/models", "/v1/v1/models", "/v1/models?limit=1000"])
def test_models_under_every_base(proxy: Proxy, path: str) -> None:
    """Never a redirect: Claude Code takes one for a failure."""
    assert ask(proxy.url, path).json["first_id"] == "first"


@pytest.mark.parametrize("path", ["/messages/count_tokens", "/v1/messages/count_tokens?beta=true"])
def test_count_tokens_under_every_base(proxy: Proxy, path: str) -> None:
    """It belongs to messages."""
    assert list(ask(proxy.url, path, user()).json) == ["input_tokens"]


NOWHERE = [
    "/v2/messages",
    "/v1/message",
    "/v1/messages/batches",
    "/v1/messagesx",
    "/messagesx",
    "/v1/files",
    "/v1/complete",
    "/api/event_logging/batch",
    "/v1",
    "/%00",
    "/v1/../health",
    "/" + "x" * 5000,
]


@pytest.mark.parametrize("path", NOWHERE)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_unknown_paths(proxy: Proxy, path: str, method: str) -> None:
    """404, for any method."""
    answer = ask(proxy.url, path, {} if method == "POST" else None)
    assert check_refused(answer, 404)["type"] == "not_found_error"


WRONG: List[Tuple[str, str, str]] = [
    ("GET", "/v1/messages", "POST"),
    ("HEAD", "/v1/messages", "POST"),
    ("DELETE", "/v1/messages", "POST"),
    ("OPTIONS", "/v1/messages", "POST"),
    ("GET", "/v1/messages/count_tokens", "POST"),
    ("POST", "/v1/models", "GET, HEAD"),
    ("DELETE", "/v1/models/first", "GET, HEAD"),
    ("PUT", "/health", "GET, HEAD"),
    ("PATCH", "/", "GET, HEAD"),
]


@pytest.mark.parametrize(("method", "path", "allowed"), WRONG)
def test_wrong_methods(proxy: Proxy, method: str, path: str, allowed: str) -> None:
    """405, naming the methods that would do."""
    answer = ask(proxy.url, path, method=method)
    assert (answer.status, answer.headers["allow"]) == (405, allowed)
    if method != "HEAD":
        assert check_refused(answer, 405)["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", ["/", "/api/hello"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_hello(proxy: Proxy, path: str, method: str) -> None:
    """What clients send to warm their connection up is answered, shortly."""
    answer = ask(proxy.url, path, method=method)
    assert answer.status == 200
    assert len(answer.body) < 200
    assert (answer.body == b"") is (method == "HEAD")


def test_health(proxy: Proxy) -> None:
    """It serves, and says so."""
    assert ask(proxy.url, "/health").json["status"] == "ok"
    assert ask(proxy.url, "/health", method="HEAD").status == 200


def test_every_answer_has_a_request_id_of_its_own(proxy: Proxy) -> None:
    """Success, error and stream alike."""
    asked: List[Tuple[str, Any]] = [("/v1/messages", user()), ("/v1/messages", user(stream=True))]
    asked += [("/v1/messages", b"{"), ("/nowhere", None), ("/health", None), ("/v1/models", None)]
    ids = [ask(proxy.url, path, body).headers["request-id"] for path, body in asked]
    assert len(set(ids)) == len(ids)
    assert all(each.startswith("req_") and len(each) == 28 for each in ids)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"null", b"\xff\xfe", b'{"model": NaN}', b"{}" * 2])
@pytest.mark.parametrize("path", ["messages", "messages/count_tokens", "messages/test_conversion"])
def test_bodies_that_are_no_object(proxy: Proxy, path: str, body: bytes) -> None:
    """400, on every path that takes a body."""
    assert check_refused(ask(proxy.url, f"/v1/{path}", body), 400)["type"] == "invalid_request_error"


def test_a_byte_order_mark_is_no_fault(proxy: Proxy) -> None:
    """Some clients write one."""
    body = b"\xef\xbb\xbf" + json.dumps(user("demo: text hi")).encode()
    assert ask(proxy.url, "/v1/messages", body).status == 200


def test_nesting_without_end(proxy: Proxy) -> None:
    """Is refused as the client's fault."""
    deep: Json = {"type": "tool_result", "tool_use_id": "a", "content": "x"}
    for _ in range(400):
        deep = {"type": "tool_result", "tool_use_id": "a", "content": [deep]}
    check_refused(ask(proxy.url, "/v1/messages", user([deep])), 400)


# --- models -----------------------------------------------------------------------------------------------------

IDS = ["first", "second", "org/third", "claude-own", "claude-first", "claude-second", "claude-org/third"]


def page(proxy: Proxy, query: str) -> Tuple[List[str], bool]:
    """One page of models: their ids, and whether there are more."""
    answer = ask(proxy.url, "/v1/models?" + query).json
    ids = [entry["id"] for entry in answer["data"]]
    assert (answer["first_id"], answer["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
    return ids, answer["has_more"]


def test_models_are_listed_for_both_kinds_of_clients(proxy: Proxy) -> None:
    """Anthropic's fields and OpenAI's at once; limits as configured."""
    answer = ask(proxy.url, "/v1/models").json
    assert answer["object"] == "list"
    assert [entry["id"] for entry in answer["data"]] == IDS
    first = answer["data"][0]
    assert (first["type"], first["object"], first["display_name"]) == ("model", "model", "first")
    assert (first["max_tokens"], first["max_input_tokens"]) == (1000, 32000)


@pytest.mark.parametrize(
    ("query", "ids", "has_more"),
    [
        ("limit=2", IDS[:2], True),
        ("limit=7", IDS, False),
        ("limit=2&after_id=second", IDS[2:4], True),
        ("limit=3&after_id=claude-own", IDS[4:], False),
        ("after_id=claude-org%2Fthird", [], False),
        ("limit=2&before_id=org%2Fthird", IDS[:2], False),
        ("limit=1&before_id=org/third", IDS[1:2], True),
        ("before_id=first", [], False),
    ],
)
def test_pages(proxy: Proxy, query: str, ids: List[str], has_more: bool) -> None:
    """Forwards and backwards, from any model."""
    assert page(proxy, query) == (ids, has_more)


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "limit=-1", "after_id=nobody", "before_id=x"])
def test_bad_pages(proxy: Proxy, query: str) -> None:
    """400, naming the parameter."""
    assert query.partition("=")[0] in check_refused(ask(proxy.url, "/v1/models?" + query), 400)["message"]


@pytest.mark.parametrize("model_id", [*IDS, "openai/gpt-4o"])
@pytest.mark.parametrize("safe", ["", "/"])
def test_one_model(proxy: Proxy, model_id: str, safe: str) -> None:
    """By its id, its alias or any reference, with the slash escaped or not."""
    answer = ask(proxy.url, "/v1/models/" + quote(model_id, safe=safe))
    assert (answer.status, answer.json["id"]) == (200, model_id)


def test_no_such_model(proxy: Proxy) -> None:
    """404, naming it."""
    assert check_refused(ask(proxy.url, "/v1/models/nobody"), 404)["message"] == "model: nobody"


def test_no_id_is_listed_twice() -> None:
    """An alias that is somebody's id already is left out: paging by ids would never end."""
    models = [{"model_id": name, "api_base": "http://127.0.0.1:9"} for name in ("x", "claude-x", "y")]
    with running_proxy({}, models) as proxy:
        ids, _ = page(proxy, "")
    assert sorted(ids) == sorted(set(ids))


@pytest.mark.parametrize("name", ["first", "claude-first", "claude-first[1m]", "custom/first"])
def test_a_model_under_all_its_names(proxy: Proxy, name: str) -> None:
    """Listed names can be asked for, and the answer echoes the name that was asked."""
    answer = ask(proxy.url, "/v1/messages", user("demo: text hi", model=name))
    assert (answer.json["model"], answer.headers["x-ccproxy-model"]) == (name, "first")


# --- headers that tell the route ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "route", "answered"),
    [("claude-opus-4", "default: ", "first"), ("org/third", "override: ", "org/third")],
)
def test_the_route_is_told(proxy: Proxy, stream: bool, model: str, route: str, answered: str) -> None:
    """Which rule chose which model, on whole answers and streams."""
    headers = ask(proxy.url, "/v1/messages", user("demo: text hi", model=model, stream=stream)).headers
    assert headers["x-ccproxy-route"].startswith(route)
    assert headers["x-ccproxy-model"] == answered


@pytest.mark.parametrize("stream", [False, True])
def test_the_route_is_told_on_failures(proxy: Proxy, stream: bool) -> None:
    """Who failed is what one wants to know then."""
    answer = ask(proxy.url, "/v1/messages", user("demo: error 400 bad luck", stream=stream))
    assert "bad luck" in check_refused(answer, 400)["message"]
    assert answer.headers["x-ccproxy-model"] == "first"


# --- count_tokens -------------------------------------------------------------------------------------------------

COUNTED: Dict[str, Json] = {
    "text": user("How many tokens are these?"),
    "long": user("word " * 5000),
    "system": user(system=[{"type": "text", "text": "Be brief."}]),
    "tools": user(tools=[{"name": "t", "description": "A tool", "input_schema": {"type": "object"}}]),
    "special": user("<|endoftext|> \ud800 \x00 東京"),
    "run": user("x" * 50_000),
}


@pytest.mark.parametrize("name", COUNTED)
def test_one_count_everywhere(proxy: Proxy, name: str) -> None:
    """count_tokens equals the count with which the stream of the same request starts."""
    body = COUNTED[name]
    counted = ask(proxy.url, "/v1/messages/count_tokens", {**body, "max_tokens": None}).json
    start = events_of(ask(proxy.url, "/v1/messages", {**body, "stream": True}).body)[0]
    assert counted == {"input_tokens": start["message"]["usage"]["input_tokens"]}
    assert counted["input_tokens"] > 0


def test_counting_checks_the_request(proxy: Proxy) -> None:
    """By the rules of messages, but max_tokens is not needed."""
    assert "messages" in check_refused(ask(proxy.url, "/v1/messages/count_tokens", {"model": "x"}), 400)["message"]


# --- test_conversion ----------------------------------------------------------------------------------------------


def test_conversion_shows_what_would_be_sent(proxy: Proxy) -> None:
    """With dry_run nothing is sent; address, headers and body are shown, no secret is."""
    body = user("hi", model="claude-opus-4", system="Be brief.", stop_sequences=["END"])
    answer = ask(proxy.url, "/v1/messages/test_conversion?model=second&dry_run=1", body)
    shown = answer.json
    assert answer.status == 200
    assert shown["url"].endswith("/v1/chat/completions")
    assert shown["body"]["model"] == "second-name"
    assert shown["body"]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (shown["body"]["stop"], shown["body"]["user_tier"]) == (["END"], "gold")
    assert {name.lower() for name in shown["headers"]} >= {"authorization", "x-team", "content-type"}
    assert KEY not in answer.body.decode()
    assert HEADER_KEY not in answer.body.decode()


def test_what_a_model_is_not_sent_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """For each model; of each request only on DEBUG."""
    blocks = [{"type": "text", "text": "Hi"}, {"type": "of_tomorrow", "data": "x"}]
    body = user(messages=[{"role": "user", "content": blocks}])
    names = ("blind-1", "blind-2")
    with StubProvider() as stub, caplog.at_level(logging.DEBUG, "ccproxy"), ExitStack() as running:
        models = [{"model_id": name, "api_base": stub.url} for name in names]
        proxy = running.enter_context(running_proxy({}, models))
        for name in (names[0], *names):
            assert ask(proxy.url, "/v1/messages", {**body, "model": name}).status == 200
    told = [record for record in caplog.records if "of_tomorrow" in record.getMessage()]
    shown = [record.getMessage() for record in told if record.levelno >= logging.INFO]
    assert shown == [f"{name} is not sent: content block 'of_tomorrow' (told once)" for name in names]
    assert len(told) == len(shown) + 3


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("query", "model"), [("?model=org/third", "claude-x"), ("", "org/third")])
def test_conversion_asks_the_named_model(proxy: Proxy, query: str, model: str, stream: bool) -> None:
    """Past the router; without ?model= the body's own model is meant."""
    body = user("demo: text hi", model=model, stream=stream)
    answer = ask(proxy.url, "/v1/messages/test_conversion" + query, body)
    assert (answer.status, answer.headers["x-ccproxy-model"]) == (200, "org/third")
    message = fold(parse_sse(answer.body)) if stream else answer.json
    assert (message["content"][0]["text"], message["model"]) == ("hi", model)


@pytest.mark.parametrize("query", ["?model=nobody", "", "?model=nobody&dry_run=1"])
def test_conversion_of_no_model(proxy: Proxy, query: str) -> None:
    """404, naming it: here no router helps out."""
    answer = ask(proxy.url, "/v1/messages/test_conversion" + query, user(model="nobody"))
    assert "nobody" in check_refused(answer, 404)["message"]


# --- the request header that names a model -------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_a_script_names_the_model(proxy: Proxy, path: str) -> None:
    """Past the rules, whatever the body asks for; the answer says so."""
    answer = ask(proxy.url, path, {**user(), "model": "first"}, headers={"X-CCProxy-Model": "second"})
    assert answer.status == 200
    if path.endswith("messages"):
        assert answer.headers["x-ccproxy-model"] == "second"
        assert answer.headers["x-ccproxy-route"] == "header: x-ccproxy-model asks for second"


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_a_script_that_names_no_known_model_is_told(proxy: Proxy, path: str) -> None:
    """404, as for a model that does not exist; no other model answers in its place."""
    error = check_refused(ask(proxy.url, path, user(), headers={"x-ccproxy-model": "nowhere"}), 404)
    assert error["message"] == "x-ccproxy-model: no such model: nowhere"
