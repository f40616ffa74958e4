"""The way to a provider: which of its keys, through which proxy, trusting whom."""

from __future__ import annotations

import logging
import select
import shutil
import socket
import ssl
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, List

import pytest

from faults import END, FaultyProvider, Plan, chunk, head, slicer, until, whole
from fixed_provider import EVENTS, JSON, STREAM, WHOLE, FixedProvider, check_failed, proxy_for, text_of
from processes import eventually
from raw_http import RawConnection, request
from support import ask, events_of, user

KEYS = "key-one-111,key-two-222"
LAST = b"%x\r\n%s\r\n" % (len(STREAM), STREAM)
GOOD: Plan = whole(200, WHOLE, content_type=JSON)


# --- keys ---------------------------------------------------------------------------------------------------------


def used(provider: FaultyProvider) -> List[str]:
    """The keys of all attempts; an attempt without one counts as empty."""
    return [attempt.headers.get("authorization", "").replace("Bearer ", "") for attempt in provider.attempts]


@pytest.mark.parametrize("status", [401, 402, 403, 429])
def test_another_key_takes_over(status: int) -> None:
    """At once and unseen; the refused one rests, the other does the work."""
    with (
        FaultyProvider(whole(status, b"{}"), GOOD) as provider,
        proxy_for(provider.url, {"A_KEY": KEYS}, api_key_name="A_KEY") as proxy,
    ):
        for _ in range(3):
            assert text_of(ask(proxy.url, "/v1/messages", user())) == "Hello"
    assert used(provider) == ["key-one-111", "key-two-222", "key-two-222", "key-two-222"]


def test_a_key_comes_back_after_its_rest() -> None:
    """As soon as the provider said."""
    with (
        FaultyProvider(whole(429, b"{}", retry_after_ms="300"), GOOD) as provider,
        proxy_for(provider.url, {"A_KEY": KEYS}, api_key_name="A_KEY") as proxy,
    ):
        while used(provider)[-1:] != ["key-one-111"] or len(provider.attempts) < 2:
            ask(proxy.url, "/v1/messages", user())
    again = [attempt.time for attempt in provider.attempts if attempt.headers["authorization"].endswith("111")]
    assert again[1] - again[0] >= 0.29


@pytest.mark.parametrize("rest", ["1", "50", "99999"])
@pytest.mark.parametrize("status", [429, 401])
def test_all_keys_fail(status: int, rest: str) -> None:
    """Each is tried once, none twice, and nothing is sent without a key; no key is told."""
    with (
        FaultyProvider(whole(status, b'{"error":"bad key-one-111 or key-two-222"}', retry_after_ms=rest)) as provider,
        proxy_for(provider.url, {"A_KEY": KEYS}, api_key_name="A_KEY") as proxy,
    ):
        message = check_failed(ask(proxy.url, "/v1/messages", user()), status)
    assert used(provider) == ["key-one-111", "key-two-222"]
    assert not any(key in message for key in KEYS.split(","))


def test_keys_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Not at any level, also when the provider echoes them."""
    caplog.set_level(logging.DEBUG)
    with (
        FaultyProvider(whole(500, b'{"error":"bad key-one-111 or key-two-222"}')) as provider,
        proxy_for(provider.url, {"A_KEY": KEYS}, api_key_name="A_KEY") as proxy,
    ):
        ask(proxy.url, "/v1/messages", user())
    assert not any(key in caplog.text for key in KEYS.split(","))


# --- proxies ------------------------------------------------------------------------------------------------------


@contextmanager
def relay() -> Iterator[tuple[str, List[str]]]:
    """An HTTP proxy that knows CONNECT and the absolute form; the request lines it was sent."""
    lines: List[str] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def copy(source: socket.socket, sink: socket.socket) -> None:
        try:
            for data in iter(lambda: source.recv(65536), b""):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def serve(near: socket.socket) -> None:
        data = near.recv(65536)
        while b"\r\n\r\n" not in data:
            data += near.recv(65536)
        line = data.split(b"\r\n")[0].decode()
        lines.append(line)
        method, target, _ = line.split(" ")
        _, _, port = target.replace("http://", "").split("/")[0].partition(":")
        far = socket.create_connection(("127.0.0.1", int(port)))
        if method == "CONNECT":
            near.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            far.sendall(data)
        threading.Thread(target=copy, args=(far, near), daemon=True).start()
        copy(near, far)

    def accept() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(near,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield "http://127.0.0.1:%d" % listener.getsockname()[1], lines
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without the developer's own proxies and certificates."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


def test_an_http_proxy(environment: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY is asked for the provider's whole address."""
    with relay() as (url, lines), FixedProvider(200, {"content-type": JSON}, WHOLE) as server:
        environment.setenv("http_proxy", url)
        elsewhere = server.url.replace("127.0.0.1", "provider.test")
        with proxy_for(elsewhere) as proxy:
            assert text_of(ask(proxy.url, "/v1/messages", user())) == "Hello"
    assert lines == [f"POST {elsewhere}/chat/completions HTTP/1.1"]


def test_no_proxy(environment: pytest.MonkeyPatch) -> None:
    """NO_PROXY names those that are asked directly; the name cannot be resolved, so nothing is reached."""
    with relay() as (url, lines):
        environment.setenv("http_proxy", url)
        environment.setenv("no_proxy", "provider.test")
        with proxy_for("http://provider.test:1/v1") as proxy:
            assert ask(proxy.url, "/v1/messages", user()).status == 502
    assert lines == []


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_no_proxy_for_this_machine(environment: pytest.MonkeyPatch, name: str) -> None:
    """A proxy elsewhere cannot reach this machine's own addresses: a local server, and the demo, are asked directly."""
    with relay() as (url, lines), FixedProvider(200, {"content-type": JSON}, WHOLE) as server:
        environment.setenv("http_proxy", url)
        with proxy_for(server.url.replace("127.0.0.1", name)) as proxy:
            assert text_of(ask(proxy.url, "/v1/messages", user())) == "Hello"
            assert ask(proxy.url, "/v1/messages", user(model="demo/echo")).status == 200
    assert lines == []


