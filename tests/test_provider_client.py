"""The provider's side of the wire: what leaves, which connections and keys are used, and what no answer becomes."""

from __future__ import annotations

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ContextManager, Iterator, Optional

import pytest

from ccproxy.config.load import load_config
from ccproxy.config.schema import Model
from ccproxy.provider.cancel import Cancel
from ccproxy.provider.client import Call, ProviderClient
from fixed_provider import EVENTS, JSON, SSE, STREAM, WHOLE, FixedProvider, answer_of, check_failed, proxy_for, text_of
from grammar import error_of, parse_sse
from raw_http import RawConnection, request
from replay import Answer as Replayed
from replay import ReplayProvider, post
from support import Proxy, ask, running_proxy, user

KEY = "sk-test-0123456789abcdef"
both = pytest.mark.parametrize("stream", [False, True])


def with_key(url: str, value: Optional[str] = KEY) -> ContextManager[Proxy]:
    """A proxy whose model has its key, or keys, in A_KEY; None: the variable is not set."""
    return proxy_for(url, {} if value is None else {"A_KEY": value}, api_key_name="A_KEY")


# --- what does not leave, and what is not kept --------------------------------------------------------------------


@both
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int, stream: bool) -> None:
    """A redirect is an error; neither the prompt nor the key goes on to another address."""
    with FixedProvider(200, {"content-type": JSON}, WHOLE) as other:
        moved = {"location": other.url + "/chat/completions"}
        with FixedProvider(status, moved, b"") as server, with_key(server.url) as proxy:
            answer = ask(proxy.url, "/v1/messages", user(stream=stream))
        assert 400 <= answer.status <= 599
        assert (len(server.asked), other.asked) == (1, [])


def test_cookies_are_not_kept() -> None:
    """One client's answer leaves nothing that goes out with another's request."""
    headers = {"content-type": JSON, "set-cookie": "session=1; Path=/"}
    with FixedProvider(200, headers, WHOLE) as server, proxy_for(server.url) as proxy:
        answers = [ask(proxy.url, "/v1/messages", user()) for _ in range(2)]
    assert all("cookie" not in headers for _, _, headers in server.asked)
    assert all("set-cookie" not in answer.headers for answer in answers)


def test_netrc_does_not_replace_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A .netrc of the owner's, read by requests unless told not to, is not for providers."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    with FixedProvider(200, {"content-type": JSON}, WHOLE) as server:
        with with_key(server.url) as proxy:
            ask(proxy.url, "/v1/messages", user())
        with proxy_for(server.url) as proxy:
            ask(proxy.url, "/v1/messages", user())
    assert [headers.get("authorization") for _, _, headers in server.asked] == [f"Bearer {KEY}", None]


def test_client_headers_stay_here() -> None:
    """The client's credentials, cookies and ids are no business of the provider's."""
    sent = {"authorization": "Bearer client", "x-api-key": "client", "cookie": "a=b", "x-claude-code-session-id": "1"}
    sent.update(
        {"anthropic-beta": "x", "x-stainless-lang": "python", "x-forwarded-for": "10.0.0.1", "user-agent": "cc"}
    )
    with FixedProvider(200, {"content-type": JSON}, WHOLE) as server, proxy_for(server.url) as proxy:
        assert ask(proxy.url, "/v1/messages", user(), headers=sent).status == 200
    _, path, headers = server.asked[0]
    assert path == "/v1/chat/completions"
    assert not set(headers) & (set(sent) - {"user-agent"})
    assert headers["user-agent"] != "cc"
    assert headers["content-type"] == JSON


def test_provider_headers_stay_there() -> None:
    """But for retry-after, no header of the provider's reaches the client."""
    theirs = {"content-type": JSON, "server": "nginx", "access-control-allow-origin": "*", "x-secret": "1"}
    with FixedProvider(429, {**theirs, "retry-after": "9"}, b"{}") as server:
        answer = answer_of(server.url)
    assert answer.headers["retry-after"] == "9"
    assert not {"access-control-allow-origin", "x-secret"} & set(answer.headers)
    assert "nginx" not in str(answer.headers)


