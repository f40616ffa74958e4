"""``serve --workers N``: several processes behind one port, as one server to clients, signals, log and ledger."""

from __future__ import annotations

import gc
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Dict, Iterator, List

import pytest

from ccproxy.config.load import load_config
from ccproxy.config.reload import ConfigStore
from ccproxy.processes.workers import Workers
from grammar import check_grammar, parse_sse
from processes import PATIENCE, Process, configuration, eventually, running, serve_command
from raw_http import RawConnection, is_refused, request
from replay import ReplayProvider
from support import ask, user
from test_serve_process import check_no_traceback, failure, open_stream
from test_server import play, read_until, rest_of

STARTED = re.compile(r"worker (\d+) started")
LINE = re.compile(r"(ccproxy listening on \S+|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S+ (INFO|WARNING|CRITICAL) .*)\n")


@pytest.fixture
def provider() -> Iterator[ReplayProvider]:
    """A provider of raw bytes."""
    with ReplayProvider() as provider:
        yield provider


@pytest.fixture
def variables(tmp_path: Path, provider: ReplayProvider) -> Dict[str, str]:
    """The configuration of two workers in front of it."""
    return configuration(tmp_path, provider.base("raw"), DRAIN_TIMEOUT="20", WORKERS="2")


def workers(process: Process, at_least: int = 2) -> List[int]:
    """Wait until so many workers were started; return their pids, the oldest first."""

    def found() -> List[int]:
        return [int(match[1]) for match in map(STARTED.search, list(process.lines)) if match]

    eventually(lambda: len(found()) >= at_least, f"{at_least} workers: {process.lines}")
    return found()


