"""Performance: what must hold at any speed of the machine. `make perf` measures how fast this one is."""

from __future__ import annotations

import json
import threading
from typing import Any, Dict, List

from ccproxy.perf.runs import run_pairs, warm_up
from ccproxy.perf.summary import Report
from ccproxy.perf.ways import direct_way, proxied_way, request_body
from ccproxy.provider.client import ProviderClient
from ccproxy.stub import Text

from .proxy_case import NAME, ProxyCase, live_config, text_of

Json = Dict[str, Any]
PATIENCE = 60.0
MANY = 40


class Performance(ProxyCase):
    """Requests at the same time, long ones, and many of them."""

    def test_nobody_waits_for_somebody_else(self) -> None:
        """All requests are with the provider at the same time: it answers none before it has all."""
        self.only_scripted("the provider must wait")
        together = threading.Barrier(MANY)

        def script(request: Json) -> List[Text]:
            together.wait(PATIENCE)
            return [Text("answer to " + request["messages"][-1]["content"])]

        self.play(script)
        heard: Dict[int, str] = {}

        def talk(number: int) -> None:
            heard[number] = text_of(self.ask(f"number {number}", stream=number % 2 == 0))

        threads = [threading.Thread(target=talk, args=(number,)) for number in range(MANY)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(heard, {number: f"answer to number {number}" for number in range(MANY)})

    def test_a_long_prompt(self) -> None:
        """A megabyte goes through whole, and is counted."""
        self.only_scripted("a megabyte costs money")
        prompt = "All work and no play makes Jack a dull boy. " * 24_000
        self.says(Text("Read."))
        self.assertEqual(text_of(self.ask(prompt, stream=True)), "Read.")
        self.assertEqual(self.sent[0]["messages"][0]["content"], prompt)
        counted = self.client.messages.count_tokens(model=NAME, messages=[{"role": "user", "content": prompt}])
        self.assertGreater(counted.input_tokens, 200_000)

    def test_a_long_answer(self) -> None:
        """Twenty thousand chunks arrive complete and in order."""
        self.only_scripted("twenty thousand tokens cost money")
        words = " ".join(str(number) for number in range(20_000))
        self.says(Text(words))
        self.assertEqual(text_of(self.ask("Count", stream=True)), words)

    def test_nothing_is_left_behind(self) -> None:
        """After many requests there are no more threads than before."""
        self.only_scripted("a hundred requests")
        self.play(lambda _: [Text("ok")])
        self.ask("warm up")
        before = threading.active_count()
        for number in range(100):
            self.ask("again", stream=number % 2 == 0)
        self.assertLessEqual(threading.active_count(), before + 2)

    def test_both_ways_agree(self) -> None:
        """Measured directly and through the proxy: nothing fails, and the counts are the provider's."""
        model_id = self.live or "scripted"
        config = live_config(self.live) if self.live else self.scripted_config()
        model = config.find(model_id)
        assert model is not None
        self.play(lambda _: [Text("one, two, three")])
        body = request_body(model_id, 100, 200)
        clients = [ProviderClient(lambda: "") for _ in range(2)]
        ways = (direct_way(clients[0], config, model, body), proxied_way(clients[1], config, model, body, self.url))
        try:
            warm_up(ways, ("directly", "through ccproxy"), 2)
            report = Report(model_id, {}, tuple(run_pairs(ways, 4, 2)))
        finally:
            for client in clients:
                client.close()
        self.assertEqual({name: way.errors for name, way in report.ways.items()}, {"direct": {}, "proxied": {}})
        self.assertTrue(report.agreement.is_whole, json.dumps(report.to_dict()))
        self.assertEqual(report.agreement.input_compared, 4)

    def play(self, script: Any) -> None:
        """Let the provider play a script of its own for the rest of this test."""
        self.addCleanup(setattr, self.provider, "script", self.provider.script)
        self.provider.script = script
