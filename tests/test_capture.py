"""``ccproxy replay``: captured requests are sent again, and answers compared by what a client makes of them."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any, List

import pytest

import recordings
from ccproxy import cli
from ccproxy.capture import CHAT, MESSAGES, answer_lines, as_messages, read_capture
from ccproxy.errors import ConfigError
from ccproxy.stub import Failure, StubProvider, Text, ToolCall
from ccproxy.translate.reply import ReplyContext
from processes import configuration, eventually, running, serve_command
from responses_provider import ResponsesProvider
from support import Json, ask, user

PROMPT = 'demo: think Hm.\ndemo: text Two\ndemo: tool Read {"path": "a b", "limit": 3}'
LINES = ["thinking", "  Hm.", "text", "  Two", "tool_use Read", "  limit: 3", '  path: "a b"', "stop tool_use"]


def recording(url: str, sent: Any, **response: Any) -> str:
    """A recording, as a file has it."""
    return json.dumps({"request": {"url": url, "body": sent}, "response": {"status": 200, **response}})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without configuration: the demo answers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATE_DIR", str(tmp_path / "state"))
    for name in ("ROUTER_DEFAULT", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


# --- answers as lines --------------------------------------------------------------------------------------------


def test_a_stream_and_a_document_are_the_same_lines(folder: Path) -> None:
    """However an answer came, and in whatever pieces."""
    with running(serve_command("--port", "0"), folder, {}) as process:
        url = process.address()
        whole, streamed = (ask(url, "/v1/messages", user(PROMPT, stream=stream)).body for stream in (False, True))
    lines = answer_lines(whole.decode())
    assert lines[:-1] == LINES
    assert lines[-1].startswith("usage input=")
    assert answer_lines(streamed.decode()) == lines
    cut = streamed.decode().partition("event: message_stop")[0]
    assert answer_lines(cut) == [*lines, "the stream has no end"]


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "error", "error": {"type": "overloaded_error", "message": "too\\nbusy"}}',
        'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error", "message": "too busy"}}\n\n',
    ],
)
def test_errors_are_lines_too(text: str) -> None:
    """An error, as a document or in a stream."""
    assert answer_lines(text)[-1] == "error overloaded_error too busy"


def test_chat_completions_are_translated() -> None:
    """A provider's recorded answer becomes what a client would be given today."""
    chunk = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}
    sse = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
    text = recording("https://x/v1/chat/completions?api-version=1", {}, sse=sse)
    capture = read_capture(text, "x.json")
    assert capture.api == CHAT
    assert answer_lines(as_messages(capture, ReplyContext("", "")))[:3] == ["text", "  Hi", "stop end_turn"]
    refused = read_capture(recording("https://x/chat/completions", {}, status=429, text="slow down"), "x.json")
    assert answer_lines(as_messages(refused, ReplyContext("", ""))) == [
        "error rate_limit_error the provider (): slow down"
    ]


@pytest.mark.skipif(not recordings.folder().is_dir(), reason=f"no recordings: {recordings.VARIABLE} names their folder")
def test_every_recording_can_be_read() -> None:
    """Those of all APIs that have a request, all of them."""
    read = 0
    for path in sorted(recordings.folder().glob("*/*.json")):
        value = json.loads(path.read_text(encoding="utf-8"))
        url = str((value["request"] or {}).get("url", ""))
        if not value["response"] or not value["request"].get("body") or "count_tokens" in url:
            continue
        capture = read_capture(json.dumps(value), path.name)
        assert answer_lines(as_messages(capture, ReplyContext("", ""))), path
        read += 1
    assert read > 400


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "neither a recording"),
        ("[]", "neither a recording"),
        ("{", "neither a recording"),
        (recording("https://x/v1/completions", {}), "request.url"),
        (recording("https://x/v1/messages", None), "request.body"),
        (recording("https://x/v1/messages", {}, status="fine"), "response.status"),
        ('{"request": 5}', "request and response"),
        ('{"id": 1, "what": 2, "body": 3}', "neither a recording"),
        ('{"id": "a", "what": "POST /v1/messages", "body": "{}"}', "no POST /v1/messages with its answer"),
        (
            '{"id": "a", "what": "POST /messages", "bytes": 9, "body": "{..."}\n{"id": "a", "what": "200", "body": ""}',
            "its body of 9 bytes is not there whole",
        ),
    ],
)
def test_files_that_are_none(text: str, words: str) -> None:
    """The error names the file and what is missing in it."""
    with pytest.raises(ConfigError, match=r"^file: ") as raised:
        read_capture(text, "file")
    assert words in str(raised.value)


# --- the command -------------------------------------------------------------------------------------------------


