"""Comparison: the same request to the official API and to the proxy; every difference is expected, or a bug.

With ANTHROPIC_API_KEY the official API is asked (ten small requests). Without it its recorded answers are used, from
the folder `CCPROXY_TRAFFIC` (default `../shared/traffic` beside the checkout). The model behind the proxy is made to
say what Claude said, so whatever else differs is the proxy's doing.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import Any, ClassVar, Dict, List, Mapping, Optional, Set, Tuple

from .official import KEY, Exchange, events_of, live, recorded, steps_of, structure
from .proxy_case import ProxyCase

Json = Dict[str, Any]
COMPARED = ("text", "thinking", "tool_use")

# What only Anthropic's own servers do, by the type of the block in which it shows: there is nothing to compare.
ONLY_OFFICIAL: Mapping[str, str] = {
    r"server_tool_use|web_search_tool_result|web_fetch_tool_result": "the web is searched by Anthropic's servers",
    r"(bash_|text_editor_)?code_execution_tool_result": "code runs on Anthropic's servers",
    r"tool_search_tool_result": "tools are searched by Anthropic's servers",
    r"mcp_tool_use|mcp_tool_result": "MCP servers are asked by Anthropic's servers",
    r"advisor_tool_result": "the advisor is another model of Anthropic's",
    r"redacted_thinking": "only Anthropic can read it",
    r"compaction": "conversations are compacted by Anthropic's servers",
    r"fallback": "Anthropic's models stand in for each other",
}
# What the proxy refuses, by its words.
REFUSED: Mapping[str, str] = {"files uploaded to Anthropic": "their content is on Anthropic's servers alone"}

# A path that is in one of the answers alone ("-": the official one, "+": ours), and why that is no bug.
EXPECTED: Mapping[str, str] = {
    r"- .*usage\.(cache_creation\.|inference_geo).*": "of Anthropic's servers; other providers do not tell",
    r"\+ .*usage\.(output_tokens_details\..*|service_tier: .*|cache_\w+_input_tokens: .*)": "older answers lack it",
    r"\+ message_delta\.usage\.input_tokens: int": "older answers lack it; the provider's count replaces our estimate",
    r"[+-] (message|message_start\.message|message_delta\.delta)\.stop_details: null": "null and absent mean the same",
    r"[+-] .*\.stop_details\.\w+: (str|null)": "other providers tell less, or more, about a refusal",
    r"- .*tool_use.*\.caller\.type: str": "for tools that Anthropic's tools call",
    r"- .*citations.*": "other models cite nothing",
    r"\+ (content_block_\w+(\(text\))?|message\.content\[text\])\..*": "an answer without content has one empty text",
    r"\+ content_block_delta\(signature_delta\)\..*": "thinking is always signed here; an old recording lacks it",
}


class Comparison(ProxyCase):
    """The official API beside the proxy."""

    exchanges: ClassVar[List[Exchange]]

    @classmethod
    def setUpClass(cls) -> None:
        """Ask, or read, the official answers."""
        super().setUpClass()
        cls.exchanges = live() if os.environ.get(KEY) else recorded()

    def setUp(self) -> None:
        """Without answers there is nothing to compare; where CI runs that is a failure."""
        super().setUp()
        self.only_scripted("the model must say what Claude said")
        if not self.exchanges:
            why = f"no {KEY}, and no recorded answers: set CCPROXY_TRAFFIC"
            if os.environ.get("CI"):
                self.fail(why)
            self.skipTest(why)
        if all(exchange.status != 200 for exchange in self.exchanges):
            self.fail(f"the official API answers nothing: {self.exchanges[0].body}")

    def ours(self, exchange: Exchange) -> Exchange:
        """Return the proxy's answer to the same request, from a model that says the same."""
        self._turns.clear()
        self.says(*steps_of(exchange))
        answer = self.post(exchange.request)
        return replace(exchange, status=answer.status, body=answer.body.decode())

    def answered(self) -> List[Tuple[Exchange, Exchange]]:
        """Return each official answer that another model can give, with ours."""
        pairs = [(one, self.ours(one)) for one in self.exchanges if one.status == 200 and not only_official(one)]
        refused = [(one, ours) for one, ours in pairs if ours.status != 200]
        for official, ours in refused:
            self.assertIsNotNone(reason(REFUSED, ours.body, anywhere=True), f"{official.name}: {ours.body}")
        return [pair for pair in pairs if pair not in refused]

    def test_structure(self) -> None:
        """Every field of the answer is in both, of the same kind; what is not is expected."""
        for official, ours in self.answered():
            with self.subTest(exchange=official.name):
                bugs = [line for line in differences(official, ours) if reason(EXPECTED, line) is None]
                self.assertEqual(bugs, [])

    def test_content(self) -> None:
        """Blocks, text, tool calls, the end and the counts are those of the official answer."""
        for official, ours in self.answered():
            with self.subTest(exchange=official.name):
                self.assertEqual(essence(ours.message), essence(official.message))
                self.assertEqual(ours.message["model"], official.request["model"])

    def test_order(self) -> None:
        """The events of a stream come in the same order; how finely a text is cut is each model's own matter."""
        for official, ours in self.answered():
            with self.subTest(exchange=official.name):
                if is_plain(official):
                    self.assertEqual(order(ours), order(official))

    def test_errors(self) -> None:
        """A failure has the same structure, the same type and the same words."""
        failures = [exchange for exchange in self.exchanges if exchange.status != 200]
        self.assertNotEqual(failures, [])
        for official in failures:
            with self.subTest(exchange=official.name):
                ours = self.ours(official)
                anyhow = {"error.request_id: str", "error.request_id: null"}  # old recordings lack it
                fields = [structure(exchange.status, exchange.body) - anyhow for exchange in (ours, official)]
                self.assertEqual(*fields)
                self.assertEqual(
                    (ours.status, ours.message["error"]["type"]), (official.status, official.message["error"]["type"])
                )
                self.assertIn(official.message["error"]["message"], ours.message["error"]["message"])

    def test_what_only_the_official_api_does(self) -> None:
        """A block that no other model can send has a reason in the table."""
        for exchange in self.exchanges:
            if exchange.status == 200:
                with self.subTest(exchange=exchange.name):
                    kinds = {block["type"] for block in exchange.message["content"]} - set(COMPARED)
                    self.assertEqual([kind for kind in sorted(kinds) if reason(ONLY_OFFICIAL, kind) is None], [])

    def test_no_expectation_is_out_of_date(self) -> None:
        """Each row of the tables is met by a recording: what does not differ any more needs no excuse."""
        if os.environ.get(KEY):
            self.skipTest("ten live answers do not show everything")
        lines = [line for official, ours in self.answered() for line in differences(official, ours)]
        kinds = [kind for exchange in self.exchanges for kind in only_official(exchange)]
        unmet = [row for row in EXPECTED if not any(re.fullmatch(row, line) for line in lines)]
        unmet += [row for row in ONLY_OFFICIAL if not any(re.fullmatch(row, kind) for kind in kinds)]
        self.assertEqual(unmet, [])