# --- connections --------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_connections_are_pooled(stream: bool, framing: str) -> None:
    """Requests one after another share a connection, also after a stream that ended with [DONE]."""
    kind, body = (SSE, STREAM) if stream else (JSON, WHOLE)
    headers = {"content-type": kind}
    if framing == "chunked":
        headers["transfer-encoding"] = "chunked"
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    with (
        FixedProvider(200, headers, body) as server,
        proxy_for(server.url) as proxy,
        RawConnection(proxy.url) as client,
    ):
        # On one connection: the next request is read when the last one has given its connection back.
        for _ in range(4):
            client.send(request("POST", "/v1/messages", user(stream=stream)))
            assert client.answer().is_complete
    assert (len(server.asked), server.connections) == (4, 1)


def test_a_connection_in_doubt_is_not_pooled() -> None:
    """What follows [DONE] on a connection is not taken for the next answer."""
    body = STREAM + b'data: {"choices": [{"index": 0, "delta": {"content": "leftover"}}]}\n\n'
    with FixedProvider(200, {"content-type": SSE}, body) as server, proxy_for(server.url) as proxy:
        for _ in range(3):
            assert text_of(ask(proxy.url, "/v1/messages", user(stream=True))) == "Hello"
    assert len(server.asked) == 3


def test_an_idle_connection_that_the_provider_closed() -> None:
    """Is noticed: the next request gets its answer on a new one."""
    with (
        FixedProvider(200, {"content-type": JSON, "connection": "close"}, WHOLE) as server,
        proxy_for(server.url) as proxy,
    ):
        for _ in range(3):
            assert text_of(ask(proxy.url, "/v1/messages", user())) == "Hello"
    assert server.connections == 3


def test_tokens_are_counted_while_the_provider_works() -> None:
    """When the request is with the provider, and before its answer is waited for."""
    has_asked, is_counted, answers = threading.Event(), threading.Event(), []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            has_asked.set()
            answers.append(is_counted.wait(20))
            self.send_response(200)
            self.send_header("content-type", JSON)
            self.end_headers()
            self.wfile.write(WHOLE)

        def log_message(self, format: str, *args: Any) -> None:
            """Silence."""

    def count() -> int:
        answers.append(has_asked.wait(20))
        is_counted.set()
        return 5

    client = ProviderClient(lambda: "")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        model = Model("m", "http://127.0.0.1:%d/v1" % server.server_address[1], needs_key=False)
        call = Call(model, "/chat/completions", b"{}", {"content-type": JSON}, count)
        response = client.send(call, load_config({}).config, Cancel())
        assert [chunk.pieces[0].text for chunks in response.chunks() for chunk in chunks] == ["Hello"]
        response.close()
        client.close()
        server.shutdown()
    assert answers == [True, True]


# --- keys ---------------------------------------------------------------------------------------------------------


def test_keys_are_rotated() -> None:
    """Several keys, separated by commas, take turns."""
    keys = "key-one, key-two,,key-three"
    with FixedProvider(200, {"content-type": JSON}, WHOLE) as server, with_key(server.url, keys) as proxy:
        for _ in range(6):
            ask(proxy.url, "/v1/messages", user())
    used = [headers["authorization"] for _, _, headers in server.asked]
    assert used == [f"Bearer key-{name}" for name in ("one", "two", "three")] * 2


def test_keys_are_rotated_for_each_model() -> None:
    """Requests to other models in between do not make one of the keys do all the work."""
    with FixedProvider(200, {"content-type": JSON}, WHOLE) as server:
        settings = {"ROUTER_DEFAULT": "a", "A_KEY": "key-one,key-two", "B_KEY": "key-b"}
        models = [{"model_id": m, "api_base": server.url, "api_key_name": f"{m.upper()}_KEY"} for m in ("a", "b")]
        with running_proxy(settings, models) as proxy:
            for _ in range(4):
                for model in ("a", "b"):
                    ask(proxy.url, "/v1/messages", user(model=model))
    used = [headers["authorization"] for _, _, headers in server.asked]
    assert sorted(used) == sorted(["Bearer key-one", "Bearer key-two"] * 2 + ["Bearer key-b"] * 4)


