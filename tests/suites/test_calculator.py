"""A calculator: the smallest agent, written with the SDK's own tool loop."""

from __future__ import annotations

import operator
from typing import Any, Dict, List

from ccproxy.stub import Text, ToolCall

from .proxy_case import BOTH, ProxyCase, calls_of, result, said, text_of

OPERATIONS = {"add": operator.add, "subtract": operator.sub, "multiply": operator.mul, "divide": operator.truediv}
NUMBERS = {"a": {"type": "number"}, "b": {"type": "number"}}
CALCULATOR = {
    "name": "calculator",
    "description": "Calculates with two numbers. Use it for every single step of a calculation.",
    "input_schema": {
        "type": "object",
        "properties": {"operation": {"type": "string", "enum": list(OPERATIONS)}, **NUMBERS},
        "required": ["operation", "a", "b"],
    },
}
MOST_TURNS = 8


class Calculator(ProxyCase):
    """Questions that need one step, several, several at once, and one that fails."""

    def agent(self, question: str, *, stream: bool = False) -> tuple[str, List[Any]]:
        """Run the loop to the model's last word; return it and the results of all steps."""
        turns: List[Dict[str, Any]] = [{"role": "user", "content": question}]
        results: List[Any] = []
        for _ in range(MOST_TURNS):
            message = self.ask(turns, stream=stream, tools=[CALCULATOR])
            calls = calls_of(message)
            self.assertEqual(message.stop_reason == "tool_use", bool(calls))
            if not calls:
                return text_of(message), results
            answers = [self.calculate(call) for call in calls]
            results += [answer["content"] for answer in answers]
            turns += [said(message), {"role": "user", "content": answers}]
        raise AssertionError(f"no answer after {MOST_TURNS} turns")

    @staticmethod
    def calculate(call: Any) -> Dict[str, Any]:
        """Do one step."""
        try:
            return result(call, str(OPERATIONS[call.input["operation"]](call.input["a"], call.input["b"])))
        except (ZeroDivisionError, KeyError, TypeError) as error:
            return result(call, repr(error), is_error=True)

    def test_one_step(self) -> None:
        """The numbers arrive as numbers."""
        for stream in BOTH:
            with self.subTest(stream=stream):
                self.says(ToolCall("calculator", {"operation": "multiply", "a": 1234, "b": 5678}))
                self.says(Text("It is 7006652."))
                answer, results = self.agent("Use the calculator: what is 1234 * 5678?", stream=stream)
                self.assertIn("7006652", answer.replace(",", ""))
                self.assertIn("7006652", results)

    def test_steps_that_need_each_other(self) -> None:
        """The second call is made with the result of the first."""
        self.says(Text("First the sum."), ToolCall("calculator", {"operation": "add", "a": 12, "b": 30}))
        self.says(ToolCall("calculator", {"operation": "divide", "a": 42, "b": 8}))
        self.says(Text("(12 + 30) / 8 = 5.25"))
        answer, results = self.agent("Use the calculator for each step: what is (12 + 30) / 8?")
        self.assertIn("5.25", answer)
        if not self.live:
            self.assertEqual(results, ["42", "5.25"])
            self.assertEqual(
                [message["role"] for message in self.sent[-1]["messages"]],
                ["user", "assistant", "tool", "assistant", "tool"],
            )

    def test_steps_at_once(self) -> None:
        """Two calls of one turn get the two results."""
        self.says(
            ToolCall("calculator", {"operation": "add", "a": 2, "b": 2}),
            ToolCall("calculator", {"operation": "subtract", "a": 2, "b": 3.5}),
        )
        self.says(Text("4 and -1.5"))
        answer, results = self.agent("Use the calculator: what is 2 + 2, and what is 2 - 3.5?", stream=True)
        self.assertIn("1.5", answer)
        self.assertEqual(sorted(results), ["-1.5", "4"])

    def test_a_step_that_fails(self) -> None:
        """The model is told, and says something about it."""
        self.says(ToolCall("calculator", {"operation": "divide", "a": 1, "b": 0}))
        self.says(Text("One cannot divide by zero."))
        answer, results = self.agent("Use the calculator: what is 1 / 0? Call it even if you know better.")
        self.assertTrue(answer)
        if not self.live:
            self.assertIn("ZeroDivisionError", results[0])
            self.assertTrue(self.sent[-1]["messages"][-1]["content"].startswith("Error: ZeroDivisionError"))
