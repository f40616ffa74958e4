"""What systemd and the server say to each other; the unit that ``ccproxy systemd`` prints."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest

from ccproxy import cli
from ccproxy.config.load import load_config
from ccproxy.processes.listener import inherited
from ccproxy.processes.notify import Notifier
from processes import PATIENCE, configuration, environment, eventually, running, serve_command
from raw_http import is_refused
from replay import ReplayProvider
from support import ask
from test_serve_process import open_stream
from test_server import play, read_until, rest_of
from test_workers import freeze, workers

COUNTS = pytest.mark.parametrize("count", ["1", "2"])


class Systemd:
    """The other end of ``NOTIFY_SOCKET``: a real datagram socket."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(PATIENCE)

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()

    def hear(self) -> List[str]:
        """Wait for a message; return its lines."""
        return self._socket.recv(4096).decode().split("\n")

    def wait_for(self, state: str) -> List[str]:
        """Wait for a message with a state; return it."""
        while True:
            said = self.hear()
            if state in said:
                return said

    def is_silent(self, seconds: float) -> bool:
        """Whether nothing comes for a while, after what is there already."""
        self._socket.setblocking(False)
        try:
            while True:
                self._socket.recv(4096)
        except BlockingIOError:
            pass
        self._socket.settimeout(seconds)
        try:
            self._socket.recv(4096)
        except socket.timeout:
            return True
        finally:
            self._socket.settimeout(PATIENCE)
        return False


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    """A systemd that listens."""
    systemd = Systemd(tmp_path)
    yield systemd
    systemd.close()


@pytest.fixture
def provider() -> Iterator[ReplayProvider]:
    """A provider of raw bytes."""
    with ReplayProvider() as provider:
        yield provider


@pytest.fixture
def variables(tmp_path: Path, provider: ReplayProvider, systemd: Systemd) -> Dict[str, str]:
    """The environment of a service."""
    return configuration(tmp_path, provider.base("raw"), NOTIFY_SOCKET=systemd.path, DRAIN_TIMEOUT="20")


@COUNTS
def test_it_tells_its_life(
    tmp_path: Path, provider: ReplayProvider, variables: Dict[str, str], systemd: Systemd, count: str
) -> None:
    """Ready when it answers; reloading and ready again; stopping before the last stream has ended."""
    gate = threading.Event()
    play(provider, "chunked", [gate])
    with running(serve_command("--port", "0", "--workers", count), tmp_path, variables) as process:
        systemd.wait_for("READY=1")
        url = process.address()
        assert ask(url, "/health").status == 200
        process.popen.send_signal(signal.SIGHUP)
        reloading = systemd.wait_for("RELOADING=1")
        assert any(line.startswith("MONOTONIC_USEC=") for line in reloading)
        systemd.wait_for("READY=1")
        with open_stream(url) as client:
            read_until(client, '"one "')
            process.popen.terminate()
            systemd.wait_for("STOPPING=1")
            gate.set()
            assert rest_of(client)[1] is True
        assert process.wait() == 0


@COUNTS
def test_the_watchdog_hears_that_it_lives(
    tmp_path: Path, variables: Dict[str, str], systemd: Systemd, count: str
) -> None:
    """As long as connections are accepted, and no longer: with every worker frozen, it hears nothing."""
    with running(
        serve_command("--port", "0", "--workers", count), tmp_path, {**variables, "WATCHDOG_USEC": "300000"}
    ) as process:
        for _ in range(3):
            systemd.wait_for("WATCHDOG=1")
        pids = workers(process) if count == "2" else [process.popen.pid]
        for pid in pids:
            freeze(pid)
        eventually(lambda: systemd.is_silent(1.0), "silence")
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        systemd.wait_for("WATCHDOG=1")