# --- TLS ----------------------------------------------------------------------------------------------------------

openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


def certificate(folder: Path, name: str, address: str = "127.0.0.1") -> Path:
    """A self-signed certificate with its key in one file."""
    file = folder / f"{name}.pem"
    extensions = ["-addext", f"subjectAltName=IP:{address},DNS:provider.test", "-days", "2"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", f"/CN={name}", *extensions, "-keyout", f"{file}.key", "-out", str(file)]
    subprocess.run(command, check=True, capture_output=True)
    with file.open("a") as both:
        both.write(Path(f"{file}.key").read_text())
    return file


@contextmanager
def tls_provider(own: Path, *, clients: str = "", plan: Plan = GOOD) -> Iterator[tuple[str, List[int]]]:
    """A provider over TLS, and its connections; with ``clients`` it wants a certificate of theirs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own)
    if clients:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED
    seen: List[int] = []
    with FaultyProvider(plan) as inner, socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(inner.url.split(":")[2].split("/")[0])

        def serve(raw: socket.socket) -> None:
            try:
                with (
                    context.wrap_socket(raw, server_side=True) as near,
                    socket.create_connection(("127.0.0.1", port)) as far,
                ):
                    data = b""
                    while b"messages" not in data:
                        more = near.recv(65536)
                        if not more:
                            return
                        data += more
                    far.sendall(data)
                    while True:
                        answer = far.recv(65536)
                        if not answer:
                            return
                        near.sendall(answer)
            except OSError:
                raw.close()

        def accept() -> None:
            while True:
                try:
                    raw, _ = listener.accept()
                except OSError:
                    return
                seen.append(1)
                threading.Thread(target=serve, args=(raw,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield "https://127.0.0.1:%d/v1" % listener.getsockname()[1], seen
        listener.shutdown(socket.SHUT_RDWR)


@openssl
def test_a_certificate_that_nobody_vouches_for(tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    """502 without a retry: trying again is useless, and the client is told so."""
    with tls_provider(certificate(tmp_path, "own")) as (url, seen), proxy_for(url, {"MAX_RETRIES": "2"}) as proxy:
        answer = ask(proxy.url, "/v1/messages", user())
    check_failed(answer, 502)
    assert len(seen) == 1
    assert answer.headers.get("x-should-retry") == "false"


@openssl
@pytest.mark.parametrize("way", ["REQUESTS_CA_BUNDLE", "ca_bundle"])
@pytest.mark.parametrize("is_tunnelled", [False, True], ids=["direct", "HTTPS_PROXY"])
def test_own_authorities(way: str, is_tunnelled: bool, tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    """The environment's bundle, or the model's own, is trusted; also through a tunnel."""
    own = certificate(tmp_path, "own")
    model = {"ca_bundle": str(own)} if way == "ca_bundle" else {}
    if not model:
        environment.setenv(way, str(own))
    with relay() as (proxy_url, lines), tls_provider(own) as (url, _):
        if is_tunnelled:
            environment.setenv("https_proxy", proxy_url)
            url = url.replace("127.0.0.1", "provider.test")
        with proxy_for(url, **model) as proxy:
            assert text_of(ask(proxy.url, "/v1/messages", user())) == "Hello"
    assert [line.split(" ")[0] for line in lines] == ["CONNECT"] * is_tunnelled


@openssl
def test_a_certificate_for_another_name(tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    """Being trusted is not enough."""
    own = certificate(tmp_path, "other", "127.0.0.2")
    with tls_provider(own) as (url, _), proxy_for(url, ca_bundle=str(own)) as proxy:
        check_failed(ask(proxy.url, "/v1/messages", user()), 502)


@openssl
@pytest.mark.parametrize("is_shown", [True, False])
def test_a_client_certificate(is_shown: bool, tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    """The model's own is shown to a provider that wants one."""
    own, client = certificate(tmp_path, "own"), certificate(tmp_path, "client")
    model = {"client_cert": str(client)} if is_shown else {}
    with tls_provider(own, clients=str(client)) as (url, _), proxy_for(url, ca_bundle=str(own), **model) as proxy:
        answer = ask(proxy.url, "/v1/messages", user())
    assert answer.status == (200 if is_shown else 502)


@openssl
def test_a_stream_over_tls(tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    """Is carried with the others, also where an answer comes in many records, some of them read in halves."""
    own, go, much = certificate(tmp_path, "own"), threading.Event(), "x" * 200_000
    long = b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % much.encode()
    plan = [head(), chunk(EVENTS.partition(b"\n\n")[0] + b"\n\n"), until(go), chunk(long), slicer(LAST, 7), END]
    with (
        tls_provider(own, plan=plan) as (url, _),
        proxy_for(url, ca_bundle=str(own)) as proxy,
        RawConnection(proxy.url) as client,
    ):
        client.send(request("POST", "/v1/messages", user(stream=True)))
        client.head()
        body = client.chunk()
        if hasattr(select, "epoll"):
            eventually(lambda: proxy.server.streams._carried, "it is carried")
        go.set()
        body += b"".join(iter(client.chunk, b""))
    assert "".join(event["delta"].get("text", "") for event in events_of(body) if "delta" in event) == f"Hel{much}Hello"
