"""The WSGI door: by the letter of PEP 3333, and behind the servers that people use."""

from __future__ import annotations

import gzip
import io
import json
import sys
import threading
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from ccproxy.errors import StreamCut
from ccproxy.stub import Cut, Failure, Json, Step, Text, ToolCall
from ccproxy.wsgi import application, wsgi_app
from faults import END, FaultyProvider, chunk, head, silent, until, whole
from grammar import check_error, check_grammar, error_of, fold, parse_sse
from processes import configuration, eventually, running
from raw_http import RawConnection, chunked, request
from replay import ReplayProvider
from support import Answer, Proxy, ask, proxy_with, running_proxy, user
from test_early_bytes import FIRST, REST, pieces, pings
from test_server import play, read_until, rest_of

LIMIT = 200_000


def script(body: Json) -> List[Step]:
    """What the first word of the prompt asks for."""
    prompt = str(body["messages"][-1]["content"])
    replies: Dict[str, List[Step]] = {
        "fail": [Failure(429, "slow down", {"retry-after": "7"})],
        "cut": [Text("half a "), Cut()],
        "call": [Text("Both."), ToolCall("a", {"n": 1}), ToolCall("b", {"n": 2})],
    }
    return replies.get(prompt.split(" ")[0], [Text(f"{len(prompt)} characters")])


# --- by the letter ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    """An application with a scripted model."""
    with proxy_with(script) as (proxy, _):
        yield proxy


class Called:
    """One call of the application under the validator, as a WSGI server makes it."""

    def __init__(
        self, proxy: Proxy, method: str, path: str, body: Any = None, check: Any = validator, **environ: Any
    ) -> None:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        variables: Dict[str, Any] = {"REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": ""}
        variables.update({"wsgi.input": io.BytesIO(data), "CONTENT_LENGTH": str(len(data)), **environ})
        setup_testing_defaults(variables)
        self.status, self.headers = "", {}  # type: str, Dict[str, str]
        self._parts = check(wsgi_app(proxy.app))(variables, self._start_response)

    def _start_response(self, status: str, headers: List[Tuple[str, str]], exc_info: Any = None) -> Any:
        self.status, self.headers = status, {name.lower(): value for name, value in headers}
        for item in (status, *self.headers.values()):
            item.encode("latin-1")
        return lambda data: None

    def parts(self) -> Iterator[bytes]:
        """Yield the parts of the body; in the end, or when it breaks, the body is closed."""
        try:
            yield from self._parts
        finally:
            getattr(self._parts, "close", str)()

    def answer(self) -> Answer:
        """The whole answer."""
        body = b"".join(self.parts())
        return Answer(int(self.status[:3]), self.headers, body)


def test_a_whole_message(proxy: Proxy) -> None:
    """The status line, a length that is right, and the message."""
    answer = Called(proxy, "POST", "/v1/messages", user("abc"), QUERY_STRING="beta=true").answer()
    assert (answer.status, answer.headers["content-length"]) == (200, str(len(answer.body)))
    assert answer.json["content"] == [{"type": "text", "text": "3 characters"}]


def test_a_stream(proxy: Proxy) -> None:
    """Parts as they come, no length: the server decides on the framing."""
    called = Called(proxy, "POST", "/v1/messages", user("call", stream=True))
    parts = list(called.parts())
    assert called.status == "200 OK"
    assert "content-length" not in called.headers
    assert not {"connection", "transfer-encoding"} & set(called.headers)
    assert parts
    check_grammar(parse_sse(b"".join(parts)))


def test_a_stream_that_breaks(proxy: Proxy) -> None:
    """The error event comes, then the iteration fails: the server must not end the body cleanly."""
    called = Called(proxy, "POST", "/v1/messages", user("cut", stream=True))
    body = b""
    with pytest.raises(StreamCut):  # noqa: PT012
        for part in called.parts():
            body += part
    assert error_of(parse_sse(body)) is not None


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", "404 Not Found"),
        ("DELETE", "/v1/messages", "405 Method Not Allowed"),
        ("POST", "/v1/messages", "400 Bad Request"),
        ("GET", "//[", "404 Not Found"),
        ("GET", "/v1/models/\xe6\xa8\xa1", "404 Not Found"),
    ],
)
def test_errors(proxy: Proxy, method: str, path: str, status: str) -> None:
    """Anthropic's shape, and the request id in both places."""
    called = Called(proxy, method, path, b"{" if method == "POST" else None)
    answer = called.answer()
    assert called.status == status
    check_error(answer.json)
    assert answer.headers["request-id"] == answer.json["request_id"]