def test_a_watchdog_of_somebody_else() -> None:
    """Its variables may be meant for another process."""
    told: List[str] = []
    notifier = Notifier({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"})
    notifier.tell = lambda *states: told.extend(states)  # type: ignore[method-assign]
    notifier.ping(1.0)
    assert told == []


def test_no_systemd_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    """Without the variable nothing is said; a socket that is gone is told in the log."""
    Notifier({}).tell("READY=1")
    assert not caplog.records
    Notifier({"NOTIFY_SOCKET": "/nowhere/notify"}).tell("READY=1")
    assert "READY=1" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's")
def test_an_abstract_socket() -> None:
    """A name that begins with @ is no file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
        way.bind("")
        way.settimeout(PATIENCE)
        Notifier({"NOTIFY_SOCKET": "@" + way.getsockname()[1:].decode()}).tell("READY=1", "STATUS=well")
        assert way.recv(100) == b"READY=1\nSTATUS=well"


# As systemd does it: the socket is descriptor 3, and LISTEN_PID the pid of the process that is executed.
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=sys.argv[2])
os.execv(sys.executable, [sys.executable, "-m", "ccproxy", "serve", *sys.argv[3:]])
"""


def activated(listener: Any, *arguments: str, count: str = "1") -> List[str]:
    """Return the command of a server that inherits a socket."""
    return [sys.executable, "-c", ACTIVATE, str(listener.fileno()), count, *arguments]


@COUNTS
def test_socket_activation(tmp_path: Path, variables: Dict[str, str], count: str) -> None:
    """It serves on the inherited socket: who connected before its start is answered, and who comes after its end waits.

    HOST and PORT do not count then, and a change of them does not move the server.
    """
    (tmp_path / ".env").write_text("PORT=1\n")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with running(
            activated(listener, "--workers", count), tmp_path, variables, pass_fds=(listener.fileno(),)
        ) as process:
            assert process.address() == url
            assert ask(url, "/health").status == 200
            (tmp_path / ".env").write_text("PORT=2\nPING_INTERVAL=5\n")
            eventually(lambda: any("was read again" in line for line in process.lines), "it is read")
            assert ask(url, "/health").json["config_problem"] is None
            process.popen.terminate()
            assert process.wait() == 0
        assert not is_refused(url)  # systemd still listens


@COUNTS
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has a device that is always full")
def test_a_console_on_a_full_disk(tmp_path: Path, variables: Dict[str, str], count: str) -> None:
    """Is no reason not to serve."""
    with socket.create_server(("127.0.0.1", 0)) as listener, open("/dev/full", "wb") as full:
        listener.set_inheritable(True)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        command = activated(listener, "--workers", count)
        with running(command, tmp_path, variables, full.fileno(), (listener.fileno(),)) as process:
            assert ask(url, "/health").status == 200
            process.popen.terminate()
            assert process.wait() == 0


def refused(folder: Path, listener: Any, **options: str) -> subprocess.CompletedProcess[str]:
    """What a server says that does not start on a socket it is given."""
    return subprocess.run(
        activated(listener, **options),
        cwd=folder,
        env=environment(folder, {}),
        pass_fds=(listener.fileno(),),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


GIVEN: Dict[str, Callable[[], Any]] = {
    "udp": lambda: socket.socket(type=socket.SOCK_DGRAM),
    "tcp": lambda: socket.create_server(("127.0.0.1", 0)),
    "no socket": Path(os.devnull).open,
}


@pytest.mark.parametrize(("kind", "count"), [("udp", "1"), ("tcp", "2"), ("no socket", "1")])
def test_a_socket_that_will_not_do(tmp_path: Path, kind: str, count: str) -> None:
    """One line says what is expected."""
    with GIVEN[kind]() as given:
        done = refused(tmp_path, given, count=count)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("ccproxy: socket activation: expected ")
    assert done.stderr.count("\n") == 1


def test_a_socket_of_somebody_else() -> None:
    """The variables may be meant for a parent; what we start shall not take them for its own either."""
    variables = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "ccproxy.socket", "PORT": "0"}
    assert inherited(variables) is None
    assert variables == {"PORT": "0"}


def test_an_inherited_address_needs_a_token_too(tmp_path: Path) -> None:
    """Whoever listens: a network is not shown the owner's keys without a token."""
    with socket.create_server(("0.0.0.0", 0)) as listener:
        done = refused(tmp_path, listener)
    assert (done.returncode, "CCPROXY_AUTH_TOKEN" in done.stderr) == (2, True)


def test_credentials(tmp_path: Path) -> None:
    """Files of ``$CREDENTIALS_DIRECTORY`` named like variables are variables: above .env, below the environment."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    (tmp_path / ".env").write_text(
        "OPENAI_API_KEY=from-env-file\nGEMINI_API_KEY=from-env-file\nARK_API_KEY=from-env-file\n"
    )
    (folder / "OPENAI_API_KEY").write_text("from-credential\n")
    (folder / "GEMINI_API_KEY").write_text("from-credential\n")
    (folder / "a-certificate.pem").write_bytes(b"\xff")
    given = {"CREDENTIALS_DIRECTORY": str(folder), "GEMINI_API_KEY": "from-environment"}
    found = load_config(given, folders=[tmp_path]).config.variables
    assert [found[f"{name}_API_KEY"] for name in ("OPENAI", "GEMINI", "ARK")] == [
        "from-credential",
        "from-environment",
        "from-env-file",
    ]


@pytest.fixture
def unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Unit:
    """Prints units, in a folder without any configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return Unit(tmp_path, capsys)


class Unit:
    """What ``ccproxy systemd`` prints, as a file and as lines."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._folder, self._capsys = folder, capsys

    def lines(self, *options: str) -> List[str]:
        """Print a unit; return its lines."""
        assert cli.main(["systemd", *options]) == 0
        return self._capsys.readouterr().out.splitlines()

    def file(self, name: str, *options: str) -> str:
        """Print a unit into a file; return its path."""
        path = self._folder / name
        path.write_text("\n".join(self.lines(*options)) + "\n")
        return str(path)


REQUIRED = """
DynamicUser=yes UMask=0077 NoNewPrivileges=yes CapabilityBoundingSet= ProtectSystem=strict PrivateTmp=yes
PrivateDevices=yes PrivateUsers=yes ProtectProc=invisible ProcSubset=pid ProtectKernelTunables=yes
ProtectKernelModules=yes ProtectKernelLogs=yes ProtectControlGroups=yes ProtectClock=yes ProtectHostname=yes
RestrictNamespaces=yes RestrictRealtime=yes RestrictSUIDSGID=yes LockPersonality=yes MemoryDenyWriteExecute=yes
SystemCallArchitectures=native SystemCallFilter=@system-service Type=notify Restart=on-failure RestartSec=2
KillMode=mixed LimitNOFILE=65536 StateDirectory=ccproxy LogsDirectory=ccproxy
"""


def test_the_unit_is_hardened(unit: Unit) -> None:
    """Every line of the list is there; stopping may take longer than running requests may."""
    lines = unit.lines()
    assert set(REQUIRED.split()) - set(lines) == set()
    assert "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX" in lines
    assert "SystemCallFilter=~@privileged @resources" in lines
    assert "ExecReload=/bin/kill -HUP $MAINPID" in lines
    assert "TimeoutStopSec=60" in lines
    for name in ("TasksMax", "MemoryMax", "ProtectHome", "WatchdogSec"):
        assert any(line.startswith(f"{name}=") for line in lines), name


def test_the_unit_holds_no_key(unit: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are loaded by systemd, each from a file of its own."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    lines = unit.lines("--credential", "OPENAI_API_KEY", "--workers", "3")
    assert "sk-canary" not in "\n".join(lines)
    assert "LoadCredential=OPENAI_API_KEY:%E/ccproxy/credentials/OPENAI_API_KEY" in lines
    assert any(line.startswith("ExecStart=") and line.endswith(" serve --workers 3") for line in lines)


def test_a_credential_that_is_no_variable(unit: Unit, capsys: pytest.CaptureFixture[str]) -> None:
    """Would be read by nobody, so it is refused."""
    for name in ("openai_api_key", "OPENAI_API_KEY\nUser=root"):
        with pytest.raises(SystemExit):
            unit.lines("--credential", name)
        assert "the name of a variable" in capsys.readouterr().err


def test_a_home_with_a_blank(unit: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation inside a home is shown to the service, whatever its path."""
    monkeypatch.setattr(sys, "prefix", "/home/a b/venv")
    (shown,) = [line for line in unit.lines() if line.startswith("BindReadOnlyPaths=")]
    assert '"/home/a b/venv"' in shown


def test_the_stop_follows_the_configuration(unit: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    """A longer DRAIN_TIMEOUT makes a longer stop; the socket has the configured address."""
    monkeypatch.setenv("DRAIN_TIMEOUT", "90")
    monkeypatch.setenv("HOST", "::1")
    monkeypatch.setenv("PORT", "9000")
    assert "TimeoutStopSec=120" in unit.lines()
    assert "ListenStream=[::1]:9000" in unit.lines("--socket")


@pytest.mark.parametrize(("connections", "count"), [("4096", "1"), ("100", "3")])
def test_the_unit_has_threads_for_all_connections(
    unit: Unit, monkeypatch: pytest.MonkeyPatch, connections: str, count: str
) -> None:
    """MAX_CONNECTIONS is met before TasksMax: above the one clients are told so, above the other they are dropped."""
    monkeypatch.setenv("MAX_CONNECTIONS", connections)
    (line,) = [line for line in unit.lines("--workers", count) if line.startswith("TasksMax=")]
    assert int(line.partition("=")[2]) > int(count) * (int(connections) + 100)  # those that are refused, and our own


needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None and not os.environ.get("CI"), reason="there is no systemd-analyze"
)


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Ask systemd-analyze."""
    variables = {**os.environ, "XDG_RUNTIME_DIR": os.getcwd()}  # verify --user wants one
    command = ["systemd-analyze", *arguments]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=PATIENCE, check=False)


@needs_systemd
@pytest.mark.parametrize("options", [[], ["--user"], ["--credential", "OPENAI_API_KEY"]])
def test_systemd_understands_the_unit(unit: Unit, options: List[str]) -> None:
    """``systemd-analyze verify`` has nothing to say about service and socket."""
    service, other = unit.file("ccproxy.service", *options), unit.file("ccproxy.socket", "--socket")
    done = analyze(*(["--user"] if "--user" in options else []), "verify", service, other)
    said = [line for line in done.stderr.splitlines() if "ccproxy" in line]
    assert (done.returncode, said) == (0, [])


@needs_systemd
def test_the_score_of_the_unit(unit: Unit) -> None:
    """``systemd-analyze security`` rates its exposure at 1.5 at most, of 10."""
    done = analyze("security", "--offline=true", "--threshold=15", unit.file("ccproxy.service"))
    assert done.returncode == 0, done.stdout
