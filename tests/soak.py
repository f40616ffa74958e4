"""A server with two workers under mixed traffic, faults, reloads and killed workers, for as long as one likes.

    python tests/soak.py [SECONDS]

One worker is killed again and again; the other lives from the first second to the last, and by it growth is seen.
Prints a report, and fails on a wrong answer, on a stream that was cut though its worker was not killed, on an answer
that is not in the ledger once, killed worker or not, and when the memory, descriptors or threads of the worker that
lives, or of its parent, grow.
"""

from __future__ import annotations

import json
import math
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from ccproxy.accounting.ledger import FILE_NAME
from ccproxy.stub import Cut, Delay, Failure, Json, Reasoning, Step, StubProvider, Text, ToolCall, content_text
from crowd import Levels
from grammar import check_grammar, error_of, fold, parse_sse
from killing import Kill, clients_of
from ledger_rows import written
from processes import Process, configuration, eventually, running, serve_command
from raw_http import RawAnswer, RawConnection, request
from support import ask, user

CLIENTS, WORKERS = 8, 2
RELOAD_EVERY, KILL_EVERY, SAMPLE_EVERY = 3.0, 20.0, 1.0
GROWTH = {"memory": 10.0, "descriptors": 15, "threads": 15}
"""MiB, and numbers, from the second quarter to the last. The memory grows by a step of up to 6 when more large prompts
meet than ever before; from the fifth minute to the twentieth it went up and down by 3."""
UNITS = {"memory": "MiB", "descriptors": "descriptors", "threads": "threads"}
LARGE_AT_FIRST = 120
"""Prompts of 300 kB before anything is measured, from all clients at once: half of them fill what a worker remembers of
prompts, on any machine, and it has had as many at a time as it ever will."""
RECORDED_WITHIN = 15.0
"""Seconds after the last answer."""
BUSY = {"retry-after": "0"}
MANY_WORDS = 20_000


class Provider:
    """What prompts ask for: KIND NUMBER, and perhaps many words."""

    def __init__(self) -> None:
        self._asked: Counter[str] = Counter()

    def script(self, body: Json) -> List[Step]:
        """Answer."""
        kind, number = content_text(body["messages"][-1]["content"]).split()[:2]
        self._asked[number] += kind == "again"
        if kind == "refused":
            return [Failure(400, f"refused {number}")]
        if kind == "dies":
            return [Text(f"half {number}"), Cut()]
        if kind == "again" and self._asked.pop(number) == 1:
            self._asked[number] = 1
            return [Failure(503, "busy", BUSY)]
        return [Reasoning("hm"), Text(f"answer {number} "), Delay(0.05), Text("." * 500), ToolCall("do", {"n": number})]


# --- one client's requests: each gives the ids of those that are answered, or raises ----------------------------------


def right(is_right: bool, what: object) -> None:
    """Raise, if an answer is wrong."""
    if not is_right:
        raise AssertionError(f"{what!r:.400}")


def check_whole(answer: RawAnswer, name: str) -> str:
    """The whole answer to a prompt, streamed or not; return the request's id."""
    if answer.status == 0 or not answer.is_complete:
        raise ConnectionError("no whole answer")
    right(answer.status == 200, answer.body)
    events = parse_sse(answer.body) if "event-stream" in answer.headers["content-type"] else []
    if events:
        check_grammar(events)
    message = fold(events) if events else answer.json
    right([block["type"] for block in message["content"]] == ["thinking", "text", "tool_use"], message)
    right(message["content"][1]["text"] == f"answer {name} " + "." * 500, message)
    right(message["content"][2]["input"] == {"n": name}, message)
    return answer.headers["request-id"]


def messages(kind: str, name: str, **fields: Any) -> bytes:
    """A request to the model."""
    return request("POST", "/v1/messages", user(f"{kind} {name}", **fields))


