"""What a model really can: probes that are sent as a client would send them, through the whole proxy.

Each is one small request, but for the round trip, which is two, and the overflow, whose prompt is longer than the
model's window: providers refuse it without a charge, and it is left out where it could cost more than a limit.
"""

from __future__ import annotations

import base64
import json
import re
import struct
import time
import zlib
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Callable, Dict, List, Optional, Tuple

from .accounting.pricing import cost_of, prices_of
from .app import App
from .config.providers import DEMO_BASE
from .config.schema import Config, Model
from .encoded import Json
from .frozen import frozen
from .in_process import ask
from .message import Usage
from .openai import objects_in
from .sse import Reader

YES, NO, FAILED, SKIPPED = "yes", "no", "failed", "skipped"
MAX_TOKENS = 2048
THINKING_BUDGET = 1024
ASSUMED_PRICE = Decimal("0.000005")
"""USD per input token of a model whose price nobody told, for the limit of the overflow's cost."""
_NO_LIMIT = 10**12  # stands for the window while it is looked for
_RESULT = "It is 18 degrees."
_TOOL = {
    "name": "get_temperature",
    "description": "Tells the temperature in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
_CHOICE = {"type": "tool", "name": _TOOL["name"]}
_PING = "Reply with one word: pong"
_QUESTION = "What is the temperature in Paris? Ask the tool get_temperature."


@frozen
class Finding:
    """What one probe found; ``words`` are a short fact or the failure."""

    outcome: str
    words: str = ""
    seconds: float = 0.0
    limit: Optional[int] = None
    """The window that the provider names."""


@dataclass
class Examination:
    """One model's probes: findings by probe, tokens used, and what they cost (None: no price is known)."""

    model: Model
    findings: Dict[str, Finding] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    cost: Optional[Decimal] = None


@frozen
class Answer:
    """One answer of the proxy: the message, or why there is none."""

    status: int
    message: Json
    error: str
    seconds: float

    @property
    def blocks(self) -> List[Json]:
        """Its content."""
        return objects_in(self.message, "content")

    @property
    def text(self) -> str:
        """Its visible text."""
        return "".join(str(block.get("text", "")) for block in self.blocks if block.get("type") == "text")

    @property
    def calls(self) -> List[Json]:
        """Its calls of the probe's tool with usable arguments."""
        calls = [block for block in self.blocks if block.get("type") == "tool_use"]
        return [call for call in calls if call["name"] == _TOOL["name"] and isinstance(call["input"].get("city"), str)]

    def finding(self, is_good: bool, otherwise: str) -> Finding:
        """Return the finding of a probe; ``otherwise`` says what was not good about it."""
        return self.failure or Finding(YES if is_good else NO, "" if is_good else otherwise, self.seconds)

    @property
    def failure(self) -> Optional[Finding]:
        """The finding of an answer that is an error; a refusal of the request is a fact about the model."""
        if not self.error:
            return None
        return Finding(NO if self.status in (400, 404, 413) else FAILED, f"{self.status} {self.error}", self.seconds)


def probing_config(config: Config, models: List[Model], timeout: float) -> Config:
    """Return the configuration for probes: one attempt, bounded time, and no flag of a model that hides a fact."""
    open_minded = {
        model.model_id: replace(
            model, can_stream=True, supports_images=True, max_input_tokens=_NO_LIMIT, max_tokens=None, fallbacks=()
        )
        for model in models
    }
    return replace(
        config,
        models={**config.models, **open_minded},
        max_retries=0,
        default_max_tokens=MAX_TOKENS + THINKING_BUDGET,
        provider_connect_timeout=min(timeout, config.provider_connect_timeout),
        provider_read_timeout=timeout,
        provider_total_timeout=timeout,
        log_bodies=False,
        session_budget_usd=None,
        daily_budget_usd=None,
    )


@dataclass
class Bench:
    """One model on the bench; the probes ask it here."""

    app: App
    config: Config
    """Its owner's configuration, whose prices and limits hold."""
    examination: Examination
    max_cost: Decimal

    def ask(self, prompt: Any, **fields: Any) -> Answer:
        """Ask the model; ``prompt`` is the content of a user message, or with ``messages`` of the last one."""
        messages = [*fields.pop("messages", []), {"role": "user", "content": prompt}]
        body = {"model": "claude-sonnet-4-5", "max_tokens": MAX_TOKENS, "messages": messages, **fields}
        began = time.monotonic()
        answered = ask(self.app, "/v1/messages/test_conversion", body, {"model": self.examination.model.model_id})
        message, error = (_events if answered.is_stream else _document)(answered.body)
        error = error or answered.cut
        self._count(message)
        return Answer(answered.status, message, error, time.monotonic() - began)

    def _count(self, message: Json) -> None:
        done = self.examination
        one, sum_of = Usage.from_dict(message.get("usage")), done.usage
        done.usage = Usage(
            sum_of.input_tokens + one.input_tokens,
            sum_of.output_tokens + one.output_tokens,
            sum_of.cache_read_input_tokens + one.cache_read_input_tokens,
            sum_of.cache_creation_input_tokens + one.cache_creation_input_tokens,
        )
        done.cost = cost_of(done.usage, prices_of(done.model, self.config))


def _document(data: bytes) -> Tuple[Json, str]:
    """Return the message of a JSON answer, or the words of its error."""
    try:
        value = json.loads(data)
        if value.get("type") == "message":
            return value, ""
        return {}, str(value["error"]["message"])
    except (ValueError, KeyError, AttributeError, TypeError):
        return {}, "neither a message nor an error"


def _events(data: bytes) -> Tuple[Json, str]:
    """Return what a stream told: its text as one block, its usage; and what is wrong with it."""
    usage: Json = {}
    text, error = "", "the stream has no end"
    try:
        for event in Reader().feed(data):
            value = json.loads(event.data)
            text += str((value.get("delta") or {}).get("text") or "")
            usage.update((value.get("message") or value).get("usage") or {})
            if event.event in ("message_stop", "error"):
                error = str(value["error"]["message"]) if event.event == "error" else ""
    except (ValueError, KeyError, AttributeError, TypeError):
        error = "its events are not those of the Messages API"
    return {"content": [{"type": "text", "text": text}], "usage": usage}, error


# --- the probes --------------------------------------------------------------------------------------------------


def _says(answer: Answer) -> Finding:
    return answer.finding(bool(answer.text.strip()), "no text")


def _calls(answer: Answer) -> Finding:
    return answer.finding(bool(answer.calls), "no call")


def _round_trip(bench: Bench) -> Finding:
    """The result of a call, and the thinking before it, go back; the answer must know the result."""
    fields = {"tools": [_TOOL], "thinking": {"type": "enabled", "budget_tokens": THINKING_BUDGET}}
    first = bench.ask(_QUESTION, **fields, max_tokens=MAX_TOKENS + THINKING_BUDGET)
    if first.failure or not first.calls:
        return _calls(first)
    asked = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": first.blocks}]
    made = [block["id"] for block in first.blocks if block.get("type") == "tool_use"]
    results = [{"type": "tool_result", "tool_use_id": call_id, "content": _RESULT} for call_id in made]
    second = bench.ask(results, messages=asked, **fields, max_tokens=MAX_TOKENS + THINKING_BUDGET)
    if second.failure:
        return second.failure
    seconds = first.seconds + second.seconds
    if "18" not in second.text:
        return Finding(NO, "the answer does not know the result", seconds)
    thinks = any(block.get("type") == "thinking" for block in [*first.blocks, *second.blocks])
    return Finding(YES, "thinks" if thinks else "no thinking", seconds)


def _image(bench: Bench) -> Finding:
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(red_square()).decode()}
    question = {"type": "text", "text": "Which colour is this image? Reply with one word."}
    answer = bench.ask([{"type": "image", "source": source}, question])
    sees = re.search(r"\bred\b", answer.text, re.IGNORECASE) is not None
    return answer.finding(sees, "took it, and did not see its colour")


