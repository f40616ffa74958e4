"""Thinking: the model's reasoning as thinking blocks, there and back."""

from __future__ import annotations

from typing import Any, ClassVar, Dict, Mapping

from ccproxy.stub import Reasoning, Text, ToolCall

from .proxy_case import BOTH, ProxyCase, calls_of, result, said, text_of

ENABLED = {"type": "enabled", "budget_tokens": 2048}
READ = {"name": "Read", "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}}}
Json = Dict[str, Any]


class Thinking(ProxyCase):
    """A model that tells its reasoning, as DeepSeek does."""

    entry: ClassVar[Mapping[str, Any]] = {"dialect": "deepseek", "model_name": "deepseek-reasoner"}

    def test_a_thought_and_an_answer(self) -> None:
        """Thinking comes first, signed, and never in the text."""
        for stream in BOTH:
            with self.subTest(stream=stream):
                self.says(Reasoning("17 has no divisor."), Text("17 is prime."))
                message = self.ask("Is 17 prime?", stream=stream, thinking=ENABLED, max_tokens=4096)
                self.assertTrue(text_of(message))
                kinds = [block.type for block in message.content]
                self.assertEqual(kinds, sorted(kinds, key=["thinking", "text"].index))
                for block in message.content:
                    if block.type == "thinking":
                        self.assertTrue(block.signature)
                if not self.live:
                    self.assertEqual(kinds, ["thinking", "text"])
                    self.assertEqual(message.content[0].thinking, "17 has no divisor.")
                    self.assertEqual(text_of(message), "17 is prime.")

    def test_a_thought_before_a_tool(self) -> None:
        """What the model thought before its call goes back to it with the result, word for word."""
        question: Json = {"role": "user", "content": "Read a.txt with the tool, then tell what it says."}
        self.says(Reasoning("I need the file."), ToolCall("Read", {"path": "a.txt"}))
        first = self.ask([question], stream=True, tools=[READ], thinking=ENABLED, max_tokens=4096)
        if self.live and not calls_of(first):
            self.skipTest("the model called no tool")
        self.says(Text("It says 42."))
        turns = [question, said(first), {"role": "user", "content": [result(calls_of(first)[0], "42")]}]
        second = self.ask(turns, stream=True, tools=[READ], thinking=ENABLED, max_tokens=4096)
        self.assertIn("42", text_of(second))
        if not self.live:
            self.assertEqual(self.sent[-1]["messages"][1]["reasoning_content"], "I need the file.")

    def test_a_signature_that_nobody_knows(self) -> None:
        """Thinking of another model, or with a broken signature, is no reason to refuse the conversation."""
        for signature in ("", "EqQBCkYIBhgC", "ccp1_broken"):
            with self.subTest(signature=signature):
                self.says(Text("Yes."))
                thought = {"type": "thinking", "thinking": "Hm.", "signature": signature}
                told = {"role": "assistant", "content": [thought, {"type": "text", "text": "Hello"}]}
                turns = [{"role": "user", "content": "Hi"}, told, {"role": "user", "content": "Are you there?"}]
                self.assertTrue(text_of(self.ask(turns)))

    def test_between_tags(self) -> None:
        """Reasoning that a model writes between tags into its text is thinking all the same."""
        self.only_scripted("a script is needed")
        self.says(Text("<think>Let me see.</think>Yes."))
        for stream in BOTH:
            self.says(Text("<think>Let me see.</think>Yes."))
            message = self.ask("Well?", stream=stream)
            self.assertEqual([block.type for block in message.content], ["thinking", "text"])
            self.assertEqual(text_of(message), "Yes.")


class Effort(ProxyCase):
    """How much thinking is asked for."""

    entry: ClassVar[Mapping[str, Any]] = {"dialect": "openai", "model_name": "gpt-5"}

    def test_effort(self) -> None:
        """More effort asks the model for no less, and none asks it for least."""
        self.only_scripted("what was sent cannot be seen")
        order = ["none", "minimal", "low", "medium", "high", "xhigh"]
        asked = []
        for effort in ("low", "medium", "high", "max"):
            self.says(Text("ok"))
            body = {"model": "claude-opus-4-6", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
            answer = self.post({**body, "thinking": {"type": "adaptive"}, "output_config": {"effort": effort}})
            self.assertEqual(answer.status, 200)
            asked.append(self.sent[-1]["reasoning_effort"])
        self.assertEqual(asked, sorted(asked, key=order.index))
        self.assertGreater(len(set(asked)), 2)
