"""What a probe says of providers: there or not, key accepted or not, in bounded time, all at once."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Dict, Iterator, List, Mapping, Tuple

import pytest

from ccproxy.errors import ClientGone
from ccproxy.provider.cancel import Cancel
from ccproxy.provider.client import ProviderClient
from ccproxy.provider.probe import Finding, probe_all
from fixed_provider import WHOLE
from processes import eventually
from raw_http import RawConnection, request
from support import Json, ask, make_config, running_proxy

KEY, OTHER = "sk-good-0123456789abcdef", "sk-evil-0123456789abcdef"
LIST = b'{"object": "list", "data": [{"id": "m"}]}'
MESSAGE = b'{"type": "message", "content": []}'
RESPONSE = b'{"object": "response", "status": "incomplete", "output": []}'
REFUSED = (401, json.dumps({"error": {"message": f"Incorrect API key provided: {OTHER}"}}).encode())
NO_PATH = (404, b'{"error": {"message": "no such path"}}')

Reply = Tuple[int, bytes]
Rules = Callable[[str, str, str], Reply]
"""From method, path and key to status and body."""


class RuledProvider:
    """A provider that answers by rules; ``asked`` holds method, path, headers and body of what came."""

    def __init__(self, rules: Rules) -> None:
        self.asked: List[Tuple[str, str, Dict[str, str], Json]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                """Answer by the rules."""
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(int(headers.get("content-length", 0)))
                outer.asked.append((self.command, self.path, headers, json.loads(body or b"{}")))
                key = headers.get("x-api-key") or headers.get("authorization", "").replace("Bearer ", "")
                status, answer = rules(self.command, self.path, key)
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_POST = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                """Silence."""

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A probe that left is no news."""

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.origin = "http://127.0.0.1:%d" % self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self) -> RuledProvider:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def client() -> Iterator[ProviderClient]:
    """A client; nobody asks it for the demo."""
    client = ProviderClient(lambda: "")
    yield client
    client.close()


def found(env: Mapping[str, str], *models: Json, limit: float = 20.0) -> List[Finding]:
    """What is found with a configuration."""
    with client() as asking:
        return probe_all(asking, make_config(env, models), Cancel(), limit)


def one(rules: Rules, key: str = KEY, **model: Any) -> Tuple[Finding, RuledProvider]:
    """What is found of one model ``m`` with its key in A_KEY, and the provider that was asked."""
    with RuledProvider(rules) as provider:
        entry = {"model_id": "m", "api_base": provider.origin + "/v1", "api_key_name": "A_KEY", **model}
        (finding,) = found({"A_KEY": key, "ROUTER_DEFAULT": "m"}, entry)
    return finding, provider


def with_list(method: str, path: str, key: str) -> Reply:
    """A provider with a model list for its own keys."""
    if key != KEY:
        return REFUSED
    return (200, LIST) if (method, path) == ("GET", "/v1/models") else NO_PATH


def with_public_list(method: str, path: str, key: str) -> Reply:
    """A provider whose model list is for everybody."""
    if (method, path) == ("GET", "/v1/models"):
        return 200, LIST
    return (200, WHOLE) if key == KEY else REFUSED


def without_list(method: str, path: str, key: str) -> Reply:
    """A provider that knows completions only."""
    if (method, path) != ("POST", "/v1/chat/completions"):
        return NO_PATH
    return (200, WHOLE) if key == KEY else REFUSED


def in_anthropic_format(method: str, path: str, key: str) -> Reply:
    """A provider of the Messages API without a model list."""
    if key != KEY:
        return REFUSED
    return (200, MESSAGE) if (method, path) == ("POST", "/v1/messages") else NO_PATH


@pytest.mark.parametrize("rules", [with_list, with_public_list, without_list])
def test_a_key_that_is_accepted(rules: Rules) -> None:
    """The list says so, unless it is given to everybody; then, or without one, a single token is asked for."""
    finding, provider = one(rules)
    assert (finding.reachable, finding.key_accepted, finding.error) == (True, True, None)
    assert (finding.key, finding.models) == ("A_KEY", ("m",))
    assert finding.latency is not None
    tokens = [(body["model"], body["max_tokens"]) for method, _, _, body in provider.asked if method == "POST"]
    assert tokens == ([] if rules is with_list else [("m", 1)])


@pytest.mark.parametrize("rules", [with_list, with_public_list, without_list])
def test_a_key_that_is_refused(rules: Rules) -> None:
    """It is said with the provider's words, in which no key is left."""
    finding, _ = one(rules, OTHER)
    assert (finding.reachable, finding.key_accepted) == (True, False)
    assert finding.error is not None
    assert "refused the key" in finding.error
    assert OTHER not in repr(finding)