def stream(client: RawConnection, name: str) -> Iterator[str]:
    """A stream, and one more on the same connection."""
    for _ in range(2):
        client.send(messages("stream", name, stream=True))
        yield check_whole(client.answer(), name)


def whole(client: RawConnection, name: str) -> Iterator[str]:
    """Two requests sent in one go."""
    client.send(messages("whole", name) * 2)
    for _ in range(2):
        yield check_whole(client.answer(), name)


def large(client: RawConnection, name: str) -> Iterator[str]:
    """A prompt of 300 kB in words of its own."""
    content = [{"type": "text", "text": text} for text in (f"large {name}", f"words of {name} " * MANY_WORDS)]
    body = {**user(stream=True), "messages": [{"role": "user", "content": content}]}
    client.send(request("POST", "/v1/messages", body))
    yield check_whole(client.answer(), name)


def again(client: RawConnection, name: str) -> Iterator[str]:
    """A provider that is busy at first."""
    client.send(messages("again", name, stream=True))
    yield check_whole(client.answer(), name)


def slow(client: RawConnection, name: str) -> Iterator[str]:
    """A client that takes its time over reading."""
    client.send(messages("slow", name, stream=True))
    time.sleep(0.5)
    yield check_whole(client.answer(), name)


def leaves(client: RawConnection, name: str) -> Iterator[str]:
    """A client that leaves in the middle."""
    client.send(messages("leaves", name, stream=True))
    if client.head().status == 0:
        raise ConnectionError("no answer")
    yield from ()


def refused(client: RawConnection, name: str) -> Iterator[str]:
    """What the provider refuses; its words come through."""
    client.send(messages("refused", name, stream=True))
    answer = client.answer()
    if answer.status == 0:
        raise ConnectionError("no answer")
    right(answer.status == 400 and f"refused {name}" in answer.json["error"]["message"], answer.body)
    yield answer.headers["request-id"]


def dies(client: RawConnection, name: str) -> Iterator[str]:
    """A provider that breaks off: what came, an error event, and no proper end."""
    client.send(messages("dies", name, stream=True))
    answer = client.answer()
    events = parse_sse(answer.body) if answer.status == 200 else []
    if error_of(events) is None:
        raise ConnectionError("no error event")
    check_grammar(events)
    texts = [data["delta"].get("text", "") for event, data in events if event == "content_block_delta"]
    right(not answer.is_complete and "".join(texts) == f"half {name}", answer.body)
    yield from ()


def looks(client: RawConnection, name: str) -> Iterator[str]:
    """A monitor."""
    for path in ("/health", "/metrics", "/v1/stats", "/v1/models", "/nowhere"):
        client.send(request("GET", path))
        answer = client.answer()
        if answer.status == 0:
            raise ConnectionError("no answer")
        right(answer.status == (404 if path == "/nowhere" else 200), (path, answer.body))
    yield from ()


KINDS: Dict[str, Callable[[RawConnection, str], Iterator[str]]] = {
    kind.__name__: kind for kind in (stream, whole, large, again, slow, leaves, refused, dies, looks)
}


# --- the whole ------------------------------------------------------------------------------------------------------


@dataclass
class Findings:
    """What came of it."""

    found: Counter[str] = field(default_factory=Counter)
    """How often a request was right, cut, wrong, or its worker killed, by kind."""
    examples: Dict[str, str] = field(default_factory=dict)
    kills: List[Kill] = field(default_factory=list)
    reloads: int = 0
    answered: List[str] = field(default_factory=list)
    """The requests of which clients have the whole answer, or the refusal, whatever became of its worker then."""
    recorded: Counter[str] = field(default_factory=Counter)
    """How many rows of the ledger each request has."""
    levels: Dict[str, List[Levels]] = field(default_factory=lambda: {"parent": [], "worker": []})
    """What the parent, and the worker that lives, took up over time."""
    is_alive: bool = True
    """Whether the server, and that worker, were there at the end."""

    def problems(self) -> List[str]:
        """What was not well."""
        problems = [name for name in self.found if name.startswith(("wrong", "cut"))]
        problems += [] if self.is_alive else ["the server, or the worker that nobody killed, ended"]
        problems += [f"{len(self.missing())} answers are missing in the ledger"] if self.missing() else []
        problems += ["requests are in the ledger twice"] if any(rows > 1 for rows in self.recorded.values()) else []
        for name, levels in self.levels.items():
            problems += [f"{what} of the {name} grow" for what in growing(levels)]
        return problems

    def missing(self) -> List[str]:
        """The answered requests that the ledger has not."""
        return [request_id for request_id in self.answered if request_id not in self.recorded]


