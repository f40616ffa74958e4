"""CCPROXY_AUTH_TOKEN: who may ask, how the token is presented, and where it never shows."""

from __future__ import annotations

import hmac
from typing import Dict, Iterator, List, Tuple

import pytest

from ccproxy.app import ROUTES
from ccproxy.stub import StubProvider
from raw_http import RawAnswer, RawConnection, request
from support import Proxy, make_config, running_proxy, user

TOKEN = "sesame-0815"
PATHS = [
    *((method, path.replace("{id}", "stub")) for path, methods in ROUTES.items() for method in methods),
    ("POST", "/messages"),
    ("POST", "/v1/v1/messages/"),
    ("POST", "/v1/messages/test_conversion?model=stub&dry_run=1"),
    ("GET", "/metrics/"),
    ("GET", "/dashboard/events?after=0"),
    ("HEAD", "/api/hello"),
    ("GET", "/nowhere"),
    ("GET", "/health/"),
    ("GET", "/%68ealth"),
    ("GET", "//health"),
    ("DELETE", "/v1/messages"),
    ("OPTIONS", "*"),
]
RIGHT = [
    {"x-api-key": TOKEN},
    {"Authorization": f"Bearer {TOKEN}"},
    {"authorization": f"bEARER  {TOKEN} "},
    {"X-API-KEY": TOKEN, "Authorization": "Bearer another"},
]
WRONG: List[Dict[str, str]] = [
    {},
    {"x-api-key": ""},
    {"x-api-key": TOKEN[:-1]},
    {"x-api-key": TOKEN + "x"},
    {"x-api-key": "sésame"},
    {"Authorization": TOKEN},
    {"Authorization": f"Basic {TOKEN}"},
    {"Authorization": "Bearer "},
    {"Cookie": f"x-api-key={TOKEN}"},
]


@pytest.fixture(scope="module")
def guarded() -> Iterator[Proxy]:
    """A proxy with a token."""
    with StubProvider() as stub:
        models = [{"model_id": "stub", "api_base": stub.url}]
        with running_proxy({"ROUTER_DEFAULT": "stub", "CCPROXY_AUTH_TOKEN": TOKEN}, models) as proxy:
            yield proxy


def ask_with(url: str, method: str, path: str, headers: Dict[str, str]) -> RawAnswer:
    """Send a request with these headers."""
    with RawConnection(url) as client:
        client.send(request(method, path, user() if method == "POST" else None, headers))
        return client.answer(method)


@pytest.mark.parametrize("headers", WRONG)
@pytest.mark.parametrize(("method", "path"), PATHS)
def test_without_the_token(guarded: Proxy, method: str, path: str, headers: Dict[str, str]) -> None:
    """Every path and method but /health asks for the token, before it says anything else."""
    answer = ask_with(guarded.url, method, path, headers)
    if "ealth" in path and answer.status == 200:
        assert answer.json == {"status": "ok"}
        return
    assert answer.status == 401
    assert answer.headers["x-should-retry"] == "false"
    if method != "HEAD":
        assert answer.json["error"]["type"] == "authentication_error"
        assert TOKEN not in answer.body.decode()


@pytest.mark.parametrize("headers", RIGHT)
def test_with_the_token(guarded: Proxy, headers: Dict[str, str]) -> None:
    """x-api-key or Bearer, the scheme in any case."""
    assert ask_with(guarded.url, "POST", "/v1/messages", headers).status == 200


@pytest.mark.parametrize("headers", [*RIGHT, *WRONG])
def test_the_token_is_compared_in_constant_time(
    guarded: Proxy, headers: Dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``hmac.compare_digest``, on bytes, alone says what is right: how long it takes tells nothing of the token."""
    seen: List[Tuple[object, object]] = []

    def never(one: object, other: object) -> bool:
        seen.append((one, other))
        return False

    monkeypatch.setattr(hmac, "compare_digest", never)
    assert ask_with(guarded.url, "POST", "/v1/messages", headers).status == 401
    assert len(seen) == 2  # both headers, whatever the first one is
    assert {type(value) for pair in seen for value in pair} == {bytes}
    assert {other for _, other in seen} == {TOKEN.encode()}


def test_health_needs_no_token_and_tells_nothing(guarded: Proxy) -> None:
    """A monitor may ask; it learns a status, and nothing about the configuration."""
    answer = ask_with(guarded.url, "GET", "/health", {})
    assert (answer.status, answer.json) == (200, {"status": "ok"})


def test_the_token_does_not_go_in_the_query(guarded: Proxy) -> None:
    """Addresses end up in logs."""
    assert ask_with(guarded.url, "GET", f"/v1/models?x-api-key={TOKEN}&token={TOKEN}", {}).status == 401


def test_the_token_is_never_shown() -> None:
    """Not even in the configuration's own representation."""
    assert TOKEN not in repr(make_config({"CCPROXY_AUTH_TOKEN": TOKEN}))
