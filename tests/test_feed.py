"""Requests as they happen: of every process, in order, for a bounded number of watchers, until the server stops."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any, List, Tuple

import pytest

from ccproxy.accounting.ledger import Ledger
from ccproxy.accounting.ledgerfile import MIGRATIONS
from ccproxy.feed import MAX_WATCHERS, Feed
from ccproxy.provider.cooldown import LEAST_FAILURES
from ccproxy.stub import Failure, StubProvider, Text
from ccproxy.wsgi import wsgi_app
from ledger_rows import row
from processes import configuration, eventually, running, serve_command
from raw_http import RawConnection, request
from support import ask, make_config, running_proxy, user
from watching import Json, Watching


def write(folder: Path, *names: str, **fields: Any) -> Path:
    """Record requests, as another process does that shares the file."""
    ledger = Ledger(folder, keep_days=100_000)
    for name in names:
        ledger.add(row(request_id=name, **fields))
    ledger.close()
    return ledger.path


def ids(rows: List[Json]) -> List[str]:
    """The requests' ids."""
    return [item["request_id"] for item in rows]


# --- the rows -----------------------------------------------------------------------------------------------------


def test_rows_come_in_order_and_once(tmp_path: Path) -> None:
    """Those behind a number; of too many the newest."""
    feed = Feed(write(tmp_path, "a", "b", "c"))
    assert [(item["id"], item["request_id"]) for item in feed.rows(0, 10)] == [(1, "a"), (2, "b"), (3, "c")]
    assert ids(feed.rows(2, 10)) == ["c"]
    assert ids(feed.rows(3, 10)) == []
    assert ids(feed.rows(0, 2)) == ["b", "c"]


def test_a_file_that_was_replaced_is_read_from_its_start(tmp_path: Path) -> None:
    """A damaged file is moved aside and another one begun: its numbers start again."""
    feed = Feed(write(tmp_path, "a", "b", "c"))
    for path in tmp_path.iterdir():
        path.unlink()
    write(tmp_path, "d")
    assert ids(feed.rows(3, 10)) == ["d"]


def test_without_a_file_there_are_no_rows(tmp_path: Path) -> None:
    """Neither before the first request nor where nothing is recorded."""
    assert Feed(None).rows(0, 10) == []
    assert Feed(tmp_path / "usage.db").rows(0, 10) == []


def test_a_file_of_the_first_version_is_read(tmp_path: Path) -> None:
    """It is brought up to date with the next request only."""
    ledger = Ledger(tmp_path, migrations=MIGRATIONS)
    ledger.close()
    import sqlite3

    with sqlite3.connect(str(tmp_path / "usage.db")) as database:
        for statement in MIGRATIONS[0]:
            database.execute(statement)
        database.execute("INSERT INTO requests VALUES (1,'s','a','','m','p','r',0,0,0,0,0,NULL,NULL,'ended',200,0,1,1)")
    assert [(item["request_id"], item["model"]) for item in Feed(tmp_path / "usage.db").rows(0, 10)] == [("a", "m")]


# --- over the wire ------------------------------------------------------------------------------------------------


def test_requests_of_every_process_are_told(tmp_path: Path) -> None:
    """Those there are, then each one that this process or another one records; no row twice."""
    ledger = Ledger(tmp_path, keep_days=100_000)
    write(tmp_path, "old")
    with running_proxy(ledger=ledger) as proxy, Watching(proxy.url) as watcher:
        assert (watcher.head.status, watcher.head.headers["content-type"][:17]) == (200, "text/event-stream")
        assert ids(watcher.until("requests")) == ["old"]
        write(tmp_path, "other")
        (other,) = watcher.until("requests")
        assert (other["request_id"], other["reason"], other["output_tokens"]) == ("other", "", 5)
        own = ask(proxy.url, "/v1/messages", user()).headers["request-id"]
        (row,) = watcher.until("requests")
        assert (row["request_id"], row["rule"], row["outcome"]) == (own, "default", "ended")
        assert row["reason"] == "no model is configured: the built-in demo answers"
        with Watching(proxy.url, f"?after={other['id']}") as second:
            assert ids(second.until("requests")) == [own]