def test_a_provider_of_the_responses_api() -> None:
    """Is asked in its own words, for the least that it gives."""

    def rules(method: str, path: str, key: str) -> Reply:
        return (200, RESPONSE) if (method, path) == ("POST", "/v1/responses") else NO_PATH

    finding, provider = one(rules, api="responses")
    assert (finding.reachable, finding.key_accepted, finding.error) == (True, True, None)
    assert provider.asked[-1][3] == {"model": "m", "input": "Hi", "store": False, "max_output_tokens": 16}
    assert "not as responses do" in str(one(lambda *_: (200, b"{}"), api="responses")[0].error)


@pytest.mark.parametrize("base", ["", "/v1"])
def test_an_anthropic_format_provider(base: str) -> None:
    """Asked in its own words, wherever its address ends."""
    with RuledProvider(in_anthropic_format) as provider:
        entry = {"model_id": "m", "api_base": provider.origin + base, "api_key_name": "A_KEY", "direct": True}
        (finding,) = found({"A_KEY": KEY}, entry)
    assert (finding.reachable, finding.key_accepted, finding.error) == (True, True, None)
    assert [(method, path) for method, path, _, _ in provider.asked] == [
        ("GET", "/v1/models"),
        ("POST", "/v1/messages"),
    ]
    assert all(headers["x-api-key"] == KEY and headers["anthropic-version"] for _, _, headers, _ in provider.asked)


@pytest.mark.parametrize(
    ("reply", "accepted", "words"),
    [
        ((429, b'{"error": {"message": "slow down"}}'), True, "slow down"),
        ((402, b'{"error": {"message": "Insufficient Balance"}}'), True, "Insufficient Balance"),
        ((500, b"oops"), None, "oops"),
        ((200, b"<title>Welcome</title>"), None, "Welcome"),
        ((200, b'{"error": {"message": "bad day"}}'), None, "bad day"),
        ((302, b""), None, ""),
    ],
)
def test_other_answers(reply: Reply, accepted: bool, words: str) -> None:
    """The provider is there and something is wrong; what that says about the key depends."""
    finding, _ = one(lambda method, path, key: reply)
    assert (finding.reachable, finding.key_accepted) == (True, accepted)
    assert words in (finding.error or "")
    assert finding.error


def test_a_missing_key() -> None:
    """The provider is asked all the same: the address may be wrong as well."""
    finding, _ = one(with_list, "")
    assert (finding.reachable, finding.key_accepted, finding.error) == (True, None, "A_KEY is not set")


def test_the_clients_own_key() -> None:
    """There is nothing to test and nothing wrong."""
    rules: Rules = in_anthropic_format
    finding, _ = one(rules, "", direct=True, forward_client_key=True)
    assert (finding.reachable, finding.key_accepted, finding.error) == (True, None, None)


def test_a_local_server_needs_no_key() -> None:
    """Its list is enough; it is named by the variable that holds its address, too."""
    with RuledProvider(lambda method, path, key: (200, LIST)) as provider:
        findings = found({"OLLAMA_API_BASE": provider.origin + "/v1", "ROUTER_DEFAULT": "ollama/a,ollama/b"})
        nameless = found({"OLLAMA_API_BASE": provider.origin + "/v1", "ROUTER_DEFAULT": "demo/echo"})[1:]
    assert [(finding.models, finding.key, finding.error) for finding in findings + nameless] == [
        (("ollama/a", "ollama/b"), "", None),
        ((), "", None),
    ]
    assert {method for method, _, _, _ in provider.asked} == {"GET"}


def test_each_key_is_asked() -> None:
    """One that is refused is named, not shown."""
    with RuledProvider(with_list) as provider:
        entry = {"model_id": "m", "api_base": provider.origin + "/v1", "api_key_name": "A_KEY"}
        findings = found({"A_KEY": f"{OTHER},{KEY}"}, entry, {**entry, "model_id": "n"})
    told = [(finding.key, finding.models, finding.key_accepted) for finding in findings]
    assert told == [("A_KEY, 1 of 2", ("m", "n"), False), ("A_KEY, 2 of 2", ("m", "n"), True)]


def test_nobody_listens() -> None:
    """No answer, no latency, and the fault in words; a password in the address is not told."""
    with RuledProvider(with_list) as provider:
        address = provider.origin.replace("//", "//somebody:passphrase@")
    (finding,) = found({"OLLAMA_API_BASE": address, "ROUTER_DEFAULT": "ollama/m"})
    assert (finding.reachable, finding.key_accepted, finding.latency) == (False, None, None)
    assert "refused" in (finding.error or "")
    assert "passphrase" not in repr(finding)


