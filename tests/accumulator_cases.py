"""What a provider sends, and the message that every SDK must make of what the proxy makes of it.

One case is one provider answer: its pieces (each one read), its framing, and either the final message in short or the
error. The cases are the worked examples of a chat-completion stream, and everything that such a stream may lack.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

from chunks import call, completion, delta, entry
from replay import Answer

Json = Dict[str, Any]
EVENTS, JSON = {"content-type": "text/event-stream"}, {"content-type": "application/json"}
DONE = b"data: [DONE]\n\n"
BAD = b"data: no json\n\n"


@dataclass(frozen=True)
class Case:
    """A provider's answer and what comes of it. ``usage`` is (input, cache read, output), None for estimates."""

    name: str
    pieces: Sequence[bytes]
    content: Tuple[Any, ...] = ()
    """A text is its string, thinking ``("thinking", text)``, a call ``(name, input)``."""
    stop_reason: Optional[str] = "end_turn"
    usage: Optional[Tuple[int, int, int]] = None
    ids: Tuple[str, ...] = ()
    """The ids of the calls where the provider gave some."""
    error: str = ""
    """The error type: the stream fails, after the blocks of ``content``."""
    status: int = 200
    """The class of status the failure has; 200 is one in mid-stream."""
    dialect: str = "generic"
    headers: Any = None
    framing: str = "chunked"
    is_usable: bool = True
    """Whether the last input is whole JSON: of an answer that was cut each SDK makes what it can."""

    def answer(self) -> Answer:
        """The answer for the provider to replay."""
        return Answer(200, self.headers or EVENTS, self.pieces, self.framing)


def frames(*chunks: Json) -> List[bytes]:
    """Each chunk as a read of its own."""
    return [b"data: %s\n\n" % json.dumps(chunk).encode() for chunk in chunks]


def usage_chunk(prompt: int, completion: int, **details: Any) -> Json:
    """The usage after the last choice."""
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {"choices": [], "usage": {**counts, **details}}


THOUGHT = {"google": {"thought": True}}
SIGNED = {**entry(None, "x1", "Read", '{"p":1}'), "extra_content": {"google": {"thought_signature": "SIG"}}}
SINGLE = completion(
    "tool_calls",
    usage_chunk(9, 4)["usage"],
    reasoning_content="Hm",
    content="Hi",
    tool_calls=[entry(0, "call_a", "Read", '{"p":[1,{"q":"ü\\n"}]}')],
)
REASONING = frames(delta(reasoning_content="Let me"), delta(reasoning_content=" look."))

EXAMPLES = [
    Case(
        "text with late usage",
        [
            *frames(delta(role="assistant", content=""), delta(content="Hel"), delta(content="lo"), delta("stop")),
            *frames(usage_chunk(120, 2, prompt_tokens_details={"cached_tokens": 100})),
            DONE,
        ],
        ("Hello",),
        usage=(20, 100, 2),
    ),
    Case(
        "reasoning, text, two calls",
        [
            *REASONING,
            *frames(delta(content="\n\n"), delta(content="Checking."), call(0, "call_a", "Read", "")),
            *frames(call(0, arguments='{"p":1}'), call(1, "call_b", "Grep", '{"q"'), call(1, arguments=":2}")),
            *frames(delta("tool_calls")),
            DONE,
        ],
        (("thinking", "Let me look."), "\n\nChecking.", ("Read", {"p": 1}), ("Grep", {"q": 2})),
        "tool_use",
        ids=("call_a", "call_b"),
        dialect="deepseek",
    ),
    Case(
        "interleaved arguments",
        [
            *frames(call(0, "call_a", "Read", '{"p":'), call(1, "call_b", "Grep", '{"q"'), call(0, arguments="1}")),
            *frames(call(1, arguments=":2"), call(1, arguments="}"), delta("tool_calls")),
            DONE,
        ],
        (("Read", {"p": 1}), ("Grep", {"q": 2})),
        "tool_use",
        ids=("call_a", "call_b"),
    ),
    Case(
        "thoughts in tags and a signed call",
        [
            *frames(delta(content="<thought>Plan", extra_content=THOUGHT), delta(content="</thought>I'll check.")),
            *frames(delta(tool_calls=[SIGNED]), delta("stop")),
            DONE,
        ],
        (("thinking", "Plan"), "I'll check.", ("thinking", ""), ("Read", {"p": 1})),
        "tool_use",
        dialect="gemini",
    ),
    Case(
        "error after text",
        [
            *frames(delta(content="Hel")),
            *frames({"error": {"code": 500, "message": "Provider disconnected"}, **delta("error", content="")}),
        ],
        ("Hel",),
        error="api_error",
        dialect="openrouter",
    ),
    Case(
        "everything in one chunk",
        [*frames(SINGLE), DONE],
        (("thinking", "Hm"), "Hi", ("Read", {"p": [1, {"q": "ü\n"}]})),
        "tool_use",
        (9, 0, 4),
        ("call_a",),
    ),
]

