"""The server in the background: start it and wait until it answers, stop it and wait until it is gone.

A folder (``.run`` unless told) holds the server's pid file, its address and its log. The pid file is locked, and the
server inherits the lock: the kernel drops it when the server ends, however it ends. So a pid file that a crash or a
reboot left behind is never taken for a running server, and a pid that now belongs to another program is never
signalled.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Callable, Dict, Iterator, Mapping, NamedTuple, Optional, Sequence
from urllib.parse import urlsplit

from .. import __name__ as PACKAGE
from ..errors import CcproxyError, ConfigError
from ..log import RUN_FOLDER, RUN_LOG, RUN_URL

POLL_INTERVAL = 0.02
TEMPORARY_TIMEOUT = 30.0
"""Seconds that a temporary server may take to its first answer."""
CONNECT = """
To use it in Claude Code:

    export ANTHROPIC_BASE_URL={url} ANTHROPIC_AUTH_TOKEN={token}
    claude

`ccproxy code` does that, and tells it which models answer and how much they take.
"""


class RunFolder:
    """The pid file, the address and the log of one server."""

    def __init__(self, folder: Path) -> None:
        self.pid_file = folder / "ccproxy.pid"
        self.url_file = folder / RUN_URL
        self.log_file = folder / RUN_LOG
        self._folder = folder

    def claim(self) -> Optional[int]:
        """The pid file, locked and emptied, as a descriptor; or None while a server has it."""
        while True:
            descriptor = self._open_pid_file()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(descriptor), os.stat(self.pid_file)):
                    os.truncate(descriptor, 0)
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                return None
            except FileNotFoundError:
                pass
            # A stop removed the file between our open and our lock; the next start would not see this lock.
            os.close(descriptor)

    def _open_pid_file(self) -> int:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(self.pid_file, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigError(f"{error.filename}: {error.strerror}") from None

    def forget(self) -> bool:
        """Remove the pid file; False, and nothing is removed, while a server has it."""
        try:
            self.pid_file.stat()
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError as error:  # somebody else's folder
            raise ConfigError(f"{self.pid_file}: {error.strerror}") from None
        descriptor = self.claim()
        if descriptor is None:
            return False
        self.pid_file.unlink()
        self.url_file.unlink(missing_ok=True)
        os.close(descriptor)
        return True

    def pid(self) -> Optional[int]:
        """The pid that the pid file names; None in the moment before a start has written it."""
        text = self.pid_file.read_text(encoding="ascii").strip()
        return int(text) if text.isdigit() else None

    def url(self) -> Optional[str]:
        """Where the server listens, once it does; it may move to another port."""
        with suppress(FileNotFoundError):
            return connectable(self.url_file.read_text(encoding="ascii")) or None
        return None

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of the log, which say why a server ended."""
        return "\n".join(self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def spawn(
        self, arguments: Sequence[str], descriptor: int, variables: Optional[Mapping[str, str]] = None
    ) -> subprocess.Popen[bytes]:
        """A server in a session of its own, which survives the terminal; it inherits the lock."""
        log = self._begin_log()
        try:
            server = subprocess.Popen(
                [sys.executable, "-m", PACKAGE, "serve", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**environment(), RUN_FOLDER: str(self._folder.absolute()), **(variables or {})},
                pass_fds=(descriptor,),
                start_new_session=True,
            )
        finally:
            os.close(log)
        try:
            os.write(descriptor, b"%d\n" % server.pid)
        except OSError as error:  # a full disk: nobody could stop it
            server.kill()
            server.wait()
            raise ConfigError(f"{self.pid_file}: {error.strerror}") from None
        return server

    def _begin_log(self) -> int:
        try:
            self.url_file.unlink(missing_ok=True)
            if self.log_file.exists():
                self.log_file.replace(self.log_file.with_suffix(".log.1"))
            return os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise ConfigError(f"{self.log_file}: {error.strerror}") from None


def start(folder: Path, arguments: Sequence[str], timeout: float) -> int:
    """Start the server, unless it runs, and say how to connect; 0 when it answers.

    Args:
        arguments: options for `serve`.
        timeout: seconds to wait for its first answer.
    """
    run = RunFolder(folder)
    descriptor = run.claim()
    if descriptor is None:
        return _report_running(run, time.monotonic() + timeout)
    try:
        url = _launch(run, descriptor, arguments, timeout)
    except StartFailed as error:
        print(f"{run.log_tail()}\nccproxy: {error}; its log is {run.log_file}", file=sys.stderr)
        return 1
    print(f"ccproxy is running on {url} (pid {run.pid()}, log {run.log_file})")
    print(_connect_lines(url))
    return 0


def start_for(parent: int, folder: Path, arguments: Sequence[str], timeout: float) -> str:
    """Start a server that ends with the process ``parent``, and return where it answers.

    Raises:
        StartFailed: with what its log says.
    """
    run = RunFolder(folder)
    descriptor = run.claim()
    if descriptor is None:
        raise StartFailed(f"{run.pid_file} belongs to a running server")
    try:
        return _launch(run, descriptor, [*arguments, "--parent", str(parent)], timeout)
    except StartFailed as error:
        raise StartFailed(f"{error}:\n{run.log_tail()}") from None


def running_at(folder: Path) -> Optional[str]:
    """The address of the server that runs in the background, or None."""
    run = RunFolder(folder)
    return None if run.forget() else run.url()


class StartFailed(CcproxyError):
    """A server did not come to answer."""


def _launch(run: RunFolder, descriptor: int, arguments: Sequence[str], timeout: float) -> str:
    """Start a server in a folder that was claimed, and return where it answers."""
    deadline = time.monotonic() + timeout
    try:
        server = run.spawn(arguments, descriptor)
    finally:
        os.close(descriptor)
    try:
        url = _wait_for_answer(run, deadline, lambda: server.poll() is not None)
    except KeyboardInterrupt:
        server.terminate()
        raise
    if url is not None:
        return url
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGKILL)
        raise StartFailed(f"the server did not answer within {timeout:g} s")
    raise StartFailed(f"the server ended with exit code {server.returncode}")