def only_official(exchange: Exchange) -> Set[str]:
    """Return the types of the blocks that no other model can send."""
    return {block["type"] for block in exchange.message.get("content", [])} - set(COMPARED)


def reason(table: Mapping[str, str], text: str, *, anywhere: bool = False) -> Optional[str]:
    """Return why a difference is expected; None: it is a bug."""
    match = re.search if anywhere else re.fullmatch
    return next((why for pattern, why in table.items() if match(pattern, text)), None)


def differences(official: Exchange, ours: Exchange) -> List[str]:
    """Return the paths that are in one of two answers alone."""
    theirs, own = structure(official.status, official.body), structure(ours.status, ours.body)
    return [f"- {path}" for path in sorted(theirs - own)] + [f"+ {path}" for path in sorted(own - theirs)]


def essence(message: Json) -> Json:
    """Return what an answer says.

    A text that citations split is one text, and blank text before thinking is none. Counts are left out where a stop
    sequence ended the answer: the proxy waits for nothing behind it, so they are estimates.
    """
    blocks = [block for block in message["content"] if block["type"] != "text" or block["text"].strip()]
    kinds = [block["type"] for block in blocks]
    says = {
        "blocks": [kind for place, kind in enumerate(kinds) if kind != "text" or kinds[place - 1 : place] != ["text"]],
        "text": "".join(block["text"] for block in message["content"] if block["type"] == "text").lstrip(),
        "calls": [(block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"],
        "stop": (message["stop_reason"], message["stop_sequence"]),
    }
    if message["stop_reason"] != "stop_sequence":
        usage = message["usage"]
        parts = [usage.get(f"{name}input_tokens") or 0 for name in ("", "cache_read_", "cache_creation_")]
        says.update(input=sum(parts), cached=parts[1], output=usage["output_tokens"])
    return says


def is_plain(exchange: Exchange) -> bool:
    """Whether an answer is a stream of blocks that another model's answer has too."""
    texts = [block["text"] for block in exchange.message["content"] if block["type"] == "text"]
    has_content = bool(exchange.message["content"]) and all(text.strip() for text in texts)
    return exchange.is_stream and has_content and "citations" not in exchange.body


def order(exchange: Exchange) -> List[str]:
    """Return the names of a stream's events; deltas of one block count once, and pings come when they like."""
    names = [f"{name} {data.get('index', '')}" for name, data in events_of(exchange.body) if name != "ping"]
    return [name for place, name in enumerate(names) if names[place - 1 : place] != [name]]