@both
@pytest.mark.parametrize("value", [None, "", " , "])
def test_a_missing_key(value: Optional[str], stream: bool) -> None:
    """Is named by its variable, and nothing is sent; trying again is useless."""
    with FixedProvider(200, {"content-type": JSON}, WHOLE) as server, with_key(server.url, value) as proxy:
        answer = ask(proxy.url, "/v1/messages", user(stream=stream))
    assert "A_KEY" in check_failed(answer, 401)
    assert answer.headers["x-should-retry"] == "false"
    assert server.asked == []


@pytest.mark.parametrize("status", [400, 401, 500])
def test_a_key_is_never_echoed(status: int) -> None:
    """Providers quote the key in their errors; the client does not see it."""
    body = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}).encode()
    with FixedProvider(status, {"content-type": JSON}, body) as server, with_key(server.url) as proxy:
        answer = ask(proxy.url, "/v1/messages", user())
    assert KEY not in answer.body.decode()


# --- no answer ----------------------------------------------------------------------------------------------------


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield "http://127.0.0.1:%d/v1" % listener.getsockname()[1]


@both
def test_a_provider_that_does_not_answer(silent: str, stream: bool) -> None:
    """Is a time-out, 504."""
    answer = answer_of(silent, stream, PROVIDER_READ_TIMEOUT="0.05")
    assert "in time" in check_failed(answer, 504)
    assert answer.json["error"]["type"] == "timeout_error"


@both
def test_a_provider_that_does_not_connect(silent: str, stream: bool) -> None:
    """TLS is part of connecting: PROVIDER_CONNECT_TIMEOUT bounds it, not the much longer one of reading."""
    began = time.monotonic()
    settings = {"PROVIDER_CONNECT_TIMEOUT": "0.1", "MAX_RETRIES": "1"}
    answer = answer_of(silent.replace("http:", "https:"), stream, **settings)
    assert "(2 attempts)" in check_failed(answer, 504), "nothing was asked yet: another attempt may be made"
    assert time.monotonic() - began < 30


@both
def test_a_provider_that_falls_silent(stream: bool) -> None:
    """Before the first content it is the same time-out; comments are no content."""
    gate = threading.Event()
    with ReplayProvider() as provider:
        headers = {"content-type": SSE}
        provider.answers["m"] = Replayed(200, headers, [b": wait\n\n", STREAM], hold={1: gate})
        answer = answer_of(provider.base("m"), stream, PROVIDER_READ_TIMEOUT="0.05")
        gate.set()
    check_failed(answer, 504)


def test_a_provider_that_falls_silent_in_mid_stream() -> None:
    """After the first content it is an error event that says so."""
    gate = threading.Event()
    with ReplayProvider() as provider, proxy_for(provider.base("m"), {"PROVIDER_READ_TIMEOUT": "0.05"}) as proxy:
        provider.answers["m"] = Replayed(200, {"content-type": SSE}, [EVENTS[:80], STREAM], hold={1: gate})
        reply = post(proxy.url, user(stream=True))
        gate.set()
    assert not reply.complete
    error = error_of(parse_sse(reply.body))
    assert error is not None
    assert error["type"] == "timeout_error"


@both
def test_nobody_listens(stream: bool) -> None:
    """A refused connection is 502, naming the provider's address and no library."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    message = check_failed(answer_of(f"http://127.0.0.1:{port}/v1", stream), 502)
    assert str(port) in message
    assert "object at 0x" not in message


@both
def test_a_provider_that_hangs_up(stream: bool) -> None:
    """A connection that ends without an answer is 502."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.recv(65536)
            connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        url = "http://127.0.0.1:%d/v1" % listener.getsockname()[1]
        check_failed(answer_of(url, stream), 502)
