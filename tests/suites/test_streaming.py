"""Streaming: the events, their order, their time, and what happens when one side leaves."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any, Dict, List
from urllib.parse import urlsplit

from ccproxy.stub import Delay, Failure, Finish, RawChunk, Reasoning, Text, ToolCall
from grammar import check_grammar, fold, parse_sse
from processes import eventually
from replay import Answer, ReplayProvider
from support import make_config, serving

from .proxy_case import NAME, ProxyCase, text_of

Json = Dict[str, Any]
READ = {"name": "Read", "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}}}


def request(**fields: Any) -> Json:
    """A request for a stream."""
    messages = [{"role": "user", "content": "Write two sentences about the sea."}]
    return {"model": NAME, "max_tokens": 1024, "stream": True, "messages": messages, **fields}


class Streaming(ProxyCase):
    """The events of a stream."""

    def test_the_events(self) -> None:
        """Start, blocks one after the other, the end with its reason and counts, and nothing after it."""
        self.says(Text("The sea is wide. It is deep."), Finish(prompt_tokens=9, completion_tokens=8))
        answer = self.post(request())
        self.assertTrue(answer.headers["content-type"].startswith("text/event-stream"))
        events = parse_sse(answer.body)
        check_grammar(events)
        message = fold(events)
        self.assertEqual((message["model"], message["stop_reason"]), (NAME, "end_turn"))
        self.assertGreater(message["usage"]["output_tokens"], 0)
        self.assertGreater(sum(name == "content_block_delta" for name, _ in events), 1)

    def test_the_stream_is_the_answer(self) -> None:
        """All kinds of blocks: the folded stream is the answer that comes without one."""
        self.only_scripted("two answers of a real model differ")
        steps = [
            Reasoning("Hm."),
            Text("I read."),
            ToolCall("Read", {"path": "a b"}, "call_1"),
            ToolCall("Read", {}, "call_2"),
        ]
        self.says(*steps)
        whole = self.post(request(stream=False, tools=[READ])).json
        self.says(*steps)
        streamed = fold(parse_sse(self.post(request(tools=[READ])).body))
        for message in (whole, streamed):
            message.pop("id")
        self.assertEqual(streamed["content"], whole["content"])
        self.assertEqual(streamed["stop_reason"], whole["stop_reason"])

    def test_tool_input_in_pieces(self) -> None:
        """The pieces of a tool's input are JSON when they are joined."""
        self.says(ToolCall("Read", {"path": "x" * 200}))
        choice = {"type": "tool", "name": "Read"}
        events = parse_sse(self.post(request(tools=[READ], tool_choice=choice)).body)
        pieces = [
            event["delta"]["partial_json"]
            for _, event in events
            if event.get("delta", {}).get("type") == "input_json_delta"
        ]
        self.assertIn("path", json.loads("".join(pieces)))
        if not self.live:
            self.assertGreater(len(pieces), 5)

    def test_the_sdk_reads_it(self) -> None:
        """The SDK's own helper gives the text as it comes."""
        self.says(Text("The sea is wide."))
        fields = {name: value for name, value in request().items() if name != "stream"}
        with self.client.messages.stream(**fields) as events:
            pieces = list(events.text_stream)
            self.assertEqual("".join(pieces), text_of(events.get_final_message()))
        self.assertGreater(len(pieces), 1)

    def test_an_error_in_the_middle(self) -> None:
        """What came before it was sent; then an error event, and no end that could be taken for one."""
        self.only_scripted("a real provider does not fail when told to")
        self.says(Text("so far"), Failure(500, "bad luck"))
        received = self._until_the_connection_ends(request())
        self.assertIn(b"so", received)
        self.assertIn(b"event: error", received)
        self.assertNotIn(b"message_stop", received)
        self.assertFalse(received.endswith(b"0\r\n\r\n"))

    def test_empty_and_strange_chunks(self) -> None:
        """Chunks without choices, without content, or with unknown fields disturb nothing."""
        self.only_scripted("a script is needed")
        strange: List[Json] = [
            {},
            {"choices": []},
            {"choices": [{"index": 0, "delta": {}}]},
            {"x": 1, "choices": [{"delta": {"content": None}}]},
        ]
        self.says(*(RawChunk(chunk) for chunk in strange), Text("fine"))
        events = parse_sse(self.post(request()).body)
        check_grammar(events)
        self.assertEqual(fold(events)["content"], [{"type": "text", "text": "fine"}])

    def test_silence(self) -> None:
        """A model that thinks for a moment before, or in the middle of, its answer is waited for."""
        self.only_scripted("a script is needed")
        self.says(Delay(0.1), Text("slow "), Delay(0.1), Text("and steady"))
        self.assertEqual(fold(parse_sse(self.post(request()).body))["content"][0]["text"], "slow and steady")

    def _until_the_connection_ends(self, body: Json) -> bytes:
        """Send a request over a plain socket and return every byte that comes, however it ends."""
        data = json.dumps(body).encode()
        address = urlsplit(self.url)
        received = b""
        with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
            connection.sendall(
                b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(data) + data
            )
            try:
                while True:
                    piece = connection.recv(65536)
                    if not piece:
                        return received
                    received += piece
            except ConnectionResetError:
                return received


class StreamInTime(ProxyCase):
    """Time and connections, with a provider whose pieces are held."""

    def setUp(self) -> None:
        """Put a provider that can be held in the place of the scripted one."""
        super().setUp()
        self.only_scripted("the pieces must be held")
        self.held = self._entered(ReplayProvider())
        entry = {"model_id": "held", "api_base": self.held.base("held"), "dialect": "generic"}
        self.proxy = self._entered(serving(make_config({"ROUTER_DEFAULT": "held"}, [entry])))
        self.gate = threading.Event()
        self.addCleanup(self.gate.set)

    def _entered(self, context: Any) -> Any:
        value = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return value

    def hold(self) -> socket.socket:
        """Ask for a stream whose second half waits for the gate; return the connection."""
        first = b'data: {"choices":[{"index":0,"delta":{"content":"early"}}]}\n\n'
        last = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
        self.held.answers["held"] = Answer(
            200, {"content-type": "text/event-stream"}, [first, last], hold={1: self.gate}
        )
        data = json.dumps(request()).encode()
        address = urlsplit(self.proxy.url)
        connection = socket.create_connection((address.hostname, address.port), timeout=30)
        self.addCleanup(connection.close)
        connection.sendall(
            b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(data) + data
        )
        return connection

    def test_content_comes_at_once(self) -> None:
        """The first words are with the client while the provider is still speaking."""
        connection, received = self.hold(), b""
        while b"early" not in received:
            received += connection.recv(65536)
        self.assertFalse(self.gate.is_set())
        self.gate.set()
        while b"message_stop" not in received:
            received += connection.recv(65536)

    def test_a_client_that_leaves(self) -> None:
        """The provider's connection is closed, so that nobody pays for words that nobody reads."""
        connection = self.hold()
        while b"early" not in connection.recv(65536):
            pass
        connection.close()
        eventually(self._provider_sees_the_end, "the provider's connection is closed")

    def _provider_sees_the_end(self) -> bool:
        [connection] = self.held._open
        connection.setblocking(False)
        try:
            return connection.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
