"""``make zipapp``: one file that runs with python3 alone, on the oldest and the newest Python there is."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

import pytest

from ccproxy import __version__
from checkout_copy import CHECKOUT, Copy
from processes import PATIENCE
from running import address_in, health
from support import ask, user

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


def pythons() -> List[str]:
    """The Python of the tests, and the oldest and newest supported one that pyenv has."""
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found = [path for path in versions.glob("3.*/bin/python") if re.match(r"3\.(9|1\d)\.", path.parts[-3])]
    found.sort(key=lambda path: [int(part) for part in re.findall(r"\d+", path.parts[-3])])
    return list(dict.fromkeys([sys.executable, *map(str, found[:1] + found[-1:])]))


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file, built by make from a copy of the checkout; pip asks the index it always asks."""
    copy = Copy(tmp_path_factory.mktemp("checkout"))
    copy.use_python_of_the_tests()
    settings = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "HTTP", "SSL_"))}
    done = copy.make("zipapp", **{**settings, "HOME": os.environ.get("HOME", "")})
    assert done.returncode == 0, done.stdout + done.stderr
    return copy.folder / "dist" / "ccproxy.pyz"


def test_what_is_in_it(pyz: Path) -> None:
    """The package as it is, its dependencies but the soft one, and no compiled code; others may run it."""
    names = set(subprocess.check_output([sys.executable, "-m", "zipfile", "-l", str(pyz)], text=True).split())
    ours = {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "ccproxy").rglob("*.*") if path.suffix != ".pyc"}
    assert ours <= names
    assert not [name for name in names if name.endswith((".so", ".pyc"))]
    assert stat.S_IMODE(pyz.stat().st_mode) & stat.S_IXUSR


def test_it_holds_every_dependency_but_the_soft_one(pyz: Path) -> None:
    """What make names is what setup.py names."""
    makefile, setup = ((CHECKOUT / name).read_text(encoding="utf-8") for name in ("Makefile", "setup.py"))
    named = re.search(r"--only-binary :all: (.*)", makefile)
    required = re.search(r"install_requires=\[(.*?)\]", setup, re.DOTALL)
    assert named is not None
    assert required is not None
    assert {*named[1].split(), "tiktoken"} == set(re.findall(r'"([\w-]+)', required[1]))


class Machine:
    """A machine with a bare python3: no packages, no configuration, nothing in its home but the file."""

    def __init__(self, python: str, pyz: Path, folder: Path) -> None:
        self.folder = folder
        self.python = python
        shutil.copy(pyz, folder / "ccproxy.pyz")

    def run(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run ``python3 ccproxy.pyz``."""
        return self.bare(["ccproxy.pyz", *arguments], {"PORT": "0", **settings})

    def bare(self, arguments: List[str], settings: Dict[str, str]) -> subprocess.CompletedProcess[str]:
        """Run python3 without site-packages."""
        return subprocess.run(
            [self.python, "-I", "-S", *arguments],
            cwd=self.folder,
            env={"HOME": str(self.folder), "PATH": "/usr/bin:/bin", **settings},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )


@pytest.fixture(params=pythons(), ids=lambda python: "-".join(re.findall(r"\d[\d.]+", python)[-1:]) or "tests")
def machine(request: pytest.FixtureRequest, pyz: Path, tmp_path: Path) -> Machine:
    """One with each Python."""
    return Machine(request.param, pyz, tmp_path)


def test_it_serves(machine: Machine) -> None:
    """In the background too, which is another process of the same file; without a vocabulary it still counts."""
    assert machine.run("--version").stdout == f"ccproxy {__version__}\n"
    started = machine.run("start")
    try:
        url = address_in(started.stdout)
        assert health(url) == 200
        answer = ask(url, "/v1/messages", user("demo: text Hello")).json
        assert answer["content"] == [{"type": "text", "text": "Hello"}]
        assert 1 <= answer["usage"]["input_tokens"] <= 100
    finally:
        stopped = machine.run("stop")
    assert (stopped.returncode, stopped.stdout) == (0, "ccproxy stopped\n")


def test_a_failure_has_its_exit_code(machine: Machine) -> None:
    """As when it is installed."""
    done = machine.run("check", "--models", "absent.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert "absent.yaml" in done.stderr


def test_certificates_are_found(machine: Machine) -> None:
    """The CA certificates can be read although they are in the archive."""
    script = "import sys; sys.path[:] = ['ccproxy.pyz', *sys.path]\n"
    script += "import ssl; from requests.certs import where\n"
    script += "print(len(ssl.create_default_context(cafile=where()).get_ca_certs()))"
    done = machine.bare(["-c", script], {})
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50
