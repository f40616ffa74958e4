"""The server in the background: one per folder, started when it answers, stopped when it is gone."""

from __future__ import annotations

import os
import re
import signal
import stat
from pathlib import Path
from typing import Iterator, List, Optional

import pytest

from ccproxy import cli
from ccproxy.config.schema import SETTINGS
from ccproxy.errors import ConfigError
from ccproxy.logfile import MAX_BYTES
from ccproxy.processes.background import RunFolder
from running import address_in, health
from support import ask, user


def start(arguments: List[str]) -> int:
    """Run ``ccproxy start``."""
    return cli.main(["start", *arguments])


def stop(arguments: List[str]) -> int:
    """Run ``ccproxy stop``."""
    return cli.main(["stop", *arguments])


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunFolder]:
    """A working directory without any configuration, and the run folder in it; its server ends with the test."""
    monkeypatch.chdir(tmp_path)
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PORT", "0")
    yield RunFolder(tmp_path / ".run")
    stop(["--timeout", "10"])


def test_started_means_answering(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """`start` returns when the server answers, and says what to type to use it; the log is the owner's alone."""
    assert start([]) == 0
    said = capsys.readouterr().out
    url = address_in(said)
    assert health(url) == 200
    assert f"export ANTHROPIC_BASE_URL={url} ANTHROPIC_AUTH_TOKEN=ccproxy\n" in said
    assert stat.S_IMODE(run.log_file.stat().st_mode) == 0o600


def test_stopped_means_gone(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """`stop` returns when nobody listens any more, and leaves no pid file."""
    start([])
    url = address_in(capsys.readouterr().out)
    assert stop([]) == 0
    assert capsys.readouterr().out == "ccproxy stopped\n"
    assert not run.pid_file.exists()
    with pytest.raises(ConnectionRefusedError):
        health(url)


def test_workers_stop_too(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """The pid file names the process that watches the workers; stopped means that they are gone as well."""
    assert start(["--workers", "2"]) == 0
    url = address_in(capsys.readouterr().out)
    assert stop([]) == 0
    workers = re.findall(r"worker (\d+) started", run.log_file.read_text())
    assert len(workers) == 2
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)
    with pytest.raises(ConnectionRefusedError):
        health(url)


def test_starting_twice_is_harmless(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """The second `start` finds the first one's server, says so, and succeeds."""
    start([])
    first, url = run.pid(), address_in(capsys.readouterr().out)
    assert start([]) == 0
    said = capsys.readouterr().out
    assert "already running" in said
    assert address_in(said) == url
    assert run.pid() == first


def test_stopping_nothing_is_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    """`stop` without a server says so and succeeds."""
    assert stop([]) == 0
    assert capsys.readouterr().out == "ccproxy is not running\n"


def test_options_go_to_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    """What `start` does not know is for `serve`; what the server says about it is shown, and `start` fails."""
    assert start(["--models", "absent.yaml"]) == 1
    said = capsys.readouterr().err
    assert "absent.yaml" in said
    assert "the server ended with exit code" in said
    assert "Traceback" not in said


def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That is the owner's to mend, and named."""
    (tmp_path / "file").touch()
    assert start(["--run-dir", str(tmp_path / "file")]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has a device that is always full")
def test_a_full_disk(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """A server whose pid cannot be written down, so that nobody could stop it, is ended at once; one line says why."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    run.pid_file.parent.mkdir()
    try:
        with pytest.raises(ConfigError, match="No space left"):
            run.spawn(["--port", "0"], descriptor)
    finally:
        os.close(descriptor)
    assert start([]) == 0


def test_a_folder_that_cannot_be_looked_into(capsys: pytest.CaptureFixture[str]) -> None:
    """Such as somebody else's: said in one line."""
    assert stop(["--run-dir", "x" * 300]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_stale_pid_file_names_nobody(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """A pid file without a living server is ignored, even when another program has that pid now: here, this test."""
    run.pid_file.parent.mkdir()
    run.pid_file.write_text(f"{os.getpid()}\n")
    assert stop([]) == 0
    assert capsys.readouterr().out == "ccproxy is not running\n"
    run.pid_file.write_text(f"{os.getpid()}\n")
    assert start([]) == 0
    assert run.pid() != os.getpid()


def test_a_server_that_does_not_end_is_killed(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """After the time-out, `stop` kills it, and says so."""
    start([])
    pid = run.pid()
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    assert stop(["--timeout", "0.2"]) == 0
    assert "killing it" in capsys.readouterr().err
    assert run.forget()


def test_a_token_is_never_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With CCPROXY_AUTH_TOKEN set, the lines to type name the variable and not its value."""
    monkeypatch.setenv("CCPROXY_AUTH_TOKEN", "sesame-4711")
    assert start([]) == 0
    said = capsys.readouterr().out
    assert "CCPROXY_AUTH_TOKEN" in said
    assert "sesame-4711" not in said


@pytest.mark.parametrize(
    ("told", "url"),
    [
        ("", None),
        ("http://127.0.0.1:8082", "http://127.0.0.1:8082"),
        ("http://0.0.0.0:8082", "http://127.0.0.1:8082"),
        ("http://[::]:8082", "http://[::1]:8082"),
    ],
)
def test_the_address(run: RunFolder, told: str, url: Optional[str]) -> None:
    """A server tells where it listens, and we an address that can be connected to."""
    assert run.url() is None
    run.url_file.parent.mkdir()
    run.url_file.write_text(told)
    assert run.url() == url


def test_the_log_is_rotated(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """At the size at which all log files are, by all workers; the server is found as before."""
    assert start(["--workers", "2"]) == 0
    url = address_in(capsys.readouterr().out)
    with run.log_file.open("ab") as log:
        log.truncate(MAX_BYTES)
    for _ in range(20):
        assert ask(url, "/v1/messages", user("demo: text one line")).status == 200
    assert "demo/echo" in run.log_file.read_text()
    assert run.log_file.stat().st_size < MAX_BYTES
    assert stat.S_IMODE(run.log_file.stat().st_mode) == 0o600
    assert run.log_file.with_name("ccproxy.log.1").stat().st_size == MAX_BYTES
    assert start([]) == 0
    assert f"already running on {url}" in capsys.readouterr().out
