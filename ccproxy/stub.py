"""A scripted chat-completions provider on a loopback port: demo/echo, tests, perf and embedders.

A script is a function from the request body to the steps of one reply. The same steps are played as a
stream or as one completion, over real HTTP, so that what works here works with a provider:

    with StubProvider(lambda request: [Reasoning("Hm."), Text("Hello"), ToolCall("Read", {"path": "a"})]) as stub:
        requests.post(stub.url + "/chat/completions", json={...})
        stub.requests[0].body["messages"]
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Iterator, List, Mapping, Optional, Sequence, Union

from .encoded import Json
from .frozen import frozen


@frozen
class Text:
    """Visible text, streamed word by word."""

    text: str


@frozen
class Reasoning:
    """Reasoning, streamed word by word in the field named ``field``."""

    text: str
    field: str = "reasoning_content"


@frozen
class ToolCall:
    """One tool call; calls that follow each other are parallel. ``arguments``: an object, or text sent as it is."""

    name: str
    arguments: Union[Json, str] = field(default_factory=dict)
    id: str = ""


@frozen
class Delay:
    """Silence, in seconds."""

    seconds: float


@frozen
class Failure:
    """First step: an HTTP error. Later: an error object inside the stream."""

    status: int
    message: str = "scripted failure"
    headers: Mapping[str, str] = field(default_factory=dict)


@frozen
class Cut:
    """The connection ends here, in the middle of the body."""


@frozen
class Finish:
    """How the reply ends: its ``finish_reason`` and token counts. None: derived from the other steps."""

    reason: Optional[str] = None
    prompt_tokens: Optional[int] = None
    completion_tokens: Optional[int] = None
    cached_tokens: int = 0


@frozen
class RawChunk:
    """A chunk of the stream exactly as given (streams only)."""

    chunk: Json


Step = Union[Text, Reasoning, ToolCall, Delay, Failure, Cut, Finish, RawChunk]
Script = Callable[[Json], Sequence[Step]]


@frozen
class Received:
    """One request as the provider saw it; header names in lower case."""

    path: str
    headers: Mapping[str, str]
    body: Json


# --- the built-in script -------------------------------------------------------------------------------------

NEXT_STEPS = (
    "This is ccproxy's built-in demo model: no provider key is configured yet. To use a real model, put a key "
    "and a route into .env, for example DEEPSEEK_API_KEY=... and ROUTER_DEFAULT=deepseek/deepseek-chat, "
    "which a running ccproxy takes by itself."
)
REMINDER = re.compile(r"<(system-reminder|(?:local-)?command-[a-z]+)>.*?</\1>", re.DOTALL)
"""What Claude Code puts around a prompt."""
DIRECTIVE = re.compile(r"^\s*demo:\s*(text|think|tool|error|delay)\b[ \t]*(.*?)\s*$", re.MULTILINE)


def demo_script(request: Json) -> Sequence[Step]:
    """Answer with the prompt and what to configure next, or play the prompt's own directives.

    A prompt line ``demo: text T``, ``demo: think T``, ``demo: tool NAME {json}``, ``demo: error STATUS T`` or
    ``demo: delay SECONDS`` is a directive. A reply ends after each tool call; its result brings the next one.
    """
    messages = request.get("messages") or []
    roles = [message.get("role") for message in messages]
    # What follows a tool message is the client's reminder, no new prompt.
    prompts = [index for index, role in enumerate(roles) if role == "user" and roles[index - 1 : index] != ["tool"]]
    if not prompts:
        return [Text(NEXT_STEPS)]
    prompt = content_text(messages[prompts[-1]].get("content"))
    directives = DIRECTIVE.findall(prompt)
    if not directives:
        return [Text(f"You said: {REMINDER.sub('', prompt).strip()[-500:]}\n\n{NEXT_STEPS}")]
    turns: List[List[Step]] = [[]]
    for verb, rest in directives:
        turns[-1].append(_directive_step(verb, rest))
        if verb == "tool":
            turns.append([])
    answered = sum(1 for message in messages[prompts[-1] :] if message.get("role") == "tool")
    steps = turns[min(answered, len(turns) - 1)]
    return steps or [Text("Done.")]


def _directive_step(verb: str, rest: str) -> Step:
    head, _, tail = rest.partition(" ")
    try:
        if verb == "think":
            return Reasoning(rest)
        if verb == "tool":
            return ToolCall(head, tail.strip() or "{}")
        if verb == "error":
            return Failure(int(head), tail or "scripted failure")
        if verb == "delay":
            return Delay(min(float(head), 600.0))
    except ValueError:
        return Text(f"demo: {verb} does not understand {rest!r}")
    return Text(rest)


def content_text(content: Any) -> str:
    """Return the text of an OpenAI message ``content``, a string or a list of parts."""
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text") or "") for part in content or [] if isinstance(part, dict))


# --- steps to chat completions -------------------------------------------------------------------------------


def usage_of(steps: Sequence[Step], request: Json) -> Json:
    """Return the ``usage`` object: as scripted, else a rough count of characters."""
    finish = next((step for step in steps if isinstance(step, Finish)), Finish())
    prompt, completion = finish.prompt_tokens, finish.completion_tokens
    if prompt is None:
        prompt = max(1, len(json.dumps(request.get("messages") or [])) // 4)
    if completion is None:
        texts = [step.text for step in steps if isinstance(step, (Text, Reasoning))]
        texts += [json.dumps(step.arguments) for step in steps if isinstance(step, ToolCall)]
        completion = max(1, sum(map(len, texts)) // 4)
    details = {"cached_tokens": finish.cached_tokens}
    total = prompt + completion
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": total,
        "prompt_tokens_details": details,
    }


def finish_reason_of(steps: Sequence[Step]) -> str:
    """Return the scripted ``finish_reason``, else the one that fits the steps."""
    scripted = next((step.reason for step in steps if isinstance(step, Finish) and step.reason), None)
    return scripted or ("tool_calls" if any(isinstance(step, ToolCall) for step in steps) else "stop")


def _call_parts(call: ToolCall) -> Json:
    arguments = call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)
    identity = call.id or f"call_{uuid.uuid4().hex[:24]}"
    return {"id": identity, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def deltas_of(steps: Sequence[Step]) -> Iterator[Union[Json, Step]]:
    """Yield the deltas of a stream in small pieces; steps that are no content pass through."""
    calls = 0
    for step in steps:
        if isinstance(step, (Text, Reasoning)):
            name = "content" if isinstance(step, Text) else step.field
            for piece in re.findall(r"\S+\s*|\s+", step.text):
                yield {name: piece}
        elif isinstance(step, ToolCall):
            call = _call_parts(step)
            arguments = call["function"]["arguments"]
            call["function"]["arguments"] = ""
            yield {"tool_calls": [dict(call, index=calls)]}
            for start in range(0, len(arguments), 16):
                yield {"tool_calls": [{"index": calls, "function": {"arguments": arguments[start : start + 16]}}]}
            calls += 1
        else:
            yield step


def completion_of(steps: Sequence[Step], request: Json) -> Json:
    """Return the whole reply as one chat completion object."""
    message: Json = {
        "role": "assistant",
        "content": "".join(step.text for step in steps if isinstance(step, Text)) or None,
    }
    for step in steps:
        if isinstance(step, Reasoning):
            message[step.field] = message.get(step.field, "") + step.text
    calls = [step for step in steps if isinstance(step, ToolCall)]
    if calls:
        message["tool_calls"] = [_call_parts(call) for call in calls]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason_of(steps)}
    return dict(_envelope(request, "chat.completion"), choices=[choice], usage=usage_of(steps, request))


def _envelope(request: Json, kind: str) -> Json:
    return {"id": "chatcmpl-demo", "object": kind, "created": int(time.time()), "model": request.get("model")}


# --- the server ----------------------------------------------------------------------------------------------


class StubProvider:
    """The provider itself: listens from construction on, answers until ``close()``; a context manager.

    ``url`` is the ``api_base`` to configure; ``requests`` what was received, in order.
    """

    def __init__(
        self, script: Script = demo_script, host: str = "127.0.0.1", port: int = 0, *, is_recording: bool = True
    ) -> None:
        """``is_recording``: keep what is received; a provider that lives long would fill the memory with it."""
        self.requests: List[Received] = []
        self.is_recording = is_recording
        self.script = script
        stub = self

        class Handler(_Handler):
            provider = stub

        self._server = _Server((host, port), Handler)
        self._address = (host, int(self._server.server_address[1]))
        self.url = "http://%s:%d/v1" % self._address
        self._is_closing = False
        self._thread = threading.Thread(target=self._accept, name="stub-provider", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while not self._is_closing:
            self._server.handle_request()  # sleeps until somebody connects: idle, it costs nothing

    def close(self) -> None:
        """Stop listening; replies that are being played end by themselves."""
        self._is_closing = True
        with suppress(OSError):
            socket.create_connection(self._address, timeout=1).close()  # wakes the thread
        self._thread.join(1)
        self._server.server_close()

    def __enter__(self) -> StubProvider:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    provider: StubProvider

    def log_message(self, format: str, *args: Any) -> None:
        """Silence: the proxy in front has a log of its own."""

    def do_GET(self) -> None:
        if self.path.split("?")[0].endswith("/models"):
            self._json(
                200, {"object": "list", "data": [{"id": "echo", "object": "model", "created": 0, "owned_by": "demo"}]}
            )
        else:
            self._no_such_path()

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        if not self.path.split("?")[0].endswith("/chat/completions"):
            self._no_such_path()
            return
        request = json.loads(raw)
        headers = {name.lower(): value for name, value in self.headers.items()}
        if self.provider.is_recording:
            self.provider.requests.append(Received(self.path, headers, request))
        self._play(list(self.provider.script(request)), request)

    def _play(self, steps: List[Step], request: Json) -> None:
        """Play the first steps that decide about the status, then the rest in the form that was asked for."""
        is_stream = bool(request.get("stream"))
        for position, step in enumerate(steps):
            if isinstance(step, Delay):
                time.sleep(step.seconds)
            elif isinstance(step, Failure):
                error = {"message": step.message, "type": "scripted", "param": None, "code": None}
                self._json(step.status, {"error": error}, step.headers)
                return
            elif isinstance(step, Cut):
                self.close_connection = True
                return
            elif is_stream:
                self._stream(steps[position:], request)
                return
        if is_stream:
            self._stream([], request)
        else:
            self._json(200, completion_of(steps, request))

    def _no_such_path(self) -> None:
        error = {"message": f"no such path: {self.path}", "type": "invalid_request_error"}
        self._json(404, {"error": error})

    def _json(self, status: int, value: Json, headers: Optional[Mapping[str, str]] = None) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {
            "content-type": "application/json",
            "content-length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, steps: Sequence[Step], request: Json) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self._chunk(request, {"role": "assistant", "content": ""})
        for item in deltas_of(steps):
            if isinstance(item, Delay):
                time.sleep(item.seconds)
            elif isinstance(item, Cut):
                self.close_connection = True
                return
            elif isinstance(item, Failure):
                self._data({"error": {"code": item.status, "message": item.message}})
                self._end()
                return
            elif isinstance(item, RawChunk):
                self._data(item.chunk)
            elif isinstance(item, dict):
                self._chunk(request, item)
        self._chunk(request, {}, finish_reason_of(steps))
        if (request.get("stream_options") or {}).get("include_usage"):
            self._data(dict(_envelope(request, "chat.completion.chunk"), choices=[], usage=usage_of(steps, request)))
        self._write(b"data: [DONE]\n\n")
        self._end()

    def _chunk(self, request: Json, delta: Json, finish: Optional[str] = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        self._data(dict(_envelope(request, "chat.completion.chunk"), choices=[choice]))

    def _data(self, value: Json) -> None:
        self._write(b"data: %s\n\n" % json.dumps(value).encode())

    def _write(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _end(self) -> None:
        self.wfile.write(b"0\r\n\r\n")
