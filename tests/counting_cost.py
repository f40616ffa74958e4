"""What counting costs: a conversation of 200,000 tokens that comes again with one more turn, and that turn alone."""

from __future__ import annotations

import gc
import json
import random
import time
from typing import Any, Dict, List

from ccproxy.anthropic import MessagesRequest
from ccproxy.config.schema import Model
from ccproxy.counting.counter import Counter
from ccproxy.counting.estimates import Estimator
from ccproxy.recall import Recall

Json = Dict[str, Any]

TURNS, TOOLS, ROUNDS = 150, 25, 60
MODEL = Model("deepseek-chat", "http://p.test/v1")
COMMON = ["the", "of", "and", "to", "in", "is", "for", "that", "with", "file", "return", "class", "import", "value"]


def text(chance: random.Random, words: int) -> str:
    """Text such as programs and their output hold: common words, and a fifth that are not."""

    def rare() -> str:
        return "".join(chance.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(chance.randint(2, 9)))

    return " ".join(chance.choice(COMMON) if chance.random() < 0.8 else rare() for _ in range(words))


def turn(chance: random.Random, number: int) -> List[Json]:
    """A call and its result: about 1,300 tokens."""
    use = {"type": "tool_use", "id": f"t{number}", "name": "Read", "input": {"path": f"/{number}", "limit": 200}}
    result = {"type": "tool_result", "tool_use_id": f"t{number}", "content": text(chance, 800)}
    said = {"type": "text", "text": text(chance, 30)}
    return [{"role": "assistant", "content": [said, use]}, {"role": "user", "content": [result]}]


def body(messages: List[Json], **fields: Any) -> Json:
    """A request that begins with a user's message."""
    return {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}, *messages], **fields}


def conversation(chance: random.Random) -> Json:
    """About 200,000 tokens, with a system prompt and tools as Claude Code sends them."""
    schema = {"type": "object", "properties": {f"p{n}": {"type": "string", "description": "A path."} for n in range(6)}}
    tools = [{"name": f"t{n}", "description": text(chance, 250), "input_schema": schema} for n in range(TOOLS)]
    messages = [part for number in range(TURNS) for part in turn(chance, number)]
    return body(messages, tools=tools, system=text(chance, 3000))


def seconds(estimator: Estimator, recall: Recall, asked: Json, beside: Json) -> float:
    """The time to count a request, just as it was read, with another one parsed before, so that caches are alike."""
    encoded = json.dumps(asked).encode()
    MessagesRequest.from_dict(json.loads(json.dumps(beside)))
    request = MessagesRequest.from_dict(recall.read(encoded, json.JSONDecoder()) or json.loads(encoded))
    began = time.perf_counter()
    estimator.of(request, len(encoded)).of(MODEL)
    return time.perf_counter() - began


def report() -> str:
    """Measure both, in turns, and return the least: the rest is what else the machine does."""
    chance = random.Random(1)
    counter = Counter()
    counter.load()
    known, recall, so_far = Estimator(counter), Recall(), conversation(chance)
    first = seconds(known, recall, so_far, so_far)
    longer, alone = [], []
    gc.disable()  # as timeit does: what it finds belongs to the parsers
    for number in range(ROUNDS):
        new, other = turn(chance, 1000 + number), turn(chance, 5000 + number)
        longer.append(seconds(known, recall, {**so_far, "messages": so_far["messages"] + new}, so_far))
        alone.append(seconds(Estimator(counter), Recall(), body(other), so_far))
    gc.enable()
    again, once = min(longer), min(alone)
    return (
        f"Counting 200,000 tokens: {first * 1e3:.0f} ms at first, {again * 1e3:.2f} ms again with one more turn,"
        f" {once * 1e3:.2f} ms for that turn alone ({again / once:.1f} times)"
    )
