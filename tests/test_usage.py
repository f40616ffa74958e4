"""Statistics: the sum of what clients were told, to the token and to the last decimal."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, Dict, Iterator, Optional, Sequence, Tuple

import pytest

from ccproxy import cli
from ccproxy.accounting.ledger import Ledger
from ccproxy.accounting.usage import PERIODS, report
from ccproxy.anthropic import MessagesRequest
from ccproxy.commands.stats import render
from ccproxy.commands.terminal import Look
from ccproxy.config.load import state_folder
from ccproxy.config.schema import Config
from ccproxy.errors import ConfigError
from ccproxy.handlers.record import session_of
from ccproxy.stub import Cut, Delay, Failure, Finish, Json, Step, StubProvider, Text, content_text
from ccproxy.web import Request
from fixed_provider import EVENTS, JSON, SSE, WHOLE, FixedProvider
from grammar import parse_sse
from ledger_rows import row, written
from processes import PATIENCE, configuration, environment, eventually, running, serve_command
from raw_http import RawConnection, request
from support import Proxy, ask, running_proxy, user

INPUT, OUTPUT = Decimal("0.00000027"), Decimal("0.0000011")
PRICES = {"input_cost_per_token": str(INPUT), "output_cost_per_token": str(OUTPUT)}
NOW = 1_700_000_000.0


@contextmanager
def recording_proxy(tmp_path: Path, script: Any, **model: Any) -> Iterator[Tuple[Proxy, Ledger]]:
    """A proxy in front of a scripted provider, with a ledger."""
    ledger = Ledger(tmp_path)
    with StubProvider(script) as stub:
        entry = {"model_id": "stub", "api_base": stub.url, "dialect": "generic", **PRICES, **model}
        with running_proxy({"ROUTER_DEFAULT": "stub"}, [entry], ledger) as proxy:
            yield proxy, ledger


def stats(proxy: Proxy, period: str = "all") -> Json:
    """What the proxy says about a period."""
    answer = ask(proxy.url, f"/v1/stats?period={period}")
    assert answer.status == 200, answer.body
    return dict(answer.json)


def reply(body: Json) -> Sequence[Step]:
    """What the prompt asks for: ``ok``, ``early`` and ``late`` failures, or ``slow`` for clients that leave."""
    kind, number = content_text(body["messages"][-1]["content"]).split()
    if kind == "early":
        return [Failure(500)]
    if kind == "late":
        return [Text("one"), Cut()]
    if kind == "slow":
        return [Text("one"), Delay(20), Text("two")]
    return [Text("one two three"), Finish(None, 1000 + int(number), 7 * int(number), cached_tokens=int(number))]


def counts_of(body: bytes, is_stream: bool) -> Tuple[int, int, int]:
    """The counts a client was told: input, cache read, output."""
    if is_stream:
        usage = [data for name, data in parse_sse(body) if name == "message_delta"][-1]["usage"]
    else:
        usage = json.loads(body)["usage"]
    return usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"]


def leave(proxy: Proxy, number: int) -> None:
    """Ask for a stream and leave after its first words."""
    with RawConnection(proxy.url) as client:
        client.send(request("POST", "/v1/messages", user(f"slow {number}", stream=True)))
        assert client.head().status == 200
        client.chunk()


def test_the_sum_of_what_clients_were_told(tmp_path: Path) -> None:
    """64 at a time, streams and whole answers, some of which fail or are left: nothing is missing, nothing is twice."""

    def one(number: int) -> Optional[Tuple[Tuple[int, int, int], Decimal]]:
        kind = {7: "early", 8: "late", 9: "slow"}.get(number % 10, "ok")
        if kind == "slow":
            leave(proxy, number)
            return None
        is_stream = kind == "late" or number % 3 > 0
        body = user(f"{kind} {number}", stream=is_stream)
        if kind == "late":
            with RawConnection(proxy.url) as client:
                client.send(request("POST", "/v1/messages", body))
                assert client.head().status == 200
                with suppress(OSError, ValueError):  # it ends without an end
                    while client.chunk():
                        pass
            return None
        answer = ask(proxy.url, "/v1/messages", body)
        if kind == "early":
            assert answer.status >= 500
            return None
        counts = counts_of(answer.body, is_stream)
        cost = (counts[0] + counts[1]) * INPUT + counts[2] * OUTPUT
        if not is_stream:
            assert Decimal(answer.headers["x-ccproxy-cost"]) == cost
        return counts, cost

    with recording_proxy(tmp_path, reply) as (proxy, ledger), ThreadPoolExecutor(64) as clients:
        told = [result for result in clients.map(one, range(200)) if result]
        eventually(lambda: ledger.flush(1) and len(written(ledger.path)) == 200, "every request is recorded")
        found = stats(proxy)
    totals = found["totals"]
    assert len(told) == 140
    assert (totals["requests"], totals["errors"], totals["cancelled"]) == (200, 40, 20)
    sums = [sum(counts[index] for counts, _ in told) for index in range(3)]
    assert [totals[name] for name in ("input_tokens", "cache_read_tokens", "output_tokens")] == sums
    assert Decimal(totals["cost_usd"]) == sum(cost for _, cost in told)
    assert totals["unknown_cost_requests"] == 40
    assert totals["attempts"] == 200
    assert totals["first_content_p50"] <= totals["first_content_p95"]
    for group in ("by_model", "by_rule", "by_session"):
        (only,) = found[group]
        assert {name: only[name] for name in totals} == totals


def test_who_has_the_whole_answer_finds_it_in_the_statistics(tmp_path: Path) -> None:
    """Once the last byte is there, streamed or not, translated or passed through."""
    with recording_proxy(tmp_path, reply) as (proxy, _):
        for number in range(30):
            ask(proxy.url, "/v1/messages", user(f"ok {number}", stream=number % 2 == 0))
            assert stats(proxy)["totals"]["requests"] == number + 1


def test_the_cost_that_the_provider_tells_wins(tmp_path: Path) -> None:
    """OpenRouter's own amount is told, logged and added up, streamed and whole."""
    end = {"usage": {"prompt_tokens": 3, "completion_tokens": 5, "cost": 0.000012345}}
    whole = json.dumps({**json.loads(WHOLE), **end}).encode()
    stream = EVENTS + b"data: %s\n\ndata: [DONE]\n\n" % json.dumps({"choices": [], **end}).encode()
    with FixedProvider(200, {"content-type": SSE}, stream) as a, FixedProvider(200, {"content-type": JSON}, whole) as b:
        usual = {"dialect": "openrouter", **PRICES}
        models = [{"model_id": "a", "api_base": a.url, **usual}, {"model_id": "b", "api_base": b.url, **usual}]
        with running_proxy({"ROUTER_DEFAULT": "a"}, models, Ledger(tmp_path)) as proxy:
            assert "x-ccproxy-cost" not in ask(proxy.url, "/v1/messages", user(model="a", stream=True)).headers
            assert ask(proxy.url, "/v1/messages", user(model="b")).headers["x-ccproxy-cost"] == "0.000012345"
            costs = {group["model"]: group["cost_usd"] for group in stats(proxy)["by_model"]}
    assert costs == {"a": "0.000012345", "b": "0.000012345"}


