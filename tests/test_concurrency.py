"""Many requests at a time in one process: none sees anything of another."""

from __future__ import annotations

import itertools
import json
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, List, Sequence, Tuple

import pytest

from ccproxy.provider.client import KEPT_IDLE
from ccproxy.stub import Cut, Failure, Finish, Json, Reasoning, Step, StubProvider, Text, ToolCall, content_text
from faults import free_at_once, levels
from grammar import check_grammar, fold, parse_sse
from processes import eventually
from replay import post
from support import Proxy, ask, proxy_with, running_proxy, user

CLIENTS = 100


class Together:
    """A script that answers only once all clients are being answered, each with what is its own."""

    def __init__(self, parties: int) -> None:
        self._barrier = threading.Barrier(parties, timeout=60)

    def script(self, request: Json) -> Sequence[Step]:
        """The reply to client N: N in every part of it."""
        self._barrier.wait()
        return reply(int(content_text(request["messages"][-1]["content"])))


def reply(number: int) -> List[Step]:
    """What the provider says to client N: more words, calls and tokens the higher N is."""
    words = " ".join(f"w{number}" for _ in range(20 + number))
    calls = [ToolCall(f"tool_{number}", {"n": number, "call": call}) for call in range(number % 4)]
    return [Reasoning(f"thought {number} " * 5), Text(words), *calls, Finish(None, 1000 + number, 2000 + number)]


def expected(number: int) -> Tuple[List[Json], str, Json]:
    """The content, the model and the counts that client N must get."""
    words = " ".join(f"w{number}" for _ in range(20 + number))
    content: List[Json] = [
        {"type": "thinking", "thinking": f"thought {number} " * 5},
        {"type": "text", "text": words},
        *(
            {"type": "tool_use", "name": f"tool_{number}", "input": {"n": number, "call": call}}
            for call in range(number % 4)
        ),
    ]
    return content, f"claude-for-{number}", {"input_tokens": 1000 + number, "output_tokens": 2000 + number}


def request_of(number: int) -> Json:
    """What client N asks, every third one without a stream."""
    tools = [{"name": f"tool_{number}", "input_schema": {"type": "object"}}]
    return user(str(number), model=f"claude-for-{number}", tools=tools, stream=number % 3 > 0)


def check_answer(proxy: Proxy, number: int) -> str:
    """Ask as client N, check all of the answer, and return the message's id."""
    answer = ask(proxy.url, "/v1/messages", request_of(number))
    assert answer.status == 200, answer.body
    if number % 3 > 0:
        events = parse_sse(answer.body)
        check_grammar(events)
        message = fold(events)
    else:
        message = answer.json
    content, model, usage = expected(number)
    got = [{key: block[key] for key in wanted} for block, wanted in itertools.zip_longest(message["content"], content)]
    assert got == content
    assert message["model"] == model
    assert {key: message["usage"][key] for key in usage} == usage
    return str(message["id"])


def test_a_hundred_at_once() -> None:
    """Each client gets its own text, tools, model name and counts, while all are being answered together."""
    with proxy_with(Together(CLIENTS).script) as (proxy, stub), ThreadPoolExecutor(CLIENTS) as clients:
        ids = list(clients.map(lambda number: check_answer(proxy, number), range(CLIENTS)))
        assert len(set(ids)) == CLIENTS
        assert len(stub.requests) == CLIENTS


def start_threads(clients: ThreadPoolExecutor, number: int) -> None:
    """Make a pool start all its threads, which it does only when all are busy."""
    together = threading.Barrier(number, timeout=60)
    list(clients.map(lambda _: together.wait(), range(number)))


class Counting:
    """Counts the connections that are made to a provider: a plain relay in front of it."""

    def __init__(self, stub: StubProvider) -> None:
        self.connections = 0
        self._target = ("127.0.0.1", int(re.findall(r":(\d+)/", stub.url)[0]))
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = "http://127.0.0.1:%d/v1" % self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            self.connections += 1
            far = socket.create_connection(self._target)
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=pair, daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        try:
            for data in iter(lambda: source.recv(65536), b""):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            source.close()
            sink.close()


