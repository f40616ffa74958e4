"""`ProxyCase`: a running proxy, the official SDK in front of it, and a scripted provider or a real model behind it."""

from __future__ import annotations

import logging
import os
import unittest
from collections import deque
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, ClassVar, Deque, Dict, List, Mapping, Sequence, Union

import anthropic

from ccproxy.config.load import load_config
from ccproxy.config.schema import Config
from ccproxy.stub import Failure, Step, StubProvider
from support import Answer, ask, make_config, serving

Json = Dict[str, Any]
MODEL = "CCPROXY_TEST_MODEL"
NAME = "claude-sonnet-4-6"
"""The model that clients ask for; the router sends it where MODEL says."""


def live_config(model: str) -> Config:
    """Return the owner's configuration, with every request going to one model."""
    config = load_config(os.environ, overrides={"ROUTER_DEFAULT": (model, MODEL)}).config
    rules = ("background", "think", "long_context", "image", "web_search")
    return replace(config, **{f"router_{rule}": () for rule in rules})


class ProxyCase(unittest.TestCase):
    """A proxy per class. ``entry`` adds keys to the model's entry, ``settings`` to the environment."""

    entry: ClassVar[Mapping[str, Any]] = {}
    settings: ClassVar[Mapping[str, str]] = {}
    live: ClassVar[str] = ""
    url: ClassVar[str]
    provider: ClassVar[StubProvider]
    client: ClassVar[anthropic.Anthropic]
    _turns: ClassVar[Deque[Sequence[Step]]]

    @classmethod
    def setUpClass(cls) -> None:
        """Start the provider and the proxy."""
        stack = ExitStack()
        cls.addClassCleanup(stack.close)
        logging.getLogger("ccproxy").addHandler(logging.NullHandler())  # failures are scripted, and no news
        cls.live = os.environ.get(MODEL, "")
        cls._turns = deque()
        cls.provider = stack.enter_context(StubProvider(cls._play))
        cls.url = stack.enter_context(serving(live_config(cls.live) if cls.live else cls.scripted_config())).url
        cls.client = anthropic.Anthropic(base_url=cls.url, api_key="a-key", max_retries=0, timeout=120)
        stack.callback(cls.client.close)

    @classmethod
    def scripted_config(cls) -> Config:
        """Return the configuration whose one model is the scripted provider."""
        row = {"model_id": "scripted", "api_base": cls.provider.url, "dialect": "generic", **cls.entry}
        return make_config({"ROUTER_DEFAULT": row["model_id"], **cls.settings}, [row])

    @classmethod
    def _play(cls, request: Json) -> Sequence[Step]:
        return cls._turns.popleft() if cls._turns else [Failure(400, "the script has no turn left")]

    def setUp(self) -> None:
        """Forget the turns and requests of the test before."""
        self._turns.clear()
        self.provider.requests.clear()

    # --- what the model says, and what it was sent ------------------------------------------------------------

    def says(self, *steps: Step) -> None:
        """Script the model's next turn; a real model says what it likes."""
        self._turns.append(steps)

    def only_scripted(self, why: str) -> None:
        """Skip what a real model cannot be made to do, or would not let us see."""
        if self.live:
            self.skipTest(f"{MODEL}={self.live}: {why}")

    @property
    def sent(self) -> List[Json]:
        """The bodies that the provider was sent in this test."""
        return [received.body for received in self.provider.requests]

    # --- requests ---------------------------------------------------------------------------------------------

    def ask(self, prompt: Union[str, List[Json]], *, stream: bool = False, **fields: Any) -> Any:
        """Return the SDK's message that answers a prompt, or a whole conversation."""
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        arguments: Json = {"model": NAME, "max_tokens": 1024, "messages": messages, **fields}
        if not stream:
            return self.client.messages.create(**arguments)
        with self.client.messages.stream(**arguments) as events:
            return events.get_final_message()

    def post(self, body: Any, path: str = "/v1/messages", **headers: str) -> Answer:
        """Return the plain HTTP answer to a body."""
        return ask(self.url, path, body, headers={name.replace("_", "-"): value for name, value in headers.items()})


BOTH = (False, True)
"""Whole and streamed, for ``ask``."""


def text_of(message: Any) -> str:
    """Return the text of an SDK message."""
    return "".join(block.text for block in message.content if block.type == "text")


def calls_of(message: Any) -> List[Any]:
    """Return the tool calls of an SDK message."""
    return [block for block in message.content if block.type == "tool_use"]


def said(message: Any) -> Json:
    """Return an answer as the turn that a client sends back."""
    return {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in message.content]}


def result(call: Any, content: Any, *, is_error: bool = False) -> Json:
    """Return the block that answers a tool call."""
    return {
        "type": "tool_result",
        "tool_use_id": call.id,
        "content": content,
        **({"is_error": True} if is_error else {}),
    }