def anthropic_stream(*last: Tuple[str, Json]) -> bytes:
    """An Anthropic provider's stream with one block, and these events at its end."""
    usage = {"input_tokens": 100, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 3, "output_tokens": 1}
    block = {"index": 0, "content_block": {"type": "text", "text": ""}}
    events = [("message_start", {"message": {"usage": usage}}), ("content_block_start", block), *last]
    frames = [f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n" for name, data in events]
    return "".join(frames).encode()


ENDINGS: Dict[str, Tuple[Tuple[str, Json], ...]] = {
    "ended": (
        ("message_delta", {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 50}}),
        ("message_stop", {}),
    ),
    "failed": (("error", {"error": {"type": "overloaded_error", "message": "no"}}),),
}


@pytest.mark.parametrize("outcome", ENDINGS)
def test_an_answer_that_is_passed_through(tmp_path: Path, outcome: str) -> None:
    """Its counts are the provider's, and only a regular end has a cost."""
    ledger = Ledger(tmp_path)
    with FixedProvider(200, {"content-type": SSE}, anthropic_stream(*ENDINGS[outcome])) as provider:
        model = {"model_id": "direct", "api_base": provider.url, "direct": True, **PRICES}
        with running_proxy({"ROUTER_DEFAULT": "direct"}, [model], ledger) as proxy:
            body = user(stream=True, model="claude-opus-5")
            with suppress(ConnectionResetError):  # how a stream ends that broke off
                ask(proxy.url, "/v1/messages", body, headers={"x-claude-code-session-id": "mine"})
            eventually(lambda: stats(proxy, "session")["totals"]["requests"], "it is written down")
            found = stats(proxy, "session")
    totals = found["totals"]
    counts = [totals[f"{kind}_tokens"] for kind in ("input", "cache_read", "cache_write", "output")]
    assert found["session"] == "mine"
    assert counts == [100, 20, 3, 50 if outcome == "ended" else 1]
    assert written(ledger.path, "outcome") == [outcome]
    assert totals["first_content_p50"] is not None
    if outcome == "ended":
        assert Decimal(totals["cost_usd"]) == 123 * INPUT + 50 * OUTPUT
    else:
        assert (totals["cost_usd"], totals["unknown_cost_requests"]) == (None, 1)


