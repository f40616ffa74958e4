"""Conversation flow: many turns, in order, complete, and none of somebody else's."""

from __future__ import annotations

import threading
from typing import Any, Dict, List

from ccproxy.stub import Text, ToolCall

from .proxy_case import ProxyCase, calls_of, result, said, text_of

Json = Dict[str, Any]


def user(text: Any) -> Json:
    """A turn of the user."""
    return {"role": "user", "content": text}


def assistant(text: Any) -> Json:
    """A turn of the model."""
    return {"role": "assistant", "content": text}


class Conversation(ProxyCase):
    """What is said earlier counts later."""

    def test_the_model_remembers(self) -> None:
        """The answer to the last turn may use the first one."""
        turns: List[Json] = [user("My name is Ada. Remember it.")]
        self.says(Text("I will."))
        turns.append(said(self.ask(turns)))
        turns.append(user("What is my name? Answer in one word."))
        self.says(Text("Ada"))
        self.assertIn("Ada", text_of(self.ask(turns)))
        if not self.live:
            seen = [(message["role"], message["content"]) for message in self.sent[-1]["messages"]]
            self.assertEqual([role for role, _ in seen], ["user", "assistant", "user"])
            self.assertEqual([content for _, content in seen][:2], ["My name is Ada. Remember it.", "I will."])

    def test_a_long_conversation(self) -> None:
        """Two hundred turns arrive in their order; the next request repeats them to the byte, which caches need."""
        self.only_scripted("what was sent cannot be seen")
        turns = [(user if number % 2 == 0 else assistant)(f"turn {number}") for number in range(201)]
        for more in ([], [assistant("turn 201"), user("turn 202")]):
            self.says(Text("ok"))
            self.ask(turns + more)
        first, second = (sent["messages"] for sent in self.sent)
        self.assertEqual([message["content"] for message in first], [f"turn {number}" for number in range(201)])
        self.assertEqual(second[:201], first)

    def test_a_changed_past(self) -> None:
        """A client may edit, drop and repeat turns: nothing of another request is kept."""
        self.only_scripted("what was sent cannot be seen")
        for turns in ([user("a"), assistant("b"), user("c")], [user("A"), assistant("B"), user("c")], [user("c")]):
            self.says(Text("ok"))
            self.ask(turns)
            self.assertEqual(
                [message["content"] for message in self.sent[-1]["messages"]], [turn["content"] for turn in turns]
            )

    def test_turns_of_one_role_in_a_row(self) -> None:
        """Two user turns in a row are allowed, and both arrive."""
        self.says(Text("7"))
        message = self.ask([user("Take the number 3."), user("Add 4. Answer with the number alone.")])
        self.assertIn("7", text_of(message))
        if not self.live:
            self.assertIn("Take the number 3.", str(self.sent[-1]["messages"]))
            self.assertIn("Add 4.", str(self.sent[-1]["messages"]))

    def test_a_begun_answer(self) -> None:
        """The last turn may be the beginning of the answer."""
        self.says(Text(" blue."))
        self.assertTrue(text_of(self.ask([user("Which colour has the sky?"), assistant("The sky is")])))
        if not self.live:
            self.assertIn({"role": "assistant", "content": "The sky is"}, self.sent[-1]["messages"])

    def test_tools_between_words(self) -> None:
        """Text, call, result and text keep their places over several turns."""
        read = {
            "name": "Read",
            "description": "Reads a file",
            "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}},
        }
        turns = [user("Read the file a.txt with the tool.")]
        self.says(Text("I read it."), ToolCall("Read", {"path": "a.txt"}))
        first = self.ask(turns, tools=[read], tool_choice={"type": "any"})
        turns += [
            said(first),
            user([result(calls_of(first)[0], "42"), {"type": "text", "text": "And now? Answer in one word."}]),
        ]
        self.says(Text("42"))
        turns.append(said(self.ask(turns, tools=[read], tool_choice={"type": "none"})))
        turns.append(user("Thank you."))
        self.says(Text("You are welcome."))
        self.assertTrue(text_of(self.ask(turns, tools=[read])))
        if not self.live:
            roles = [message["role"] for message in self.sent[-1]["messages"]]
            self.assertEqual(roles, ["user", "assistant", "tool", "user", "assistant", "user"])

    def test_conversations_at_once(self) -> None:
        """Twelve clients at the same time get twelve answers, each its own."""
        self.only_scripted("twelve requests at once")
        heard: Dict[int, str] = {}
        self._play_echo()

        def talk(number: int) -> None:
            heard[number] = text_of(self.ask(f"number {number}", stream=number % 2 == 0))

        threads = [threading.Thread(target=talk, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual(heard, {number: f"heard number {number}" for number in range(12)})

    def _play_echo(self) -> None:
        script = self.provider.script
        self.addCleanup(setattr, self.provider, "script", script)
        self.provider.script = lambda request: [Text("heard " + request["messages"][-1]["content"])]
