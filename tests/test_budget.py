"""Budgets: from 80 % on the cheaper model answers, at 100 % an error; the owner sees both coming."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import pytest

from ccproxy.accounting.budget import Budget, Spent, budgets, limits, tightest
from ccproxy.accounting.ledger import Ledger
from ccproxy.accounting.usage import report
from ccproxy.anthropic import MessagesRequest
from ccproxy.commands.stats import render
from ccproxy.commands.terminal import Look
from ccproxy.config.load import load_config
from ccproxy.errors import ConfigError
from ccproxy.routing import Decision, decide
from ccproxy.stub import Finish, Json, Step, StubProvider, Text
from grammar import check_error
from processes import configuration, eventually, running, serve_command
from support import Answer, Proxy, ask, make_config, running_proxy, user

ROUTERS = {"ROUTER_DEFAULT": "main", "ROUTER_BACKGROUND": "small", "ROUTER_LONG_CONTEXT": "long"}
DAY = "DAILY_BUDGET_USD"


def budget(spent: str, limit: str = "10", unknown: int = 0) -> Budget:
    return Budget(DAY, "today", Decimal(limit), Spent(Decimal(spent), unknown))


# --- the rule ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spent", "nearly", "all_of_it"),
    [("0", False, False), ("7.9999", False, False), ("8", True, False), ("9.99", True, False), ("10", True, True)],
)
def test_the_shares_that_matter(spent: str, nearly: bool, all_of_it: bool) -> None:
    """80 % and 100 %, exactly."""
    assert (budget(spent).is_nearly_spent, budget(spent).is_spent) == (nearly, all_of_it)


def test_what_is_not_known_is_told() -> None:
    """A cost nobody told is in no sum, and the words do not hide it."""
    assert budget("8.5").words == "$8.5 of DAILY_BUDGET_USD $10 are spent (85 %)"
    assert budget("8.5", unknown=3).words.endswith("(85 %), besides 3 requests of unknown cost")


def test_the_tightest_budget_decides() -> None:
    """The one of which the least is left; without any, none."""
    config = make_config({"SESSION_BUDGET_USD": "1", DAY: "10"})
    found = budgets(limits(config), {"session": Spent(Decimal("0.5")), "today": Spent(Decimal(9))})
    assert tightest(found) == budget("9")
    assert [item.setting for item in budgets(limits(config), {"today": Spent()})] == [DAY]  # the session has no name
    assert tightest([]) is None


def route(spent: str, tokens: int = 10, model: str = "claude-opus-5", **more: Any) -> Decision:
    names = [{"model_id": name, "api_base": "http://p.test/v1"} for name in ("main", "small", "long")]
    names[1]["max_input_tokens"] = "32k"
    asked = MessagesRequest.from_dict({**user(), "model": model})
    return decide(asked, make_config(ROUTERS, names), lambda _: tokens, budget=budget(spent), **more)


@pytest.mark.parametrize(
    ("spent", "tokens", "model", "expected"),
    [
        ("7.99", 10, "claude-opus-5", ("default", "main")),
        ("8", 10, "claude-opus-5", ("budget", "small")),
        ("8", 32_000, "main", ("budget", "small")),  # also when the client asks for a dear one
        ("8", 32_001, "claude-opus-5", ("default", "main")),  # what does not fit goes where it fits
        ("8", 150_000, "claude-opus-5", ("long_context", "long")),
        ("8", 10, "claude-haiku-4-5", ("budget", "small")),
    ],
)
def test_a_soft_landing(spent: str, tokens: int, model: str, expected: Any) -> None:
    """From 80 % on, what fits into ROUTER_BACKGROUND goes there, before every other rule."""
    decision = route(spent, tokens, model)
    assert (decision.rule, decision.models[0].model_id) == expected
    assert ("$8 of DAILY_BUDGET_USD $10" in decision.reason) == (decision.rule == "budget")


def test_a_script_that_names_its_model_gets_it() -> None:
    """The header passes all rules, up to the last cent."""
    assert route("9.99", named="main").models[0].model_id == "main"


def test_without_a_cheaper_model_nothing_changes() -> None:
    """Until all is spent."""
    config = make_config({"ROUTER_DEFAULT": "main"}, [{"model_id": "main", "api_base": "http://p.test/v1"}])
    decision = decide(MessagesRequest.from_dict(user()), config, lambda _: 10, budget=budget("9"))
    assert decision.rule == "default"


# --- the settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", ["0", "-1", "much"])
def test_a_budget_is_above_zero(amount: str) -> None:
    """0 might be meant as none and as nothing."""
    with pytest.raises(ConfigError, match=DAY):
        make_config({DAY: amount})


@pytest.mark.parametrize(
    ("prices", "is_warned"),
    [
        ({}, True),
        ({"input_cost_per_token": 1}, True),
        ({"input_cost_per_token": 0, "output_cost_per_token": 0}, False),
        ({"dialect": "openrouter"}, False),
        ({"dialect": "xai"}, False),
    ],
)
def test_a_model_that_no_budget_sees_is_told_at_the_start(tmp_path: Path, prices: Json, is_warned: bool) -> None:
    """Its costs are unknown, so they are in no sum; OpenRouter tells its own."""
    row = {"model_id": "main", "api_base": "http://p.test/v1", **prices}
    (tmp_path / "models.yaml").write_text(str([row]), encoding="utf-8")
    warnings = load_config({DAY: "1"}, folders=[tmp_path]).config.warnings
    assert any("main: its price is not known, so DAILY_BUDGET_USD" in line for line in warnings) == is_warned
    assert not any("price" in line for line in load_config({}, folders=[tmp_path]).config.warnings)


# --- over HTTP --------------------------------------------------------------------------------------------------


def reply(body: Json) -> Sequence[Step]:
    """An answer of 100 input and 10 output tokens."""
    return [Text("Hello"), Finish(None, 100, 10)]


MODELS = [("main", "0.003"), ("small", "0.0001")]  # an answer of main costs 0.3 USD


def models(url: str) -> List[Dict[str, Any]]:
    return [
        {
            "model_id": name,
            "api_base": url,
            "dialect": "generic",
            "input_cost_per_token": price,
            "output_cost_per_token": 0,
        }
        for name, price in MODELS
    ]


def turn(url: str, session: str = "s", path: str = "/v1/messages", **fields: Any) -> Answer:
    return ask(url, path, user(**fields), headers={"x-claude-code-session-id": session})


@pytest.mark.parametrize("setting", ["SESSION_BUDGET_USD", DAY])
@pytest.mark.parametrize("stream", [False, True])
def test_a_budget_from_its_begin_to_its_end(tmp_path: Path, setting: str, stream: bool) -> None:
    """Dear, cheap, refused: each answer counts for the next request."""
    with StubProvider(reply) as stub:
        env = {"ROUTER_DEFAULT": "main", "ROUTER_BACKGROUND": "small", setting: "1"}
        with running_proxy(env, models(stub.url), Ledger(tmp_path)) as proxy:
            answers = [turn(proxy.url, stream=stream) for _ in range(13)]
            stats = ask(proxy.url, "/v1/stats").json
            elsewhere = turn(proxy.url, "another", stream=stream)
            counted = turn(proxy.url, path="/v1/messages/count_tokens")
    assert [answer.headers["x-ccproxy-model"] for answer in answers[:3]] == ["main"] * 3
    assert [answer.headers["x-ccproxy-model"] for answer in answers[3:]] == ["small"] * 10
    assert f"$0.9 of {setting} $1 are spent (90 %)" in answers[3].headers["x-ccproxy-route"]
    assert counted.status == 200
    assert elsewhere.status == (200 if setting == "SESSION_BUDGET_USD" else 402)
    (shown,) = stats["budgets"]
    assert shown == {
        "setting": setting,
        "period": "today" if setting == DAY else "session",
        "limit_usd": "1",
        "spent_usd": "1",
        "share": 1.0,
        "unknown_cost_requests": 0,
    }


def test_when_all_is_spent(tmp_path: Path) -> None:
    """402 in Anthropic's shape, not to be repeated; it is in the statistics, and no provider was asked."""
    with StubProvider(reply) as stub:
        env = {"ROUTER_DEFAULT": "main", DAY: "0.3"}
        with running_proxy(env, models(stub.url), Ledger(tmp_path)) as proxy:
            assert turn(proxy.url).status == 200
            refused = [turn(proxy.url, stream=stream) for stream in (False, True)]
            refused.append(turn(proxy.url, path="/v1/messages/test_conversion?model=main"))
            stats = ask(proxy.url, "/v1/stats?period=all").json
        asked = len(stub.requests)
    assert asked == 1
    for answer in refused:
        assert (answer.status, answer.headers["x-should-retry"]) == (402, "false")
        check_error(answer.json)
        assert answer.json["error"]["type"] == "billing_error"
        assert answer.json["error"]["message"].startswith("$0.3 of DAILY_BUDGET_USD $0.3 are spent (100 %); tomorrow")
        assert answer.headers["x-ccproxy-route"].startswith("budget: $0.3 of")
    assert (stats["totals"]["requests"], stats["totals"]["errors"], stats["totals"]["cost_usd"]) == (4, 3, "0.3")
    assert {row["rule"]: row["requests"] for row in stats["by_rule"]} == {"default": 1, "budget": 3}