def stop(folder: Path, timeout: float) -> int:
    """Stop the server and wait until the requests it is answering have ended; 0 also when none runs.

    Args:
        timeout: seconds after which it is killed.
    """
    run = RunFolder(folder)
    if run.forget():
        print("ccproxy is not running")
        return 0
    pid = run.pid()
    if pid is None:
        print(f"ccproxy: {run.pid_file} is locked and names no process; try again", file=sys.stderr)
        return 1
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    if not _wait_until_gone(run, timeout):
        print(f"ccproxy: still running after {timeout:g} s, killing it", file=sys.stderr)
        # The whole process group: workers that outlived their parent hold the lock as well.
        os.killpg(pid, signal.SIGKILL)
        _wait_until_gone(run, timeout)
    print("ccproxy stopped")
    return 0


@contextmanager
def temporary(arguments: Sequence[str], variables: Mapping[str, str]) -> Iterator[str]:
    """Serve to the end of the block, or of this process; yield where it answers, and leave nothing of it behind.

    Args:
        arguments: options for `serve`.
        variables: settings that win over those of the environment; `STATE_DIR` and `LOG_FILE_PATH` are in a folder
            that goes with the server.

    Raises:
        ConfigError: with the server's last words.
    """
    with tempfile.TemporaryDirectory(prefix="ccproxy-") as folder:
        run = RunFolder(Path(folder))
        descriptor = run.claim()
        assert descriptor is not None
        own = {"STATE_DIR": folder, "LOG_FILE_PATH": folder, **variables}
        server = run.spawn([*arguments, "--parent", str(os.getpid())], descriptor, own)
        os.close(descriptor)
        try:
            url = _wait_for_answer(run, time.monotonic() + TEMPORARY_TIMEOUT, lambda: server.poll() is not None)
            if url is None:
                raise ConfigError(f"the proxy did not start: {run.log_tail(1)}")
            yield url
        finally:
            server.terminate()
            with suppress(subprocess.TimeoutExpired):
                server.wait(2)
            with suppress(ProcessLookupError):  # its workers too
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _report_running(run: RunFolder, deadline: float) -> int:
    """Say where the running server answers; another start may just be waiting for it too."""
    url = _wait_for_answer(run, deadline, run.forget)
    if url is None:
        print(f"ccproxy: a server runs and does not answer; its log is {run.log_file}", file=sys.stderr)
        return 1
    print(f"ccproxy is already running on {url} (pid {run.pid()}, log {run.log_file})")
    print(_connect_lines(url))
    return 0


def _wait_for_answer(run: RunFolder, deadline: float, ended: Callable[[], bool]) -> Optional[str]:
    """The address at which ``/health`` answers, or None when the server ended or the time is up."""
    while time.monotonic() < deadline:
        url = run.url()
        answer = get(url, "/health") if url is not None else None
        if answer is not None and answer.status == HTTPStatus.OK:
            return url
        if ended():
            return None
        time.sleep(POLL_INTERVAL)
    return None


def _wait_until_gone(run: RunFolder, timeout: float) -> bool:
    """Whether the server ended in time; its pid file goes with it."""
    deadline = time.monotonic() + timeout
    while not run.forget():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_INTERVAL)
    return True


class Answer(NamedTuple):
    """What a server says."""

    status: int
    body: bytes


def get(url: str, path: str, token: str = "") -> Optional[Answer]:
    """The answer to a GET, or None without one. Not urllib: it would ask the HTTP proxy of the environment."""
    import http.client  # 30 ms, a fifth of what `ccproxy env` takes, which asks nobody

    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=5)
    try:
        connection.request("GET", path, headers={"x-api-key": token} if token else {})
        response = connection.getresponse()
        return Answer(response.status, response.read(1000))
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _connect_lines(url: str) -> str:
    """What to type to use the server; a token that is set is named and never shown."""
    answer = get(url, "/v1/models")
    has_token = answer is not None and answer.status == HTTPStatus.UNAUTHORIZED
    return CONNECT.format(url=url, token="THE_VALUE_OF_CCPROXY_AUTH_TOKEN" if has_token else "ccproxy")


def connectable(url: str) -> str:
    """0.0.0.0 and :: are addresses to listen on, not to connect to."""
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


def environment() -> Dict[str, str]:
    """Ours, so arranged that the server imports what we import, and nothing from the folder it is started in."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONSAFEPATH": "1"}
