"""A request's body as JSON: one document that every reader reads alike, of any size and shape, at a bounded price."""

from __future__ import annotations

import gzip
import json
import socket
import time
import zlib
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from faults import FaultyProvider, Plan, send, whole
from grammar import check_error
from processes import Process, configuration, running, serve_command
from raw_http import RawConnection, chunked, request
from support import Proxy, ask, proxy_with, user

Json = Dict[str, Any]

JSON = "application/json"
BOMB_MEMORY = 150
"""MiB that a compressed body may cost at most."""


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    """A proxy with a scripted model."""
    with proxy_with() as (proxy, _):
        yield proxy


def message(**fields: Any) -> bytes:
    """A good body with some fields replaced; a value in ``bytes`` is put in as it is."""
    raw = {name: value for name, value in fields.items() if isinstance(value, bytes)}
    body = json.dumps(user("demo: text fine", **{**fields, **dict.fromkeys(raw, "RAW")})).encode()
    for value in raw.values():
        body = body.replace(b'"RAW"', value)
    return body


NO_JSON = {
    "a name twice": b'{"model": "a", ' + message()[1:],
    "a name twice, deep inside": message(metadata=b'{"user_id": "a", "user_id": "b"}'),
    "two documents": message() + message(),
    "NaN": message(temperature=b"NaN"),
    "infinity": message(temperature=b"-Infinity"),
    "a number without measure": message(temperature=b"1e400"),
    "an integer of 5000 digits": message(max_tokens=b"9" * 5000),
    "an integer of 5000 digits in an unknown field": message(unknown=b"9" * 5000),
    "no UTF-8": message(metadata=b'{"user_id": "\xff"}'),
    "UTF-16": message().decode().encode("utf-16"),
    "a control character in a string": message(metadata=b'{"user_id": "a\x00b"}'),
    "a comma too many": message()[:-1] + b",}",
    "nested without end": b"[" * 200_000,
    "nested without end, in a field": message(unknown=b"[" * 100_000 + b"]" * 100_000),
    "nested without end, in objects": message(unknown=b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "nothing": b"",
}


@pytest.mark.parametrize("name", NO_JSON)
@pytest.mark.parametrize("path", ["messages", "messages/count_tokens"])
def test_what_is_no_single_json_document_is_refused(proxy: Proxy, path: str, name: str) -> None:
    """400, with what is wrong; nothing of the implementation is in it, and nothing crashes."""
    answer = ask(proxy.url, f"/v1/{path}", NO_JSON[name])
    assert answer.status == 400
    check_error(answer.json)
    text = answer.json["error"]["message"]
    assert len(text) < 300
    assert "sys." not in text
    assert ask(proxy.url, "/health").status == 200


TEXTS = {
    "lone surrogates": "\ud800 and \udfff",
    "control characters": "".join(map(chr, range(32))) + "\x7f\x85\u2028",
    "special tokens": "<|endoftext|><|im_start|>system<|im_end|>[INST]</s>",
    "a long line": "a" * 1_000_000,
    "long without any space": "漢" * 400_000,
    "emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 5_000,
}


@pytest.mark.parametrize("name", TEXTS)
def test_any_text_is_a_prompt(proxy: Proxy, name: str) -> None:
    """Whatever a text holds, it is answered within seconds."""
    started = time.monotonic()
    assert ask(proxy.url, "/v1/messages", user(TEXTS[name])).status == 200
    assert ask(proxy.url, "/v1/messages/count_tokens", user(TEXTS[name])).json["input_tokens"] > 0
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("fields", [{"messages": 5_000}, {"tools": 2_000}, {"system": 3_000}], ids=str)
def test_thousands_of_items(proxy: Proxy, fields: Any) -> None:
    """Messages, tools and blocks by the thousand are answered within seconds."""
    items = {
        "messages": lambda number: {"role": ("user", "assistant")[number % 2], "content": "x"},
        "tools": lambda number: {"name": f"tool_{number}", "input_schema": {"type": "object"}},
        "system": lambda number: {"type": "text", "text": "x"},
    }
    body = {name: [items[name](number) for number in range(count)] for name, count in fields.items()}
    started = time.monotonic()
    if "messages" in body:
        body["messages"].append({"role": "user", "content": "demo: text fine"})
    assert ask(proxy.url, "/v1/messages", {**user("demo: text fine"), **body}).status == 200
    assert time.monotonic() - started < 20


def test_a_body_cannot_choose_address_or_key() -> None:
    """Fields by which other proxies let a client name the provider are fields without a meaning."""
    evil = {"api_base": "http://127.0.0.1:1/", "base_url": "http://127.0.0.1:1/", "api_key": "x", "extra_headers": {}}
    with proxy_with() as (proxy, stub):
        assert ask(proxy.url, "/v1/messages", user(**evil)).status == 200
        assert not set(evil) & set(stub.requests[-1].body)


@pytest.mark.parametrize("entry", [{}, {"direct": True}, {"supports_images": False}, {"api": "responses"}], ids=str)
@pytest.mark.parametrize("path", ["messages", "messages/count_tokens", "messages/test_conversion"])
def test_addresses_in_a_prompt_are_not_fetched(entry: Json, path: str) -> None:
    """An image or a document by its address is the provider's to fetch, or nobody's: we ask nothing of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener, proxy_with(**entry) as (proxy, stub):
        address = "http://127.0.0.1:%d" % listener.getsockname()[1]
        sources = [("image", f"{address}/a.png"), ("document", f"{address}/b.pdf")]
        content = [{"type": kind, "source": {"type": "url", "url": url}} for kind, url in sources]
        messages = [{"role": "user", "content": [*content, {"type": "text", "text": "demo: text fine"}]}]
        ask(proxy.url, f"/v1/{path}", {**user(), "messages": messages})
        asked = [request for request in stub.requests if request.path.endswith("/chat/completions")]
        assert (f"{address}/a.png" in str(asked)) == (not entry and path == "messages")
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


# --- content encodings ------------------------------------------------------------------------------------------


def deflated(body: bytes) -> bytes:
    """The encoding that HTTP calls deflate."""
    return zlib.compress(body)


@pytest.mark.parametrize(
    ("encoding", "encode"), [("gzip", gzip.compress), ("GZIP", gzip.compress), ("deflate", deflated)]
)
@pytest.mark.parametrize("is_chunked", [False, True])
def test_an_encoded_body(proxy: Proxy, encoding: str, encode: Any, is_chunked: bool) -> None:
    """Is decoded, whatever its framing."""
    data = encode(message())
    framing = {"Transfer-Encoding": "chunked"} if is_chunked else {"Content-Length": str(len(data))}
    with RawConnection(proxy.url) as client:
        head = request("POST", "/v1/messages", headers={"Content-Encoding": encoding, **framing})
        client.send(head + (chunked(data, 20) if is_chunked else data))
        assert client.answer().json["content"][0]["text"] == "fine"


@pytest.mark.parametrize(
    ("encoding", "data", "code"),
    [
        pytest.param("br", message(), "unsupported", id="an encoding we do not have"),
        pytest.param("gzip, gzip", message(), "unsupported", id="two encodings"),
        pytest.param("gzip", message(), "invalid", id="plain"),
        pytest.param("gzip", gzip.compress(message())[:-10], "invalid", id="half a body"),
        pytest.param("gzip", gzip.compress(message()) + b"more", "invalid", id="more after the end"),
    ],
)
def test_a_body_in_no_known_encoding(proxy: Proxy, encoding: str, data: bytes, code: str) -> None:
    """400 with the code that the Messages API has for it; and half a body, or two, is none."""
    answer = ask(proxy.url, "/v1/messages", data, headers={"content-encoding": encoding})
    assert (answer.status, answer.json["error"]["details"]["error_code"]) == (400, f"request_body_encoding_{code}")


def peak(process: Process) -> int:
    """The most memory a process has had so far, in MiB."""
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) // 1024


def packed(size: int) -> bytes:
    """So many MiB of spaces, in thousand times less."""
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    begin, one = packer.compress(b" " * (1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH), packer.compress(b" " * (1 << 20))
    one += packer.flush(zlib.Z_FULL_FLUSH)  # after a full flush the same input packs to the same bytes
    end = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS).flush()
    return begin + one * (size - 1) + end + bytes(8)  # a checksum that nobody should get to


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")


@needs_proc
def test_a_bomb_of_a_client(tmp_path: Path) -> None:
    """A gigabyte of spaces in a megabyte is refused, and costs no more than the limit of a body."""
    bomb = packed(1024)
    with running(serve_command("--port", "0"), tmp_path, {}) as process:
        url = process.address()
        assert ask(url, "/v1/messages", user()).status == 200
        before = peak(process)
        for _ in range(3):
            assert ask(url, "/v1/messages", bomb, headers={"content-encoding": "gzip"}).status == 413
        assert peak(process) - before < BOMB_MEMORY


@needs_proc
@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("stream", [True, False])
def test_a_bomb_of_a_provider(tmp_path: Path, status: int, stream: bool) -> None:
    """So is an answer that a provider packed, though nobody asked it to; as an error, too."""
    bomb = packed(512)
    kind = "text/event-stream" if stream and status == 200 else JSON
    plan: Plan = [*whole(status, bomb, content_encoding="gzip", content_type=kind), send(b"")]
    with FaultyProvider(plan) as provider:
        variables = configuration(tmp_path, provider.url, MAX_RETRIES="0")
        with running(serve_command("--port", "0"), tmp_path, variables) as process:
            url = process.address()
            ask(url, "/v1/messages/count_tokens", user())
            before = peak(process)
            answers: List[int] = [ask(url, "/v1/messages", user(stream=stream)).status for _ in range(2)]
            assert min(answers) >= 500
            assert peak(process) - before < BOMB_MEMORY
