"""Every odd thing a provider can answer: understood by what it is, or an error, never an empty message."""

from __future__ import annotations

import gzip
from typing import Dict

import pytest

from fixed_provider import (
    EVENTS,
    HTML,
    JSON,
    SSE,
    STREAM,
    WHOLE,
    FixedProvider,
    answer_of,
    check_failed,
    proxy_for,
    text_of,
)
from support import ask, user

both = pytest.mark.parametrize("stream", [False, True])


# --- answers that are good, whatever the form ---------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (JSON, WHOLE),
        ("application/json; charset=utf-8", WHOLE),
        (SSE, STREAM),
        (SSE + "; charset=utf-8", STREAM),
        ("text/plain", STREAM),
        ("", STREAM),
        (SSE, EVENTS),
        (SSE, STREAM.replace(b"\n", b"\r\n")),
        (SSE, b": comment\n\n" + STREAM),
        (SSE, STREAM.rstrip(b"\n")),
        (JSON, b"\n\n  \n" + WHOLE),
    ],
)
def test_the_form_of_the_answer_decides(kind: str, body: bytes, stream: bool) -> None:
    """A stream that was not asked for, or a completion instead of one, is understood by what it is."""
    with FixedProvider(200, {"content-type": kind} if kind else {}, body) as server:
        assert text_of(answer_of(server.url, stream)) == "Hello"


@both
def test_json_that_is_called_something_else(stream: bool) -> None:
    """A completion under a type that is not JSON is one all the same."""
    with FixedProvider(200, {"content-type": "text/plain; charset=utf-8"}, WHOLE) as server:
        assert text_of(answer_of(server.url, stream)) == "Hello"


@both
def test_characters_that_are_none(stream: bool) -> None:
    """A byte that is no UTF-8, as servers send that cut a character in two, spoils its character alone."""
    kind, body = (SSE, STREAM) if stream else (JSON, WHOLE)
    with FixedProvider(200, {"content-type": kind}, body.replace(b"He", b"\xe9")) as server:
        assert text_of(answer_of(server.url, stream)) == "\ufffdllo"


# --- answers that are none ----------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (HTML, b"<html><title>Sign in</title></html>"),
        (JSON, b"<html></html>"),
        (JSON, b""),
        (SSE, b""),
        (HTML, b""),
        (JSON, b"null"),
        (JSON, b"[]"),
        (JSON, b"{}"),
        (JSON, b'{"choices": []}'),
        (JSON, WHOLE[:-5]),
        (SSE, b"data: [DONE]\n\n"),
        (SSE, b": nothing but comments\n\n"),
        (SSE, b"data: no json\n\n" * 10),
        (JSON, b'{"error": {"message": "no", "code": 500}}'),
        (SSE, b'data: {"error": {"message": "no", "code": 500}}\n\n'),
        (JSON, b"\xff\xfe\x00"),
    ],
)
def test_a_200_that_is_no_answer(kind: str, body: bytes, stream: bool) -> None:
    """Is an error, never an empty message."""
    with FixedProvider(200, {"content-type": kind}, body) as server:
        check_failed(answer_of(server.url, stream), 500, 502, 529)


@both
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"transfer-encoding": "chunked"}, b"5\r\ndata:"),
        ({"transfer-encoding": "chunked"}, b"zz\r\n"),
        ({"content-length": "500"}, b"data: "),
    ],
)
def test_a_body_that_breaks_off_before_any_content(headers: Dict[str, str], body: bytes, stream: bool) -> None:
    """Is a plain error: nothing was shown yet."""
    with FixedProvider(200, {"content-type": SSE, "connection": "close", **headers}, body) as server:
        check_failed(answer_of(server.url, stream), 502)


@pytest.mark.parametrize("headers", [{"transfer-encoding": "chunked"}, {"content-length": "5000"}])
def test_a_completion_that_breaks_off(headers: Dict[str, str]) -> None:
    """Half a completion is none."""
    body = b"%x\r\n%s\r\n" % (len(WHOLE), WHOLE) if "transfer-encoding" in headers else WHOLE
    with FixedProvider(200, {"content-type": JSON, "connection": "close", **headers}, body) as server:
        check_failed(answer_of(server.url), 502)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error": {"message": "the words"}}', "the words"),
        (b'{"error": "the words"}', "the words"),
        (b'{"message": "the words"}', "the words"),
        (b'{"detail": [{"msg": "the words"}]}', "the words"),
        (b'[{"error": {"code": 400, "message": "the words"}}]', "the words"),
        (b'{"error": {"message": "Provider", "metadata": {"raw": "{\\"error\\": \\"the words\\"}"}}}', "the words"),
        (b"the words", "the words"),
        (b"<html><head><title>the words</title></head>" + b"x" * 9000, "the words"),
        (b"", "empty"),
        (b"\xff\xfe", ""),
        (b"x" * 1_000_000, "xxx"),
    ],
)
def test_the_words_of_an_error(body: bytes, words: str) -> None:
    """Are found in every shape that providers use, and stay short."""
    with FixedProvider(400, {"content-type": JSON}, body) as server:
        message = check_failed(answer_of(server.url), 400)
    assert words in message
    assert len(message) < 2500


@both
@pytest.mark.parametrize("api", ["chat", "responses"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"code": 500, "msg": "the words", "success": false}',
        b'{"detail": "the words"}',
        b'[{"error": {"code": 429, "message": "the words"}}]',
        b'{"status": 17, "error_msg": "the words"}',
    ],
)
def test_the_words_of_a_200_that_is_no_answer(body: bytes, api: str, stream: bool) -> None:
    """Are told as well, where there is JSON in place of an answer."""
    with FixedProvider(200, {"content-type": JSON}, body) as server, proxy_for(server.url, api=api) as proxy:
        assert "the words" in check_failed(ask(proxy.url, "/v1/messages", user(stream=stream)), 500, 502)


@both
@pytest.mark.parametrize("encoding", ["gzip", "br", "unknown"])
def test_a_compressed_answer_that_nobody_asked_for(encoding: str, stream: bool) -> None:
    """Is decoded or refused, never passed on as it is."""
    body = gzip.compress(STREAM if stream else WHOLE)
    headers = {"content-type": SSE if stream else JSON, "content-encoding": encoding}
    with FixedProvider(200, headers, body) as server:
        answer = answer_of(server.url, stream)
    if encoding == "gzip":
        assert (answer.status, text_of(answer)) == (200, "Hello")
    else:
        assert "\ufffd" not in check_failed(answer, 500, 502, 529)
