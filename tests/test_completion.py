"""``ccproxy completion``: what a shell offers at a tab, from the parsers themselves; asked for by real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest

from ccproxy import cli
from ccproxy.commands.completion import SCRIPTS
from ccproxy.config.providers import PROVIDERS

MODELS = '[{"model_id": "deepseek-v3", "api_base": "http://127.0.0.1:1/v1"}, {"model_id": "local:8b", "api_base": "http://127.0.0.1:1/v1"}]'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two models, and ``ccproxy`` in the PATH."""
    (tmp_path / "models.yaml").write_text(MODELS)
    program = tmp_path / "bin" / "ccproxy"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m ccproxy "$@"\n')
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", os.pathsep.join([str(program.parent), os.environ["PATH"]]))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(Path(cli.__file__).parent.parent), *sys.path])))
    for name in ("ROUTER_DEFAULT", "CUSTOM_MODELS_FILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def offered(line: str, capsys: pytest.CaptureFixture[str]) -> List[str]:
    """How a line may go on."""
    assert cli.main(["completion", "--complete", line]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("line", "candidates"),
    [
        ("ccproxy ", list(cli.COMMANDS)),
        ("ccproxy", list(cli.COMMANDS)),
        ("ccproxy sto", ["stop"]),
        ("ccproxy --ver", ["--version"]),
        ("ccproxy --log", ["--log-level"]),
        ("ccproxy start --log", ["--log-level"]),
        ("ccproxy stats --period ", ["session", "today", "7d", "30d", "all"]),
        ("ccproxy stats --period 7", ["7d"]),
        ("ccproxy env --shell fish --run", ["--run-dir"]),
        ("ccproxy completion ", list(SCRIPTS)),
        ("ccproxy check --live deep", ["deepseek-v3", "deepseek/"]),
        ("ccproxy perf --model_id local:", ["local:8b"]),
        ("ccproxy models --env-file ", []),
        ("ccproxy nonsense --nothing", []),
    ],
)
def test_what_is_offered(line: str, candidates: List[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Commands, options, the values of an option, models; nothing where a file may stand. Options only after a dash."""
    assert offered(line, capsys) == candidates


@pytest.mark.usefixtures("folder")
def test_every_command_has_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    """All that its help tells, for every command that there is."""
    for name, command in cli.COMMANDS.items():
        told = {option for action in cli.parser_of(command)._actions for option in action.option_strings}
        assert {option for option in told if option.startswith("--")} <= set(offered(f"ccproxy {name} -", capsys)), name


def test_a_broken_configuration_is_no_hindrance(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A tab never prints an error; the rest is still offered. What a terminal would obey is left out."""
    (folder / "models.yaml").write_text("- nonsense")
    assert offered("ccproxy check --live ", capsys) == []
    (folder / "models.yaml").write_text(MODELS.replace("deepseek-v3", "deep\\u001b[31m"))
    assert offered("ccproxy check d", capsys) == [f"{name}/" for name in PROVIDERS if name.startswith("d")]


def run_shell(command: List[str]) -> List[str]:
    """The lines that a shell prints."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("line", "candidates"),
    [
        ("ccproxy sto", ["stop"]),
        ("ccproxy stats --period ", ["session", "today", "7d", "30d", "all"]),
        ("ccproxy check --live local:", ["8b"]),
        ("ccproxy models --env-file ", []),
    ],
)
def test_bash(line: str, candidates: List[str]) -> None:
    """It takes what follows the last colon for the word."""
    script = f"eval \"$(ccproxy completion bash)\"; COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; _ccproxy ccproxy"
    assert run_shell(["bash", "-c", script + '; printf "%s\\n" "${COMPREPLY[@]}"']) == candidates


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("line", "candidates"),
    [
        ("ccproxy sto", ["stop"]),
        ("ccproxy stats --period 7", ["7d"]),
        ("ccproxy check --live local:", ["local:8b"]),
        ("ccproxy models --env-file bi", ["bin/"]),
    ],
)
def test_fish(line: str, candidates: List[str]) -> None:
    """Files where nothing else is known."""
    assert run_shell(["fish", "-c", f"ccproxy completion fish | source; complete -C '{line}'"]) == candidates


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("line", "candidates"),
    [
        ("ccproxy sto", ["stop"]),
        ("ccproxy stats --period ", ["session", "today", "7d", "30d", "all"]),
        ("ccproxy check --live local:", ["local:8b"]),
        ("ccproxy models --env-file ", ["files"]),
    ],
)
def test_zsh(line: str, candidates: List[str]) -> None:
    """What the completion system would be given; ``words`` and ``CURRENT`` are what it sets."""
    words = " ".join(f"'{word}'" for word in line.split(" "))
    script = f"""
        compdef() {{ :; }}
        compadd() {{ printf '%s\\n' $found; }}
        _files() {{ echo files; }}
        eval "$(ccproxy completion zsh)"
        words=({words}); CURRENT=$#words; _ccproxy"""
    assert run_shell(["zsh", "-f", "-c", script]) == candidates
