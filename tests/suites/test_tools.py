"""Tools: every tool that Claude Code brings, called, answered, refused, chosen and streamed."""

from __future__ import annotations

import json
from typing import Any, Dict, List

from ccproxy.stub import Failure, Text, ToolCall

from .proxy_case import BOTH, ProxyCase, calls_of, result, said, text_of

Json = Dict[str, Any]
TEXT, NUMBER, YES = {"type": "string"}, {"type": "number"}, {"type": "boolean"}
DRAFT = "https://json-schema.org/draft/2020-12/schema"


def texts(**more: Any) -> Json:
    """An array of texts."""
    return {"type": "array", "items": TEXT, **more}


def choice(*words: str) -> Json:
    """One of a few words."""
    return {"type": "string", "enum": list(words)}


def tool(name: str, required: List[str], properties: Json, **schema: Any) -> Json:
    """A tool as Claude Code declares it."""
    whole = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"name": name, "description": f"The tool {name}.", "input_schema": {**whole, "$schema": DRAFT, **schema}}


TODO = {"type": "object", "properties": {"content": {**TEXT, "minLength": 1}, "status": choice("pending", "done")}}
EDIT = {"type": "object", "properties": {"old_string": TEXT, "new_string": TEXT}, "required": ["old_string"]}
QUESTION = {"type": "object", "properties": {"question": TEXT, "options": texts(minItems=2, maxItems=4)}}

# The tools of Claude Code 1.0 and 2.1 by the shapes of their schemas, each with an input that a model may give.
TOOLS = [
    (tool("Bash", ["command"], {"command": TEXT, "timeout": NUMBER}), {"command": "ls -l 'a b' | wc", "timeout": 5}),
    (tool("Read", ["file_path"], {"file_path": TEXT, "offset": NUMBER}), {"file_path": "/tmp/a.py", "offset": 3}),
    (
        tool("Write", ["file_path", "content"], {"file_path": TEXT, "content": TEXT}),
        {"file_path": "a", "content": '"\n\\'},
    ),
    (
        tool("Edit", ["file_path"], {"file_path": TEXT, "old_string": TEXT, "replace_all": {**YES, "default": False}}),
        {"file_path": "a", "old_string": "", "replace_all": True},
    ),
    (
        tool("MultiEdit", ["file_path", "edits"], {"file_path": TEXT, "edits": {"type": "array", "items": EDIT}}),
        {"file_path": "a", "edits": [{"old_string": "x", "new_string": "y"}, {"old_string": "z"}]},
    ),
    (tool("Glob", ["pattern"], {"pattern": TEXT, "path": TEXT}), {"pattern": "**/*.{ts,tsx}"}),
    (
        tool(
            "Grep", ["pattern"], {"pattern": TEXT, "output_mode": choice("content", "count"), "-n": YES, "-A": NUMBER}
        ),
        {"pattern": r"def \w+\(", "output_mode": "content", "-n": True, "-A": 2},
    ),
    (tool("LS", ["path"], {"path": TEXT, "ignore": texts()}), {"path": "/", "ignore": ["*.pyc"]}),
    (
        tool("Task", ["description", "prompt"], {"description": TEXT, "prompt": TEXT, "subagent_type": TEXT}),
        {"description": "Search", "prompt": "Find it.", "subagent_type": "general-purpose"},
    ),
    (
        tool("TodoWrite", ["todos"], {"todos": {"type": "array", "items": TODO}}),
        {"todos": [{"content": "Test", "status": "pending"}]},
    ),
    (
        tool("WebFetch", ["url"], {"url": {**TEXT, "format": "uri"}, "prompt": TEXT}),
        {"url": "https://example.com/?a=1&b=2", "prompt": "Sum it up."},
    ),
    (
        tool("WebSearch", ["query"], {"query": {**TEXT, "minLength": 2}, "allowed_domains": texts()}),
        {"query": "ccproxy", "allowed_domains": ["example.com"]},
    ),
    (
        tool("NotebookEdit", ["notebook_path"], {"notebook_path": TEXT, "edit_mode": choice("replace", "insert")}),
        {"notebook_path": "a.ipynb", "edit_mode": "insert"},
    ),
    (tool("BashOutput", ["bash_id"], {"bash_id": TEXT, "filter": TEXT}), {"bash_id": "1"}),
    (tool("KillShell", ["shell_id"], {"shell_id": TEXT}), {"shell_id": "1"}),
    (tool("ExitPlanMode", ["plan"], {"plan": TEXT}), {"plan": "1. Read\n2. Write"}),
    (
        tool("AskUserQuestion", ["questions"], {"questions": {"type": "array", "items": QUESTION, "maxItems": 4}}),
        {"questions": [{"question": "Which?", "options": ["a", "b"]}]},
    ),
    (tool("Skill", ["skill"], {"skill": TEXT, "args": TEXT}), {"skill": "review"}),
    (tool("TodoRead", [], {}), {}),
    (
        tool(
            "mcp__issue-tracker__search",
            ["q"],
            {"q": {"anyOf": [TEXT, {"type": "null"}]}, "page": {"$ref": "#/$defs/p"}},
            **{"$defs": {"p": {"type": "integer", "minimum": 1}}},
        ),
        {"q": "open", "page": 1},
    ),
]
ALL = [declared for declared, _ in TOOLS]


