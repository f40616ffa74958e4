"""Totals are the sum of what clients were told, over several workers, one of which is killed in the middle."""

from __future__ import annotations

import http.client
import json
import os
import signal
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Dict, Optional, Sequence, Tuple

from ccproxy.stub import Delay, Finish, Json, Step, StubProvider, Text, content_text
from grammar import parse_sse
from processes import configuration, eventually, running, serve_command
from raw_http import RawConnection, request
from support import ask, user
from test_workers import workers

INPUT, OUTPUT = Decimal("0.00000027"), Decimal("0.0000011")
CLIENTS, REQUESTS = 64, 320
Counts = Tuple[int, int, int]


def reply(body: Json) -> Sequence[Step]:
    """Counts that are another request's in no case; ``leave`` for clients that do not wait for them."""
    kind, number = content_text(body["messages"][-1]["content"]).split()
    pause = Delay(30 if kind == "leave" else 0.05)
    return [Text("one"), pause, Text("two"), Finish(None, 1000 + int(number), 7 * int(number), int(number))]


@dataclass
class Told:
    """What a client knows of its request."""

    request_id: str = ""
    counts: Optional[Counts] = None
    is_broken: bool = False


def one(url: str, number: int) -> Told:
    """One client's request: streamed or whole, or left after the first words."""
    kind = "leave" if number % 8 == 3 else "stay"
    is_stream = kind == "leave" or number % 3 > 0
    told = Told()
    try:
        with RawConnection(url) as client:
            client.send(request("POST", "/v1/messages", user(f"{kind} {number}", stream=is_stream)))
            if kind == "leave":
                client.head()
                client.chunk()
                return told
            answer = client.answer()
    except (OSError, ValueError, AssertionError, http.client.HTTPException):
        return Told(is_broken=True)  # before the head was there
    told.request_id = answer.headers.get("request-id", "")
    told.is_broken = not (answer.is_complete and answer.body)  # a head that was cut may name no length
    usage = None
    if is_stream:
        whole = answer.body[: answer.body.rfind(b"\n\n") + 2]
        usage = next((data["usage"] for name, data in parse_sse(whole) if name == "message_delta"), None)
    elif not told.is_broken:
        usage = answer.json["usage"]
    if usage is not None:
        told.counts = usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"]
    return told


def cost_of(counts: Counts) -> Decimal:
    return (counts[0] + counts[1]) * INPUT + counts[2] * OUTPUT


def rows_of(path: Path) -> Dict[str, Tuple[Counts, Decimal]]:
    """The requests that ended, by id; no id comes twice."""
    columns = "request_id, input_tokens, cache_read_tokens, output_tokens, cost"
    with closing(sqlite3.connect(str(path))) as database:
        rows = database.execute(f"SELECT {columns} FROM requests WHERE outcome = 'ended'").fetchall()
    assert len({row[0] for row in rows}) == len(rows)
    return {row[0]: ((row[1], row[2], row[3]), Decimal(row[4])) for row in rows}


def test_the_totals_survive_a_killed_worker(tmp_path: Path) -> None:
    """64 at a time on two workers, an eighth of the clients leave, and one worker is killed: nothing told is missing.

    Only what was written down while the kill cut its client off may be there besides.
    """
    state = tmp_path / "state"
    with StubProvider(reply) as stub:
        variables = configuration(tmp_path, stub.url, STATE_DIR=str(state), WORKERS="2", MAX_RETRIES="0")
        model = {"model_id": "stub", "api_base": stub.url, "dialect": "generic"}
        prices = {"input_cost_per_token": str(INPUT), "output_cost_per_token": str(OUTPUT)}
        (tmp_path / "models.yaml").write_text(json.dumps([{**model, **prices}]), encoding="utf-8")
        with running(serve_command("--port", "0"), tmp_path, variables) as process:
            url = process.address()
            victim, _ = workers(process)
            done = threading.Semaphore(0)

            def client(number: int) -> Told:
                told = one(url, number)
                done.release()
                return told

            with ThreadPoolExecutor(CLIENTS) as clients:
                answers = [clients.submit(client, number) for number in range(REQUESTS)]
                for _ in range(REQUESTS // 3):
                    done.acquire()
                os.kill(victim, signal.SIGKILL)
                results = [answer.result() for answer in answers]
            told = {result.request_id: result.counts for result in results if result.counts is not None}
            broken = sum(result.is_broken for result in results)

            def is_settled() -> bool:
                ask(url, "/v1/stats?period=all")  # writes down what is on its way, and what the killed one left
                return set(told) <= set(rows_of(state / "usage.db"))

            eventually(is_settled, "every request whose client was told is recorded")
            totals = ask(url, "/v1/stats?period=all").json["totals"]
            rows = rows_of(state / "usage.db")
    assert len(told) > REQUESTS // 2
    assert broken > 0
    assert {name: counts for name, (counts, _) in rows.items() if name in told} == told
    besides = {name: row for name, row in rows.items() if name not in told}
    assert len(besides) <= broken
    everything = [*told.values(), *(counts for counts, _ in besides.values())]
    sums = [totals[name] for name in ("input_tokens", "cache_read_tokens", "output_tokens")]
    assert sums == [sum(counts[index] for counts in everything) for index in range(3)]
    assert Decimal(totals["cost_usd"]) == sum(map(cost_of, everything))
    assert not list(state.glob("*.new"))
