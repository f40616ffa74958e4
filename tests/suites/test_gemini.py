"""Gemini: what is peculiar to it, over its OpenAI-compatible endpoint.

With `make test-gemini MODEL=gemini/gemini-2.5-flash` and GEMINI_API_KEY the real one answers.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar, Dict, List, Mapping

from ccproxy.stub import Failure, RawChunk, Text

from .proxy_case import BOTH, ProxyCase, calls_of, result, said, text_of

Json = Dict[str, Any]
SIGNATURE = {"google": {"thought_signature": "c2lnbmF0dXJl"}}
DEEP: Json = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "path": {"type": ["string", "null"], "format": "uri", "minLength": 1},
        "mode": {"const": "read"},
        "node": {"$ref": "#/$defs/node"},
        "lines": {"type": "array", "items": {"type": "integer", "exclusiveMinimum": 0}},
    },
    "required": ["path"],
    "additionalProperties": False,
    "$defs": {"node": {"type": "object", "properties": {"name": {"type": "string"}}}},
}
READ = {"name": "Read", "description": "Reads a file", "input_schema": DEEP}


def call_chunk(index: int, path: str, **more: Any) -> RawChunk:
    """A tool call as Gemini streams it: whole, in one chunk."""
    function = {"name": "Read", "arguments": json.dumps({"path": path})}
    call = {"index": index, "id": "", "type": "function", "function": function, **more}
    return RawChunk({"choices": [{"index": 0, "delta": {"role": "assistant", "tool_calls": [call]}}]})


def schemas_in(value: Any) -> List[str]:
    """All keys of a schema, at any depth."""
    if isinstance(value, list):
        return [key for item in value for key in schemas_in(item)]
    return [key for name, item in value.items() for key in [name, *schemas_in(item)]] if isinstance(value, dict) else []


class Gemini(ProxyCase):
    """A model of Google's."""

    entry: ClassVar[Mapping[str, Any]] = {"dialect": "gemini", "model_name": "gemini-2.5-pro"}

    def test_text(self) -> None:
        """It answers, whole and streamed."""
        for stream in BOTH:
            with self.subTest(stream=stream):
                self.says(Text("Hello"))
                self.assertIn("Hello", text_of(self.ask("Say Hello and nothing else.", stream=stream)))

    def test_a_thought_signature_comes_back(self) -> None:
        """Gemini refuses a conversation whose calls lost their signatures: they cross the client and return."""
        question = {"role": "user", "content": "Read the files a and b with the tool, both at once."}
        self.says(call_chunk(0, "a", extra_content=SIGNATURE), call_chunk(1, "b"))
        first = self.ask([question], stream=True, tools=[READ], tool_choice={"type": "any"})
        calls = calls_of(first)
        self.assertGreaterEqual(len(calls), 1)
        self.assertEqual(first.stop_reason, "tool_use")
        self.says(Text("Both read."))
        turns = [question, said(first), {"role": "user", "content": [result(call, "text") for call in calls]}]
        self.assertTrue(text_of(self.ask(turns, stream=True, tools=[READ])))
        if not self.live:
            self.assertEqual([call.input for call in calls], [{"path": "a"}, {"path": "b"}])
            one, two = self.sent[-1]["messages"][1]["tool_calls"]
            self.assertEqual(one["extra_content"], SIGNATURE)
            self.assertNotIn("extra_content", two)
            self.assertEqual(len({one["id"], two["id"]}), 2)

    def test_a_conversation_that_began_elsewhere(self) -> None:
        """Calls of another model get the signature that Gemini skips, so that it takes them."""
        call = {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"path": "a"}}
        turns = [
            {"role": "user", "content": "Read a"},
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "the text"}]},
        ]
        self.says(Text("It says: the text."))
        self.assertTrue(text_of(self.ask(turns, tools=[READ])))
        if not self.live:
            sent = self.sent[-1]["messages"][1]["tool_calls"][0]
            self.assertIn("thought_signature", sent["extra_content"]["google"])

    def test_a_schema_that_gemini_takes(self) -> None:
        """Keywords that Gemini refuses are gone; the properties and what is required are there."""
        self.says(Text("ok"))
        self.assertTrue(self.ask("Say ok. Call no tool.", tools=[READ]).content)
        if not self.live:
            sent = self.sent[-1]["tools"][0]["function"]["parameters"]
            self.assertEqual((sorted(sent["properties"]), sent["required"]), (sorted(DEEP["properties"]), ["path"]))
            refused = {"$schema", "$ref", "$defs", "additionalProperties", "exclusiveMinimum", "const"}
            self.assertEqual(sorted(refused & set(schemas_in(sent))), [])
            self.assertEqual(sent["properties"]["node"]["properties"], {"name": {"type": "string"}})

    def test_thinking_tokens(self) -> None:
        """Gemini leaves thinking out of completion_tokens; its total has them, and so has the client's count."""
        self.only_scripted("the counts are scripted")
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 40}
        self.says(Text("Yes."), RawChunk({"choices": [], "usage": usage}))
        self.provider.script, script = self._without_usage, self.provider.script
        self.addCleanup(setattr, self.provider, "script", script)
        message = self.ask("Well?", stream=True)
        self.assertEqual((message.usage.input_tokens, message.usage.output_tokens), (10, 30))

    def _without_usage(self, request: Json) -> Any:
        """Play the script; the counts are those that it gives."""
        (request.get("stream_options") or {}).pop("include_usage", None)
        return self._play(request)

    def test_a_quota(self) -> None:
        """A quota that is used up is a rate limit, and how long to wait reaches the client."""
        self.only_scripted("no real quota is used up for a test")
        self.says(Failure(429, "You exceeded your current quota. Please retry in 7.5s.", {"retry-after": "8"}))
        answer = self.post({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]})
        self.assertEqual((answer.status, answer.json["error"]["type"]), (429, "rate_limit_error"))
        self.assertEqual(answer.headers["retry-after"], "8")