def test_a_request_is_seen_while_it_runs(tmp_path: Path) -> None:
    """Who answers, why, after whom, and whether there is content yet; then it is among those that ended."""
    release = threading.Event()

    def script(body: Json) -> Any:
        if body["model"] == "bad":
            return [Failure(500)]
        release.wait(20)
        return [Text("hi")]

    with StubProvider(script) as stub:
        models = [{"model_id": name, "api_base": stub.url} for name in ("bad", "good")]
        with (
            running_proxy({"ROUTER_DEFAULT": "bad,good"}, models, Ledger(tmp_path)) as proxy,
            Watching(proxy.url) as watcher,
            RawConnection(proxy.url) as client,
        ):
            assert watcher.until("running") == []
            client.send(request("POST", "/v1/messages", user()))
            (item,) = watcher.until("running", lambda found: found and found[0]["model"] == "good")
            assert (item["rule"], item["reason"]) == ("default", "no other rule fired")
            assert (item["unanswered"], item["attempts"], item["first_content"]) == ("bad", 2, None)
            release.set()
            assert client.answer().status == 200
            assert ids(watcher.until("requests")) == [item["request_id"]]


def test_the_state(tmp_path: Path) -> None:
    """Models, keys, rules, what is wrong with the configuration; a model that begins to rest is told at once."""
    with StubProvider(lambda body: [Failure(500)]) as stub:
        models = [
            {"model_id": "bad", "api_base": stub.url},
            {"model_id": "none", "api_base": stub.url, "api_key_name": "NO_KEY"},
        ]
        settings = {"ROUTER_DEFAULT": "bad,demo/echo", "ROUTER_THINK": "none"}
        with running_proxy(settings, models) as proxy, Watching(proxy.url) as watcher:
            state = watcher.until("state")
            shown = [(item["id"], item["is_ready"], item["key"], item["rests_until"]) for item in state["models"]]
            assert shown == [
                ("bad", True, "", None),
                ("none", False, "NO_KEY", None),
                ("demo/echo", True, "", None),
            ]
            assert state["rules"] == [
                {"setting": "ROUTER_DEFAULT", "models": ["bad", "demo/echo"]},
                {"setting": "ROUTER_THINK", "models": ["none"]},
            ]
            assert state["default"] == {"models": ["bad", "demo/echo"], "reason": "no other rule fired"}
            assert (state["has_ledger"], state["ledger_problem"]) == (False, "")
            for _ in range(LEAST_FAILURES):
                assert ask(proxy.url, "/v1/messages", user()).status == 200
            resting = watcher.until("state")["models"][0]
            assert resting["rests_until"] > 1_600_000_000


def test_a_new_configuration_is_told_to_who_watches() -> None:
    """And what is wrong with its files; with another token the stream ends: who watches has to show it."""
    with running_proxy() as proxy, Watching(proxy.url) as watcher:
        assert watcher.until("state")["default"]["models"] == ["demo/echo"]
        proxy.app.config_problem = "models.yaml:3: api_base: missing"
        assert watcher.until("state")["problem"] == "models.yaml:3: api_base: missing"
        proxy.app.config, proxy.app.config_problem = make_config({"ROUTER_DEFAULT": "demo/other"}), ""
        state = watcher.until("state", lambda found: not found["problem"])
        assert state["default"]["models"] == ["demo/other"]
        proxy.app.config = make_config({"CCPROXY_AUTH_TOKEN": "secret-token"})
        assert watcher.next() is None


def test_records_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    """The rest goes on."""
    ledger = Ledger(tmp_path)
    ledger.path.write_bytes(b"no database " * 1000)
    with running_proxy(ledger=ledger) as proxy, Watching(proxy.url) as watcher:
        assert "cannot be read" in watcher.until("state")["ledger_problem"]


