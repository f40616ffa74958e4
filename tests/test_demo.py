"""The demo model: a fresh installation answers, and plays what a prompt tells it to."""

from __future__ import annotations

import gc
import http.client
from typing import Iterator

import pytest

from ccproxy.stub import Received
from grammar import check_error, check_grammar, fold, parse_sse
from support import Json, Proxy, ask, running_proxy, user

PROMPT = 'demo: think Let me see.\ndemo: text I look.\ndemo: tool Read {"path": "a b"}\ndemo: text It is there.'


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    """A proxy without any configuration."""
    with running_proxy() as proxy:
        yield proxy


def answer_to(proxy: Proxy, stream: bool, *turns: Json) -> Json:
    """The message that a conversation is answered with, however it comes."""
    answer = ask(proxy.url, "/v1/messages", {**user(stream=stream), "messages": list(turns)})
    assert answer.status == 200, answer.body
    if not stream:
        return dict(answer.json)
    events = parse_sse(answer.body)
    check_grammar(events)
    return fold(events)


@pytest.mark.parametrize("stream", [False, True])
def test_it_answers_without_configuration(proxy: Proxy, stream: bool) -> None:
    """The answer repeats the prompt and says how to go on."""
    message = answer_to(proxy, stream, {"role": "user", "content": "What now?"})
    assert message["content"][0]["text"].startswith("You said: What now?")
    assert "ROUTER_DEFAULT" in message["content"][0]["text"]
    assert ask(proxy.url, "/v1/messages", user()).headers["x-ccproxy-model"] == "demo/echo"


def test_it_repeats_the_prompt_alone(proxy: Proxy) -> None:
    """Claude Code puts reminders, and commands that it carried out, around what its user wrote; they are not shown."""
    reminder = "<system-reminder>\nToday is a day.\n</system-reminder>\n<command-name>/model</command-name>\n"
    reminder += "<local-command-stdout>Kept it</local-command-stdout>\n"
    blocks = [{"type": "text", "text": text} for text in (reminder, "What now?", reminder + reminder)]
    message = answer_to(proxy, False, {"role": "user", "content": blocks})
    assert message["content"][0]["text"].startswith("You said: What now?\n\nThis is")


@pytest.mark.parametrize("stream", [False, True])
def test_it_plays_directives(proxy: Proxy, stream: bool) -> None:
    """Thinking, text and a tool call; the tool's result brings the rest."""
    asked = {"role": "user", "content": PROMPT}
    first = answer_to(proxy, stream, asked)
    assert [block["type"] for block in first["content"]] == ["thinking", "text", "tool_use"]
    assert first["content"][0]["thinking"] == "Let me see."
    call = first["content"][2]
    assert (call["name"], call["input"], first["stop_reason"]) == ("Read", {"path": "a b"}, "tool_use")
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "ok"}
    told = [{"role": "assistant", "content": first["content"]}, {"role": "user", "content": [result]}]
    second = answer_to(proxy, stream, asked, *told)
    assert [block.get("text") for block in second["content"]] == ["It is there."]
    assert second["stop_reason"] == "end_turn"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 429, 500])
def test_it_fails_when_told_to(proxy: Proxy, status: int, stream: bool) -> None:
    """An error that comes first is a status."""
    answer = ask(proxy.url, "/v1/messages", user(f"demo: error {status} bad luck", stream=stream))
    assert answer.status == status
    check_error(answer.json)
    assert "bad luck" in answer.json["error"]["message"]


def test_it_fails_in_mid_stream_when_told_to(proxy: Proxy) -> None:
    """An error that comes later breaks the stream."""
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        ask(proxy.url, "/v1/messages", user("demo: text so far\ndemo: error 500 bad luck", stream=True))


@pytest.mark.parametrize("stream", [False, True])
def test_it_waits_when_told_to(proxy: Proxy, stream: bool) -> None:
    """A delay changes nothing but the time."""
    message = answer_to(proxy, stream, {"role": "user", "content": "demo: delay 0.01\ndemo: text hi"})
    assert message["content"] == [{"type": "text", "text": "hi"}]


def test_it_is_listed_nowhere_and_found_by_name(proxy: Proxy) -> None:
    """demo/echo can be asked for on purpose."""
    assert ask(proxy.url, "/v1/models").json["data"] == []
    assert ask(proxy.url, "/v1/messages", user("demo: text hi", model="demo/echo")).status == 200


def test_it_keeps_no_prompts(proxy: Proxy) -> None:
    """It may answer for weeks: what it was asked is not in memory afterwards, as it is in tests' providers."""
    marks = [f"remember {number} of the demo" for number in range(3)]
    for mark in marks:
        assert mark in ask(proxy.url, "/v1/messages", user(mark)).body.decode()
    kept = [thing for thing in gc.get_objects() if isinstance(thing, Received)]
    assert not [mark for mark in marks if mark in str(kept)]