MISSING = [
    Case("no [DONE]", frames(delta(content="Hello"), delta("stop")), ("Hello",), framing="close"),
    Case("no finish reason after text", [*frames(delta(content="Hello")), DONE], ("Hello",)),
    Case(
        "no finish reason after a call",
        [*frames(call(0, "call_a", "Read", '{"p":1}')), DONE],
        (("Read", {"p": 1}),),
        "tool_use",
        ids=("call_a",),
    ),
    Case("no end", frames(delta(content="Hel")), ("Hel",), error="api_error", framing="close"),
    Case(
        "no end inside a second call",
        frames(call(0, "call_a", "Read", '{"p":1}'), call(1, "call_b", "Grep", '{"q"')),
        (("Read", {"p": 1}), ("Grep", {})),
        error="api_error",
        ids=("call_a", "call_b"),
        framing="close",
    ),
    Case("no end inside thinking", REASONING, (("thinking", "Let me look."),), error="api_error", framing="torn"),
    Case("nothing at all", [], error="api_error", status=500),
    Case("nothing but [DONE]", [DONE], error="api_error", status=500),
    Case("no content", [*frames(delta(role="assistant", content=""), delta("stop")), DONE], ("",)),
    Case(
        "cut by length inside a call",
        [*frames(call(0, "call_a", "Read", '{"p": 1, "s": "ab'), delta("length")), DONE],
        (("Read", {"p": 1}),),
        "max_tokens",
        ids=("call_a",),
        is_usable=False,
    ),
    Case(
        "only reasoning",
        [*REASONING, *frames(delta("stop"), usage_chunk(5, 3)), DONE],
        (("thinking", "Let me look."),),
        usage=(5, 0, 3),
    ),
    Case("no usage", [*frames(delta(content="Hello"), delta("stop")), DONE], ("Hello",)),
    Case(
        "no JSON in three lines",
        [*frames(delta(content="Hel")), BAD * 3, *frames(delta("stop", content="lo")), DONE],
        ("Hello",),
    ),
    Case(
        "no JSON in four lines",
        [*frames(delta(content="Hel")), BAD * 4, *frames(delta("stop", content="lo")), DONE],
        ("Hel",),
        error="api_error",
    ),
    Case(
        "no stream",
        [json.dumps(SINGLE).encode()],
        (("thinking", "Hm"), "Hi", ("Read", {"p": [1, {"q": "ü\n"}]})),
        "tool_use",
        (9, 0, 4),
        ("call_a",),
        headers=JSON,
        framing="length",
    ),
    Case(
        "no stream but an error",
        [b'{"error":{"message":"out of order"}}'],
        error="api_error",
        status=500,
        headers=JSON,
        framing="length",
    ),
]

ODDITIES = [
    Case(
        "no arguments",
        [*frames(call(0, "call_a", "Read", None), delta("tool_calls")), DONE],
        (("Read", {}),),
        "tool_use",
        ids=("call_a",),
    ),
    Case(
        "no id",
        [*frames(call(0, None, "Read", '{"p":'), call(0, arguments="1}"), delta("stop")), DONE],
        (("Read", {"p": 1}),),
        "tool_use",
    ),
    Case(
        "unclosed arguments",
        [*frames(call(0, "call_a", "Read", '{"p":[1'), delta("tool_calls")), DONE],
        (("Read", {"p": [1]}),),
        "tool_use",
        ids=("call_a",),
    ),
    Case(
        "thinking between texts",
        [*frames(delta(content="a"), delta(reasoning_content="Hm"), delta(content="b"), delta("stop")), DONE],
        ("a", ("thinking", "Hm"), "b"),
    ),
    Case(
        "characters and arguments in pieces",
        [
            *(
                piece
                for part in ('{"s', '": "\\ud83d', "\\ude00 ", "東京", '\\"', '"}')
                for piece in frames(call(0, "call_a", "Read", part))
            ),
            *frames(delta("tool_calls")),
            DONE,
        ],
        (("Read", {"s": '😀 東京"'}),),
        "tool_use",
        ids=("call_a",),
    ),
    Case(
        "comments and a ping",
        [b": waiting\n\n", b"event: ping\ndata: {}\n\n", *frames(delta("stop", content="Hi")), DONE],
        ("Hi",),
    ),
    Case("an unknown finish reason", [*frames(delta("whatever", content="Hi")), DONE], ("Hi",)),
    Case("a filter", [*frames(delta(content="Hi"), delta("content_filter")), DONE], ("Hi",), "refusal"),
]

CASES = {case.name: case for case in [*EXAMPLES, *MISSING, *ODDITIES]}