def test_why_and_after_whom_a_model_answered(tmp_path: Path) -> None:
    """The reason of the route, and the models of it that gave no answer; who fails last is none of them."""
    ledger = Ledger(tmp_path)
    with StubProvider(lambda body: [Failure(500)] if body["model"] == "bad" else [Text("hi")]) as stub:
        models = [{"model_id": name, "api_base": stub.url} for name in ("bad", "good")]
        with running_proxy({"ROUTER_DEFAULT": "bad,good"}, models, ledger) as proxy:
            assert ask(proxy.url, "/v1/messages", user()).status == 200
            assert ask(proxy.url, "/v1/messages", user(model="bad")).status == 500
            ledger.flush(PATIENCE)
    assert written(ledger.path, "model") == ["good", "bad"]
    assert written(ledger.path, "reason") == ["no other rule fired", "the client asked for bad"]
    assert written(ledger.path, "unanswered") == ["bad", ""]


def test_an_unknown_price_is_null(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No header, no number in the log, and the statistics say how many there were."""
    with (
        caplog.at_level("INFO"),
        recording_proxy(tmp_path, reply, input_cost_per_token=None, output_cost_per_token=None) as (proxy, _),
    ):
        answer = ask(proxy.url, "/v1/messages", user("ok 1"))
        totals = stats(proxy)["totals"]
    assert "x-ccproxy-cost" not in answer.headers
    assert (totals["cost_usd"], totals["unknown_cost_requests"], totals["saving_usd"]) == (None, 1, None)
    assert " cost=- " in caplog.text


def test_the_saving(tmp_path: Path) -> None:
    """The list price of the Claude model asked for, less the cost; for other names there is none."""
    with recording_proxy(tmp_path, reply) as (proxy, _):
        for name in ("claude-sonnet-4-5-20250929", "claude-of-tomorrow"):
            ask(proxy.url, "/v1/messages", user("ok 0", model=name))
        totals = stats(proxy)["totals"]
    assert Decimal(totals["saving_usd"]) == 1000 * (Decimal("0.000003") - INPUT)


def test_neither_prompts_nor_keys_are_recorded(tmp_path: Path) -> None:
    """Nothing of a request's content, credentials or a provider's error text is in any file."""
    with recording_proxy(tmp_path, lambda body: [Failure(400, "secret-in-error")]) as (proxy, ledger):
        for stream in (True, False):
            body = user("secret-prompt", system="secret-system", stream=stream)
            ask(proxy.url, "/v1/messages", body, headers={"x-api-key": "secret-key"})
        ledger.flush(PATIENCE)
        kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert len(written(ledger.path)) == 2
    assert b"secret" not in kept


def test_what_is_not_an_exchange_is_not_recorded(tmp_path: Path) -> None:
    """Neither a warm-up, nor a count, nor a request that is refused."""
    with recording_proxy(tmp_path, reply) as (proxy, _):
        ask(proxy.url, "/v1/messages", user(max_tokens=0))
        ask(proxy.url, "/v1/messages", {"model": "x"})
        ask(proxy.url, "/v1/messages/count_tokens", user())
        ask(proxy.url, "/v1/models")
        assert stats(proxy)["totals"]["requests"] == 0


def test_names_that_cannot_be_stored(tmp_path: Path) -> None:
    """A model name that is no valid text, or endless, is recorded as well as it can be."""
    with recording_proxy(tmp_path, reply) as (proxy, ledger):
        assert ask(proxy.url, "/v1/messages", user("ok 1", model="claude-\ud800" + "x" * 1000)).status == 200
        ledger.flush(PATIENCE)
    (name,) = written(ledger.path, "requested_model")
    assert name.startswith("claude-?xxx")
    assert len(name) == 200


def test_a_bad_period_and_no_ledger(tmp_path: Path) -> None:
    """Errors name what is allowed, and who records nothing says so."""
    with recording_proxy(tmp_path, reply) as (proxy, _):
        assert "session, today, 7d, 30d, all" in ask(proxy.url, "/v1/stats?period=year").json["error"]["message"]
    with running_proxy() as proxy:
        assert ask(proxy.url, "/v1/stats").status == 404


def test_a_database_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """The endpoint and the command say so in one line, and messages are answered all the same."""
    with recording_proxy(tmp_path, reply) as (proxy, ledger):
        ledger.path.write_bytes(b"no database " * 1000)
        answer = ask(proxy.url, "/v1/stats")
        assert (answer.status, answer.json["type"]) == (500, "error")
        assert ask(proxy.url, "/v1/messages", user("ok 1")).status == 200
    for path in tmp_path.iterdir():
        path.write_bytes(b"no database " * 1000)
    monkeypatch.setenv("STATE_DIR", str(tmp_path))
    assert cli.main(["stats"]) == 2
    assert re.fullmatch(r"ccproxy: .*usage\.db: cannot be read: .*\n", capsys.readouterr().err)


# --- periods and groups -----------------------------------------------------------------------------------------


def file_with(tmp_path: Path, *rows: Dict[str, Any]) -> Path:
    """A ledger's file with these rows."""
    ledger = Ledger(tmp_path, keep_days=100_000)
    for fields in rows:
        ledger.add(row(**fields))
    ledger.close()
    return ledger.path


def test_periods(tmp_path: Path) -> None:
    """Today begins at midnight here, the others so many days ago; the session is that of the newest row."""
    midnight = time.mktime((*time.localtime(NOW)[:3], 0, 0, 0, 0, 0, -1))
    day = 86400
    times = [NOW - 1, midnight, midnight - 1, NOW - 7 * day + 1, NOW - 8 * day, NOW - 30 * day + 1, NOW - 31 * day]
    path = file_with(tmp_path, *({"time": at, "session": "new" if at > NOW - 2 else "old"} for at in times))
    found = {period: report(path, period, NOW) for period in PERIODS}
    assert {period: body["totals"]["requests"] for period, body in found.items()} == {
        "session": 1,
        "today": 2,
        "7d": 4,
        "30d": 6,
        "all": 7,
    }
    assert found["session"]["session"] == "new"
    assert found["all"]["since"] is None
    assert found["7d"]["since"].endswith("+00:00")


def test_groups(tmp_path: Path) -> None:
    """By model, rule and session, with percentiles and money of their own; what is unknown stays apart."""
    path = file_with(
        tmp_path,
        {"model": "a", "cost": Decimal("0.1"), "claude_cost": Decimal("0.3"), "first_content": 1.0},
        {"model": "a", "cost": Decimal("0.2"), "rule": "think", "first_content": 3.0},
        {"model": "b", "cost": None, "claude_cost": Decimal(9), "session": "", "first_content": None},
        {"model": "b", "outcome": "failed", "first_content": None, "status": 500},
        {"model": "c", "outcome": "failed", "first_content": None, "status": 500},
    )
    found = report(path, "all", NOW)
    models = {group["model"]: group for group in found["by_model"]}
    assert [group["model"] for group in found["by_model"]] == ["a", "b", "c"]
    assert (models["a"]["cost_usd"], models["a"]["saving_usd"]) == ("0.3", "0.2")
    assert (models["a"]["first_content_p50"], models["a"]["first_content_p95"]) == (1.0, 3.0)
    assert (models["b"]["cost_usd"], models["b"]["unknown_cost_requests"], models["b"]["errors"]) == (None, 1, 1)
    assert (models["c"]["cost_usd"], models["c"]["unknown_cost_requests"]) == ("0", 0)
    assert {group["rule"]: group["requests"] for group in found["by_rule"]} == {"default": 4, "think": 1}
    assert {group["session"]: group["requests"] for group in found["by_session"]} == {"s": 4, "": 1}
    assert found["totals"]["cost_usd"] == "0.3"


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine in New York."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("new_york")
def test_days_are_those_of_this_machine(tmp_path: Path) -> None:
    """They end at midnight here, also the one with 25 hours; the newest comes first, each also by model."""
    start = datetime(2023, 11, 5, tzinfo=timezone(timedelta(hours=-4))).timestamp()  # the clock goes back that night
    end = start + 25 * 3600
    times = {"a": [start - 1, start, end - 1, end], "b": [end - 1]}
    path = file_with(
        tmp_path, *({"model": name, "time": at, "cost": Decimal("0.1")} for name in times for at in times[name])
    )
    found = report(path, "all", end)
    days = [(group["day"], group["requests"], group["cost_usd"]) for group in found["by_day"]]
    assert days == [("2023-11-06", 1, "0.1"), ("2023-11-05", 3, "0.3"), ("2023-11-04", 1, "0.1")]
    parts = [(group["day"], group["model"], group["output_tokens"]) for group in found["by_day_and_model"][1:3]]
    assert parts == [("2023-11-05", "a", 10), ("2023-11-05", "b", 5)]
    assert found["time_zone"] == "EST"


def test_groups_are_bounded(tmp_path: Path) -> None:
    """The newest fifty sessions, however many there were."""
    path = file_with(tmp_path, *({"session": f"s{number}", "time": NOW + number} for number in range(120)))
    found = report(path, "all", NOW)
    assert [group["session"] for group in found["by_session"]] == [f"s{number}" for number in range(119, 69, -1)]
    assert found["totals"]["requests"] == 120


def test_nothing_was_recorded(tmp_path: Path) -> None:
    """Zeros, nothing unknown, and no file is made by asking."""
    found = report(tmp_path / "none" / "usage.db", "session", NOW)
    assert found["totals"]["requests"] == 0
    assert found["totals"]["cost_usd"] == "0"
    assert found["by_model"] == []
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "usage.db").touch()  # made on a full disk
    assert report(tmp_path / "usage.db", "session", NOW) == found


