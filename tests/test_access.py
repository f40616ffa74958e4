"""Who may ask without a token: programs of this machine, not the pages in its browser."""

from __future__ import annotations

from typing import Dict, Iterator

import pytest

from ccproxy.access import is_local_name
from grammar import check_error
from support import Proxy, ask, proxy_with, running_proxy, user


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    """A proxy without a token."""
    with proxy_with() as (proxy, _):
        yield proxy


@pytest.mark.parametrize(
    ("name", "is_local"),
    [
        ("", True),
        ("localhost", True),
        ("app.localhost", True),
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("my-laptop", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.nip.io", False),
        ("192.168.1.5", False),
        ("0.0.0.0", False),
    ],
)
def test_local_names(name: str, is_local: bool) -> None:
    """Loopback addresses, localhost and the name the owner listens on; nothing that somebody's DNS decides."""
    assert is_local_name(name, "My-Laptop") is is_local


REFUSED = [
    {"Host": "evil.example"},
    {"Host": "evil.example:8082"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://["},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
]


@pytest.mark.parametrize("headers", REFUSED)
@pytest.mark.parametrize("path", ["/v1/messages", "/nowhere", "/health"])
def test_pages_and_foreign_names_are_refused(proxy: Proxy, path: str, headers: Dict[str, str]) -> None:
    """Before anything is parsed, routed or sent, whatever the content type; no cross-origin header invites more."""
    answer = ask(proxy.url, path, user(), headers={"content-type": "text/plain", **headers})
    assert answer.status == 403
    check_error(answer.json)
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("kind", ["text/plain", "Text/Plain; charset=utf-8", "application/x-www-form-urlencoded"])
def test_what_any_page_may_send_is_refused(kind: str) -> None:
    """Old browsers tell no origin; but without asking first a page can send only what forms send."""
    with proxy_with() as (proxy, stub):
        answer = ask(proxy.url, "/v1/messages", user(), headers={"content-type": kind})
        assert answer.status == 415
        check_error(answer.json)
        assert "application/json" in answer.json["error"]["message"]
        assert ask(proxy.url, "/v1/messages", user(), headers={"content-type": "application/json"}).status == 200
        assert len(stub.requests) == 1


@pytest.mark.parametrize("name", ["localhost", "[::1]:8082", "127.0.0.1:1"])
def test_local_names_are_served(proxy: Proxy, name: str) -> None:
    """A port does not matter: forwarded ones differ."""
    assert ask(proxy.url, "/v1/models", headers={"Host": name}).status == 200


def test_the_own_page_is_served(proxy: Proxy) -> None:
    """A page of the proxy itself sends its own origin."""
    host = proxy.url[len("http://") :]
    assert ask(proxy.url, "/v1/models", headers={"Origin": proxy.url, "Sec-Fetch-Site": "same-origin"}).status == 200
    assert ask(proxy.url, "/v1/models", headers={"Host": host, "Sec-Fetch-Mode": "cors"}).status == 200


@pytest.mark.parametrize("method", ["POST", "OPTIONS"])
@pytest.mark.parametrize("stream", [False, True])
def test_no_page_is_let_in_by_an_answer(proxy: Proxy, stream: bool, method: str) -> None:
    """No cross-origin header on any answer, and none to a browser that asks whether it may send."""
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    answer = ask(proxy.url, "/v1/messages", user(stream=stream), method=method, headers={**asks, "Origin": proxy.url})
    assert answer.status == (200 if method == "POST" else 405)
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_token_makes_names_free_but_not_pages() -> None:
    """A team's host has a name of its own; a page that learnt the token is still a page."""
    with running_proxy({"CCPROXY_AUTH_TOKEN": "secret-token"}) as proxy:
        headers = {"x-api-key": "secret-token", "Host": "proxy.team.example"}
        assert ask(proxy.url, "/v1/models", headers=headers).status == 200
        assert ask(proxy.url, "/v1/models", headers={**headers, "Origin": "http://evil.example"}).status == 403