def test_all_are_asked_at_once() -> None:
    """Three that answer only when all three were asked."""
    meeting = threading.Barrier(3, timeout=20)

    def rules(method: str, path: str, key: str) -> Reply:
        meeting.wait()
        return 200, LIST

    with ExitStack() as stack:
        providers = [stack.enter_context(RuledProvider(rules)) for _ in range(3)]
        findings = found({}, *({"model_id": item.origin, "api_base": item.origin} for item in providers))
    assert [finding.error for finding in findings] == [None, None, None]


def test_a_silent_provider_is_waited_for_no_longer_than_allowed() -> None:
    """It alone counts as failed."""
    release = threading.Event()

    def silent(method: str, path: str, key: str) -> Reply:
        release.wait(20)
        return 200, LIST

    with RuledProvider(silent) as first, RuledProvider(with_list) as second:
        entries = [
            {"model_id": item.origin, "api_base": item.origin + "/v1", "api_key_name": "A_KEY"}
            for item in (first, second)
        ]
        findings = found({"A_KEY": KEY}, *entries, limit=1.0)
        release.set()
    assert [(finding.reachable, finding.key_accepted) for finding in findings] == [(False, None), (True, True)]
    assert findings[0].error == "no answer within 1 s"


def test_a_cancel_ends_all() -> None:
    """The providers' connections with it."""
    cancel, asked, left = Cancel(), threading.Event(), threading.Event()

    def silent(method: str, path: str, key: str) -> Reply:
        asked.set()
        left.wait(20)
        return 200, LIST

    def leave() -> None:
        asked.wait(20)
        cancel.cancel(ClientGone("the client left"))

    with RuledProvider(silent) as provider, client() as asking:
        threading.Thread(target=leave, daemon=True).start()
        with pytest.raises(ClientGone):
            probe_all(asking, make_config({}, [{"model_id": "m", "api_base": provider.origin}]), cancel)
        left.set()


def test_a_client_that_leaves_ends_the_asking() -> None:
    """The request is watched like any other one that waits for providers."""
    asked, release = threading.Event(), threading.Event()

    def silent(method: str, path: str, key: str) -> Reply:
        asked.set()
        release.wait(20)
        return 200, LIST

    with RuledProvider(silent) as provider:
        entry = {"model_id": "m", "api_base": provider.origin}
        with running_proxy({"ROUTER_DEFAULT": "m"}, [entry]) as proxy:
            with RawConnection(proxy.url) as left:
                left.send(request("GET", "/test-connection"))
                assert asked.wait(20)
            eventually(lambda: not proxy.server._busy, "its thread is free again")
        release.set()


def test_through_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the way that requests take."""
    with RuledProvider(lambda method, path, key: (200, LIST)) as way:
        monkeypatch.setenv("http_proxy", way.origin)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        (finding,) = found({}, {"model_id": "m", "api_base": "http://provider.invalid/v1"})
    assert (finding.reachable, finding.error) == (True, None)
    assert [path for _, path, _, _ in way.asked] == ["http://provider.invalid/v1/models"]


def test_the_endpoint() -> None:
    """Every provider that is configured, the demo where it answers; no key in it; nobody keeps it."""
    with RuledProvider(with_list) as provider:
        entry = {"model_id": "m", "api_base": provider.origin + "/v1", "api_key_name": "A_KEY"}
        with running_proxy({"ROUTER_DEFAULT": "m,demo/echo", "A_KEY": f"{OTHER},{KEY}"}, [entry]) as proxy:
            answer = ask(proxy.url, "/test-connection")
    assert (answer.status, answer.headers["cache-control"], answer.json["ok"]) == (200, "no-store", False)
    assert [item["provider"] for item in answer.json["providers"]] == [provider.origin[7:]] * 2 + ["demo"]
    assert set(answer.json["providers"][0]) == {
        "provider", "api_base", "key", "models", "reachable", "key_accepted", "latency", "error",
    }  # fmt: skip
    assert KEY not in answer.body.decode()
    assert OTHER not in answer.body.decode()


def test_a_newcomers_endpoint() -> None:
    """Without any configuration the demo answers, and nothing is wrong."""
    with running_proxy() as proxy:
        answer = ask(proxy.url, "/test-connection").json
    assert answer["ok"] is True
    assert [(item["models"], item["reachable"]) for item in answer["providers"]] == [(["demo/echo"], True)]
