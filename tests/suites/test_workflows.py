"""Claude Code workflows: the requests of a coding session, with a client that really reads, edits and runs."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence

from ccproxy.stub import Text, ToolCall

from .proxy_case import NAME, ProxyCase, calls_of, result, said, text_of
from .test_tools import ALL

Json = Dict[str, Any]
USER_ID = "user_0_account_0_session_11111111-2222-3333-4444-555555555555"
SYSTEM = [
    {"type": "text", "text": "You are Claude Code, a coding agent.", "cache_control": {"type": "ephemeral"}},
    {"type": "text", "text": "Use the tools. Be brief.", "cache_control": {"type": "ephemeral"}},
]
REMINDER = {"type": "text", "text": "<system-reminder>\nThe todo list is empty.\n</system-reminder>"}
MOST_TURNS = 12


class Workshop:
    """A folder, and the tools that work in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tools: Dict[str, Callable[..., str]] = {
            "Read": self.read,
            "Write": self.write,
            "Edit": self.edit,
            "Bash": self.bash,
        }

    def read(self, file_path: str, **_: Any) -> str:
        """Return a file with numbered lines."""
        lines = (self.folder / file_path).read_text().splitlines()
        return "\n".join(f"{number:6}\t{line}" for number, line in enumerate(lines, 1))

    def write(self, file_path: str, content: str) -> str:
        """Write a file."""
        (self.folder / file_path).write_text(content)
        return f"File created: {file_path}"

    def edit(self, file_path: str, old_string: str, new_string: str = "", **_: Any) -> str:
        """Replace a text that must be there."""
        path = self.folder / file_path
        text = path.read_text()
        if old_string not in text:
            raise ValueError("String to replace not found in file.")
        path.write_text(text.replace(old_string, new_string, 1))
        return f"The file {file_path} has been updated."

    def bash(self, command: str, **_: Any) -> str:
        """Run a command."""
        done = subprocess.run(
            ["sh", "-c", command], cwd=self.folder, capture_output=True, text=True, timeout=30, check=False
        )
        if done.returncode:
            raise ValueError(f"exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def do(self, call: Any) -> Json:
        """Do what the model asks for; what cannot be done is told."""
        try:
            return result(call, self.tools[call.name](**call.input))
        except (KeyError, OSError, TypeError, ValueError) as error:
            return result(call, str(error), is_error=True)


class Workflows(ProxyCase):
    """A session of Claude Code."""

    def setUp(self) -> None:
        """Open a workshop."""
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.shop = Workshop(Path(folder.name))

    def session(self, prompt: str) -> tuple[str, List[Json]]:
        """Run the loop as Claude Code does: streamed, with all tools, system blocks and metadata."""
        turns: List[Json] = [{"role": "user", "content": [REMINDER, {"type": "text", "text": prompt}]}]
        more: Json = {"system": SYSTEM, "tools": ALL, "metadata": {"user_id": USER_ID}, "max_tokens": 8192}
        for _ in range(MOST_TURNS):
            message = self.ask(turns, stream=True, **more)
            turns.append(said(message))
            calls = calls_of(message)
            if not calls:
                return text_of(message), turns
            content = [self.shop.do(call) for call in calls]
            content[-1]["cache_control"] = {"type": "ephemeral"}
            turns.append({"role": "user", "content": content})
        raise AssertionError(f"no answer after {MOST_TURNS} turns")

    def test_write_read_edit_run(self) -> None:
        """A file is written, read, changed and run; the last words are about what it printed."""
        self.says(ToolCall("Write", {"file_path": "a.py", "content": "print('one')\n"}))
        self.says(ToolCall("Read", {"file_path": "a.py"}))
        self.says(ToolCall("Edit", {"file_path": "a.py", "old_string": "one", "new_string": "forty-two"}))
        self.says(ToolCall("Bash", {"command": "cat a.py"}))
        self.says(Text("It prints forty-two."))
        answer, _ = self.session(
            "With the tools: write a.py with the single line print('one'), read it, change one to forty-two with Edit, "
            "run cat a.py, then say what it prints."
        )
        self.assertIn("forty-two", answer)
        self.assertIn("forty-two", (self.shop.folder / "a.py").read_text())
        if not self.live:
            replies = [message["content"] for message in self.sent[-1]["messages"] if message["role"] == "tool"]
            self.assertEqual(replies[1], "     1\tprint('one')")
            self.assertEqual(replies[3], "print('forty-two')\n")

    def test_files_in_parallel(self) -> None:
        """Three files are read in one turn."""
        self.only_scripted("a model need not call in parallel")
        for name in "abc":
            (self.shop.folder / name).write_text(f"content of {name}")
        self.says(*(ToolCall("Read", {"file_path": name}) for name in "abc"))
        self.says(Text("All three."))
        self.session("Read a, b and c")
        replies = [message["content"] for message in self.sent[-1]["messages"] if message["role"] == "tool"]
        self.assertEqual([reply.split("\t")[1] for reply in replies], ["content of a", "content of b", "content of c"])

    def test_a_failed_step_is_mended(self) -> None:
        """An edit that does not fit, and a command that fails, are told to the model, which tries again."""
        self.only_scripted("a real model might do it right at once")
        (self.shop.folder / "a").write_text("two")
        self.says(ToolCall("Edit", {"file_path": "a", "old_string": "one", "new_string": "three"}))
        self.says(ToolCall("Bash", {"command": "echo oops >&2; exit 7"}))
        self.says(ToolCall("Edit", {"file_path": "a", "old_string": "two", "new_string": "three"}))
        self.says(Text("Done."))
        answer, _ = self.session("Make it three")
        self.assertEqual((answer, (self.shop.folder / "a").read_text()), ("Done.", "three"))
        replies = [message["content"] for message in self.sent[-1]["messages"] if message["role"] == "tool"]
        self.assertEqual(replies[:2], ["Error: String to replace not found in file.", "Error: exit code 7\noops\n"])

    def test_what_claude_code_adds(self) -> None:
        """Reminders reach the model; cache marks, which this one does not know, do not; the session is one for all."""
        self.only_scripted("what was sent cannot be seen")
        self.says(ToolCall("Bash", {"command": "true"}))
        self.says(Text("Done."))
        self.session("Run true")
        sent = json.dumps(self.sent)
        self.assertIn("The todo list is empty.", sent)
        self.assertIn("You are Claude Code", sent)
        self.assertNotIn("cache_control", sent)
        self.assertNotIn("account_0", sent)

    def test_the_title(self) -> None:
        """The side request for a title: no tools, a small model's name, a begun answer."""
        self.says(Text("sea words"))
        turns = [
            {"role": "user", "content": "Write a title of two or three words for: a poem about the sea"},
            {"role": "assistant", "content": "Title:"},
        ]
        message = self.ask(turns, model="claude-haiku-4-5", max_tokens=512)
        self.assertTrue(text_of(message))
        self.assertEqual(message.model, "claude-haiku-4-5")

    def test_compaction(self) -> None:
        """A long session with tools and thinking is summed up, and goes on from the summary."""
        thought = {"type": "thinking", "thinking": "Hm.", "signature": "EqQB"}
        call = {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "ls"}}
        done = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "a.py"}
        turns = [
            {"role": "user", "content": "What is here?"},
            {"role": "assistant", "content": [thought, {"type": "text", "text": "I look."}, call]},
            {"role": "user", "content": [done]},
            {"role": "assistant", "content": "One file, a.py."},
            {"role": "user", "content": "Sum up the conversation so far in one sentence. Call no tool."},
        ]
        self.says(Text("There is one file, a.py."))
        summary = text_of(self.ask(turns, stream=True, system=SYSTEM, tools=ALL))
        self.assertIn("a.py", summary)
        self.says(Text("a.py"))
        again = [{"role": "user", "content": f"So far: {summary}\n\nWhich file is it? Answer with its name alone."}]
        self.assertIn("a.py", text_of(self.ask(again, stream=True, system=SYSTEM)))

    def test_a_subagent(self) -> None:
        """A task is given to an agent with a conversation of its own, whose last words are the task's result."""
        self.only_scripted("a real model might not hand the task on")
        self.says(ToolCall("Task", {"description": "Find", "prompt": "Find the file", "subagent_type": "general"}))
        first = self.ask("Find it", stream=True, tools=ALL, model=NAME)
        [task] = calls_of(first)
        self.says(Text("src/a.py"))
        found = text_of(self.ask(task.input["prompt"], stream=True, tools=ALL))
        self.says(Text("It is src/a.py."))
        turns: Sequence[Json] = [
            {"role": "user", "content": "Find it"},
            said(first),
            {"role": "user", "content": [result(task, found)]},
        ]
        self.assertEqual(text_of(self.ask(list(turns), stream=True, tools=ALL)), "It is src/a.py.")
        self.assertEqual(len(self.sent[1]["messages"]), 1)