def test_a_silent_stream_gets_pings() -> None:
    """As comments, which nobody takes for news."""
    with running_proxy({"PING_INTERVAL": "0.1"}) as proxy, Watching(proxy.url) as watcher:
        while not watcher.comments:
            assert watcher.read()
    assert watcher.comments[0] == ": ping"


@pytest.mark.parametrize("after", ["", "x", "-1", "1.5", "9" * 30])
def test_a_bad_number_is_refused(after: str) -> None:
    """In words."""
    with running_proxy() as proxy:
        answer = ask(proxy.url, f"/dashboard/events?after={after}")
    assert (answer.status, "after" in answer.json["error"]["message"]) == (400, True)


def test_head_has_no_body() -> None:
    """And takes no place."""
    with running_proxy() as proxy:
        assert ask(proxy.url, "/dashboard/events", method="HEAD").status == 200


# --- watchers -----------------------------------------------------------------------------------------------------


def test_watchers_are_bounded_and_leave_their_places() -> None:
    """One too many is told to come back; a place is free again once its watcher left."""
    with running_proxy() as proxy, ExitStack() as stack:
        first = stack.enter_context(Watching(proxy.url))
        for _ in range(MAX_WATCHERS - 1):
            stack.enter_context(Watching(proxy.url))
        refused = ask(proxy.url, "/dashboard/events")
        assert (refused.status, refused.json["error"]["type"]) == (503, "overloaded_error")
        assert ask(proxy.url, "/v1/messages", user()).status == 200
        first.connection.__exit__()

        def is_let_in() -> bool:
            with Watching(proxy.url) as another:
                return another.head.status == 200

        eventually(is_let_in, "a place is free")


def test_watchers_do_not_hold_up_a_stop(tmp_path: Path) -> None:
    """Their streams end regularly and at once, not when DRAIN_TIMEOUT is over; nobody new is let in."""
    with running(serve_command("--port", "0"), tmp_path, {"DRAIN_TIMEOUT": "60"}) as process:
        url = process.address()
        with Watching(url) as watcher:
            watcher.until("running")
            process.popen.terminate()
            while watcher.next():
                pass
            assert watcher.connection._ended_well
        assert process.wait() == 0
    assert not any("still running" in line for line in process.lines)


def test_several_servers_share_what_is_told(tmp_path: Path) -> None:
    """A watcher of one process sees the requests of the other."""
    with StubProvider() as stub:
        variables = {**configuration(tmp_path, stub.url), "STATE_DIR": str(tmp_path)}
        command = serve_command("--port", "0")
        with (
            running(command, tmp_path, variables) as one,
            running(command, tmp_path, variables) as two,
            Watching(one.address()) as watcher,
        ):
            watcher.until("state")
            asked = ask(two.address(), "/v1/messages", user())
            assert ids(watcher.until("requests")) == [asked.headers["request-id"]]


def test_behind_a_wsgi_server_a_stream_ends_at_once(tmp_path: Path) -> None:
    """Its threads are few: the watcher is told everything there is, and to come back."""
    write(tmp_path, "a")
    with running_proxy(ledger=Ledger(tmp_path, keep_days=100_000)) as proxy:
        heads: List[Tuple[str, Any]] = []
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/dashboard/events", "HTTP_HOST": "localhost"}
        body: Any = wsgi_app(proxy.app)(environ, lambda status, headers: heads.append((status, headers)))
        text = b"".join(body).decode()
        body.close()
    assert heads[0][0] == "200 OK"
    assert text.startswith("retry: 2000\n\n")
    assert [line for line in text.split("\n") if line.startswith("event")] == [
        "event: state",
        "event: running",
        "event: requests",
    ]
    assert ids(json.loads(text.rpartition("data: ")[2])) == ["a"]


def test_with_a_token_watching_needs_it() -> None:
    """As everything does."""
    with running_proxy({"CCPROXY_AUTH_TOKEN": "secret-token"}) as proxy:
        with Watching(proxy.url) as refused:
            assert refused.head.status == 401
        with Watching(proxy.url, headers={"x-api-key": "secret-token"}) as watcher:
            assert "secret-token" not in json.dumps(watcher.until("state"))