def test_without_a_ledger_the_process_counts() -> None:
    """A vendored application without a state folder keeps its budgets as long as it lives."""
    with StubProvider(reply) as stub, running_proxy({"ROUTER_DEFAULT": "main", DAY: "0.5"}, models(stub.url)) as proxy:
        assert [turn(proxy.url).status for _ in range(3)] == [200, 200, 402]


def test_two_processes_share_a_budget(tmp_path: Path) -> None:
    """What one spends, the other knows within moments; and a new process knows it from its first request on."""
    with StubProvider(reply) as stub:
        variables = configuration(tmp_path, stub.url, STATE_DIR=str(tmp_path / "state"), DAILY_BUDGET_USD="0.5")
        (tmp_path / "models.yaml").write_text(str([{**models(stub.url)[0], "model_id": "stub"}]), encoding="utf-8")
        command = serve_command("--port", "0")
        with running(command, tmp_path, variables) as one, running(command, tmp_path, variables) as two:
            addresses = [one.address(), two.address()]
            for url in addresses:
                assert turn(url).status == 200
            for url in addresses:
                eventually(lambda url=url: turn(url).status == 402, "the budget is spent")  # type: ignore[misc]
            with running(command, tmp_path, variables) as three:
                assert turn(three.address()).status == 402


# --- where it is shown --------------------------------------------------------------------------------------------


