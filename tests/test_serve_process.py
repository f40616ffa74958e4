"""``python -m ccproxy serve`` as a process: how it starts, refuses to start, and ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Dict, Iterator, List

import pytest

from ccproxy.config.providers import PROVIDERS
from grammar import check_grammar, parse_sse
from processes import PATIENCE, Process, configuration, environment, eventually, running, serve_command
from raw_http import RawConnection, is_refused, request
from replay import ReplayProvider
from support import ask, user
from test_server import play, read_until, rest_of

SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.fixture
def provider() -> Iterator[ReplayProvider]:
    """A provider of raw bytes."""
    with ReplayProvider() as provider:
        yield provider


@pytest.fixture
def variables(tmp_path: Path, provider: ReplayProvider) -> Dict[str, str]:
    """The configuration of a server in front of it."""
    return configuration(tmp_path, provider.base("raw"), DRAIN_TIMEOUT="20")


def open_stream(url: str) -> RawConnection:
    """Ask for a stream."""
    client = RawConnection(url)
    client.send(request("POST", "/v1/messages", user(stream=True)))
    assert client.head().status == 200
    return client


def check_no_traceback(process: Process) -> None:
    """The log of an orderly end has no traceback."""
    assert "Traceback" not in "".join(process.lines)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_drains(
    tmp_path: Path, provider: ReplayProvider, variables: Dict[str, str], number: signal.Signals
) -> None:
    """On SIGTERM or SIGINT a running stream comes to its end, idle connections end at once; the exit code is 0."""
    gate = threading.Event()
    play(provider, "chunked", [gate])
    with running(serve_command("--port", "0"), tmp_path, variables) as process:
        url = process.address()
        with open_stream(url) as client, RawConnection(url) as idle:
            body = read_until(client, '"one "')
            idle.send(request("GET", "/health"))
            assert idle.answer().status == 200
            process.popen.send_signal(number)
            assert idle.is_closed()
            eventually(lambda: is_refused(url), "new connections are refused")
            assert process.popen.poll() is None
            gate.set()
            rest, is_complete = rest_of(client)
        assert is_complete
        check_grammar(parse_sse(body + rest))
        assert process.wait() == 0
        check_no_traceback(process)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_ends_at_once(
    tmp_path: Path, provider: ReplayProvider, variables: Dict[str, str], number: signal.Signals
) -> None:
    """Who cannot wait for the stream signals again; the exit code names the signal."""
    gate = threading.Event()
    play(provider, "chunked", [gate])
    with running(serve_command("--port", "0"), tmp_path, variables) as process:
        url = process.address()
        with open_stream(url) as client:
            read_until(client, '"one "')
            process.popen.send_signal(number)
            eventually(lambda: is_refused(url), "new connections are refused")
            process.popen.send_signal(number)
            assert process.wait() in (128 + number, -number)
            assert rest_of(client)[1] is False
        gate.set()
        check_no_traceback(process)


def test_the_deadline_ends_it(tmp_path: Path, provider: ReplayProvider, variables: Dict[str, str]) -> None:
    """A stream that outlives DRAIN_TIMEOUT is cut; the exit code is still 0."""
    gate = threading.Event()
    play(provider, "chunked", [gate])
    with running(serve_command("--port", "0"), tmp_path, {**variables, "DRAIN_TIMEOUT": "0.1"}) as process:
        with open_stream(process.address()) as client:
            read_until(client, '"one "')
            process.popen.terminate()
            assert rest_of(client)[1] is False
            assert process.wait() == 0
        gate.set()
        assert any("cut" in line for line in process.lines)
        check_no_traceback(process)


# The process gets a session, and a terminal that controls it, as a shell's do.
WITH_TERMINAL = """
import os, sys
os.setsid()
os.open(sys.argv[1], os.O_RDWR)
os.execv(sys.executable, [sys.executable, "-m", "ccproxy", "serve", "--port", "0"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a terminal becomes the controlling one in another way")
def test_a_terminal_that_closes_ends_it(tmp_path: Path, variables: Dict[str, str]) -> None:
    """SIGHUP reads the configuration again, but not when it means that nobody is there any more."""
    ours, theirs = os.openpty()
    command = [sys.executable, "-c", WITH_TERMINAL, os.ttyname(theirs)]
    with running(command, tmp_path, variables) as process:
        process.address()
        os.close(theirs)
        process.popen.send_signal(signal.SIGHUP)
        eventually(lambda: any("was read again" in line for line in process.lines), "it is read")
        os.close(ours)
        assert process.wait() == 0
        check_no_traceback(process)


def test_an_idle_server_ends_at_once(tmp_path: Path, variables: Dict[str, str]) -> None:
    """Nothing runs, nothing is waited for; a signal right after the start is not lost."""
    with running(serve_command("--port", "0"), tmp_path, variables) as process:
        process.address()
        process.popen.terminate()
        assert process.wait() == 0
        check_no_traceback(process)


# A server for each line that the main thread comes by between two looks at what there is to do; there it gets a signal.
AT_EVERY_LINE = """
import os, signal, sys
import ccproxy.processes.serving, requests  # once, for all of them
from ccproxy.config.load import load_config
from ccproxy.config.reload import ConfigStore
from ccproxy.processes.lifecycle import Life

def serve(moment):
    signal.alarm(100)  # one that hangs is ended, and fails
    life, left = Life(ConfigStore(lambda seen: load_config(os.environ, seen=seen)), []), None

    def trace(frame, event, _):
        nonlocal left
        if left is None and event == "return" and frame.f_code is Life._look.__code__:
            left = moment
        elif left is not None:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGTERM)
        return trace

    sys.settrace(trace)
    return life.run()

children = {}
for moment in range(1, 31):
    pid = os.fork()
    if not pid:
        os._exit(serve(moment))
    children[pid] = moment
print({moment: status for pid, moment in children.items() for _, status in [os.waitpid(pid, 0)] if status})
"""


def test_a_signal_at_any_moment(tmp_path: Path, variables: Dict[str, str]) -> None:
    """Wherever the server is in its round, also while it holds a lock, a signal to end is obeyed and not waited in."""
    done = subprocess.run(
        [sys.executable, "-c", AT_EVERY_LINE],
        cwd=tmp_path,
        env=environment(tmp_path, {**variables, "PORT": "0"}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("{}\n", 0), done.stderr


# A crowd has taken all threads that the process may have when the signal comes.
WITHOUT_THREADS = """
import os, signal, sys, threading
from ccproxy.config.load import load_config
from ccproxy.config.reload import ConfigStore
from ccproxy.processes.lifecycle import Life

def fail(*_):
    raise RuntimeError("can't start new thread")

def on_signal(number, frame):
    threading.Thread.start = fail
    end(number, frame)

life = Life(ConfigStore(lambda seen: load_config(os.environ, seen=seen)), [])
end = signal.signal(signal.SIGTERM, on_signal)
sys.exit(life.run())
"""


def test_a_drain_needs_no_thread(tmp_path: Path, provider: ReplayProvider, variables: Dict[str, str]) -> None:
    """Where none is left a stream comes to its end all the same."""
    gate = threading.Event()
    play(provider, "chunked", [gate])
    with running([sys.executable, "-c", WITHOUT_THREADS], tmp_path, {**variables, "PORT": "0"}) as process:
        url = process.address()
        with open_stream(url) as client:
            body = read_until(client, '"one "')
            process.popen.terminate()
            eventually(lambda: is_refused(url), "new connections are refused")
            gate.set()
            rest, is_complete = rest_of(client)
        assert is_complete
        check_grammar(parse_sse(body + rest))
        assert process.wait() == 0
        check_no_traceback(process)


def failure(folder: Path, arguments: List[str], variables: Dict[str, str]) -> str:
    """Start a server that must refuse to; return the one line it says."""
    done = subprocess.run(
        serve_command(*arguments),
        cwd=folder,
        env=environment(folder, variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("ccproxy: ")
    return done.stderr


def test_port_in_use(tmp_path: Path) -> None:
    """A port that somebody has is named, in one line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = failure(tmp_path, ["--port", str(port)], {})
    assert str(port) in said
    assert "Address already in use\n" in said


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.invalid"])
def test_a_host_beyond_loopback_needs_a_token(tmp_path: Path, host: str) -> None:
    """The owner's keys are not shown to a network without a token; the variable to set is named."""
    said = failure(tmp_path, ["--host", host, "--port", "0"], {})
    assert host in said
    assert "CCPROXY_AUTH_TOKEN" in said


def test_a_host_that_is_not_ours(tmp_path: Path) -> None:
    """An address of another machine cannot be listened on, token or not."""
    said = failure(tmp_path, ["--host", "192.0.2.1", "--port", "0"], {"CCPROXY_AUTH_TOKEN": "x"})
    assert "192.0.2.1" in said


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_loopback_needs_none(tmp_path: Path, host: str) -> None:
    """Every loopback address will do."""
    with running(serve_command("--host", host, "--port", "0"), tmp_path, {}) as process:
        eventually(lambda: process.lines or process.popen.poll() is not None, "it says that it listens")
        assert "listening on http://" in process.lines[0], process.lines


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"PORT": "eighty"}, "PORT"),
        ({"PORT": "70000"}, "PORT"),
        ({"DRAIN_TIMEOUT": "-1"}, "DRAIN_TIMEOUT"),
        ({"ROUTER_DEFAULT": "nobody"}, "nobody"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL"),
        ({"CUSTOM_MODELS_FILE": "absent.yaml"}, "absent.yaml"),
    ],
)
def test_a_setting_that_is_wrong(tmp_path: Path, variables: Dict[str, str], named: str) -> None:
    """What is wrong is named, in one line, before anything listens."""
    assert named in failure(tmp_path, ["--port", "0"] if "PORT" not in variables else [], variables)


CUT_OFF = """
import os, sys

def hook(event, arguments):
    host = arguments[0] if event == "socket.getaddrinfo" else (arguments[1] if event == "socket.connect" else "")
    name = str(host[0] if isinstance(host, tuple) else host)
    if event.startswith("socket.") and name not in ("", "None", "127.0.0.1", "localhost") and "/" not in name:
        os.write(2, ("asked for %s\\n" % name).encode())
        raise OSError("no network")

sys.addaudithook(hook)
"""
START_TIME = 5.0
"""Seconds until it serves; of work, for a machine that runs other tests takes its time."""


def test_it_starts_without_a_network(tmp_path: Path) -> None:
    """With keys of all providers set: it asks nobody, and has little to do before it serves."""
    (tmp_path / "sitecustomize.py").write_text(CUT_OFF)
    keys = {row.api_key_name: "sk-0123456789" for row in PROVIDERS.values() if row.api_key_name}
    path = os.pathsep.join([str(tmp_path), environment(tmp_path, {})["PYTHONPATH"]])
    variables = {**keys, "PYTHONPATH": path, "MAX_RETRIES": "0"}
    with running(serve_command("--port", "0"), tmp_path, variables) as process:
        url = process.address()
        stat = Path(f"/proc/{process.popen.pid}/stat")
        if stat.exists():
            ticks = map(int, stat.read_text().rpartition(")")[2].split()[11:13])  # proc(5): of the user, of the system
            assert sum(ticks) / os.sysconf("SC_CLK_TCK") < START_TIME
        assert ask(url, "/health").json["status"] == "ok"
        assert not any("asked for" in line for line in process.lines), process.lines
        ask(url, "/v1/messages", user(model="openai/gpt-4o"))
        eventually(lambda: any("asked for api.openai.com" in line for line in process.lines), "the hook works")


EARLY_CLIENT = """
import os, socket, sys, threading

def listener():
    for descriptor in map(int, os.listdir("/dev/fd")):
        try:
            found = socket.socket(fileno=os.dup(descriptor))
            if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return found
        except OSError:
            continue  # no socket

def tell(client):
    sys.stderr.write("the early client got %s\\n" % client.recv(15).decode())

class Early:
    def find_spec(self, name, path=None, target=None):
        if name == "requests":
            sys.meta_path.remove(self)
            client = socket.create_connection(listener().getsockname())
            client.sendall(b"GET /health HTTP/1.1\\r\\nhost: localhost\\r\\n\\r\\n")
            threading.Thread(target=tell, args=[client], daemon=True).start()

sys.meta_path.insert(0, Early())
from ccproxy.cli import main
main(["serve", "--port", "0"])
"""


def test_who_connects_while_it_starts_is_answered(tmp_path: Path) -> None:
    """It listens before it imports most of what it needs: clients wait for that, and are not refused."""
    with running([sys.executable, "-c", EARLY_CLIENT], tmp_path, {}) as process:
        process.address()
        eventually(lambda: any("the early client got HTTP/1.1 200 OK" in line for line in process.lines), "an answer")


def test_the_address_is_the_first_thing_said(tmp_path: Path, variables: Dict[str, str]) -> None:
    """A script that starts the server reads the port from the first line, and it answers from then on."""
    with running(serve_command("--port", "0"), tmp_path, variables) as process:
        with RawConnection(process.address()) as client:
            client.send(request("GET", "/health"))
            assert client.answer().json["status"] == "ok"
        assert process.lines[0].startswith("ccproxy listening on http://127.0.0.1:")


def test_a_reader_that_has_seen_enough_is_no_failure(tmp_path: Path) -> None:
    """A pipe that closes early, as that of ``head``, ends a command without a traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "ccproxy", "check"]
    with os.fdopen(writer, "w") as closed:
        done = subprocess.run(
            command, check=False, stdout=closed, stderr=subprocess.PIPE, cwd=tmp_path, env=environment(tmp_path, {})
        )
    assert (done.returncode, done.stderr) == (0, b"")


def heaps_of(pid: int) -> List[str]:
    """The heaps that glibc made for threads, each at a multiple of 64 MiB: memory, and what of these is reserved."""
    maps = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    return [
        first[0]
        for first, rest in zip(maps, maps[1:])
        if int(first[0].split("-")[0], 16) % (64 << 20) == 0 and (first[1], rest[1]) == ("rw-p", "---p")
    ]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks for heaps in /proc")
def test_all_threads_share_one_heap(tmp_path: Path, provider: ReplayProvider, variables: Dict[str, str]) -> None:
    """What one thread frees is there for all others: the process takes no more memory for each of them."""
    gate = threading.Event()
    play(provider, "chunked", [gate])
    with running(serve_command("--port", "0"), tmp_path, variables) as process, ExitStack() as clients:
        url = process.address()
        for _ in range(8):
            clients.enter_context(open_stream(url))
        heaps = heaps_of(process.popen.pid)
        gate.set()
    assert heaps == []