def is_there(pid: int) -> bool:
    """Whether a process exists, be it one that nobody has waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def freeze(pid: int) -> None:
    """Stop a process, and wait until none of its threads runs any more."""
    os.kill(pid, signal.SIGSTOP)
    threads = ["ps", "-o", "stat=", *(["-L"] if sys.platform == "linux" else []), "-p", str(pid)]

    def is_frozen() -> bool:
        return all(state.startswith("T") for state in subprocess.check_output(threads, text=True).split())

    eventually(is_frozen, f"{pid} is frozen")


def check_gone(pids: List[int]) -> None:
    """Nothing is left of the workers."""
    for pid in pids:
        eventually(lambda pid=pid: not is_there(pid), f"the end of worker {pid}")


def test_a_busy_worker_leaves_connections_to_the_others(tmp_path: Path, variables: Dict[str, str]) -> None:
    """No connection is tied to a worker before that accepts it: with one that hangs, all are answered."""
    with running(serve_command("--port", "0"), tmp_path, variables) as process:
        url = process.address()
        hanging, _ = workers(process)
        freeze(hanging)
        assert {ask(url, "/health").status for _ in range(20)} == {200}
        os.kill(hanging, signal.SIGCONT)


def test_a_dead_worker_is_replaced(tmp_path: Path, variables: Dict[str, str]) -> None:
    """Whatever kills a worker, another one takes its place, and the log says how it ended."""
    with running(serve_command("--port", "0"), tmp_path, variables) as process:
        url = process.address()
        first, second = workers(process)
        os.kill(first, signal.SIGKILL)
        *_, third = workers(process, 3)
        os.kill(second, signal.SIGKILL)
        assert third in workers(process, 4)
        assert ask(url, "/health").status == 200
        assert any(f"worker {first} ended by SIGKILL" in line for line in process.lines)


def test_a_launcher_that_hears_nothing_of_its_children(tmp_path: Path, variables: Dict[str, str]) -> None:
    """What ignores SIGCHLD leaves it so to what it starts, which would then never learn how a worker ended."""
    code = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    with running([sys.executable, "-c", code, *serve_command("--port", "0")], tmp_path, variables) as process:
        process.address()
        first, _ = workers(process)
        os.kill(first, signal.SIGKILL)
        workers(process, 3)
        assert any(f"worker {first} ended by SIGKILL" in line for line in process.lines)


def test_waiting_connections_survive_every_worker(tmp_path: Path, variables: Dict[str, str]) -> None:
    """Clients that are connected and not accepted yet when the workers die are answered by the next ones."""
    with running(serve_command("--port", "0"), tmp_path, variables) as process:
        url = process.address()
        pids = workers(process)
        for pid in pids:
            freeze(pid)
        clients = [RawConnection(url) for _ in range(5)]
        for client in clients:
            client.send(request("GET", "/health"))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for client in clients:
            with client:
                assert client.answer().status == 200


def test_a_worker_told_to_end_drains(tmp_path: Path, provider: ReplayProvider, variables: Dict[str, str]) -> None:
    """SIGTERM to one worker: its stream comes to an end, and another worker takes its place."""
    gate = threading.Event()
    play(provider, "chunked", [gate])
    with running(serve_command("--port", "0"), tmp_path, variables) as process:
        url = process.address()
        first, other = workers(process)
        freeze(other)
        with open_stream(url) as client:
            body = read_until(client, '"one "')
            os.kill(other, signal.SIGCONT)
            os.kill(first, signal.SIGTERM)
            eventually(lambda: ask(url, "/health").status == 200, "the other one answers")
            gate.set()
            rest, is_complete = rest_of(client)
        assert is_complete
        check_grammar(parse_sse(body + rest))
        workers(process, 3)
        assert any(f"worker {first} ended with exit code 0" in line for line in process.lines)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_all(
    tmp_path: Path, provider: ReplayProvider, variables: Dict[str, str], number: signal.Signals
) -> None:
    """The running streams of every worker come to their ends; then all are gone, and the exit code is 0."""
    gate = threading.Event()
    play(provider, "chunked", [gate])
    with running(serve_command("--port", "0"), tmp_path, variables) as process:
        url = process.address()
        pids = workers(process)
        clients = []
        for other in pids:
            freeze(other)
            clients.append(open_stream(url))
            os.kill(other, signal.SIGCONT)
        begun = [read_until(client, '"one "') for client in clients]
        process.popen.send_signal(number)
        eventually(lambda: is_refused(url), "new connections are refused")
        assert all(map(is_there, pids))
        gate.set()
        for client, body in zip(clients, begun):
            with client:
                rest, is_complete = rest_of(client)
            assert is_complete
            check_grammar(parse_sse(body + rest))
        assert process.wait() == 0
        check_gone(pids)
        check_no_traceback(process)


def test_a_second_signal_ends_all_at_once(tmp_path: Path, provider: ReplayProvider, variables: Dict[str, str]) -> None:
    """Who cannot wait for the streams signals again: no worker is left."""
    gate = threading.Event()
    play(provider, "chunked", [gate])
    with running(serve_command("--port", "0"), tmp_path, variables) as process:
        url = process.address()
        pids = workers(process)
        with open_stream(url) as client:
            read_until(client, '"one "')
            process.popen.terminate()
            eventually(lambda: is_refused(url), "new connections are refused")
            process.popen.terminate()
            assert process.wait() == 128 + signal.SIGTERM
            assert rest_of(client)[1] is False
        gate.set()
        check_gone(pids)


def test_no_worker_outlives_the_server(tmp_path: Path, provider: ReplayProvider, variables: Dict[str, str]) -> None:
    """Even when the process that watches them is killed, they end with their streams, and the port is free."""
    gate = threading.Event()
    play(provider, "chunked", [gate])
    with running(serve_command("--port", "0"), tmp_path, variables) as process:
        url = process.address()
        pids = workers(process)
        freeze(process.popen.pid)  # nobody reads their signs of life any more
        with open_stream(url) as client:
            body = read_until(client, '"one "')
            process.popen.kill()
            eventually(lambda: is_refused(url), "new connections are refused")
            gate.set()
            rest, is_complete = rest_of(client)
        assert is_complete
        check_grammar(parse_sse(body + rest))
        check_gone(pids)
        check_no_traceback(process)


def test_a_crash_loop_ends(tmp_path: Path, variables: Dict[str, str]) -> None:
    """Workers that end as soon as they are started are not started for ever: one line says so, exit code 1."""
    with running(serve_command("--port", "0"), tmp_path, variables) as process:
        process.address()
        killed: List[int] = []
        while process.popen.poll() is None:
            for pid in workers(process):
                if pid not in killed:
                    with suppress(ProcessLookupError):  # it was ended with the others
                        os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
        assert process.wait() == 1
        check_gone(workers(process))
        assert sum("giving up" in line for line in process.lines) == 1
        check_no_traceback(process)


HANGING = """
import logging, time
from ccproxy.config.load import load_config
from ccproxy.config.reload import ConfigStore
from ccproxy.processes.workers import Workers

logging.basicConfig(format="%(message)s", level="INFO")
store = ConfigStore(lambda seen: load_config({}, seen=seen))
workers = Workers(store, lambda channel: channel.recv(1), lambda channel: 0, silence=0.1)
workers.start()
while True:
    workers.look()
    time.sleep(0.02)
