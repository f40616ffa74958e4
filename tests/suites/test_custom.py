"""Custom models: Gemini, DeepSeek, Doubao and OpenRouter by models.yaml, each asked in its own dialect.

With CCPROXY_TEST_MODEL, or `make test-custom MODEL=...`, the model named there answers the first of these suites.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Mapping

from ccproxy.config.schema import Config
from ccproxy.stub import Failure, Finish, RawChunk, Reasoning, Text, ToolCall
from support import make_config

from .proxy_case import BOTH, ProxyCase, calls_of, result, said, text_of

Json = Dict[str, Any]
THINK = {"type": "enabled", "budget_tokens": 2048}
WEATHER = {
    "name": "weather",
    "description": "The weather in a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CUSTOM: Mapping[str, Json] = {
    "gemini-pro": {"model_name": "gemini-2.5-pro", "dialect": "gemini", "api_key_name": "GEMINI_API_KEY"},
    "deepseek-v3": {"model_name": "deepseek-chat", "dialect": "deepseek", "api_key_name": "DEEPSEEK_API_KEY"},
    "doubao-seed": {"model_name": "doubao-seed-1-6", "dialect": "doubao", "api_key_name": "ARK_API_KEY"},
    "router-sonnet": {"model_name": "qwen/qwen3", "dialect": "openrouter", "api_key_name": "OPENROUTER_API_KEY"},
}
KEYS = {row["api_key_name"]: f"key of {model_id}" for model_id, row in CUSTOM.items()}


class AnyModel(ProxyCase):
    """What every model can do, whoever serves it."""

    def test_text(self) -> None:
        """It answers, whole and streamed."""
        for stream in BOTH:
            with self.subTest(stream=stream):
                self.says(Text("4"))
                self.assertIn("4", text_of(self.ask("What is 2 + 2? Answer with the digit alone.", stream=stream)))

    def test_a_tool(self) -> None:
        """It calls a tool and uses its result."""
        question = {"role": "user", "content": "What is the weather in Oslo? Use the tool."}
        self.says(ToolCall("weather", {"city": "Oslo"}))
        first = self.ask([question], stream=True, tools=[WEATHER], tool_choice={"type": "any"})
        [call] = calls_of(first)
        self.assertIn("oslo", call.input["city"].lower())
        self.says(Text("It snows in Oslo."))
        turns = [question, said(first), {"role": "user", "content": [result(call, "It snows.")]}]
        self.assertIn("snow", text_of(self.ask(turns, stream=True, tools=[WEATHER])).lower())

    def test_thinking(self) -> None:
        """A request for thinking is answered, whether the model thinks or not."""
        self.says(Reasoning("Both are odd."), Text("8"))
        message = self.ask("What is 3 + 5? Answer with the digit alone.", thinking=THINK, max_tokens=4096)
        self.assertIn("8", text_of(message))


class CustomModels(ProxyCase):
    """Four entries of models.yaml at one scripted provider."""

    @classmethod
    def scripted_config(cls) -> Config:
        """Return a configuration with all four."""
        rows = [{"model_id": model_id, "api_base": cls.provider.url, **row} for model_id, row in CUSTOM.items()]
        rows[0]["fallbacks"] = ["deepseek-v3"]
        return make_config({"ROUTER_DEFAULT": "deepseek-v3", "ROUTER_BACKGROUND": "doubao-seed", **KEYS}, rows)

    def setUp(self) -> None:
        """They are scripted, always."""
        super().setUp()
        self.only_scripted("these models are scripted")

    def test_each_by_its_name(self) -> None:
        """A client picks a model by its id; the provider gets its own name for it, and the key of this model alone."""
        for model_id, row in CUSTOM.items():
            for stream in BOTH:
                with self.subTest(model=model_id, stream=stream):
                    self.says(Text("Hello"))
                    message = self.ask("Hello", stream=stream, model=model_id)
                    self.assertEqual((text_of(message), message.model), ("Hello", model_id))
                    received = self.provider.requests[-1]
                    self.assertEqual(received.body["model"], row["model_name"])
                    self.assertEqual(received.headers["authorization"], f"Bearer key of {model_id}")

    def test_by_alias_and_route(self) -> None:
        """custom/ID and claude-ID mean the model; other Claude names go where the router says."""
        for asked, expected in (
            ("custom/gemini-pro", "gemini-2.5-pro"),
            ("claude-gemini-pro", "gemini-2.5-pro"),
            ("claude-haiku-4-5", "doubao-seed-1-6"),
            ("claude-opus-4-6", "deepseek-chat"),
        ):
            with self.subTest(asked=asked):
                self.says(Text("Hello"))
                self.ask("Hello", model=asked)
                self.assertEqual(self.sent[-1]["model"], expected)

    def test_each_listed(self) -> None:
        """All can be found by name."""
        listed = [model.id for model in self.client.models.list()]
        self.assertEqual(sorted(set(CUSTOM) - set(listed)), [])

    def test_thinking_in_each_dialect(self) -> None:
        """Each is asked for thinking in its own words, and its reasoning comes in its own field."""
        expected = {
            "deepseek-v3": ("thinking", "reasoning_content"),
            "doubao-seed": ("thinking", "reasoning_content"),
            "gemini-pro": ("extra_body", "reasoning_content"),
            "router-sonnet": ("reasoning", "reasoning"),
        }
        for model_id, (asked, field) in expected.items():
            with self.subTest(model=model_id):
                self.says(Reasoning("Hm.", field), Text("Yes."))
                message = self.ask("Well?", model=model_id, thinking=THINK, max_tokens=4096)
                self.assertEqual([block.type for block in message.content], ["thinking", "text"])
                self.assertIn(asked, self.sent[-1])

    def test_a_tool_round_trip_in_each_dialect(self) -> None:
        """Call and result pair up, whatever ids the provider uses; what it must see again, it sees again."""
        for model_id in CUSTOM:
            for identity in ("call_1", "call_00_abc", "weather:0", ""):
                with self.subTest(model=model_id, id=identity):
                    question = {"role": "user", "content": "The weather in Oslo?"}
                    self.says(Reasoning("I ask."), ToolCall("weather", {"city": "Oslo"}, identity))
                    first = self.ask([question], stream=True, model=model_id, tools=[WEATHER])
                    [call] = calls_of(first)
                    self.assertRegex(call.id, r"^[a-zA-Z0-9_-]+$")
                    self.says(Text("Snow."))
                    turns = [question, said(first), {"role": "user", "content": [result(call, "snow")]}]
                    self.ask(turns, stream=True, model=model_id, tools=[WEATHER])
                    called, replied = self.sent[-1]["messages"][-2:]
                    self.assertEqual(called["tool_calls"][0]["id"], replied["tool_call_id"])
                    self.assertEqual(json.loads(called["tool_calls"][0]["function"]["arguments"]), {"city": "Oslo"})
                    if identity:
                        self.assertEqual(replied["tool_call_id"], identity)
                    if model_id == "deepseek-v3":
                        self.assertEqual(called["reasoning_content"], "I ask.")

    def test_caches(self) -> None:
        """Tokens from a provider's cache are counted apart, in each provider's own field."""
        fields = {
            "deepseek-v3": {"prompt_cache_hit_tokens": 60},
            "gemini-pro": {"prompt_tokens_details": {"cached_tokens": 60}},
            "doubao-seed": {"prompt_tokens_details": {"cached_tokens": 60}},
            "router-sonnet": {"prompt_tokens_details": {"cached_tokens": 60}},
        }
        for model_id, details in fields.items():
            with self.subTest(model=model_id):
                usage = {"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101, **details}
                self.says(
                    Text("ok"), RawChunk({"choices": [], "usage": usage}), Finish(prompt_tokens=100, cached_tokens=60)
                )
                message = self.ask("Hello", stream=True, model=model_id)
                self.assertEqual((message.usage.input_tokens, message.usage.cache_read_input_tokens), (40, 60))

    def test_a_fallback(self) -> None:
        """When a model fails, its fallback answers, and the header says which one that was."""
        self.says(Failure(500, "bad luck"))
        self.says(Text("Here I am."))
        body = {"model": "gemini-pro", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}
        answer = self.post(body)
        self.assertEqual(answer.json["content"][0]["text"], "Here I am.")
        self.assertEqual(answer.headers["x-ccproxy-model"], "deepseek-v3")

    def test_a_key_that_is_missing(self) -> None:
        """A model without its key says which variable to set."""
        body = {"model": "openai/gpt-5", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}
        answer = self.post(body)
        self.assertEqual((answer.status, answer.json["error"]["type"]), (401, "authentication_error"))
        self.assertIn("OPENAI_API_KEY", answer.json["error"]["message"])
        self.assertEqual(self.sent, [])