# --- sessions and folders ---------------------------------------------------------------------------------------

UUID = "0f0f0f0f-0000-4000-8000-00000000000a"


@pytest.mark.parametrize(
    ("headers", "user_id", "session"),
    [
        ({"x-claude-code-session-id": "header-1"}, None, "header-1"),
        ({"x-claude-code-session-id": "header-1"}, f"user_abc_account__session_{UUID}", "header-1"),
        ({}, f"user_abc_account__session_{UUID}", UUID),
        ({}, f"user_abc_account_{UUID[::-1]}_session_{UUID}", UUID),
        ({}, json.dumps({"device_id": "0", "account_uuid": "", "session_id": UUID}), UUID),
        ({}, "0" * 64, ""),
        ({}, "{not json", ""),
        ({}, "[" * 100_000, ""),
        ({}, '{"session_id": ["x"]}', ""),
        ({}, "a_session_" + "x" * 101, ""),
        ({"x-claude-code-session-id": "a\x1b[31m"}, None, ""),
        ({}, None, ""),
        ({}, 5, ""),
    ],
)
def test_the_session_of_a_request(headers: Dict[str, str], user_id: Any, session: str) -> None:
    """Claude Code's header, else the session in either form of ``metadata.user_id``; nothing odd is taken over."""
    body = {**user(), "metadata": {"user_id": user_id}}
    assert session_of(Request("POST", "/v1/messages", headers=headers), MessagesRequest.from_dict(body)) == session