def test_the_statistics_show_it(tmp_path: Path) -> None:
    """The endpoint's numbers as a line for a terminal, with what is not known."""
    found = report(tmp_path / "usage.db", "all", 0.0, {"today": Decimal(2)})
    assert found["budgets"][0]["share"] == 0
    assert render(found, Look()).splitlines()[-1] == "DAILY_BUDGET_USD: $0 of $2 are spent (0%)."
    found["budgets"][0].update(spent_usd="1.7", share=0.85, unknown_cost_requests=2)
    last = render(found, Look()).splitlines()[-1]
    assert last == "DAILY_BUDGET_USD: $1.7 of $2 are spent (85%), besides 2 of unknown cost."


def statuses(proxy: Proxy, session: Optional[str] = None) -> List[int]:
    headers = {"x-claude-code-session-id": session} if session else {}
    return [ask(proxy.url, "/v1/messages", user(), headers=headers).status for _ in range(3)]


def test_a_client_without_a_session_has_no_session_budget() -> None:
    """Nobody knows which requests belong together; the day's budget still counts them."""
    with StubProvider(reply) as stub:
        env = {"ROUTER_DEFAULT": "main", "SESSION_BUDGET_USD": "0.1"}
        with running_proxy(env, models(stub.url)) as proxy:
            assert statuses(proxy) == [200, 200, 200]
            assert statuses(proxy, "s") == [200, 402, 402]
