"""No secret leaves the process: planted everywhere, asked for in every way, looked for in every byte that came out."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Set

import pytest

from ccproxy.app import ROUTES
from faults import END, FaultyProvider, Plan, Wire, chunk, head, whole
from fixed_provider import STREAM
from processes import Process, environment, eventually, running, serve_command
from raw_http import RawConnection, request
from support import user

# The last eight characters are what is looked for: no part of a secret may show, not even its end.
CANARIES = {
    "first key": "kanarie-one-a8f3c1d9",
    "second key": "kanarie-two-b7e2d0c8",
    "direct key": "kanarie-drei-c6d1e9b7",
    "unused key": "kanarie-four-d5c0f8a6",
    "header": "kanarie-five-e4bf07a5",
    "plain header": "kanarie-long-value-without-a-name-93fea6b4",
    "odd header": "kanarie-six-82edb5c3",
    "password": "kanarie-seven-71dcc4d2",
    "token": "kanarie-eight-60cbd3e1",
    "client": "kanarie-nine-5fbae2f0",
    "cookie": "kanarie-ten-4ea9f1df",
}
MARKS = {name: value[-8:].encode() for name, value in CANARIES.items()}
MODELS: List[Dict[str, Any]] = [
    {
        "model_id": "keyed",
        "api_key_name": "KEYED_API_KEY",
        "extra_headers": {"x-gateway-auth": f"Bearer {CANARIES['header']}", "x-team": CANARIES["plain header"]},
    },
    {"model_id": "straight", "api_key_name": "STRAIGHT_API_KEY", "direct": True},
    {"model_id": "handed", "direct": True, "forward_client_key": True},
    {"model_id": "broken", "extra_headers": {"x-secret": f"{CANARIES['odd header']}\n"}},
    {"model_id": "keyless", "api_key_name": "ABSENT_API_KEY"},
]
ENV = {
    "KEYED_API_KEY": f"{CANARIES['first key']}, {CANARIES['second key']}",
    "STRAIGHT_API_KEY": CANARIES["direct key"],
    "OPENAI_API_KEY": CANARIES["unused key"],
    "ROUTER_DEFAULT": "keyed,straight",
    "MAX_RETRIES": "0",
    "LOG_LEVEL": "DEBUG",
    "LOG_BODIES": "1",
    "COMMIT_AFTER": "0.1",
}


def echo(wire: Wire) -> str:
    """All that a provider was sent in headers, as one line of text."""
    return "; ".join(f"{name}={value}" for name, value in wire.attempt.headers.items())


def refusal(status: int, wrap: Callable[[str], Any], **headers: str) -> Plan:
    """An error that tells the key it was asked with."""

    def answer(wire: Wire) -> None:
        said = wrap(f"Incorrect API key provided: {echo(wire)}")
        data = (said if isinstance(said, str) else json.dumps(said)).encode()
        values = {name: echo(wire) if value == "ECHO" else value for name, value in headers.items()}
        for verb in whole(status, data, connection="close", **values):
            verb(wire)

    return [answer]


def in_stream(wire: Wire) -> None:
    """A stream that begins well and ends with an error that echoes."""
    first = STREAM[: STREAM.index(b"\n\n") + 2]
    for verb in (
        head(),
        chunk(first),
        chunk(b"data: %s\n\n" % json.dumps({"error": {"message": echo(wire), "code": 500}}).encode()),
        END,
    ):
        verb(wire)


PLANS: List[Plan] = [
    refusal(400, lambda text: {"error": {"message": text, "type": "invalid_request_error"}}),
    refusal(401, lambda text: {"error": {"message": text}}, request_id="ECHO"),
    refusal(403, lambda text: text, content_type="text/plain"),
    refusal(404, lambda text: [{"error": {"message": text}}]),
    refusal(429, lambda text: {"type": "error", "error": {"message": text}}, retry_after="ECHO", x_should_retry="ECHO"),
    refusal(500, lambda text: f"<html><title>{text}</title></html>", content_type="text/html"),
    refusal(302, lambda text: {"detail": text}, location="ECHO"),
    refusal(200, lambda text: {"error": {"message": text}}),
    refusal(200, lambda text: text),
    refusal(529, lambda text: {"error": {"message": "x", "metadata": {"raw": text, "provider_name": text}}}),
    [in_stream],
    [head(), chunk(STREAM), END],
]


class Heard:
    """Every byte that came out of a process, by where."""

    def __init__(self) -> None:
        self.by_place: Dict[str, bytes] = {}

    def add(self, place: str, data: bytes) -> None:
        """Take some down."""
        self.by_place[place] = self.by_place.get(place, b"") + data

    def found(self) -> Set[str]:
        """Which secret showed where."""
        return {
            f"{name} in {place}"
            for place, data in self.by_place.items()
            for name, mark in MARKS.items()
            if mark in data
        }


def everything(client: RawConnection) -> bytes:
    """All bytes of an answer; of one without end, those of its first two seconds."""
    received, deadline = b"", time.monotonic() + 2
    client.socket.settimeout(2)
    try:
        while time.monotonic() < deadline:
            data = client.socket.recv(65536)
            if not data:
                break
            received += data
    except OSError:
        pass
    return received


def headers_with(credential: Dict[str, str]) -> Dict[str, str]:
    """What a client sends beside its request."""
    cookie = CANARIES["cookie"]
    more = {"Connection": "close", "Cookie": f"session={cookie}", "Proxy-Authorization": f"Basic {cookie}"}
    return {"content-type": "application/json", **more, **credential}


def to_models(token: str) -> Iterator[bytes]:
    """Requests to each model, with the credential in either header."""
    bearer, key = headers_with({"Authorization": f"Bearer {token}"}), headers_with({"x-api-key": token})
    for model in [row["model_id"] for row in MODELS]:
        yield request("POST", "/v1/messages", user(model=model, stream=True), bearer)
        yield request("POST", "/v1/messages", user(model=model), key)


def to_all_paths(token: str) -> Iterator[bytes]:
    """One of each: all paths and methods, good and bad, with and without credentials."""
    right, none = headers_with({"x-api-key": token}), headers_with({})
    for path in (*ROUTES, "/nowhere"):
        for method in ("GET", "POST", "DELETE"):
            yield request(method, path, {} if method == "POST" else None, right)
        yield request("GET", f"{path}?api_key={token}", None, none)
    for model in [row["model_id"] for row in MODELS]:
        for path in ("test_conversion", "test_conversion?dry_run=1", "count_tokens"):
            yield request("POST", f"/v1/messages/{path}", user(model=model), right)
    yield request("POST", "/v1/messages", b"{" * 10, right)
    yield b"GET /" + token.encode() + b" HTTP/9\r\nx-api-key: " + token.encode() + b"\r\n\r\n"
    yield b"GET / HTTP/1.1\r\nHost: a\r\nx-api-key : " + token.encode() + b"\r\n\r\n"


def exercise(folder: Path, provider: FaultyProvider, env: Dict[str, str], token: str, heard: Heard) -> None:
    """Run a server through every plan and request, then the commands; take down all that comes out."""
    models = [{"api_base": provider.url, "dialect": "generic", **row} for row in MODELS]
    (folder / "models.yaml").write_text(json.dumps(models))
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in env.items()))
    with running(serve_command("--port", "0"), folder, {}) as process:
        url = process.address()
        for plan in PLANS:
            provider.plans[:] = [plan]
            for data in (*to_models(token), *(to_all_paths(token) if plan is PLANS[0] else ())):
                with RawConnection(url) as client:
                    client.send(data)
                    heard.add("answers", everything(client))
        look_at(process, heard)
    for command in (["check"], ["models"], ["stats"], ["stats", "--json"], ["--help"], ["--version"]):
        run_command(folder, command, heard)
    for path in folder.rglob("*"):
        if path.is_file() and path not in (folder / ".env", folder / "models.yaml"):
            heard.add(f"file {path.name}", path.read_bytes())
            assert path.stat().st_mode & 0o077 == 0, path


def look_at(process: Process, heard: Heard) -> None:
    """What others see of a process: its arguments and title, and what it wrote to the console."""
    for name in ("cmdline", "comm", "status"):
        path = Path(f"/proc/{process.popen.pid}/{name}")
        heard.add(f"/proc/{name}", path.read_bytes() if path.exists() else b"")
    eventually(lambda: process.lines, "it said something")
    heard.add("console", "".join(process.lines).encode())


def run_command(folder: Path, arguments: List[str], heard: Heard) -> None:
    """Run a command; what it says, well or ill."""
    command = [sys.executable, "-m", "ccproxy", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment(folder, {}), capture_output=True, timeout=60, check=False
    )
    heard.add(f"command {arguments[0]}", done.stdout + done.stderr)
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("with_token", [True, False], ids=["token", "no token"])
def test_no_secret_leaves_the_process(tmp_path: Path, with_token: bool) -> None:
    """Not in an answer, log line, file, argument or message, whole or in part."""
    heard, env = Heard(), dict(ENV)
    token = CANARIES["token" if with_token else "client"]
    if with_token:
        env["CCPROXY_AUTH_TOKEN"] = token
    with FaultyProvider(PLANS[0]) as provider:
        exercise(tmp_path, provider, env, token, heard)
        sent = [json.dumps(attempt.headers) for attempt in provider.attempts]
    assert heard.found() <= {"client in answers"}  # its own, to itself, where it was passed on and quoted
    assert {"answers", "console", "file server.log", "file bodies.log", "file usage.db"} <= set(heard.by_place)
    assert b"***" in heard.by_place["answers"]
    assert b"***" in heard.by_place["console"]
    reached = {name for name, canary in CANARIES.items() if any(canary in headers for headers in sent)}
    expected = {"first key", "second key", "direct key", "header", "plain header", "odd header"}
    assert reached == (expected if with_token else expected | {"client"})


@pytest.mark.parametrize(
    ("files", "arguments"),
    [
        ({".env": "KEYED_API_KEY={first key}\nthis line {second key} is none\n"}, []),
        ({".env": "CCPROXY_AUTH_TOKEN={token}\nPORT=eighty\n"}, []),
        ({"models.yaml": '[{{"model_id": "a", "api_base": "http://x:{password}@[/v1"}}]'}, []),
        ({"models.yaml": '[{{"model_id": "a", "api_base": "x:{password}@nowhere"}}]'}, []),
        ({"models.yaml": '[{{"model_id": "a", "api_base": "http://b", "extra_headers": "{header}"}}]'}, []),
        ({"models.yaml": '[{{"model_id": "a", "api_base": "http://b", "extra_headers": {{"a": ["{header}"]}}}}]'}, []),
        ({"models.yaml": '[{{"model_id": "a", "api_base": "http://b", "api_key": "{first key}"}}]'}, []),
        ({"models.yaml": '- model_id: a\n  api_key: "{first key}\n'}, []),
    ],
)
def test_a_start_that_fails_tells_none(tmp_path: Path, files: Dict[str, str], arguments: List[str]) -> None:
    """What is wrong with a file is said without what is secret in it."""
    for name, text in files.items():
        (tmp_path / name).write_text(text.format(**CANARIES))
    heard = Heard()
    run_command(tmp_path, ["check", *arguments], heard)
    assert heard.found() == set()
