"""The page as it is served: to whom, under which headers, and that there is nothing in it but itself."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Dict, Iterator

import pytest

from support import Answer, Proxy, ask, running_proxy

TOKEN = "secret-token-4711"
BROWSER = {
    "Accept": "text/html,application/xhtml+xml,*/*;q=0.8",
    "Sec-Fetch-Site": "none",
    "Sec-Fetch-Mode": "navigate",
}
paths = pytest.mark.parametrize("path", ["/", "/dashboard"])


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    """A proxy without a token."""
    with running_proxy() as proxy:
        yield proxy


@pytest.fixture(scope="module")
def guarded() -> Iterator[Proxy]:
    """A proxy with a token."""
    with running_proxy({"CCPROXY_AUTH_TOKEN": TOKEN}) as proxy:
        yield proxy


def is_page(answer: Answer) -> bool:
    """Whether it is the page."""
    return answer.headers["content-type"] == "text/html; charset=utf-8" and b"<title>ccproxy</title>" in answer.body


@paths
def test_a_browser_is_given_the_page(proxy: Proxy, path: str) -> None:
    """At the address that the proxy says it listens on, and at its own."""
    answer = ask(proxy.url, path, headers=BROWSER)
    assert (answer.status, is_page(answer)) == (200, True)


@pytest.mark.parametrize(
    ("method", "accept"), [("HEAD", "text/html"), ("GET", "*/*"), ("GET", ""), ("GET", "application/json")]
)
def test_other_clients_find_the_root_as_it_was(proxy: Proxy, method: str, accept: str) -> None:
    """They warm their connection up with it."""
    answer = ask(proxy.url, "/", method=method, headers={"Accept": accept})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.body == (b"" if method == "HEAD" else b'{"name":"ccproxy"}')


def directives(answer: Answer) -> Dict[str, str]:
    """The Content-Security-Policy."""
    parts = [part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")]
    return {part[0]: part[1] for part in parts}


@paths
def test_nothing_but_its_own_script_can_run(proxy: Proxy, path: str) -> None:
    """The policy names script and style by their hashes; nobody may frame, keep or reinterpret the page."""
    answer = ask(proxy.url, path, headers=BROWSER)
    policy = directives(answer)
    for element in ("script", "style"):
        (text,) = re.findall(rb"<%s>(.*?)</%s>" % (element.encode(), element.encode()), answer.body, re.DOTALL)
        assert policy[f"{element}-src"] == f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"
    assert (policy["default-src"], policy["frame-ancestors"], policy["connect-src"]) == ("'none'", "'none'", "'self'")
    assert (policy["base-uri"], policy["form-action"]) == ("'none'", "'none'")
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert (answer.headers["x-content-type-options"], answer.headers["cache-control"]) == ("nosniff", "no-store")
    assert not [name for name in answer.headers if name.startswith("access-control-") or name == "set-cookie"]


def test_the_page_loads_nothing_and_builds_no_markup_from_text(proxy: Proxy) -> None:
    """No address but the namespace of SVG; no way from a string to HTML or code."""
    text = ask(proxy.url, "/dashboard").body.decode()
    assert set(re.findall(r"https?://[^\s\"'%]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser", text
    )
    assert not re.search(r"<[a-z][^>]*\s(on[a-z]+|style)\s*=", text)


@paths
def test_with_a_token_a_browser_is_refused_with_the_page(guarded: Proxy, path: str) -> None:
    """It can send no token with an address typed in: the page asks for it. It is the same one for everybody."""
    refused = ask(guarded.url, path, headers=BROWSER)
    assert (refused.status, is_page(refused)) == (401, True)
    assert "script-src" in directives(refused)
    let_in = ask(guarded.url, "/dashboard", headers={"x-api-key": TOKEN})
    assert (let_in.status, let_in.body == refused.body) == (200, True)


@pytest.mark.parametrize(
    "path", ["/dashboard", "/dashboard?token=" + TOKEN, "/", "/dashboard/events", "/test-connection"]
)
def test_with_a_token_other_clients_are_refused_as_everywhere(guarded: Proxy, path: str) -> None:
    """Neither a query nor a cookie lets anybody in."""
    answer = ask(guarded.url, path, headers={"Cookie": f"token={TOKEN}; x-api-key={TOKEN}", "Accept": "*/*"})
    assert (answer.status, answer.json["error"]["type"]) == (401, "authentication_error")


@pytest.mark.parametrize("path", ["/v1/stats", "/dashboard/events", "/test-connection", "/nowhere", "/metrics"])
def test_with_a_token_a_browser_gets_the_page_of_no_other_path(guarded: Proxy, path: str) -> None:
    """What holds data is refused."""
    answer = ask(guarded.url, path, headers=BROWSER)
    assert (answer.status, answer.headers["content-type"]) == (401, "application/json")


@paths
@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_foreign_pages_and_names_are_refused(proxy: Proxy, path: str, headers: Dict[str, str]) -> None:
    """Also for the page."""
    assert ask(proxy.url, path, headers={**BROWSER, **headers}).status == 403


def test_a_link_from_a_neighbour_is_followed(proxy: Proxy) -> None:
    """From another port of this machine, or another name of the team's domain; its scripts are refused."""
    assert ask(proxy.url, "/dashboard", headers={**BROWSER, "Sec-Fetch-Site": "same-site"}).status == 200
    script = {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}
    assert ask(proxy.url, "/test-connection", headers=script).status == 403
