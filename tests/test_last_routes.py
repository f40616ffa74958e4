"""Conversations stay where their cache is: what is remembered, for how long, and how much of it."""

from __future__ import annotations

from typing import Any, List

import pytest

from ccproxy.anthropic import MessagesRequest
from ccproxy.config.schema import Model
from ccproxy.last_routes import CACHE_LIFE, LastRoutes, conversation_of
from ccproxy.routing import Decision
from ccproxy.stub import StubProvider
from support import ask, running_proxy, user

LONG = Decision((Model("long", "http://p.test/v1"),), "long_context", "")
SHORT = Decision((Model("main", "http://p.test/v1"),), "default", "")


def conversation(session: str, *texts: str) -> int:
    messages = [{"role": "user", "content": [{"type": "text", "text": text} for text in texts]}]
    reply: List[Any] = [{"role": "assistant", "content": "x"}, {"role": "user", "content": "y"}]
    body = {"model": "m", "max_tokens": 1, "messages": messages + reply}
    return conversation_of(session, MessagesRequest.from_dict(body))


def test_a_conversation_is_its_session_and_its_first_message() -> None:
    """Further turns do not change it; another agent of the session, or a compaction, begins another one."""
    body = user("first")
    body["messages"].append({"role": "assistant", "content": "more"})
    assert conversation_of("s", MessagesRequest.from_dict(body)) == conversation("s", "first")
    others = [conversation("s", "other"), conversation("t", "first"), conversation("s", "first", "second")]
    assert conversation("s", "first") not in others


def test_only_long_contexts_are_remembered() -> None:
    """Once it was routed elsewhere, there is nothing to stay for."""
    last = LastRoutes()
    last.put(1, SHORT, now=0)
    assert last.get(1, now=1) is None
    last.put(1, LONG, now=0)
    assert last.get(1, now=1) is LONG
    last.put(1, SHORT, now=1)
    assert last.get(1, now=2) is None


def test_it_is_forgotten_when_no_cache_holds_it_any_more() -> None:
    """Each request keeps it for another hour."""
    last = LastRoutes()
    last.put(1, LONG, now=0)
    last.put(1, LONG, now=100)
    assert last.get(1, now=100 + CACHE_LIFE - 1) is LONG
    assert last.get(1, now=100 + CACHE_LIFE) is None


def test_the_memory_is_bounded() -> None:
    """The one that was used longest ago goes."""
    last = LastRoutes(most=2)
    for number in (1, 2, 1, 3):
        last.put(number, LONG, now=number)
    assert [last.get(number, now=3) for number in (1, 2, 3)] == [LONG, None, LONG]


@pytest.fixture
def texts() -> List[str]:
    """Prompts above the limit, just below it, far below it: about a token a word, also by what the provider counts."""
    return [" ".join(["cat"] * count) for count in (1100, 950, 500)]


def test_a_conversation_over_http(texts: List[str]) -> None:
    """It goes up at the threshold, stays while it is near, and comes back; another one is not touched."""
    with StubProvider() as stub:
        models = [{"model_id": name, "api_base": stub.url} for name in ("main", "long")]
        routers = {"ROUTER_DEFAULT": "main", "ROUTER_LONG_CONTEXT": "long", "LONG_CONTEXT_THRESHOLD": "1050"}
        with running_proxy(routers, models) as proxy:

            def turn(text: str, session: str, path: str = "/v1/messages") -> str:
                body = user("first")
                body["messages"] += [{"role": "assistant", "content": "."}, {"role": "user", "content": text}]
                answer = ask(proxy.url, path, body, headers={"x-claude-code-session-id": session})
                assert answer.status == 200, answer.body
                return answer.headers.get("x-ccproxy-model", "")

            above, near, below = texts
            assert turn(near, "a") == "main"
            turn(above, "a", "/v1/messages/count_tokens")  # asking for a count moves nothing
            assert turn(near, "a") == "main"
            assert turn(above, "a") == "long"
            assert turn(near, "a") == "long"
            assert turn(near, "b") == "main"
            assert turn(below, "a") == "main"
            assert turn(near, "a") == "main"
