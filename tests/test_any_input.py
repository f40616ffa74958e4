"""What comes from outside is read or refused: whatever it is, no error comes out that nobody meant."""

from __future__ import annotations

import json
import string
from contextlib import suppress
from typing import Any, Callable, Dict, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccproxy.anthropic import MessagesRequest
from ccproxy.config.schema import SETTINGS
from ccproxy.errors import ApiError, InvalidRequest
from ccproxy.http1 import chunk_size, content_length, parse_head
from ccproxy.masking import mask
from ccproxy.openai import Chunk
from ccproxy.provider.repair import find_repair
from ccproxy.provider.retry import retry_after
from ccproxy.sse import Reader
from ccproxy.translate.failure import Target, translate_failure

NAMES = st.sampled_from(
    ["role", "content", "type", "text", "source", "data", "input", "choices", "delta", "usage", "error", "tool_calls"]
)
KINDS = st.sampled_from(["text", "image", "document", "tool_use", "tool_result", "thinking", "base64", "user", "url"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | KINDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from([*MessagesRequest.__dataclass_fields__, "of_tomorrow"])
LINES = st.lists(
    st.binary(max_size=20) | st.sampled_from([b"GET / HTTP/1.1\r\n", b"Host: a\r\n", b"X: y\r\n", b"\r\n"]),
    min_size=1,
    max_size=6,
)


@given(st.dictionaries(FIELDS, JSON, max_size=6) | JSON)
def test_a_request(body: Any) -> None:
    """Is one, or is refused as one that is none."""
    good = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
    for value in (body, {**good, **body} if isinstance(body, dict) else body, {**good, "messages": [body]}):
        with suppress(InvalidRequest):
            MessagesRequest.from_dict(value)


@given(LINES)
def test_a_head(lines: List[bytes]) -> None:
    """Is one, or is refused with a status of its own."""
    with suppress(ApiError):
        content_length(parse_head(lines).headers)
    for line in lines:
        with suppress(InvalidRequest):
            chunk_size(line)


@given(JSON)
def test_a_chunk(value: Any) -> None:
    """Says something or nothing, in a stream or as a whole."""
    Chunk.from_dict(value)
    Chunk.from_completion(value)


@given(st.lists(st.binary(max_size=30) | st.sampled_from([b"data: ", b"\n\n", b"\r", b"event: x\n", b": c\n"])))
def test_a_stream(reads: List[bytes]) -> None:
    """Is events, however it is cut."""
    reader = Reader()
    for data in reads:
        list(reader.feed(data))
    list(reader.finish())


@given(st.integers(300, 599), st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()), st.text())
def test_a_failure(status: int, body: bytes, header: str) -> None:
    """Is an error that clients know, without the secret that is in it."""
    secret = "a-secret-of-mine"
    headers = {"retry-after": header, "retry-after-ms": header}
    error = translate_failure(status, headers, body + secret.encode(), Target("p", "m", secrets=(secret,)))
    assert 400 <= error.status < 600
    assert secret not in error.message


@pytest.mark.parametrize("digits", [400, 4200, 5000])
@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, '{"error": {"message": "maximum context length is %s tokens"}}'),
        ({}, '{"error": {"message": "max_tokens must be at most %s"}}'),
        ({}, '{"error": {"message": "slow", "details": [{"retryDelay": "%ss"}]}}'),
        ({}, '{"error": {"message": "slow", "headers": {"retry-after": "%s"}}}'),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "%sh"}, "slow"),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1.%ss"}, "slow"),
        ({}, "slow: try again in %sh1.%ss"),
        ({}, "slow: retry after %s seconds"),
        ({"retry-after": "%s"}, "slow"),
    ],
)
def test_a_number_without_end(headers: Dict[str, str], words: str, digits: int) -> None:
    """In a failure is no reason to fail: beyond a float, or what the interpreter makes a number of."""
    number = "9" * digits
    sent = {name: value.replace("%s", number) for name, value in headers.items()}
    for status in (400, 429):
        error = translate_failure(status, sent, words.replace("%s", number).encode(), Target("p", "m"))
        assert 400 <= error.status < 600
        assert len(error.headers.get("retry-after", "")) < 20
    for api in ("chat", "responses"):
        words = words.replace("max_tokens", "max_tokens or max_output_tokens")
        repair = find_repair(400, words.replace("%s", number), api)
        assert repair is None or repair({"max_tokens": 5}) == {"max_tokens": 5}


@given(st.text(), st.text(string.ascii_letters + string.digits + "-_", min_size=6), st.text())
def test_a_mask(before: str, secret: str, after: str) -> None:
    """Leaves nothing of a secret."""
    assert secret not in mask(before + secret + after, (secret,))


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms"]), st.text(max_size=40)))
def test_a_wish_to_wait(headers: Any) -> None:
    """Is a number of seconds, or none."""
    wait = retry_after(headers, 1e9)
    assert wait is None or wait >= 0


@given(st.sampled_from(list(SETTINGS.values())), JSON)
def test_a_setting(read: Callable[[Any], Any], value: Any) -> None:
    """Has a value, or an error that is for its owner."""
    with suppress(ValueError):
        read(value)
