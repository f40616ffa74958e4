"""Behavioural differences: what another model cannot do, and what happens instead. The README's table, line by line."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Dict, List, Mapping

from ccproxy.stub import Finish, Text, ToolCall

from .proxy_case import BOTH, NAME, ProxyCase, text_of

Json = Dict[str, Any]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0xLjQK"}}
READ = {"name": "Read", "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}}}


class Scripted(ProxyCase):
    """The differences show in what the provider is sent: only a scripted one lets us see it."""

    def setUp(self) -> None:
        """Skip with a real model."""
        super().setUp()
        self.only_scripted("what was sent cannot be seen")

    def send(self, content: Any = "Hello", **fields: Any) -> Json:
        """Send a request that is answered; return the body that the provider got."""
        self.says(Text("ok"))
        body: Json = {"model": NAME, "max_tokens": 64, "messages": [{"role": "user", "content": content}], **fields}
        answer = self.post(body)
        self.assertEqual(answer.status, 200, answer.body)
        return self.sent[-1]


class ABlindModel(Scripted):
    """DeepSeek's chat model sees no images."""

    entry: ClassVar[Mapping[str, Any]] = {"dialect": "deepseek", "model_name": "deepseek-chat"}

    def test_images_become_a_note(self) -> None:
        """The model learns that there was one; its bytes are not sent as text."""
        sent = json.dumps(self.send([IMAGE, {"type": "text", "text": "What is it?"}]))
        self.assertIn("image", sent)
        self.assertNotIn(PIXEL, sent)

    def test_pdfs_become_text_or_a_note(self) -> None:
        """A document is named, never sent as base64."""
        sent = json.dumps(self.send([PDF, {"type": "text", "text": "Sum it up."}]))
        self.assertNotIn("JVBERi0xLjQK", sent)
        self.assertNotIn("image_url", sent)


class AnyOtherModel(Scripted):
    """What only Anthropic's own models and servers have."""

    def test_stop_sequences_are_matched_here(self) -> None:
        """Chat completions do not say which sequence ended the answer; a dropped one is matched by the proxy."""
        many = [f"<{number}>" for number in range(6)]
        for stream in BOTH:
            with self.subTest(stream=stream):
                self.says(Text("one <5> two"), Finish("stop"))
                message = self.ask("Count", stream=stream, stop_sequences=many)
                self.assertEqual(
                    (text_of(message), message.stop_reason, message.stop_sequence), ("one ", "stop_sequence", "<5>")
                )

    def test_redacted_thinking_is_dropped(self) -> None:
        """Nobody but Anthropic can read it."""
        turns = [
            {"role": "user", "content": "Hi"},
            {
                "role": "assistant",
                "content": [{"type": "redacted_thinking", "data": "SECRET"}, {"type": "text", "text": "Hello"}],
            },
            {"role": "user", "content": "And?"},
        ]
        self.assertNotIn("SECRET", json.dumps(self.send(messages=turns)))

    def test_server_tools_are_dropped(self) -> None:
        """Beside other tools they are left out; alone they are refused, since nothing else could be done."""
        search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}
        self.assertEqual([tool["function"]["name"] for tool in self.send(tools=[search, READ])["tools"]], ["Read"])
        answer = self.post(
            {"model": NAME, "max_tokens": 64, "messages": [{"role": "user", "content": "x"}], "tools": [search]}
        )
        self.assertEqual((answer.status, answer.json["error"]["type"]), (400, "invalid_request_error"))
        self.assertIn("web_search", answer.json["error"]["message"])

    def test_what_cannot_be_imitated_is_refused(self) -> None:
        """400 that names it: an answer that ignored it would be wrong."""
        file = {"type": "document", "source": {"type": "file", "file_id": "file_1"}}
        refused: List[Json] = [
            {
                "tools": [
                    {"type": "computer_20250124", "name": "computer", "display_width_px": 9, "display_height_px": 9}
                ]
            },
            {"mcp_servers": [{"type": "url", "url": "https://x.test", "name": "x"}]},
            {"messages": [{"role": "user", "content": [file]}]},
        ]
        for fields in refused:
            with self.subTest(fields=list(fields)):
                body = {"model": NAME, "max_tokens": 64, "messages": [{"role": "user", "content": "x"}], **fields}
                answer = self.post(body)
                self.assertEqual((answer.status, answer.json["error"]["type"]), (400, "invalid_request_error"))

    def test_images_in_tool_results_follow_them(self) -> None:
        """Tool messages hold text alone: the image comes in a user message behind them."""
        call = {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"path": "a.png"}}
        turns = [
            {"role": "user", "content": "Look"},
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [IMAGE]}]},
        ]
        tool, behind = self.send(messages=turns, tools=[READ])["messages"][-2:]
        self.assertEqual((tool["role"], behind["role"]), ("tool", "user"))
        self.assertNotIn(PIXEL, json.dumps(tool))
        self.assertIn(PIXEL, json.dumps(behind))

    def test_marks_for_anthropics_servers_are_left_out(self) -> None:
        """Cache marks, service tier, user id and fields of tomorrow do not reach a provider that would refuse them."""
        fields = {
            "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            "service_tier": "auto",
            "metadata": {"user_id": "user-17"},
            "context_management": {"edits": []},
            "of_tomorrow": {"x": "INVENTED"},
        }
        sent = json.dumps(self.send(**fields))
        for word in ("cache_control", "service_tier", "user-17", "context_management", "INVENTED"):
            self.assertNotIn(word, sent)

    def test_a_warmed_cache(self) -> None:
        """A request for no tokens, which fills Anthropic's cache, is answered without asking anybody."""
        answer = self.post({"model": NAME, "max_tokens": 0, "messages": [{"role": "user", "content": "x"}]})
        self.assertEqual((answer.status, answer.json["content"], answer.json["stop_reason"]), (200, [], "max_tokens"))
        self.assertEqual(self.sent, [])

    def test_ids_are_anthropics_in_form(self) -> None:
        """Message, request and tool ids look as clients expect, whatever the provider calls its own."""
        self.says(ToolCall("Read", {"path": "a"}, "functions.Read:0"))
        answer = self.post(
            {"model": NAME, "max_tokens": 64, "messages": [{"role": "user", "content": "x"}], "tools": [READ]}
        )
        self.assertRegex(answer.json["id"], r"^msg_[a-zA-Z0-9]{24}$")
        self.assertRegex(answer.json["content"][0]["id"], r"^[a-zA-Z0-9_-]+$")
        self.assertRegex(answer.headers["request-id"], r"^req_[a-zA-Z0-9]{24}$")
