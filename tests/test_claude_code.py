"""The real Claude Code client, oldest supported and newest version, does its work through ccproxy.

Each test scripts the provider as turns of an agent loop and looks at what is left: the client's output, the files
it wrote, and the conversation as the provider saw it.
"""

from __future__ import annotations

import json
import re
import shutil
import warnings
from itertools import count
from pathlib import Path
from typing import Callable, List, Sequence

import pytest

from ccproxy.stub import Cut, Failure, Json, RawChunk, Reasoning, Script, Step, Text, ToolCall, content_text
from claude_code import Run, install, namespace_command, newest_version, outline, run_client, run_code

pytestmark = pytest.mark.claude_code

PROMPT = "Please maintain the file notes.txt (task 7f3a)."
PRINT = ("-p", PROMPT, "--allowedTools", "Write,Read,Edit")
HELPER_ANSWER = '{"title": "Notes"}'
ANSWER = "The notes are in order: naïve — ✓."
HALF_ANSWER = "Half of an answer that never"


@pytest.fixture(scope="module", params=["1.0.35", "newest"])
def client(request: pytest.FixtureRequest) -> List[str]:
    """The client's command, installed from npm; without npm there is no client to test."""
    if not shutil.which("npm"):
        pytest.skip("npm is not installed, and Claude Code is installed with it")
    return install(newest_version() if request.param == "newest" else request.param)


@pytest.fixture(scope="module", autouse=True)
def isolation() -> None:
    """Say so when the runs are not cut off from the network."""
    if not namespace_command():
        warnings.warn("no network namespaces here: Claude Code runs with a closed proxy instead", stacklevel=1)


# --- scripts -------------------------------------------------------------------------------------------------


def is_agent_request(request: Json) -> bool:
    """Tell the main loop's requests from helpers (titles, topics, warm-ups): they have the prompt and the tools."""
    tools = [tool["function"]["name"] for tool in request.get("tools") or []]
    prompts = [content_text(message["content"]) for message in request["messages"] if message["role"] == "user"]
    return "Write" in tools and any(PROMPT in prompt for prompt in prompts)


def agent_script(*turns: Sequence[Step]) -> Script:
    """Play the first turn whose tool calls are not answered yet; a turn without calls is the last one."""

    def script(request: Json) -> Sequence[Step]:
        if not is_agent_request(request):
            return [Text(HELPER_ANSWER)]
        answered = len({message["tool_call_id"] for message in request["messages"] if message["role"] == "tool"})
        for turn in turns:
            calls = sum(isinstance(step, ToolCall) for step in turn)
            if not calls or answered < calls:
                return turn
            answered -= calls
        raise AssertionError("more tool results than the turns have calls")

    return script


def dying_script(last_words: Sequence[Step], *turns: Sequence[Step]) -> Script:
    """Like ``agent_script``, but the first request of the main loop gets ``last_words`` and a cut connection."""
    requests, after = count(), agent_script(*turns)

    def script(request: Json) -> Sequence[Step]:
        dies = is_agent_request(request) and next(requests) == 0
        return [*last_words, Cut()] if dies else after(request)

    return script


def write(path: Path, content: str) -> ToolCall:
    """The tool call that writes a file."""
    return ToolCall("Write", {"file_path": str(path), "content": content})


def plain_answer(project: Path) -> Script:
    return agent_script([Text(ANSWER)])


def write_read_edit(project: Path) -> Script:
    notes = str(project / "notes.txt")
    return agent_script(
        [Text("First I write."), write(project / "notes.txt", 'alpha\n"beta" \\ ✓\n')],
        [ToolCall("Read", {"file_path": notes})],
        [Text("Now I edit."), ToolCall("Edit", {"file_path": notes, "old_string": "alpha", "new_string": "gamma"})],
        [Text(ANSWER)],
    )


def think_and_write_two_files(project: Path) -> Script:
    calls = [write(project / name, f"{name}\n") for name in ("one.txt", "two.txt")]
    return agent_script([Reasoning("Two files at once."), Text("I write."), *calls], [Reasoning("Done?"), Text(ANSWER)])


def be_throttled(project: Path) -> Script:
    return dying_script([Failure(429, "slow down", {"retry-after": "1"})], [Text(ANSWER)])


def be_overloaded(project: Path) -> Script:
    return dying_script([Failure(529, "overloaded")], [Text(ANSWER)])