def growing(levels: List[Levels]) -> List[str]:
    """What was more in the last quarter than in the second; in the first one everything is new."""
    if len(levels) < 8:
        return []
    second, last = quarter(levels, 1), quarter(levels, 3)
    return [what for what, most in GROWTH.items() if middle(last, what) > middle(second, what) + most]


def quarter(levels: List[Levels], number: int) -> List[Levels]:
    """One quarter of the time."""
    size = len(levels) // 4
    return levels[number * size : (number + 1) * size]


def middle(levels: List[Levels], name: str) -> float:
    """The median."""
    return float(sorted(getattr(level, name) for level in levels)[len(levels) // 2])


class Soak:
    """Clients, and what disturbs them."""

    def __init__(self, process: Process, folder: Path) -> None:
        self.process, self.url = process, process.address()
        self.findings = Findings()
        self.ended = threading.Event()
        self._folder = folder
        self._lock = threading.Lock()
        self._port = int(self.url.rpartition(":")[2])
        eventually(lambda: len(children(process.popen.pid)) == WORKERS, "the workers start")
        self._living = self._fill()

    def _fill(self) -> int:
        """Send large prompts; return the worker that got the most: what it remembers is as much as it will ever be."""

        def send(number: int) -> List[int]:
            with RawConnection(self.url) as client:
                self.findings.answered += list(large(client, f"first-{number}"))
                ours = client.socket.getsockname()[1]
                return [pid for pid in children(self.process.popen.pid) if ours in clients_of(pid, self._port)]

        with ThreadPoolExecutor(CLIENTS) as clients:
            got = Counter(pid for pids in clients.map(send, range(LARGE_AT_FIRST)) for pid in pids)
        return got.most_common(1)[0][0]

    def client(self, seed: int) -> None:
        """Ask until the end."""
        chance, number = random.Random(seed), 0
        while not self.ended.is_set():
            number += 1
            kind, started = chance.choice(list(KINDS)), time.monotonic()
            port, connected = 0, math.inf
            try:
                with RawConnection(self.url) as connection:
                    port, connected = connection.socket.getsockname()[1], time.monotonic()
                    for request_id in KINDS[kind](connection, f"{seed}-{number}"):
                        self.findings.answered.append(request_id)
                verdict, words = f"right: {kind}", ""
            except OSError as error:
                is_killed = any(kill.excuses(port, started, connected) for kill in self.findings.kills)
                verdict, words = f"{'killed' if is_killed else 'cut'}: {kind}", str(error)
            except (AssertionError, ValueError, LookupError) as error:
                verdict, words = f"wrong: {kind}", f"{type(error).__name__}: {error}"
            with self._lock:
                self.findings.found[verdict] += 1
                self.findings.examples.setdefault(verdict, words)

    def disturb(self) -> None:
        """Reload, kill and measure until the end."""
        began = time.monotonic()
        next_reload, next_kill = began + RELOAD_EVERY, began + KILL_EVERY
        while not self.ended.wait(SAMPLE_EVERY):
            now = time.monotonic()
            if now >= next_reload:
                next_reload = now + RELOAD_EVERY
                self.reload()
            if now >= next_kill:
                next_kill = now + KILL_EVERY
                self.kill()
            for name, pid in (("parent", self.process.popen.pid), ("worker", self._living)):
                level = level_of(pid)
                if level is not None:
                    self.findings.levels[name].append(level)
        self.findings.is_alive = self.process.popen.poll() is None and level_of(self._living) is not None

    def reload(self) -> None:
        """Change the configuration: a valid edit, another file, one that is refused, a signal."""
        self.findings.reloads += 1
        turn = self.findings.reloads % 4
        if turn == 3:
            self.process.popen.send_signal(signal.SIGHUP)
            return
        name, text = {
            0: (".env", f"PING_INTERVAL={5 + self.findings.reloads % 3}\n"),
            1: ("models.yaml", (self._folder / "models.yaml").read_text() + "\n"),
            2: (".env", "PING_INTERVAL=often\n"),
        }[turn]
        fresh = self._folder / f"{name}.new"
        fresh.write_text(text)
        fresh.replace(self._folder / name)

    def kill(self) -> None:
        """End a worker as nobody should, but for the one that is to live."""
        others = [pid for pid in children(self.process.popen.pid) if pid != self._living]
        if others:
            kill = Kill(random.choice(others), self._port)
            self.findings.kills.append(kill)
            kill.end()

    def count(self) -> None:
        """Read the ledger, when the rows are in it that were underway: a killed worker's come with those of another."""
        (ledger,) = self._folder.rglob(FILE_NAME)
        deadline = time.monotonic() + RECORDED_WITHIN
        while True:
            right(ask(self.url, "/v1/stats").status == 200, "no statistics")
            self.findings.recorded = Counter(written(ledger))
            if not self.findings.missing() or time.monotonic() > deadline:
                return
            time.sleep(SAMPLE_EVERY)


def children(pid: int) -> List[int]:
    """The processes that a process started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def level_of(pid: int) -> Optional[Levels]:
    """What a process takes up; None when it ended."""
    try:
        return Levels.of(pid)
    except (OSError, KeyError):
        return None


def soak(seconds: float) -> Findings:
    """Do it."""
    with tempfile.TemporaryDirectory() as name, StubProvider(Provider().script, is_recording=False) as stub:
        folder = Path(name)
        variables = configuration(folder, stub.url, MAX_RETRIES="1")
        with running(serve_command("--port", "0", "--workers", str(WORKERS)), folder, variables) as process:
            it = Soak(process, folder)
            threads = [threading.Thread(target=it.client, args=(seed,)) for seed in range(CLIENTS)]
            threads.append(threading.Thread(target=it.disturb))
            for thread in threads:
                thread.start()
            time.sleep(seconds)
            it.ended.set()
            for thread in threads:
                thread.join()
            it.count()
    return it.findings


def report(findings: Findings, seconds: float) -> Tuple[str, int]:
    """Return what was found, and 0 when all was well."""
    kills = len(findings.kills)
    lines = [f"{seconds:g} s, {CLIENTS} clients, {WORKERS} workers, {kills} kills, {findings.reloads} reloads"]
    lines += [f"  {count:8} {name}" for name, count in sorted(findings.found.items())]
    lines.append(f"  {len(findings.answered)} answers, {len(findings.missing())} of them not in the ledger")
    for name, levels in findings.levels.items():
        quarters = [part for part in (quarter(levels, number) for number in range(4)) if part]
        for what, unit in UNITS.items():
            values = " ".join(f"{middle(part, what):4.0f}" for part in quarters)
            lines.append(f"  {name}, {unit} by quarter: {values} (second to last: at most +{GROWTH[what]:g})")
    problems = findings.problems()
    lines += [f"FAILED: {name} {findings.examples.get(name, '')}" for name in problems]
    lines.append(json.dumps({"ok": not problems}))
    return "\n".join(lines), 1 if problems else 0


def main(seconds: float) -> int:
    """Do it, and tell."""
    text, code = report(soak(seconds), seconds)
    print(text)
    return code


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 600))
