"""``serve --reload``: a real server from a copy of the package, whose code is changed under it."""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path
from typing import Iterator

import pytest

import ccproxy
from processes import Process, eventually, serve_command
from support import ask

VERSION = '__version__ = "%s"\n'


class Dev(Process):
    """``serve --reload`` in a folder with a package of its own."""

    def __init__(self, folder: Path) -> None:
        self.package = folder / "ccproxy"
        shutil.copytree(ccproxy.__path__[0], self.package, ignore=shutil.ignore_patterns("__pycache__"))
        paths = [str(folder), *filter(None, sys.path)]
        self.version("one")
        super().__init__(serve_command("--reload", "--port", "0"), folder, {"PYTHONPATH": ":".join(paths)})

    def version(self, text: str) -> None:
        """Change the code."""
        (self.package / "__init__.py").write_text(f'"""Changed."""\n{VERSION % text}', encoding="utf-8")

    def says(self, words: str) -> bool:
        """Whether it wrote that."""
        return any(words in line for line in self.lines)


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    """A server that watches its code."""
    process = Dev(tmp_path)
    yield process
    process.close()


def test_changed_code_is_served(dev: Dev) -> None:
    """A change starts the server again, with the new code; what changed is named."""
    assert ask(dev.address(), "/health").json["version"] == "one"
    dev.version("two")
    assert ask(dev.address(), "/health").json["version"] == "two"
    assert dev.says("ccproxy/__init__.py changed")
    (dev.package / "new_module.py").write_text('"""New."""\n')
    dev.address()
    assert dev.says("ccproxy/new_module.py changed")


def test_broken_code_waits_for_its_mending(dev: Dev) -> None:
    """The terminal is not given up for a typo: the next change starts the server."""
    dev.address()
    dev.version('"( typo')
    eventually(lambda: dev.says("SyntaxError"), "the typo is shown")
    eventually(lambda: dev.says("ended with exit code 1; a change of the code starts it again"), "it waits")
    dev.version("mended")
    assert ask(dev.address(), "/health").json["version"] == "mended"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_both(dev: Dev, number: int) -> None:
    """The server ends in order, and the watcher with it."""
    url = dev.address()
    dev.popen.send_signal(number)
    assert dev.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        ask(url, "/health")
    assert not dev.says("Traceback")


def test_a_configuration_error_ends_it(tmp_path: Path) -> None:
    """What no change of the code mends is left to its owner: one line, exit code 2."""
    (tmp_path / ".env").write_text("PORT=eighty\n")
    process = Process([sys.executable, "-m", "ccproxy", "serve", "--reload"], tmp_path, {})
    assert process.wait() == 2
    assert len(process.lines) == 1
    assert "PORT" in process.lines[0]
    process.close()