"""


def test_a_worker_that_hangs_is_replaced(tmp_path: Path) -> None:
    """Each worker gives signs of life; one that does not is killed."""
    with running([sys.executable, "-c", HANGING], tmp_path, {}) as process:
        first, _ = workers(process)[:2]
        assert any(f"worker {first} gives no sign of life" in line for line in process.lines)
        assert any(f"worker {first} ended by SIGKILL" in line for line in process.lines)


NO_MEMORY = """
import logging, os, time
from ccproxy.config.load import load_config
from ccproxy.config.reload import ConfigStore
from ccproxy.processes.workers import Workers
logging.basicConfig()
fork, calls = os.fork, []
def seldom():
    calls.append(1)
    if len(calls) == 2:
        raise BlockingIOError(11, "no memory")
    return fork()
os.fork = seldom
store = ConfigStore(lambda seen: load_config({"WORKERS": "1"}, folders=[]))
workers = Workers(store, lambda channel: len(calls) > 1 and channel.recv(1), lambda channel: 0)
workers.start()
while len(calls) < 3:
    workers.look()
    time.sleep(0.01)
workers.kill()
"""


def test_a_worker_that_cannot_be_started_is_tried_again(tmp_path: Path) -> None:
    """The others go on meanwhile: what is short may be there again in a moment."""
    command = [sys.executable, "-c", NO_MEMORY]
    with running(command, tmp_path, {}) as process:
        assert process.wait() == 0
        assert sum("no worker can be started, trying again: no memory" in line for line in process.lines) == 1


def test_a_process_with_threads_is_not_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that one of them holds would stay locked in the new process for ever: it is started as a program."""

    def fail() -> int:
        raise AssertionError("forked")

    started: List[subprocess.Popen[bytes]] = []

    def spawn(channel: socket.socket) -> int:
        started.append(subprocess.Popen([sys.executable, "-c", ""]))
        return started[-1].pid

    over = threading.Event()
    threading.Thread(target=over.wait, args=(PATIENCE,), daemon=True).start()
    monkeypatch.setattr(os, "fork", fail)
    store = ConfigStore(lambda seen: load_config({"WORKERS": "2"}, folders=[]))
    several = Workers(store, lambda channel: None, spawn)
    try:
        several.start()
        assert len(started) == 2
    finally:
        several.stop()
        gc.unfreeze()
        over.set()


def test_one_log_and_one_ledger(tmp_path: Path, provider: ReplayProvider, variables: Dict[str, str]) -> None:
    """All workers write whole lines to the one log, and rows to the one ledger."""
    count = 60
    play(provider, "chunked", [])
    with running(serve_command("--port", "0"), tmp_path, variables) as process:
        url = process.address()
        workers(process)
        with ThreadPoolExecutor(8) as clients:
            answers = clients.map(lambda _: ask(url, "/v1/messages", user()), range(count))
            assert {answer.status for answer in answers} == {200}
        eventually(lambda: ask(url, "/v1/stats?period=all").json["totals"]["requests"] == count, "every row")
        process.popen.terminate()
        assert process.wait() == 0
    assert all(LINE.fullmatch(line) for line in process.lines), process.lines
    assert sum(" in=" in line for line in process.lines) == count


def test_a_port_in_use_is_noticed(tmp_path: Path) -> None:
    """Workers share a port among each other, and with nobody else: a second server is refused in one line."""
    with socket.create_server(("127.0.0.1", 0), reuse_port=hasattr(socket, "SO_REUSEPORT")) as taken:
        port = taken.getsockname()[1]
        assert "in use" in failure(tmp_path, ["--port", str(port), "--workers", "2"], {})


@pytest.mark.parametrize("count", ["0", "-1", "257", "two"])
def test_a_number_of_workers_that_is_none(tmp_path: Path, count: str) -> None:
    """What is allowed is said."""
    assert "WORKERS" in failure(tmp_path, ["--port", "0", f"--workers={count}"], {})


def memory(pid: int) -> float:
    """Return the megabytes that a process shares with nobody."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return sum(int(kilobytes) for kilobytes in re.findall(r"^Private_\w+: +(\d+) kB", text, re.MULTILINE)) / 1024


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="there is no /proc to tell memory shared")
def test_workers_share_memory(tmp_path: Path, variables: Dict[str, str]) -> None:
    """What is loaded before the fork, modules and vocabulary, is there once; one worker is no process of its own."""
    body = user("Count these words. " * 50)
    with running(serve_command("--port", "0"), tmp_path, {**variables, "WORKERS": "1"}) as process:
        assert ask(process.address(), "/v1/messages/count_tokens", body).status == 200
        alone = memory(process.popen.pid)
        assert not STARTED.search("".join(process.lines))
    with running(serve_command("--port", "0"), tmp_path, variables) as process:
        url = process.address()
        pids = workers(process)
        for _ in range(10):
            assert ask(url, "/v1/messages/count_tokens", body).status == 200
        assert max(map(memory, pids)) < alone / 2
