"""What a request, a chunk and an open stream cost in ccproxy, beside the least that a hop in Python can cost.

`make bench` prints a table, `make bench ARGS=--json` the figures. The scripted provider, ccproxy and a relay that
passes bytes on unread run in processes of their own, and are asked the same, in turns. Judge by the ratios to the
relay: times depend on the machine and on what else it does, CPU times do less.

It cannot see: providers over TLS, a network, other proxies, more load than one Python process makes (its provider and
client cost more than ccproxy, so requests per second say nothing), delays of single chunks.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Callable, Dict, List, NoReturn, Sequence, Tuple
from urllib.parse import urlsplit

from ccproxy.stub import Delay, Step, StubProvider, Text
from processes import Process, configuration, running, serve_command

Json = Dict[str, Any]
WORDS = "the stream of tokens flows along while a proxy carries each of them to where it is read".split()  # noqa: SIM905


# --- what runs beside ccproxy: a provider and a relay --------------------------------------------------------------


def script(request: Json) -> Sequence[Step]:
    """Answer with so many words, at so many milliseconds, as the last message begins with."""
    content = request["messages"][-1]["content"]
    text = content if isinstance(content, str) else content[-1]["text"]
    count, pause = map(int, text.split(None, 2)[:2])
    if not pause:
        return [Text("word " * count)]
    return [step for _ in range(count) for step in (Text("word "), Delay(pause / 1000))]


def provide() -> NoReturn:
    """Be the provider."""
    BaseHTTPRequestHandler.disable_nagle_algorithm = True  # type: ignore[attr-defined]
    print(StubProvider(script).url, file=sys.stderr, flush=True)
    while True:
        time.sleep(60)


def relay(port: int) -> NoReturn:
    """Pass on the bytes of each connection to a port and back, in two threads."""
    threading.stack_size(256 * 1024)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print("http://127.0.0.1:%d" % listener.getsockname()[1], file=sys.stderr, flush=True)
    while True:
        ends = (listener.accept()[0], socket.create_connection(("127.0.0.1", port)))
        for one, other in (ends, ends[::-1]):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_pump, args=(one, other), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    data = source.recv(65536)
    while data:
        target.sendall(data)
        data = source.recv(65536)
    target.shutdown(socket.SHUT_WR)


# --- requests ------------------------------------------------------------------------------------------------------


def body(size: int, *, words: int = 5, pause: int = 0, stream: bool = True, turns: int = 0) -> bytes:
    """Return a request of about ``size`` bytes, as a conversation of so many turns; 0: of 4 KB each."""
    text = " ".join(random.Random(size).choices(WORDS, k=size // 4))[:size]
    parts = 2 * (turns or size // 4000)
    step = max(1, len(text) // max(1, parts))
    messages: List[Json] = [
        {"role": ("user", "assistant")[number % 2], "content": text[number * step : (number + 1) * step] or "."}
        for number in range(parts)
    ]
    messages.append({"role": "user", "content": f"{words} {pause} words, please"})
    request = {"model": "claude-sonnet-4-5", "max_tokens": 1000, "stream": stream, "messages": messages}
    return json.dumps(request).encode()


@dataclass
class Target:
    """One of the three that are asked."""

    name: str
    url: str
    path: str
    pid: int

    def cpu(self) -> float:
        """Return the CPU seconds that its process has used."""
        return float(_status(self.pid)[0])

    def megabytes(self) -> float:
        """Return its resident memory."""
        return float(_status(self.pid)[1])


def _status(pid: int) -> Tuple[float, float]:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
        return (int(fields[11]) + int(fields[12])) / ticks, int(fields[21]) * page / 1e6
    except FileNotFoundError:  # macOS
        shown = subprocess.run(
            ["ps", "-o", "cputime=,rss=", "-p", str(pid)], capture_output=True, text=True, check=True
        )
        cpu, kilobytes = shown.stdout.split()
        minutes, seconds = cpu.rsplit(":", 1)
        return int(minutes.rpartition(":")[2]) * 60 + float(seconds), int(kilobytes) / 1e3


def ask(connection: http.client.HTTPConnection, path: str, data: bytes) -> float:
    """Send a request, read its answer to the end, and return the seconds until its first text."""
    begun, first = time.perf_counter(), 0.0
    connection.request("POST", path, data, {"content-type": "application/json"})
    response = connection.getresponse()
    answer = b""
    while True:
        piece = response.read1(65536)
        answer = answer[-20:] + piece
        if not first and b"word " in answer:
            first = time.perf_counter() - begun
        if not piece:
            response.read()  # or the connection could not be used again
            break
    if response.status != 200 or not first:
        raise ValueError(f"{response.status} from {path}: {answer[:300]!r}")
    return first


def load(
    target: Target, data: bytes, count: int, clients: int = 1, meanwhile: Callable[[], None] = lambda: None
) -> List[float]:
    """Let so many clients send so many requests each; return the seconds until the first text of each."""
    seconds: List[float] = []
    failures: List[Exception] = []

    def client() -> None:
        connection = http.client.HTTPConnection(urlsplit(target.url).netloc, timeout=120)
        try:
            for _ in range(count):
                seconds.append(ask(connection, target.path, data))
        except (OSError, http.client.HTTPException, ValueError) as error:
            failures.append(error)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    meanwhile()
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit(f"bench: {target.name}: {failures[0]!r}")
    return seconds


# --- figures -------------------------------------------------------------------------------------------------------

Figures = Dict[str, Dict[str, float]]
"""Per figure and target its value."""


def cpu_of(target: Target, data: bytes, count: int, clients: int = 1) -> float:
    """Return the CPU seconds of a request."""
    begun = target.cpu()
    load(target, data, count, clients)
    return (target.cpu() - begun) / (count * clients)


def measure(targets: Sequence[Target], effort: int) -> Figures:
    """Measure everything, each figure with all targets in turns; times in milliseconds or microseconds."""
    figures: Figures = {}

    def each(name: str, value: Callable[[Target], float], rounds: int = 3, only: Sequence[Target] = targets) -> None:
        rows: Dict[str, List[float]] = {target.name: [] for target in only}
        for _ in range(rounds):
            for target in only:
                rows[target.name].append(value(target))
        figures[name] = {target: median(values) for target, values in rows.items()}
        print(f"measured: {name}", file=sys.stderr, flush=True)

    hops = [target for target in targets if target.name != "direct"]
    for target in hops:
        load(target, body(100), 20 * effort)  # the first requests are slower
    for title, size in (("small", 100), ("150 KB", 150_000), ("800 KB", 800_000)):
        count = max(3, 30 // (1 + size // 50_000)) * effort
        each(f"first text, {title}, ms", lambda t, s=size, n=count: 1e3 * median(load(t, body(s), n)))
    whole = body(100, stream=False)
    each("CPU a request without stream, us", lambda t: 1e6 * cpu_of(t, whole, 30 * effort, 4), only=hops)
    each("CPU a stream of 20 chunks, us", lambda t: 1e6 * cpu_of(t, body(100, words=20), 20 * effort, 4), only=hops)
    burst = body(100, words=1000)
    each("CPU a chunk, as fast as they come, us", lambda t: 1e3 * cpu_of(t, burst, effort, 4), only=hops)
    paced = body(100, words=100, pause=20)
    each("CPU a chunk, 64 streams of 50 a second, us", lambda t: 1e4 * cpu_of(t, paced, 1, 64), 2, hops)
    each("memory after that, MB", Target.megabytes, 1, hops)
    each("memory with 200 open streams, MB", _open_streams, 1, hops)
    own = [target for target in hops if target.name == "ccproxy"]
    for size in (50_000, 100_000, 200_000, 400_000, 800_000):
        each(
            f"curve: CPU a request of {size // 1000} KB, us",
            lambda t, s=size: 1e6 * cpu_of(t, body(s), 8 * effort),
            2,
            own,
        )
    for turns in (10, 20, 40, 80):
        talk = body(turns * 4000, turns=turns)
        each(f"curve: CPU a request of {turns} turns, us", lambda t, b=talk: 1e6 * cpu_of(t, b, 8 * effort), 2, own)
    for clients in (4, 16, 64):
        chunks = body(100, words=50, pause=20)
        each(
            f"curve: CPU a chunk, {clients} streams, us",
            lambda t, b=chunks, c=clients: 2e4 * cpu_of(t, b, 1, c),
            2,
            own,
        )
    return figures


def _open_streams(target: Target) -> float:
    peak = 0.0

    def watch() -> None:
        nonlocal peak
        for _ in range(15):
            time.sleep(0.2)
            peak = max(peak, target.megabytes())

    load(target, body(100, words=3, pause=1000), 1, 200, watch)
    return peak


def table(figures: Figures) -> str:
    """Return the figures as lines of text."""
    lines = [f"{'':48}{'direct':>10}{'relay':>10}{'ccproxy':>10}{'x relay':>10}"]
    for name, row in figures.items():
        cells = [f"{row[target]:.3g}" if target in row else "" for target in ("direct", "relay", "ccproxy")]
        ratio = f"{row['ccproxy'] / row['relay']:.3g}" if row.get("relay") else ""
        lines.append(f"{name:48}" + "".join(f"{cell:>10}" for cell in [*cells, ratio]))
    return "\n".join(lines)


def main() -> None:
    """Start everything, measure, and print."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--effort", type=int, default=3, help="1 is quick and coarse; default: 3, about two minutes")
    parser.add_argument("--role", choices=["provider", "relay"], help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "provider":
        provide()
    if options.role == "relay":
        relay(options.port)
    own = [sys.executable, str(Path(__file__).resolve())]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))

        def start(command: List[str], **variables: str) -> Process:
            return stack.enter_context(running(command, folder, variables))

        provider = start([*own, "--role", "provider"])
        base = provider.address()
        passing = start([*own, "--role", "relay", "--port", str(urlsplit(base).port)])
        begun = time.perf_counter()
        proxy = start(serve_command("--port", "0"), **configuration(folder, base + "/v1", LOG_LEVEL="WARNING"))
        targets = [
            Target("direct", base, "/v1/chat/completions", provider.popen.pid),
            Target("relay", passing.address(), "/v1/chat/completions", passing.popen.pid),
            Target("ccproxy", proxy.address(), "/v1/messages", proxy.popen.pid),
        ]
        load(targets[2], body(100), 1)
        figures = {"start to the first answer, s": {"ccproxy": time.perf_counter() - begun}}
        figures.update(measure(targets, options.effort))
    print(json.dumps(figures, indent=1) if options.json else table(figures))


if __name__ == "__main__":
    main()