def test_a_thread_that_cannot_be_started(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients are told in Anthropic's shape, and try again; the server's own page would mean nothing to them."""

    def fail(*arguments: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        answer = Called(proxy, "POST", "/v1/messages", user("abc")).answer()
    assert answer.status == 529
    check_error(answer.json)
    assert Called(proxy, "POST", "/v1/messages", user("abc")).answer().status == 200


@pytest.mark.parametrize("length", ["99999999999", "33554433"])
def test_too_large(proxy: Proxy, length: str) -> None:
    """Refused by its length, with a request id like every answer."""
    answer = Called(proxy, "POST", "/v1/messages", b"{}", CONTENT_LENGTH=length).answer()
    assert answer.status == 413
    check_error(answer.json)
    assert answer.headers["request-id"] == answer.json["request_id"]


def test_an_incomplete_body(proxy: Proxy) -> None:
    """Is refused, also where what came is a whole document."""
    body = json.dumps(user("abc")).encode()
    answer = Called(proxy, "POST", "/v1/messages", body, CONTENT_LENGTH=str(len(body) + 1)).answer()
    assert answer.status == 400
    assert f"{len(body)} of {len(body) + 1} bytes" in answer.json["error"]["message"]


@pytest.mark.parametrize("length", ["ten", "1_0", "+2", "-1"])
def test_a_length_that_is_none(proxy: Proxy, length: str) -> None:
    """Servers that pass nonsense on get a 400 to send, not an exception."""
    called = Called(proxy, "POST", "/v1/messages", b"{}", lambda application: application, CONTENT_LENGTH=length)
    check_error(called.answer().json)
    assert called.status == "400 Bad Request"


def test_head(proxy: Proxy) -> None:
    """The length of what GET would send, and no body."""
    whole, head = (Called(proxy, method, "/health").answer() for method in ("GET", "HEAD"))
    assert head.body == b""
    assert head.headers["content-length"] == str(len(whole.body))


def test_a_body_without_a_length(proxy: Proxy) -> None:
    """A server that ends the input itself (chunked requests) need not know the length."""
    environ: Dict[str, Any] = {"CONTENT_LENGTH": "", "wsgi.input_terminated": True}
    answer = Called(proxy, "POST", "/v1/messages", user("abc"), **environ).answer()
    assert answer.status == 200


def test_an_encoded_body(proxy: Proxy) -> None:
    """Is decoded here too, within the same bounds."""
    data = gzip.compress(json.dumps(user("abc")).encode())
    for body, status in ((data, 200), (data[:-10], 400)):
        called = Called(proxy, "POST", "/v1/messages", body, HTTP_CONTENT_ENCODING="gzip")
        assert called.answer().status == status
    body = gzip.compress(b" " * (proxy.app.config.max_request_bytes + 1))
    assert Called(proxy, "POST", "/v1/messages", body, HTTP_CONTENT_ENCODING="gzip").answer().status == 413


def test_the_token(proxy: Proxy) -> None:
    """The headers come through the environ; without them no body is read."""
    with running_proxy({"CCPROXY_AUTH_TOKEN": "sesame"}) as guarded:
        assert Called(guarded, "GET", "/v1/models").answer().status == 401
        assert Called(guarded, "GET", "/v1/models", HTTP_X_API_KEY="sesame").answer().status == 200
        assert Called(guarded, "GET", "/v1/models", HTTP_AUTHORIZATION="bearer sesame").answer().status == 200
        unread: Dict[str, Any] = {"wsgi.input": io.BytesIO(b"{}"), "CONTENT_LENGTH": "2"}
        called = Called(guarded, "POST", "/v1/messages", check=lambda application: application, **unread)
        answer = called.answer()
        assert (answer.status, answer.headers["x-should-retry"], unread["wsgi.input"].tell()) == (401, "false", 0)


def test_a_configuration_that_is_not_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients get an error like any other, the server's log one line that says what is wrong."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PORT", "http")
    said = io.StringIO()
    environ: Dict[str, Any] = {"wsgi.errors": said}
    setup_testing_defaults(environ)
    statuses: List[str] = []
    body = b"".join(application(environ, lambda status, headers: statuses.append(status)))
    check_error(json.loads(body))
    assert statuses == ["500 Internal Server Error"]
    assert said.getvalue().startswith("ccproxy: environment: PORT: ")
    assert said.getvalue().count("\n") == 1


def test_mounted_under_a_prefix(proxy: Proxy) -> None:
    """SCRIPT_NAME is where somebody mounted the application; its own paths begin after it."""
    assert Called(proxy, "GET", "/health", SCRIPT_NAME="/llm").answer().status == 200


@pytest.mark.parametrize("model", ["openai/模型", "openai/x\r\nX-Evil: 1"], ids=["other letters", "lines"])
def test_odd_model_names(proxy: Proxy, model: str) -> None:
    """Whatever the client calls a model, the headers are headers."""
    called = Called(proxy, "POST", "/v1/messages", user(model=model))
    check_error(called.answer().json)
    assert "x-evil" not in called.headers


# --- behind real servers ----------------------------------------------------------------------------------------

APPLICATION = "ccproxy.wsgi:application"
SERVERS = {
    "gunicorn": ["gunicorn", "-k", "gthread", "--threads", "8", "-b", "127.0.0.1:0"],
    "waitress": ["waitress", "--listen=127.0.0.1:0", "--threads=8"],
}


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> List[str]:
    """The command that serves the application."""
    module, *options = SERVERS[request.param]
    return [sys.executable, "-m", module, *options, APPLICATION]


def test_streams_arrive_event_by_event(server: List[str], tmp_path: Path) -> None:
    """The server passes each event on before the provider sends the next."""
    gates = [threading.Event() for _ in range(3)]
    with ReplayProvider() as provider:
        play(provider, "chunked", gates)
        variables = configuration(tmp_path, provider.base("raw"))
        with running(server, tmp_path, variables) as process, RawConnection(process.address()) as client:
            client.send(request("POST", "/v1/messages", user(stream=True)))
            assert client.head().status == 200
            body = b""
            for word, gate in zip(("one ", "two ", "three "), gates):
                body += read_until(client, json.dumps(word))
                gate.set()
            rest, is_complete = rest_of(client)
    assert is_complete
    check_grammar(parse_sse(body + rest))


def test_everything_else(server: List[str], tmp_path: Path) -> None:
    """Messages, provider failures, our errors, broken streams and big bodies, on one server."""
    with proxy_with(script) as (_, stub):
        variables = configuration(tmp_path, stub.url, MAX_REQUEST_BYTES=str(LIMIT), MAX_RETRIES="0")
        with running(server, tmp_path, variables) as process:
            url = process.address()
            check_messages(url)
            check_failures(url)
            check_sizes(url)
            check_broken_stream(url)
            eventually(lambda: ask(url, "/health").status == 200, "it serves on")


SOON = {"COMMIT_AFTER": "0.05", "PING_INTERVAL": "0.3", "MAX_RETRIES": "0"}


def test_a_client_that_waits_hears_something(server: List[str], tmp_path: Path) -> None:
    """The stream is opened after COMMIT_AFTER, pings fill each silence, also in mid-stream; then comes the answer."""
    early, late = threading.Event(), threading.Event()
    with FaultyProvider([until(early), head(), chunk(FIRST), until(late), chunk(REST), END]) as provider:
        variables = configuration(tmp_path, provider.url, **SOON)
        with running(server, tmp_path, variables) as process, RawConnection(process.address()) as client:
            client.send(request("POST", "/v1/messages", user(stream=True)))
            answer = client.head()
            got = pieces(client, pings(3))
            early.set()
            got += pieces(client, lambda got: b"content_block_start" in got)
            got += pieces(client, pings(2))
            late.set()
            rest, is_complete = rest_of(client)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert is_complete
    events = parse_sse(got + rest)
    assert [name for name, _ in events][:2] == ["message_start", "ping"]
    check_grammar(events)
    assert fold(events)["content"] == [{"type": "text", "text": "Hello"}]


def test_a_failure_behind_an_open_stream(server: List[str], tmp_path: Path) -> None:
    """Where the stream is open already, an error event ends it, and never like an answer."""
    gate = threading.Event()
    with FaultyProvider([until(gate), *whole(503, b'{"error":{"message":"busy"}}')]) as provider:
        variables = configuration(tmp_path, provider.url, **SOON)
        with running(server, tmp_path, variables) as process, RawConnection(process.address()) as client:
            client.send(request("POST", "/v1/messages", user(stream=True)))
            client.head()
            got = pieces(client, pings(1))
            gate.set()
            rest, is_complete = rest_of(client)
    assert not is_complete
    assert error_of(parse_sse(got + rest)) is not None


@pytest.mark.parametrize("plan", [[silent], [head(), silent]], ids=["no head", "no content"])
def test_a_client_that_leaves(server: List[str], tmp_path: Path, plan: Any) -> None:
    """The silent provider's connection is closed as soon as the server notices, at the latest at the next ping."""
    with FaultyProvider(plan) as provider:
        variables = configuration(tmp_path, provider.url, **SOON)
        with running(server, tmp_path, variables) as process:
            with RawConnection(process.address()) as client:
                client.send(request("POST", "/v1/messages", user(stream=True)))
                provider.asked(1)
            eventually(provider.all_left, "the provider's connection is closed")
            assert len(provider.attempts) == 1


@pytest.mark.parametrize("module", SERVERS)
def test_a_client_that_leaves_while_nothing_is_due(module: str, tmp_path: Path) -> None:
    """gunicorn shows the client's socket, waitress looks ahead when it is told to: nothing need be written."""
    options = ["--channel-request-lookahead=1"] if module == "waitress" else []
    with FaultyProvider([silent]) as provider:
        variables = configuration(tmp_path, provider.url)
        with running([sys.executable, "-m", *SERVERS[module], *options, APPLICATION], tmp_path, variables) as process:
            with RawConnection(process.address()) as client:
                client.send(request("POST", "/v1/messages", user()))
                provider.asked(1)
            eventually(provider.all_left, "the provider's connection is closed")
            assert len(provider.attempts) == 1


def test_a_dashboard_holds_no_thread(proxy: Proxy) -> None:
    """Its stream tells how things are, ends, and asks the client to come back."""
    called = Called(proxy, "GET", "/dashboard/events")
    body = b"".join(called.parts())
    assert body.startswith(b"retry: ")
    assert b"event: state" in body


def test_usage_is_recorded(server: List[str], tmp_path: Path) -> None:
    """In the state folder; the statistics count what all worker processes answered."""
    command = [*server[:3], "--workers=2", *server[3:]] if "gunicorn" in server else server
    with proxy_with(script) as (_, stub):
        variables = configuration(tmp_path, stub.url, STATE_DIR=str(tmp_path / "state"))
        with running(command, tmp_path, variables) as process:
            url = process.address()
            for number in range(20):
                assert ask(url, "/v1/messages", user("abc", stream=number % 2 == 0)).status == 200
            eventually(lambda: ask(url, "/v1/stats").json["totals"]["requests"] == 20, "all are counted")
    assert not (tmp_path / ".local").exists()


def check_messages(url: str) -> None:
    """Whole and streamed."""
    assert ask(url, "/v1/messages?beta=true", user("abc")).json["content"][0]["text"] == "3 characters"
    events = parse_sse(ask(url, "/v1/messages", user("call", stream=True)).body)
    check_grammar(events)
    assert ask(url, "/health", method="HEAD").body == b""


def check_failures(url: str) -> None:
    """A provider's failure before the first event, and our own errors."""
    for stream in (False, True):
        failed = ask(url, "/v1/messages", user("fail", stream=stream))
        assert (failed.status, failed.headers["retry-after"]) == (429, "7")
        check_error(failed.json)
    for path, body, status in (("/nowhere", None, 404), ("/v1/messages", b"{", 400), ("/v1/messages", None, 405)):
        answer = ask(url, path, body)
        assert answer.status == status
        assert answer.headers["request-id"] == answer.json["request_id"]
    odd = ask(url, "/v1/messages", user(model="openai/模型\r\nX-Evil: 1"))
    assert (odd.status, "x-evil" in odd.headers) == (401, False)
    check_error(odd.json)


def check_sizes(url: str) -> None:
    """A body near the limit is taken, with a length or in chunks; one beyond it is not."""
    text = "x" * (LIMIT - 1000)
    assert ask(url, "/v1/messages", user(text)).json["content"][0]["text"] == f"{len(text)} characters"
    with RawConnection(url) as client:
        head = request("POST", "/v1/messages", headers={"Transfer-Encoding": "chunked"})
        client.send(head + chunked(json.dumps(user("abc")).encode(), 50))
        assert client.answer().json["content"][0]["text"] == "3 characters"
    large = ask(url, "/v1/messages", user("x" * LIMIT))
    assert large.status == 413
    check_error(large.json)


def check_broken_stream(url: str) -> None:
    """A provider that dies in mid-stream: the error event, then no clean end."""
    with RawConnection(url) as client:
        client.send(request("POST", "/v1/messages", user("cut", stream=True)))
        assert client.head().status == 200
        body, is_complete = rest_of(client)
    assert not is_complete
    assert error_of(parse_sse(body)) is not None
