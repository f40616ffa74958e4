"""Real server processes: ``python -m ccproxy serve``, gunicorn and waitress, each on a free port."""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence

import ccproxy

PATIENCE = 30.0
"""Seconds after which a test that waits has failed."""
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")


class Process:
    """A server process that listens; ``lines`` is what it wrote to stderr so far."""

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        variables: Mapping[str, str],
        stderr: int = subprocess.PIPE,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.lines: List[str] = []
        self.url = ""
        self._addresses: queue.Queue[Optional[str]] = queue.Queue()
        self.popen = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(folder, variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            pass_fds=pass_fds,
            encoding="utf-8",
            errors="replace",
        )
        self._reader = threading.Thread(target=self._collect, daemon=True)
        self._reader.start()

    def _collect(self) -> None:
        for line in self.popen.stderr or ():
            self.lines.append(line)
            found = ADDRESS.search(line)
            if found:
                self._addresses.put(found.group())
        self._addresses.put(None)

    def address(self) -> str:
        """Wait for the address it listens on."""
        found = self._addresses.get(timeout=PATIENCE)
        assert found is not None, "".join(self.lines)
        return found

    def wait(self) -> int:
        """Wait for the end; return the exit code."""
        code = self.popen.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def close(self) -> None:
        """End it, gently if it can be."""
        self.popen.terminate()
        try:
            self.popen.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        self._reader.join(PATIENCE)
        if self.popen.stderr:
            self.popen.stderr.close()


def environment(folder: Path, variables: Mapping[str, str]) -> Dict[str, str]:
    """Return an environment with nothing of the developer's own configuration in it."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": os.pathsep.join([str(Path(ccproxy.__path__[0]).parent), *filter(None, sys.path)]),
        "HOME": str(folder),
        **variables,
    }


@contextmanager
def running(
    command: Sequence[str],
    folder: Path,
    variables: Mapping[str, str],
    stderr: int = subprocess.PIPE,
    pass_fds: Sequence[int] = (),
) -> Iterator[Process]:
    """Run a command in ``folder`` to the end of the block."""
    process = Process(command, folder, variables, stderr, pass_fds)
    try:
        yield process
    finally:
        process.close()


def configuration(folder: Path, api_base: str, **settings: str) -> Dict[str, str]:
    """Write a models file with the model ``stub`` at ``api_base``; return the variables that use it."""
    row: Dict[str, Any] = {"model_id": "stub", "api_base": api_base, "dialect": "generic"}
    (folder / "models.yaml").write_text(json.dumps([row]), encoding="utf-8")  # JSON is YAML
    return {"ROUTER_DEFAULT": "stub", **settings}


def serve_command(*arguments: str) -> List[str]:
    """Return the command that serves in the foreground."""
    return [sys.executable, "-m", "ccproxy", "serve", *arguments]


def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.005)