def red_square(size: int = 64) -> bytes:
    """Return a PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    pixels = zlib.compress((b"\0" + b"\xff\0\0" * size) * size)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _overflow(bench: Bench) -> Finding:
    """A prompt longer than the window is refused in words that ccproxy understands, so that clients compact."""
    model, config = bench.examination.model, bench.config
    words = int(config.window(model) * 1.1) + 1000
    price = prices_of(model, config).input
    cost = words * (ASSUMED_PRICE if price is None and model.needs_key else price or Decimal(0))
    if cost > bench.max_cost:
        return Finding(SKIPPED, f"{words} tokens could cost ${cost:.2f}")
    answer = bench.ask("word " * words, max_tokens=16)
    limit = re.search(
        r"prompt is too long: \d+ tokens > (\d+) maximum|exceed context limit: .*? > (\d+),", answer.error
    )
    if limit:
        named = int(limit[1] or limit[2])
        is_told = named < min(_NO_LIMIT, words)
        return Finding(YES, str(named) if is_told else "", answer.seconds, named if is_told else None)
    if answer.error:
        return Finding(FAILED if answer.failure and answer.failure.outcome == FAILED else NO, answer.error)
    taken = Usage.from_dict(answer.message.get("usage")).prompt_tokens
    if taken < words * 0.8:
        return Finding(NO, f"cut the prompt to {taken} tokens in silence", answer.seconds)
    return Finding(YES, f"takes {taken}", answer.seconds)


PROBES: Dict[str, Callable[[Bench], Finding]] = {
    "text": lambda bench: _says(bench.ask(_PING)),
    "stream": lambda bench: _says(bench.ask(_PING, stream=True)),
    "tool": lambda bench: _calls(bench.ask(_QUESTION, tools=[_TOOL])),
    "round trip": _round_trip,
    "image": _image,
    "forced tool": lambda bench: _calls(bench.ask("Hello", tools=[_TOOL], tool_choice=_CHOICE)),
    "overflow": _overflow,
}


def examine(bench: Bench, on_probe: Callable[[str], None]) -> Examination:
    """Ask a model all probes; when it does not even answer a text, none of the others."""
    done = bench.examination
    for name, probe in PROBES.items():
        on_probe(name)
        lost = done.findings.get("text", Finding(YES)).outcome == FAILED
        done.findings[name] = Finding(SKIPPED) if lost else probe(bench)
    return done


def suggestions(done: Examination, config: Config) -> Json:
    """Return the keys of models.yaml that would tell what was found, where they tell something else."""
    model, found = done.model, done.findings
    flags: Json = {}
    if model.api_base == DEMO_BASE or found["text"].outcome != YES:
        return flags
    streams, sees = found["stream"].outcome, found["image"].outcome
    if streams in (YES, NO, FAILED) and (streams == YES) != model.can_stream and not model.direct:
        flags["can_stream"] = streams == YES
    if sees in (YES, NO) and (sees == YES) != model.takes_images and not model.direct:
        flags["supports_images"] = sees == YES
    limit = found["overflow"].limit
    if limit and limit != config.window(model):
        flags["max_input_tokens"] = limit
    return flags