def test_where_the_state_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """STATE_DIR, what systemd gives, the XDG folder, and the home directory, in this order, or an error."""
    monkeypatch.setenv("HOME", str(tmp_path))
    given = {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b", "XDG_STATE_HOME": "/x"}
    assert state_folder(Config(state_dir="/mine"), given) == Path("/mine")
    assert state_folder(Config(), given) == Path("/var/lib/a")
    assert state_folder(Config(), {"XDG_STATE_HOME": "/x"}) == Path("/x/ccproxy")
    assert state_folder(Config(), {"XDG_STATE_HOME": "relative"}) == tmp_path / ".local/state/ccproxy"
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # as for a user of a container
    with pytest.raises(ConfigError, match="STATE_DIR"):
        state_folder(Config(), {})


# --- the command ------------------------------------------------------------------------------------------------


def test_the_command_prints_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Aligned, without colour where it is no terminal, and nothing a client chose reaches the terminal raw."""
    now = time.time()
    rows = [{"model": "deepseek", "cost": Decimal("0.0123")}, {"model": "evil\x1b[31m", "rule": "think"}]
    file_with(tmp_path, *({**fields, "time": now} for fields in rows))
    monkeypatch.setenv("STATE_DIR", str(tmp_path))
    assert cli.main(["stats", "--period", "all"]) == 0
    out = capsys.readouterr().out
    head, *lines = out.splitlines()[1:]
    assert "\x1b" not in out
    assert [line.split()[0] for line in lines[:3]] == ["total", "model", "model"]
    labels = [line[: head.index("requests")].strip() for line in lines[:3]]
    assert labels == ["total", "model deepseek", "model evil?[31m"]
    assert {len(line) for line in lines[:3]} == {len(head)}
    assert "$0.0123" in lines[0]
    assert lines[-1] == "requests of unknown cost, which are in no sum: 1"


def test_the_command_prints_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """What the endpoint answers."""
    path = file_with(tmp_path, {"time": time.time()})
    monkeypatch.setenv("STATE_DIR", str(tmp_path))
    assert cli.main(["stats", "--json", "--period=all"]) == 0
    assert json.loads(capsys.readouterr().out) == report(path, "all", time.time())


def test_colour(tmp_path: Path) -> None:
    """On a terminal only."""
    found = report(tmp_path / "usage.db", "all", NOW)
    assert "\x1b[1m" in render(found, Look(has_color=True))
    assert "\x1b" not in render(found, Look())


def test_a_server_and_the_command(tmp_path: Path) -> None:
    """A real server records in STATE_DIR; the command, another process, reads it; a signal ends it without a loss."""
    with StubProvider(reply) as stub:
        variables = configuration(tmp_path, stub.url, STATE_DIR=str(tmp_path / "state"))
        with running(serve_command("--port", "0"), tmp_path, variables) as process:
            url = process.address()
            for number in range(3):
                assert ask(url, "/v1/messages", user(f"ok {number}")).status == 200
            process.popen.terminate()
            assert process.wait() == 0
    command = [sys.executable, "-m", "ccproxy", "stats", "--json"]
    printed = subprocess.check_output(command, cwd=tmp_path, env=environment(tmp_path, variables), timeout=60)
    assert json.loads(printed)["totals"]["requests"] == 3
    assert not (tmp_path / ".local").exists()
    with closing(sqlite3.connect(str(tmp_path / "state" / "usage.db"))) as database:
        assert database.execute("SELECT DISTINCT model FROM requests").fetchall() == [("stub",)]


def test_watching(tmp_path: Path) -> None:
    """The numbers come again until Ctrl-C, which is no failure with a traceback."""
    command = [sys.executable, "-m", "ccproxy", "stats", "--watch"]
    variables = environment(tmp_path, {"STATE_DIR": str(tmp_path)})
    with subprocess.Popen(
        command, cwd=tmp_path, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout
        shown = [next(child.stdout) for _ in range(6)]
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=PATIENCE)
    assert shown[:3] == shown[3:]
    assert (child.returncode, errors) == (130, "")
