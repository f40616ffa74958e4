"""``serve --reload``: the server as a child process, started anew whenever the package's code changes.

The child is a server like any other, so new code runs from its first line. Code that does not even start leaves the
watcher waiting for the next change. The child has a session of its own and gets its signals from here alone: Ctrl-C in
a terminal would else reach it twice, and the second one ends a server at once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List, Mapping, Sequence

from .. import __name__ as PACKAGE
from ..errors import ConfigError
from .background import environment

POLL_INTERVAL = 0.3
CONFIG_ERROR = 2
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def serve_reloading(arguments: Sequence[str]) -> int:
    """Serve until a signal ends it; return the exit code of the last server.

    Raises:
        ConfigError: the code is not there as files.
    """
    received: List[int] = []
    for number in _SIGNALS:
        signal.signal(number, lambda number, _: received.append(number))
    while True:
        before, is_told = _code(), False
        server = _spawn(arguments)
        changed = ""
        while not received and not changed:
            time.sleep(POLL_INTERVAL)
            changed = _changed(before, _code())
            if server.poll() == CONFIG_ERROR:
                return CONFIG_ERROR
            if server.returncode is not None and not is_told:
                _say(f"the server ended with exit code {server.returncode}; a change of the code starts it again")
                is_told = True
        if changed and not received:
            _say(f"{changed} changed: starting again when running requests have ended")
        code = _end(server, received)
        if received:
            return code


def _spawn(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", PACKAGE, "serve", *arguments, "--parent", str(os.getpid())]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment(), start_new_session=True)


def _end(server: subprocess.Popen[bytes], received: Sequence[int]) -> int:
    """Ask the server to end, wait for it and return its exit code; a second signal to us ends it at once."""
    if server.poll() is None:
        server.terminate()
    told = max(1, len(received))
    while server.poll() is None:
        if len(received) > told:
            told = len(received)
            server.terminate()
        time.sleep(POLL_INTERVAL / 6)
    code = server.returncode
    return code if code >= 0 else 128 - code


def _folder() -> Path:
    folder = Path(sys.modules[PACKAGE].__path__[0])
    if not folder.is_dir():
        raise ConfigError(f"--reload: the code is no folder of files: {folder}")
    return folder


def _code() -> Dict[Path, int]:
    """Return when each file of the package was changed last."""
    found = {}
    for path in _folder().rglob("*"):
        if path.suffix in (".py", ".html"):
            try:
                found[path] = path.stat().st_mtime_ns
            except FileNotFoundError:
                continue  # an editor is replacing it
    return found


def _changed(before: Mapping[Path, int], after: Mapping[Path, int]) -> str:
    """Return the name of a file that is not as it was, or nothing."""
    changed = sorted(path for path, _ in before.items() ^ after.items())
    return str(changed[0].relative_to(_folder().parent)) if changed else ""


def _say(what: str) -> None:
    print(f"ccproxy: {what}", file=sys.stderr, flush=True)