def test_what_log_bodies_writes_can_be_sent_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last request of a real server's bodies.log, or the one that --id names; also from standard input."""
    settings = {"LOG_BODIES": "1", "STATE_DIR": str(folder / "state")}
    log = folder / "state" / "bodies.log"
    with running(serve_command("--port", "0"), folder, settings) as process:
        url = process.address()
        first = ask(url, "/v1/messages", user("demo: text first"))
        ask(url, "/v1/messages", user(PROMPT, stream=True))
        eventually(lambda: log.read_text().count('"what": "200"') >= 2, "both answers are logged")
    assert cli.main(["replay", str(log)]) == 0
    assert capsys.readouterr().out.splitlines()[1:-1] == [f"  {line}" for line in LINES]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(log.read_bytes())))
    assert cli.main(["replay", "-"]) == 0
    assert "  Two\n" in capsys.readouterr().out
    assert cli.main(["replay", str(log), "--id", first.headers["request-id"]]) == 0
    assert "    first\n" in capsys.readouterr().out
    assert cli.main(["replay", str(log), "--id", "req_none"]) == 2
    assert "no request req_none" in capsys.readouterr().err


def test_a_difference_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Like diff: what was captured, what is answered now, and exit code 1."""
    message = {"type": "message", "content": [{"type": "text", "text": "one\ntwo\x1b[31m"}], "stop_reason": "end_turn"}
    body = user("demo: text one")
    (folder / "x.json").write_text(recording("https://api.anthropic.com/v1/messages?beta=true", body, body=message))
    assert cli.main(["replay", "x.json", "--model", "demo/echo"]) == 1
    shown = capsys.readouterr().out.splitlines()
    assert shown[:4] == ["- captured, + now", "  text", "    one", "-   two?[31m"]
    assert shown[-2].startswith("- usage")
    assert shown[-1].startswith("+ usage")


@pytest.mark.parametrize("steps", [[Text("Hi"), ToolCall("Read", {"a": 1})], [Failure(400, "no")]])
def test_an_exchange_with_a_provider(steps: List[Any], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A request of chat completions goes to the model that --model names, as it was; both answers are translated."""
    sent: Json = {"model": "recorded", "messages": [{"role": "user", "content": "Hi"}], "stream": True, "odd": [1]}
    with StubProvider(lambda request: steps) as stub:
        configuration(folder, stub.url)
        answer = ask(stub.url, "/v1/chat/completions", sent)
        captured = {"status": answer.status, "sse" if answer.status == 200 else "text": answer.body.decode()}
        (folder / "x.json").write_text(recording("https://x/v1/chat/completions", sent, **captured))
        assert cli.main(["replay", "x.json", "--model", "stub"]) == 0
        assert stub.requests[-1].body == {**sent, "model": "stub"}
    assert capsys.readouterr().out.startswith("the same answer")
    assert cli.main(["replay", "x.json"]) == 2
    assert "--model must name the model" in capsys.readouterr().err


def test_an_exchange_over_the_responses_api(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Goes there again, and is translated from there."""
    with ResponsesProvider(lambda _: [Text("Hi"), ToolCall("Read", {"a": 1})]) as provider:
        configuration(folder, provider.url)
        answer = provider.answer_to("v1", {"stream": True})
        sse = b"".join(answer.pieces).decode()
        (folder / "x.json").write_text(recording("https://x/v1/responses", {"input": "Hi", "stream": True}, sse=sse))
        assert cli.main(["replay", "x.json", "--model", "stub"]) == 0, capsys.readouterr().out
        [received] = provider.received
    assert (received.path, received.body["input"]) == ("/v1/responses", "Hi")
    assert capsys.readouterr().out.startswith("the same answer")


@pytest.mark.parametrize(
    "events",
    [
        "event: content_block_start\ndata: {}\n\nevent: content_block_delta\ndata: {}\n\n",
        'event: content_block_delta\ndata: {"index": [], "delta": {"text": 5}}\n\n',
        'event: message_delta\ndata: {"delta": 1, "usage": 2}\n\n',
        '{"type": "message", "content": [1], "usage": 3}',
        '{"type": "message", "content": 1}',
        '{"type": "\ud800"}',
        "\ud800",
    ],
)
def test_an_answer_of_odd_parts_has_lines(events: str) -> None:
    """What a provider of this API may have sent is shown as far as it can be read."""
    assert answer_lines(events)


@pytest.mark.parametrize(
    "arguments",
    [["absent.json"], ["recording.json", "--model", "nobody"], ["cut.json", "--model", "demo/echo"]],
)
def test_failures_are_one_line(arguments: List[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not there, a model that is not known, half an answer."""
    (folder / "recording.json").write_text(recording("https://x/v1/messages", user(), body={}))
    (folder / "cut.json").write_text(recording("https://x/chat/completions", user(), text='{"choices": ['))
    assert cli.main(["replay", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_apis_are_told_by_the_address() -> None:
    """With a query, a fragment, or neither."""
    for url in ("https://x/v1/messages", "https://x/v1/messages?beta=true", "https://x/messages#stream"):
        assert read_capture(recording(url, {}, body={}), "x").api == MESSAGES