@pytest.mark.parametrize("stream", [True, False])
def test_connections_are_reused(stream: bool) -> None:
    """Connections that served one burst serve the next: none is opened while idle ones are there."""
    together = Together(20)
    with StubProvider(together.script) as stub:
        relay = Counting(stub)
        models = [{"model_id": "stub", "api_base": relay.url, "dialect": "generic"}]
        with running_proxy({"ROUTER_DEFAULT": "stub"}, models) as proxy, ThreadPoolExecutor(20) as clients:
            start_threads(clients, 20)
            before = threading.active_count()
            for _ in range(3):
                bodies = [user(str(number), stream=stream) for number in range(20)]
                answers = list(clients.map(lambda body: ask(proxy.url, "/v1/messages", body), bodies))
                assert {answer.status for answer in answers} == {200}
                # A connection is given back after the answer. It has two threads in the relay and one in the stub.
                eventually(lambda: threading.active_count() <= before + 3 * relay.connections, "the requests end")
            assert relay.connections == 20


def test_threads_return_to_their_number() -> None:
    """After a burst, no thread of a connection or a provider stays."""
    together = Together(30)
    with proxy_with(together.script) as (proxy, _), ThreadPoolExecutor(30) as clients:
        start_threads(clients, 30)
        before = threading.active_count()
        answers = list(clients.map(lambda number: check_answer(proxy, number), range(30)))
        assert len(answers) == 30
        # The proxy keeps its connections to the provider: those threads are the stub's.
        eventually(lambda: threading.active_count() <= before + 60, "the threads of the clients' connections end")
        proxy.app.close()
        eventually(lambda: threading.active_count() <= before + 30, "the connections to the provider are closed")


def test_the_demo_starts_once() -> None:
    """First requests that come together share one demo provider, and it ends with the application."""

    def demos() -> int:
        return sum(thread.name == "stub-provider" for thread in threading.enumerate())

    before = demos()
    for _ in range(5):
        barrier = threading.Barrier(20, timeout=60)

        def first(number: int, barrier: Any = barrier) -> str:
            barrier.wait()
            answer = ask(proxy.url, "/v1/messages", user(f"demo: text {number}"))
            return json.dumps(answer.json["content"][0]["text"])

        with running_proxy() as proxy, ThreadPoolExecutor(20) as clients:
            assert list(clients.map(first, range(20))) == [json.dumps(str(number)) for number in range(20)]
            assert demos() == before + 1
        eventually(lambda: demos() == before, "the demo provider ends")


def test_a_burst_leaves_few_connections_behind() -> None:
    """A few idle connections of each provider are kept; the others are closed after a while, the newest last.

    After a crowd none is kept: each would lie in a piece of memory of its own.
    """
    together = Together(30)
    with proxy_with(together.script) as (proxy, _), ThreadPoolExecutor(30) as clients:
        answers = list(clients.map(lambda number: check_answer(proxy, number), range(30)))
        assert len(answers) == 30
        sockets = levels()[1]
        eventually(lambda: levels()[1] <= sockets - 2 * (30 - KEPT_IDLE), "the others are closed, at both ends")
        kept = levels()[1]
        eventually(lambda: proxy.app.forget() or levels()[1] <= kept - 2 * KEPT_IDLE, "the last ones are closed, too")


ENDINGS: Dict[str, Sequence[Step]] = {
    "well": [Reasoning("hm"), Text("a b"), ToolCall("do", {"a": 1})],
    "refused": [Failure(400, "no")],
    "an error on the way": [Text("half"), Failure(500)],
    "cut": [Text("half"), Cut()],
}
FAILURES = {
    "busy": Failure(503, "busy", {"retry-after": "0"}),
    "broken": Failure(503, "broken", {"x-should-retry": "false"}),
    "throttled": Failure(429, "slowly"),
    "a field": Failure(400, "Unsupported parameter: 'temperature' is not supported with this model."),
    "cut": Cut(),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_request_leaves_nothing_to_the_collector(ending: str, stream: bool) -> None:
    """Its memory is free when it ends, however it does."""
    with proxy_with(lambda body: ENDINGS[ending]) as (proxy, _), free_at_once():
        post(proxy.url, user(stream=stream))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("failure", FAILURES)
def test_what_was_tried_in_vain_leaves_nothing_to_the_collector(failure: str, stream: bool) -> None:
    """Neither does what went wrong before an answer came: another attempt, key or model, or without a field, has it."""
    plans = iter([[FAILURES[failure]]])
    with StubProvider(lambda body: next(plans, ENDINGS["well"])) as stub:
        entry = {"api_base": stub.url, "dialect": "generic", "api_key_name": "STUB_KEY", "temperature": 0.5}
        models = [{"model_id": name, **entry} for name in ("one", "two")]
        settings = {"ROUTER_DEFAULT": "one,two", "STUB_KEY": "first-key,second-key"}
        with running_proxy(settings, models) as proxy, free_at_once():
            assert post(proxy.url, user(stream=stream)).status == 200
        assert len(stub.requests) == 2