def hang_up_before_content(project: Path) -> Script:
    return dying_script([], [Text(ANSWER)])


def die_in_text(project: Path) -> Script:
    return dying_script([Text(HALF_ANSWER)], [Text(ANSWER)])


def die_in_tool_call(project: Path) -> Script:
    function = {"name": "Write", "arguments": '{"file_path": "' + str(project / "half.txt") + '", "content": "half of'}
    delta = {"tool_calls": [{"index": 0, "id": "call_half", "type": "function", "function": function}]}
    half_call = RawChunk({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    return dying_script([Text("I write."), half_call], [write(project / "whole.txt", "whole\n")], [Text(ANSWER)])


def die_for_good(project: Path) -> Script:
    def script(request: Json) -> Sequence[Step]:
        if not is_agent_request(request):
            return [Text(HELPER_ANSWER)]
        return [Text(HALF_ANSWER), Cut()] if request.get("stream") else [Failure(402, "Insufficient Balance")]

    return script


# --- what is looked at ---------------------------------------------------------------------------------------


def assert_printed(run: Run, answer: str) -> None:
    """The client ended well and printed ``answer``, whole and alone."""
    assert (run.exit_code, run.stdout.strip()) == (0, answer), run.report()


def agent_requests(run: Run) -> List[Json]:
    return [request for request in run.requests if is_agent_request(request)]


def assert_well_formed(messages: Sequence[Json]) -> None:
    """Each call is made once and answered once, by the messages right after it: providers insist. No words repeat."""
    waiting: List[str] = []
    calls: List[str] = []
    words: List[str] = []
    for message in messages:
        if message["role"] == "tool":
            assert message["tool_call_id"] in waiting, outline(messages)
            waiting.remove(message["tool_call_id"])
            continue
        assert not waiting, f"no result of {waiting} before the next {message['role']} message:\n{outline(messages)}"
        waiting = [call["id"] for call in message.get("tool_calls") or []]
        calls += waiting
        if message["role"] == "assistant" and message.get("content"):
            words.append(content_text(message["content"]))
    assert not waiting, f"no result of {waiting}:\n{outline(messages)}"
    assert len(calls) == len(set(calls)), f"a call is there twice:\n{outline(messages)}"
    assert len(words) == len(set(words)), f"a text is there twice:\n{outline(messages)}"


def tool_results(run: Run) -> List[str]:
    """The tool results that the last request of the main loop brought, as texts, in order."""
    conversations = [request["messages"] for request in agent_requests(run)]
    for messages in conversations:
        assert_well_formed(messages)
    return [content_text(message["content"]) for message in conversations[-1] if message["role"] == "tool"]


# --- the tests -----------------------------------------------------------------------------------------------


def test_plain_answer_is_printed(client: List[str], tmp_path: Path) -> None:
    """The provider's text is what the client prints."""
    run = run_client(client, plain_answer, tmp_path, *PRINT)
    assert_printed(run, ANSWER)
    assert len(agent_requests(run)) == 1, run.report()


def test_agent_loop_writes_reads_and_edits_a_file(client: List[str], tmp_path: Path) -> None:
    """Tool calls do their work on disk, their results reach the provider, and the loop ends with its last text."""
    run = run_client(client, write_read_edit, tmp_path, *PRINT)
    assert_printed(run, ANSWER)
    assert (tmp_path / "project" / "notes.txt").read_text(encoding="utf-8") == 'gamma\n"beta" \\ ✓\n'
    written, read, edited = tool_results(run)
    assert "notes.txt" in written
    assert "alpha" in read
    assert '"beta" \\ ✓' in read
    assert "notes.txt" in edited
    assert len(agent_requests(run)) == 4, run.report()


def test_thinking_and_parallel_calls_in_one_turn(client: List[str], tmp_path: Path) -> None:
    """Reasoning, text and two tool calls of one reply arrive as what they are, and both calls are carried out."""
    run = run_client(client, think_and_write_two_files, tmp_path, *PRINT, "--output-format", "stream-json", "--verbose")
    assert run.exit_code == 0, run.report()
    events = [json.loads(line) for line in run.stdout.split("\n") if line]
    blocks = [block for event in events if event["type"] == "assistant" for block in event["message"]["content"]]
    kinds = [block["type"] for block in blocks]
    assert kinds == ["thinking", "text", "tool_use", "tool_use", "thinking", "text"], run.report()
    assert [block["thinking"] for block in blocks if block["type"] == "thinking"] == ["Two files at once.", "Done?"]
    ends = [(event["subtype"], event["result"]) for event in events if event["type"] == "result"]
    assert ends == [("success", ANSWER)], run.report()
    for name in ("one.txt", "two.txt"):
        assert (tmp_path / "project" / name).read_text(encoding="utf-8") == f"{name}\n"
    assert len(tool_results(run)) == 2, run.report()


def test_provider_that_dies_in_a_text_is_asked_again(client: List[str], tmp_path: Path) -> None:
    """Half an answer is never taken for a whole one: the client asks again and prints the second answer alone."""
    run = run_client(client, die_in_text, tmp_path, *PRINT)
    assert_printed(run, ANSWER)
    assert len(agent_requests(run)) == 2, run.report()


def test_provider_that_dies_in_a_tool_call_is_asked_again(client: List[str], tmp_path: Path) -> None:
    """Half a tool call is never carried out: the client asks again and does what the second answer says."""
    run = run_client(client, die_in_tool_call, tmp_path, *PRINT)
    assert_printed(run, ANSWER)
    written = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "project").iterdir()}
    assert written == {"whole.txt": "whole\n"}, run.report()
    assert len(tool_results(run)) == 1, run.report()


