"""A server with two workers under mixed traffic, faults, reloads and killed workers, for as long as one likes.

    python tests/soak.py [SECONDS]

Prints a report, and fails on a wrong answer, on a stream that was cut without its worker being killed, and when memory
or descriptors grow.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from ccproxy.stub import Cut, Delay, Failure, Json, Reasoning, Step, StubProvider, Text, ToolCall
from crowd import Levels
from grammar import check_grammar, error_of, fold, parse_sse
from processes import Process, configuration, running, serve_command
from raw_http import RawConnection, request
from support import user

CLIENTS, WORKERS = 8, 2
RELOAD_EVERY, KILL_EVERY, SAMPLE_EVERY = 3.0, 20.0, 1.0
KINDS = ("stream", "whole", "refused", "dies")
MEMORY_GROWTH, DESCRIPTOR_GROWTH = 1.25, 40


def script(body: Json) -> List[Step]:
    """What the prompt, KIND NUMBER, asks for."""
    kind, number = str(body["messages"][-1]["content"]).split()
    if kind == "refused":
        return [Failure(400, f"refused {number}")]
    if kind == "dies":
        return [Text(f"half {number}"), Cut()]
    return [Reasoning("hm"), Text(f"answer {number} "), Delay(0.05), Text("." * 500), ToolCall("do", {"n": number})]


class Soak:
    """The clients' findings, the kills, and the server's levels over time."""

    def __init__(self, process: Process, url: str) -> None:
        self.process, self.url = process, url
        self.found: Counter[str] = Counter()
        self.examples: Dict[str, str] = {}
        self.kills: List[float] = []
        self.levels: List[Tuple[int, float]] = []
        self.ended = threading.Event()
        self._lock = threading.Lock()

    def client(self, seed: int) -> None:
        """Ask until the end."""
        chance, number = random.Random(seed), 0
        while not self.ended.is_set():
            number += 1
            kind, name, started = chance.choice(KINDS), f"{seed}-{number}", time.monotonic()
            try:
                verdict = self.ask(kind, name)
            except (OSError, ValueError, AssertionError) as error:
                verdict = f"cut: {type(error).__name__} {error}"
            if verdict.startswith("cut") and any(kill >= started - 2 for kill in self.kills):
                verdict = "its worker was killed"
            with self._lock:
                self.found[verdict.split(":")[0]] += 1
                self.examples.setdefault(verdict.split(":")[0], verdict)

    def ask(self, kind: str, name: str) -> str:
        """Ask once; say how it went."""
        with RawConnection(self.url) as client:
            client.send(request("POST", "/v1/messages", user(f"{kind} {name}", stream=kind in ("stream", "dies"))))
            answer = client.answer()
        if answer.status == 0 or (not answer.is_complete and kind != "dies"):
            return "cut: no whole answer"
        if kind == "refused":
            is_right = answer.status == 400 and f"refused {name}" in answer.json["error"]["message"]
        elif kind == "dies":
            events = parse_sse(answer.body)
            if error_of(events) is None:
                return "cut: no error event"
            texts = [data["delta"].get("text", "") for name_, data in events if name_ == "content_block_delta"]
            is_right = not answer.is_complete and "".join(texts) == f"half {name}"
        else:
            events = parse_sse(answer.body) if kind == "stream" else []
            if events:
                check_grammar(events)
            message = fold(events) if events else answer.json
            is_right = [block["type"] for block in message["content"]] == ["thinking", "text", "tool_use"]
            is_right = is_right and message["content"][1]["text"].startswith(f"answer {name} ")
            is_right = is_right and message["content"][2]["input"] == {"n": name}
        return f"right, {kind}" if is_right else f"wrong: {kind} {name} {answer.status} {answer.body[:300]!r}"

    def disturb(self, env_file: Path) -> None:
        """Reload, kill and measure until the end."""
        began, number = time.monotonic(), 0
        next_reload, next_kill = began + RELOAD_EVERY, began + KILL_EVERY
        while not self.ended.wait(SAMPLE_EVERY):
            now = time.monotonic()
            if now >= next_reload:
                number, next_reload = number + 1, now + RELOAD_EVERY
                fresh = env_file.with_suffix(".new")
                fresh.write_text(f"PING_INTERVAL={5 + number % 3}\n")
                fresh.replace(env_file)
            if now >= next_kill:
                next_kill = now + KILL_EVERY
                workers = children(self.process.popen.pid)
                self.kills.append(time.monotonic())
                os.kill(random.choice(workers), signal.SIGKILL)
            pids = [self.process.popen.pid, *children(self.process.popen.pid)]
            levels = [level for level in map(level_of, pids) if level]
            if len(levels) == WORKERS + 1:
                self.levels.append((sum(level.descriptors for level in levels), sum(level.memory for level in levels)))


def children(pid: int) -> List[int]:
    """The processes that a process started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def level_of(pid: int) -> Optional[Levels]:
    """What a process takes up; None when it ended meanwhile."""
    try:
        return Levels.of(pid)
    except (OSError, KeyError):
        return None


def main(seconds: float) -> int:
    """Do it; return 0 when all was well."""
    with tempfile.TemporaryDirectory() as name, StubProvider(script) as stub:
        folder = Path(name)
        variables = configuration(folder, stub.url, MAX_RETRIES="0")
        (folder / ".env").write_text("PING_INTERVAL=5\n")
        with running(serve_command("--port", "0", "--workers", str(WORKERS)), folder, variables) as process:
            soak = Soak(process, process.address())
            threads = [threading.Thread(target=soak.client, args=(seed,)) for seed in range(CLIENTS)]
            threads.append(threading.Thread(target=soak.disturb, args=(folder / ".env",)))
            for thread in threads:
                thread.start()
            time.sleep(seconds)
            soak.ended.set()
            for thread in threads:
                thread.join()
            is_alive = process.popen.poll() is None
    return report(soak, seconds, is_alive)


def report(soak: Soak, seconds: float, is_alive: bool) -> int:
    """Print what was found; return 0 when all was well."""
    quarter = max(1, len(soak.levels) // 4)
    first, last = soak.levels[quarter : 2 * quarter] or soak.levels, soak.levels[-quarter:]
    descriptors = [max(level[0] for level in part) for part in (first, last)]
    memory = [sum(level[1] for level in part) / len(part) for part in (first, last)]
    problems = [name for name in soak.found if name.startswith(("wrong", "cut"))]
    problems += [] if is_alive else ["the server ended"]
    problems += ["descriptors grow"] if descriptors[1] > descriptors[0] + DESCRIPTOR_GROWTH else []
    problems += ["memory grows"] if memory[1] > memory[0] * MEMORY_GROWTH else []
    kills = len(soak.kills)
    print(
        f"{seconds:g} s, {CLIENTS} clients, {WORKERS} workers, {kills} of them killed, reloads each {RELOAD_EVERY:g} s"
    )
    for name, count in sorted(soak.found.items()):
        print(f"  {count:8} {name}")
    print(f"  descriptors, second quarter and last: {descriptors[0]}, {descriptors[1]}")
    print(f"  memory, second quarter and last: {memory[0]:.0f} MiB, {memory[1]:.0f} MiB")
    for name in problems:
        print(f"FAILED: {name} {soak.examples.get(name, '')}")
    print(json.dumps({"ok": not problems}))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 600))
