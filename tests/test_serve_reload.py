"""A server that runs while its configuration changes: nothing is refused, nothing is cut, all of it takes effect."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from pathlib import Path
from typing import Dict, Iterator, List

import pytest

from processes import Process, configuration, eventually, running, serve_command
from raw_http import RawConnection, is_refused, request
from replay import ReplayProvider
from support import ask, user
from test_serve_process import check_no_traceback, open_stream
from test_server import play, read_until, rest_of
from test_workers import check_gone, workers

COUNTS = pytest.mark.parametrize("count", ["1", "2"])


@pytest.fixture
def provider() -> Iterator[ReplayProvider]:
    """A provider of raw bytes."""
    with ReplayProvider() as provider:
        yield provider


@pytest.fixture
def variables(tmp_path: Path, provider: ReplayProvider) -> Dict[str, str]:
    """The environment of a server in front of it; what a test changes is in its .env."""
    made = configuration(tmp_path, provider.base("raw"), DRAIN_TIMEOUT="20")
    settings(tmp_path, ROUTER_DEFAULT=made.pop("ROUTER_DEFAULT"))
    return made


def settings(folder: Path, **values: str) -> None:
    """Write the .env."""
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))


def says(process: Process, text: str) -> bool:
    """Whether a line of the log has a text."""
    return any(text in line for line in list(process.lines))


def health(url: str, **headers: str) -> Dict[str, object]:
    """What ``/health`` answers."""
    found: Dict[str, object] = ask(url, "/health", headers=headers).json
    return found


@COUNTS
def test_new_requests_take_new_models(
    tmp_path: Path, provider: ReplayProvider, variables: Dict[str, str], count: str
) -> None:
    """A stream that runs ends on the configuration it began with; after it, the new model answers."""
    gate = threading.Event()
    play(provider, "chunked", [gate])
    with running(serve_command("--port", "0", "--workers", count), tmp_path, variables) as process:
        url = process.address()
        with open_stream(url) as client:
            read_until(client, '"one "')
            text = (tmp_path / "models.yaml").read_text()
            (tmp_path / "models.yaml").write_text(text.replace('"stub"', '"other"'))
            settings(tmp_path, ROUTER_DEFAULT="other")
            eventually(lambda: says(process, "was read again"), "the configuration is read")

            def answers_with() -> List[str]:
                play(provider, "chunked", [])
                return [ask(url, "/v1/messages", user()).headers["x-ccproxy-model"] for _ in range(4)]

            eventually(lambda: set(answers_with()) == {"other"}, "the new model answers, in every process")
            gate.set()
            assert rest_of(client)[1] is True
        process.popen.terminate()
        assert process.wait() == 0
        check_no_traceback(process)


@COUNTS
def test_an_invalid_edit_is_told(tmp_path: Path, variables: Dict[str, str], count: str) -> None:
    """It changes nothing; the log says so once, /health for as long as it lasts; SIGHUP asks again."""
    with running(serve_command("--port", "0", "--workers", count), tmp_path, variables) as process:
        url = process.address()
        assert health(url)["config_problem"] is None
        settings(tmp_path, ROUTER_DEFAULT="nobody")
        eventually(
            lambda: all(".env:1: ROUTER_DEFAULT" in str(health(url)["config_problem"]) for _ in range(6)),
            "every process knows",
        )
        assert health(url)["status"] == "ok"
        assert sum(".env:1: ROUTER_DEFAULT" in line for line in process.lines) == 1
        process.popen.send_signal(signal.SIGHUP)
        eventually(lambda: sum(".env:1:" in line for line in list(process.lines)) == 2, "who asks is answered")
        settings(tmp_path, ROUTER_DEFAULT="stub")
        eventually(lambda: all(health(url)["config_problem"] is None for _ in range(6)), "it is mended")


def test_a_problem_is_not_for_strangers(tmp_path: Path, variables: Dict[str, str]) -> None:
    """With a token, /health says more than a status only to who presents it."""
    with running(serve_command("--port", "0"), tmp_path, {**variables, "CCPROXY_AUTH_TOKEN": "sesame"}) as process:
        url = process.address()
        settings(tmp_path, PING_INTERVAL="x")
        eventually(lambda: health(url, **{"x-api-key": "sesame"})["config_problem"], "the owner is told")
        assert health(url) == {"status": "ok"}


@COUNTS
def test_a_signal_reads_it_again(tmp_path: Path, variables: Dict[str, str], count: str) -> None:
    """SIGHUP reads the files; the server goes on, in every process."""
    with running(serve_command("--port", "0", "--workers", count), tmp_path, variables) as process:
        url = process.address()
        process.popen.send_signal(signal.SIGHUP)
        eventually(lambda: says(process, "was read again"), "it is read")
        assert ask(url, "/health").status == 200
        assert process.popen.poll() is None


def test_the_command_line_keeps_winning(tmp_path: Path, variables: Dict[str, str]) -> None:
    """A file that changes does not change what an option says."""
    with running(serve_command("--port", "0"), tmp_path, variables) as process:
        url = process.address()
        settings(tmp_path, ROUTER_DEFAULT="stub", PORT="1", PING_INTERVAL="5")
        eventually(lambda: says(process, "was read again"), "it is read")
        assert ask(url, "/health").status == 200
        assert health(url)["config_problem"] is None


@COUNTS
def test_the_level_of_the_log(tmp_path: Path, variables: Dict[str, str], count: str) -> None:
    """It takes effect in every process, without a restart."""
    with running(serve_command("--port", "0", "--workers", count), tmp_path, variables) as process:
        url = process.address()
        settings(tmp_path, ROUTER_DEFAULT="stub", LOG_LEVEL="DEBUG")
        eventually(lambda: [ask(url, "/health") for _ in range(6)] and says(process, "DEBUG"), "debug lines")


def other_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@COUNTS
def test_another_port(tmp_path: Path, provider: ReplayProvider, variables: Dict[str, str], count: str) -> None:
    """The new port answers; a stream from the old one goes on, a kept connection has its next request answered."""
    gate = threading.Event()
    play(provider, "chunked", [gate])
    settings(tmp_path, ROUTER_DEFAULT="stub", PORT=str(other_port()), WORKERS=count)
    with running(serve_command(), tmp_path, variables) as process:
        url = process.address()
        with open_stream(url) as client, RawConnection(url) as kept:
            read_until(client, '"one "')
            kept.send(request("GET", "/health"))
            assert kept.answer().status == 200
            settings(tmp_path, ROUTER_DEFAULT="stub", PORT=str(other_port()), WORKERS=count)
            there = process.address()
            assert there != url
            assert ask(there, "/health").status == 200
            eventually(lambda: is_refused(url), "the old port is given up")
            kept.send(request("GET", "/health"))
            answer = kept.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            gate.set()
            assert rest_of(client)[1] is True
        process.popen.terminate()
        assert process.wait() == 0
        check_no_traceback(process)


def test_a_port_that_somebody_has(tmp_path: Path, variables: Dict[str, str]) -> None:
    """It is a problem like any other: the whole configuration stays as it was."""
    settings(tmp_path, ROUTER_DEFAULT="stub", PORT=str(other_port()))
    with running(serve_command(), tmp_path, variables) as process, socket.create_server(("127.0.0.1", 0)) as taken:
        url = process.address()
        port = taken.getsockname()[1]
        settings(tmp_path, ROUTER_DEFAULT="demo/echo", PORT=str(port))
        eventually(lambda: f"port {port}" in str(health(url)["config_problem"]), "it is told")
        assert ask(url, "/v1/messages/count_tokens", user()).status == 200


def test_an_address_that_needs_a_token(tmp_path: Path, variables: Dict[str, str]) -> None:
    """A change of HOST is checked like that of a start."""
    with running(serve_command("--port", "0"), tmp_path, variables) as process:
        url = process.address()
        settings(tmp_path, ROUTER_DEFAULT="stub", HOST="0.0.0.0")
        eventually(lambda: "CCPROXY_AUTH_TOKEN" in str(health(url)["config_problem"]), "it is told")


@COUNTS
def test_no_place_for_the_records(tmp_path: Path, variables: Dict[str, str], count: str) -> None:
    """Where no home folder is known, as for many a user of a container, STATE_DIR cannot be given up."""
    settings(tmp_path, ROUTER_DEFAULT="stub", STATE_DIR=str(tmp_path / "state"), WORKERS=count)
    with running(serve_command("--port", "0"), tmp_path, {**variables, "HOME": "~"}) as process:
        url = process.address()
        settings(tmp_path, ROUTER_DEFAULT="stub", WORKERS=count)
        eventually(lambda: "STATE_DIR" in str(health(url)["config_problem"]), "it is told")
        assert ask(url, "/v1/messages/count_tokens", user()).status == 200


class Crowd:
    """Clients that connect, ask and leave, one after the other, until told to stop; every failure is kept."""

    def __init__(self, url: str) -> None:
        self.answers = 0
        self.failures: List[str] = []
        self._url = url
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(3)]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._done.is_set():
            try:
                assert ask(self._url, "/health").status == 200
                self.answers += 1
            except (OSError, AssertionError, ValueError) as error:
                self.failures.append(repr(error))


def test_more_and_fewer_workers(tmp_path: Path, provider: ReplayProvider, variables: Dict[str, str]) -> None:
    """From one process to three, to two and back to one: no connection is refused or cut, and a stream goes on."""
    gate = threading.Event()
    play(provider, "chunked", [gate])
    settings(tmp_path, ROUTER_DEFAULT="stub", WORKERS="1")
    with running(serve_command("--port", "0"), tmp_path, variables) as process:
        url = process.address()
        with open_stream(url) as client, Crowd(url) as crowd:
            read_until(client, '"one "')
            started = 0
            for count in (3, 2, 1):
                settings(tmp_path, ROUTER_DEFAULT="stub", WORKERS=str(count))
                started += count if count > 1 else 0
                workers(process, started)
                before = crowd.answers
                eventually(lambda before=before: crowd.answers > before + 20, "clients are answered")
            pids = workers(process, started)
            check_gone(pids)
            gate.set()
            assert rest_of(client)[1] is True
        assert crowd.failures == []
        os.kill(process.popen.pid, signal.SIGTERM)
        assert process.wait() == 0
        check_no_traceback(process)


def test_workers_started_anew_are_replaced(tmp_path: Path, variables: Dict[str, str]) -> None:
    """Those that took over from a process with threads are watched as well."""
    settings(tmp_path, ROUTER_DEFAULT="stub")
    with running(serve_command("--port", "0"), tmp_path, variables) as process:
        url = process.address()
        settings(tmp_path, ROUTER_DEFAULT="stub", WORKERS="2")
        first, _ = workers(process, 2)
        os.kill(first, signal.SIGKILL)
        workers(process, 3)
        assert ask(url, "/health").status == 200
        process.popen.terminate()
        assert process.wait() == 0
        check_gone(workers(process, 3))


@COUNTS
def test_another_state_folder(tmp_path: Path, provider: ReplayProvider, variables: Dict[str, str], count: str) -> None:
    """From then on, requests are recorded there."""
    play(provider, "chunked", [])
    settings(tmp_path, ROUTER_DEFAULT="stub", WORKERS=count)
    with running(serve_command("--port", "0"), tmp_path, variables) as process:
        url = process.address()
        folder = tmp_path / "elsewhere"
        settings(tmp_path, ROUTER_DEFAULT="stub", WORKERS=count, STATE_DIR=str(folder))
        eventually(lambda: says(process, "starting again"), "it is taken")

        def is_recorded() -> bool:
            ask(url, "/v1/messages", user())
            return (folder / "usage.db").exists()

        eventually(is_recorded, "a record in the new folder")


def test_an_edit_does_not_leak(tmp_path: Path, variables: Dict[str, str]) -> None:
    """Reading again and again leaves no thread, descriptor or process behind."""
    with running(serve_command("--port", "0"), tmp_path, variables) as process:
        process.address()
        for number in range(6):
            settings(tmp_path, ROUTER_DEFAULT="stub", PING_INTERVAL=str(number + 1))
            process.popen.send_signal(signal.SIGHUP)
            eventually(
                lambda number=number: sum("was read again" in line for line in list(process.lines)) > number, "read"
            )
            if number == 0:
                before = descriptors(process.popen.pid)
        assert descriptors(process.popen.pid) <= before + 1


def descriptors(pid: int) -> int:
    """How many files a process has open; 0 where the system does not tell."""
    folder = Path(f"/proc/{pid}/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


def test_no_secret_in_the_log(tmp_path: Path, variables: Dict[str, str]) -> None:
    """The keys of neither configuration are in it."""
    settings(tmp_path, ROUTER_DEFAULT="stub", OPENAI_API_KEY="sk-before-1234", LOG_LEVEL="DEBUG")
    with running(serve_command("--port", "0"), tmp_path, variables) as process:
        process.address()
        settings(tmp_path, ROUTER_DEFAULT="stub", OPENAI_API_KEY="sk-after-5678", LOG_LEVEL="DEBUG")
        eventually(lambda: says(process, "was read again"), "it is read")
        assert not re.search(r"sk-(before|after)", "".join(process.lines))
