"""The real Claude Code client does its work, and searches the web, through ccproxy and the Responses API."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Dict, List, Sequence

import pytest

from ccproxy.stub import Reasoning, Text, ToolCall
from claude_code import Run, install, newest_version, run_client
from responses_provider import Cited, ResponsesProvider, Searched, Step
from responses_rules import faults

Json = Dict[str, Any]

pytestmark = pytest.mark.claude_code

PROMPT = "Please maintain the file notes.txt (task 7f3a)."
ANSWER = "All is done: naïve — ✓."
HELPER_ANSWER = '{"title": "Notes"}'
QUERY = "python requests timeout"
PAGE = ("https://docs.test/timeouts", "Timeouts explained")
SUMMARY = "Requests waits for ever unless it is told not to."


@pytest.fixture(scope="module", params=["1.0.35", "newest"])
def client(request: pytest.FixtureRequest) -> List[str]:
    """The client's command, installed from npm; without npm there is no client to test."""
    if not shutil.which("npm"):
        pytest.skip("npm is not installed, and Claude Code is installed with it")
    return install(newest_version() if request.param == "newest" else request.param)


def tool_names(request: Json) -> List[str]:
    """The functions a request brings."""
    return [tool["name"] for tool in request.get("tools") or [] if tool["type"] == "function"]


def is_agent_request(request: Json) -> bool:
    """Tell the main loop's requests from helpers and searches: they have the prompt and the tools."""
    return "Write" in tool_names(request) and PROMPT in json.dumps(request["input"])


def is_search(request: Json) -> bool:
    """Whether a request is for a web search."""
    return any(tool["type"] == "web_search" for tool in request.get("tools") or [])


def answered(request: Json) -> int:
    """How many calls of the conversation have their result."""
    return sum(item["type"] == "function_call_output" for item in request["input"])


def agent_loop(project: Path) -> ResponsesProvider:
    notes = str(project / "notes.txt")
    turns: List[Sequence[Step]] = [
        [
            Reasoning("First a file."),
            Text("I write."),
            ToolCall("Write", {"file_path": notes, "content": "alpha ✓\n"}, "call_1"),
        ],
        [ToolCall("Read", {"file_path": notes}, "call_2")],
        [
            Reasoning("Now."),
            ToolCall("Edit", {"file_path": notes, "old_string": "alpha", "new_string": "gamma"}, "call_3"),
        ],
        [Text(ANSWER)],
    ]

    def script(request: Json) -> Sequence[Step]:
        return turns[answered(request)] if is_agent_request(request) else [Text(HELPER_ANSWER)]

    return ResponsesProvider(script)


def search(project: Path) -> ResponsesProvider:
    def script(request: Json) -> Sequence[Step]:
        if is_search(request):
            return [Reasoning("A search."), Searched(QUERY, [PAGE[0]]), Cited(SUMMARY, [PAGE])]
        if not is_agent_request(request):
            return [Text(HELPER_ANSWER)]
        if SUMMARY in json.dumps(request["input"]):
            return [Text(ANSWER)]
        if "WebSearch" in tool_names(request):
            return [ToolCall("WebSearch", {"query": QUERY}, "call_search")]
        return [ToolCall("ToolSearch", {"query": "select:WebSearch", "max_results": 1}, "call_find")]

    return ResponsesProvider(script)


def agent_requests(run: Run) -> List[Json]:
    """The requests of the main loop, each of them good."""
    for request in run.requests:
        assert faults(request) == [], run_report(run)
    return [request for request in run.requests if is_agent_request(request)]


def run_report(run: Run) -> str:
    """What there is to know of a run that did not go as it should."""
    seen = "\n".join(json.dumps(request["input"])[-1500:] for request in run.requests)
    return f"{run.exit_code}\n{run.stdout}\n{run.stderr}\n{seen}\n{run.proxy_log}"


def test_the_agent_loop(client: List[str], tmp_path: Path) -> None:
    """It writes, reads and edits a file; reasoning returns as it was in every later request."""
    run = run_client(client, agent_loop, tmp_path, "-p", PROMPT, "--allowedTools", "Write,Read,Edit")
    assert (run.exit_code, run.stdout.strip()) == (0, ANSWER), run_report(run)
    assert (tmp_path / "project" / "notes.txt").read_text(encoding="utf-8") == "gamma ✓\n"
    requests = agent_requests(run)
    assert len(requests) == 4, run_report(run)
    reasoning = [
        [item["encrypted_content"] for item in request["input"] if item["type"] == "reasoning"] for request in requests
    ]
    assert reasoning == [[], ["enc0"], ["enc0"], ["enc0", "enc0"]], run_report(run)
    outputs = [item["output"] for item in requests[-1]["input"] if item["type"] == "function_call_output"]
    assert len(outputs) == 3
    assert "alpha ✓" in outputs[1]


def test_the_web_search(client: List[str], tmp_path: Path) -> None:
    """Its search is done by the provider's own tool; what that found, and said of it, is the tool's result."""
    run = run_client(client, search, tmp_path, "-p", PROMPT, "--allowedTools", "WebSearch")
    assert (run.exit_code, run.stdout.strip()) == (0, ANSWER), run_report(run)
    [side] = [request for request in run.requests if is_search(request)]
    assert QUERY in json.dumps(side["input"])
    last = agent_requests(run)[-1]["input"]
    [found] = [item["output"] for item in last if item["type"] == "function_call_output" and SUMMARY in item["output"]]
    assert PAGE[0] in found, run_report(run)
    assert QUERY in found