class EveryTool(ProxyCase):
    """Each tool of Claude Code, by itself."""

    def test_a_call_and_its_result(self) -> None:
        """The model's call reaches the client with its input, the result reaches the model, and the answer follows."""
        for declared, given in TOOLS:
            for stream in BOTH:
                with self.subTest(tool=declared["name"], stream=stream):
                    self._round_trip(declared, given, stream)

    def _round_trip(self, declared: Json, given: Json, stream: bool) -> None:
        name = declared["name"]
        question = {"role": "user", "content": f"Call {name} with exactly this input: {json.dumps(given)}"}
        self.says(ToolCall(name, given))
        first = self.ask([question], stream=stream, tools=[declared], tool_choice={"type": "tool", "name": name})
        self.assertEqual(first.stop_reason, "tool_use")
        [call] = calls_of(first)
        self.assertEqual(call.name, name)
        self.assertEqual(sorted(set(declared["input_schema"]["required"]) - set(call.input)), [])
        self.says(Text("Done."))
        answered = {"role": "user", "content": [result(call, "It worked.")]}
        second = self.ask([question, said(first), answered], stream=stream, tools=[declared])
        self.assertNotEqual(second.content, [])
        if self.live:
            return
        self.assertEqual(call.input, given)
        self.assertEqual((second.stop_reason, text_of(second)), ("end_turn", "Done."))
        asked, back = self.sent[-2:]
        self.assertEqual(asked["tool_choice"], {"type": "function", "function": {"name": name}})
        function = asked["tools"][0]["function"]
        self.assertEqual(sorted(function["parameters"]["properties"]), sorted(declared["input_schema"]["properties"]))
        called, replied = back["messages"][-2:]
        self.assertEqual(json.loads(called["tool_calls"][0]["function"]["arguments"]), given)
        self.assertEqual((replied["role"], replied["content"]), ("tool", "It worked."))
        self.assertEqual(replied["tool_call_id"], called["tool_calls"][0]["id"])


class AllTools(ProxyCase):
    """A request as Claude Code sends it, with all its tools."""

    def test_all_are_declared(self) -> None:
        """Every tool reaches the model, in order, under its own name, with its description."""
        self.says(Text("Hello"))
        self.ask("Hello", tools=ALL)
        if not self.live:
            functions = [entry["function"] for entry in self.sent[0]["tools"]]
            self.assertEqual([function["name"] for function in functions], [declared["name"] for declared in ALL])
            self.assertEqual([function["description"] for function in functions], [one["description"] for one in ALL])

    def test_parallel_calls(self) -> None:
        """Calls of one turn stay apart, in order, each with an id of its own; so do their results."""
        for stream in BOTH:
            with self.subTest(stream=stream):
                self.only_scripted("a model need not call in parallel")
                self.says(Text("I look."), *(ToolCall("Read", {"file_path": name}) for name in "abc"))
                first = self.ask("Read a, b and c", stream=stream, tools=ALL)
                calls = calls_of(first)
                self.assertEqual([call.input["file_path"] for call in calls], ["a", "b", "c"])
                self.assertEqual(len({call.id for call in calls}), 3)
                self.says(Text("All read."))
                results = {
                    "role": "user",
                    "content": [result(call, f"text of {call.input['file_path']}") for call in calls],
                }
                self.ask([{"role": "user", "content": "Read a, b and c"}, said(first), results], tools=ALL)
                replies = [message for message in self.sent[-1]["messages"] if message["role"] == "tool"]
                self.assertEqual([reply["content"] for reply in replies], ["text of a", "text of b", "text of c"])

    def test_a_tool_that_failed(self) -> None:
        """The model learns that a call failed, and a result of blocks arrives as their text."""
        self.says(ToolCall("Bash", {"command": "false"}))
        first = self.ask("Run false", tools=ALL, tool_choice={"type": "tool", "name": "Bash"})
        blocks = [{"type": "text", "text": "exit code 1"}]
        self.says(Text("It failed."))
        turns = [{"role": "user", "content": [result(calls_of(first)[0], blocks, is_error=True)]}]
        self.ask([{"role": "user", "content": "Run false"}, said(first), *turns], tools=ALL)
        if not self.live:
            self.assertEqual(self.sent[-1]["messages"][-1]["content"], "Error: exit code 1")

    def test_choices(self) -> None:
        """auto, any, none and one tool are the provider's own words for them."""
        expected = {
            "auto": "auto",
            "any": "required",
            "none": "none",
        }
        self.only_scripted("what was sent cannot be seen")
        for kind, word in expected.items():
            self.says(Text("ok"))
            self.ask("Hello", tools=ALL, tool_choice={"type": kind})
            self.assertIn(self.sent[-1].get("tool_choice"), (word, None) if kind == "auto" else (word,))

    def test_one_call_at_a_time(self) -> None:
        """disable_parallel_tool_use holds, whatever the model does."""
        self.says(ToolCall("Read", {"file_path": "a"}), ToolCall("Read", {"file_path": "b"}))
        choice = {"type": "any", "disable_parallel_tool_use": True}
        message = self.ask("Read the files a and b", tools=ALL, tool_choice=choice)
        self.assertEqual(len(calls_of(message)), 1)

    def test_a_refused_request_is_an_error(self) -> None:
        """A provider that refuses the tools is an error of its kind, not an empty answer."""
        self.only_scripted("a real provider takes them")
        self.says(Failure(400, "tools are not supported by this model"))
        answer = self.post(
            {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}], "tools": ALL}
        )
        self.assertEqual((answer.status, answer.json["error"]["type"]), (400, "invalid_request_error"))