def test_provider_that_dies_for_good_is_seen(client: List[str], tmp_path: Path) -> None:
    """When asking again does not help either, the run fails, says why, and prints no half answer."""
    run = run_client(client, die_for_good, tmp_path, *PRINT)
    assert run.exit_code, run.report()
    assert "Insufficient Balance" in run.stdout, run.report()
    assert HALF_ANSWER not in run.stdout, run.report()


@pytest.mark.parametrize(
    "scenario", [be_throttled, be_overloaded, hang_up_before_content], ids=lambda item: item.__name__
)
def test_it_recovers_by_itself(client: List[str], tmp_path: Path, scenario: Callable[[Path], Script]) -> None:
    """A failure before the content is told by its status, and the client's own rules ask once more."""
    run = run_client(client, scenario, tmp_path, *PRINT)
    assert_printed(run, ANSWER)
    assert len(agent_requests(run)) == 2, run.report()


def test_the_command_that_starts_it(client: List[str], tmp_path: Path) -> None:
    """``ccproxy code`` connects the client to a proxy of its own; the demo model drives it through an edit."""
    notes = json.dumps(str(tmp_path / "project" / "notes.txt"))
    prompt = f"""Play this:
        demo: tool Write {{"file_path": {notes}, "content": "alpha"}}
        demo: tool Edit {{"file_path": {notes}, "old_string": "alpha", "new_string": "gamma"}}
        demo: text {ANSWER}"""
    run = run_code(client, tmp_path, "-p", prompt, "--allowedTools", "Write,Edit")
    assert_printed(run, ANSWER)
    assert (tmp_path / "project" / "notes.txt").read_text(encoding="utf-8") == "gamma"
    assert run.proxy_log.count("-> demo/echo") == 3, run.report()


def test_it_says_which_models_answer(client: List[str], tmp_path: Path) -> None:
    """Started so, newer versions name what answers; rules and fallbacks hold, for main and small models alike."""
    settings = "ROUTER_DEFAULT=vllm/nobody,demo/echo\nROUTER_BACKGROUND=vllm/small,demo/echo\nMAX_RETRIES=0\n"
    settings += "VLLM_API_BASE=http://127.0.0.1:1/v1\n"
    words = ("-p", PROMPT, "--output-format", "stream-json", "--verbose")
    for rule, model, more in (("default", "vllm/nobody", ()), ("background", "vllm/small", ("--model", "haiku"))):
        folder = tmp_path / rule
        folder.mkdir()
        run = run_code(client, folder, *words, *more, settings=settings)
        assert run.exit_code == 0, run.report()
        start, *_, end = [json.loads(line) for line in run.stdout.split("\n") if line]
        assert f"You said: {PROMPT}" in end["result"], run.report()
        assert re.search(rf" {rule} \(.*\) -> demo/echo ", run.proxy_log), run.report()
        if "cli.js" not in client[-1]:
            assert start["model"] == f"{rule}:{model}", run.report()
