"""The two-command set-up: the Makefile in a copy of the checkout, with an environment that is already there."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Iterator

import pytest

from checkout_copy import CHECKOUT, Copy
from processes import eventually, running
from running import address_in, health

TARGETS = re.findall(r"^([a-z-]+):.*## ", (CHECKOUT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Copy]:
    """A copy that was set up; the proxy that a test starts in it ends with the test."""
    copy = Copy(tmp_path)
    copy.use_python_of_the_tests()
    yield copy
    copy.make("stop")


def output(done: subprocess.CompletedProcess[str]) -> str:
    """What a make that must succeed printed."""
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_run_and_stop(copy: Copy) -> None:
    """`make run` ends when the proxy answers; again, it finds it running; `make stop` ends it, twice if you like."""
    said = output(copy.make("run"))
    url = address_in(said)
    assert health(url) == 200
    assert f"export ANTHROPIC_BASE_URL={url}" in said

    begin = time.monotonic()
    again = output(copy.make("run"))
    assert time.monotonic() - begin < 5
    assert "already running" in again
    assert address_in(again) == url

    assert "ccproxy stopped" in output(copy.make("stop"))
    with pytest.raises(ConnectionRefusedError):
        health(url)
    assert "not running" in output(copy.make("stop"))


def test_restart(copy: Copy) -> None:
    """`make restart` leaves a new process running, whether one ran before or not."""
    pid = copy.folder / ".run" / "ccproxy.pid"
    address_in(output(copy.make("restart")))
    first = pid.read_text()
    url = address_in(output(copy.make("restart")))
    assert pid.read_text() != first
    assert health(url) == 200


def test_run_fails_when_the_proxy_does(copy: Copy) -> None:
    """A configuration error ends `make run` with the proxy's own words about it."""
    done = copy.make("run", PORT="eighty")
    assert done.returncode != 0
    assert "PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_examples_are_copied_once(copy: Copy) -> None:
    """The copies are the owner's: nobody else can read them, and they are never written again."""
    output(copy.make("setup"))
    for name in (".env", "models.yaml"):
        path = copy.folder / name
        assert path.read_text() == (copy.folder / f"{name}.example").read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (copy.folder / ".env").write_text("PORT=0\n")
    (copy.folder / ".env.example").touch()
    output(copy.make("setup"))
    assert (copy.folder / ".env").read_text() == "PORT=0\n"


def test_set_up_is_done_once(copy: Copy) -> None:
    """The second `make setup` does nothing; another setup.py, or another place, installs again."""
    output(copy.make("setup"))
    assert "Nothing to be done" in output(copy.make("setup"))
    (copy.folder / "setup.py").open("a").write("# another dependency\n")
    assert "Installing" in output(copy.make("--dry-run", "setup"))


def test_somebodys_environment_is_not_emptied(copy: Copy) -> None:
    """Only .venv is made anew; an environment given as VENV keeps what is in it."""
    (copy.folder / "setup.py").open("a").write("# another dependency\n")
    assert "--clear" in output(copy.make("--dry-run", "setup"))
    assert "--clear" not in output(copy.make("--dry-run", "setup", "VENV=theirs"))


@pytest.mark.parametrize(
    ("pretence", "advice"),
    [
        ("sys.version_info = (3, 8, 1)", "needs Python 3.9"),
        ("sys.modules['ensurepip'] = None", "python3-venv"),
    ],
)
def test_a_python_that_will_not_do(tmp_path: Path, pretence: str, advice: str) -> None:
    """A Python that is too old, or that a distribution took apart, is named, with what to do about it."""
    copy = Copy(tmp_path)
    python = copy.script("python", f'exec {sys.executable} -c "import sys; {pretence}; exec(sys.argv[2])" "$@"')
    done = copy.make("setup", f"PYTHON={python}", "uv=")
    assert done.returncode != 0
    assert advice in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_uv_is_used_when_it_is_there(tmp_path: Path) -> None:
    """With uv, nothing is asked of pip."""
    copy = Copy(tmp_path)
    copy.script("tools/uv", "echo uv 1.0")
    steps = output(copy.make("--dry-run", "setup", PATH=f"{tmp_path}/tools:{os.environ['PATH']}"))
    assert "uv pip install" in steps
    assert " -m pip " not in steps
    assert " -m pip " in output(copy.make("--dry-run", "setup", "uv="))


@pytest.mark.parametrize("target", TARGETS)
def test_every_target(copy: Copy, target: str) -> None:
    """Each target can be made, and `make help` says what it does."""
    output(copy.make("--dry-run", target))
    assert f"make {target} " in output(copy.make("help"))


@pytest.mark.parametrize("target", sorted(set(TARGETS) - {"help", "setup", "clean"}))
def test_every_target_fails_when_it_fails(copy: Copy, target: str) -> None:
    """A step that fails is the failure of the target."""
    copy.script(".venv/bin/python", "exit 3")
    assert copy.make(target).returncode != 0


def test_spaces_in_every_path(tmp_path: Path) -> None:
    """The checkout, and the Python that is asked for, may be anywhere."""
    folder = tmp_path / "my own checkout"
    folder.mkdir()
    copy = Copy(folder)
    copy.use_python_of_the_tests()
    python = copy.script("a b/python", f'exec {sys.executable} "$@"')
    try:
        assert health(address_in(output(copy.make("run", f"PYTHON={python}")))) == 200
    finally:
        assert "ccproxy stopped" in output(copy.make("stop", f"PYTHON={python}"))


def test_dev(copy: Copy) -> None:
    """`make dev` serves in the foreground, with changed code as soon as it is there, until it is told to end."""
    variables = {"PATH": os.environ["PATH"], "PORT": "0"}
    command = ["make", f"PYTHON={sys.executable}", "dev"]
    with running(command, copy.folder, variables) as process:
        address = process.address()
        assert health(address) == 200
        (copy.folder / "ccproxy" / "new_module.py").write_text('"""New."""\n')
        address = process.address()
        assert health(address) == 200
        assert any("ccproxy/new_module.py changed" in line for line in process.lines)
    eventually(lambda: not answers(address), "the server ends with make")


def answers(url: str) -> bool:
    """Whether anything answers there."""
    try:
        return health(url) == 200
    except OSError:
        return False
