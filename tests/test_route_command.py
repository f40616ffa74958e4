"""``ccproxy route``: the model, the rule and the reason for a request body, without sending it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any, Dict, List

import pytest

from ccproxy import cli
from ccproxy.accounting.ledger import Ledger
from ledger_rows import row
from processes import environment
from support import user

MODELS: List[Dict[str, Any]] = [
    {"model_id": "main", "api_base": "http://p.test/v1", "fallbacks": ["spare"]},
    {"model_id": "spare", "api_base": "http://p.test/v1", "model_name": "spare-name"},
    {"model_id": "thinker", "api_base": "http://p.test/v1"},
]
SETTINGS = "ROUTER_DEFAULT=main\nROUTER_THINK=thinker\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a configuration."""
    (tmp_path / ".env").write_text(SETTINGS, encoding="utf-8")
    (tmp_path / "models.yaml").write_text(json.dumps(MODELS), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def body_in(folder: Path, body: Any) -> str:
    path = folder / "body.json"
    path.write_text(body if isinstance(body, str) else json.dumps(body), encoding="utf-8")
    return str(path)


def test_it_prints_a_line_for_each_fact(folder: Path, capsys: Any) -> None:
    """Model, rule, reason, tokens, and who is next."""
    assert cli.main(["route", body_in(folder, user("Hello"))]) == 0
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert int(lines.pop("tokens").split()[0]) > 0
    assert lines == {"model": "main", "rule": "default", "reason": "no other rule fired", "then": "spare"}


def test_it_prints_json(folder: Path, capsys: Any) -> None:
    """The same for programs."""
    thinking = user(thinking={"type": "enabled", "budget_tokens": 2000})
    assert cli.main(["route", "--json", body_in(folder, thinking)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.pop("input_tokens") > 0
    assert found.pop("estimate").endswith("family other; not calibrated")
    assert found == {
        "model": "thinker",
        "rule": "think",
        "reason": "thinking is enabled with a budget of 2000 tokens",
        "models": [{"model_id": "thinker", "model_name": "thinker", "provider": "p.test"}],
    }


def test_it_knows_the_header(folder: Path, capsys: Any) -> None:
    """``--model`` stands for x-ccproxy-model."""
    assert cli.main(["route", "--model", "spare,main", "--json", body_in(folder, user())]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["model"], found["rule"]) == ("spare", "header")
    assert [model["model_name"] for model in found["models"]] == ["spare-name", "main"]


@pytest.mark.parametrize(("cost", "expected"), [("0.7", "default"), ("0.85", "budget"), ("1", None)])
def test_it_knows_what_is_spent(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, cost: str, expected: Any
) -> None:
    """From the ledger: the cheaper model, and in the end the error that a client would get."""
    ledger = Ledger(folder / "state")
    ledger.add(row(time=time.time(), cost=Decimal(cost)))
    assert ledger.flush(10)
    ledger.close()
    for name, value in (("STATE_DIR", "state"), ("DAILY_BUDGET_USD", "1"), ("ROUTER_BACKGROUND", "spare")):
        monkeypatch.setenv(name, value)
    code = cli.main(["route", "--json", body_in(folder, user())])
    found = capsys.readouterr()
    if expected is None:
        assert (code, found.out) == (2, "")
        assert found.err.startswith("ccproxy: $1 of DAILY_BUDGET_USD $1 are spent (100 %); tomorrow")
    else:
        assert (code, json.loads(found.out)["rule"]) == (0, expected)


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_it_reads_stdin(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, arguments: List[str]) -> None:
    """The body may be piped; max_tokens, which changes no route, may be missing."""
    body = user()
    del body["max_tokens"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(body).encode())))
    assert cli.main(["route", *arguments]) == 0
    assert capsys.readouterr().out.startswith("model   main\n")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("{", "not valid JSON"),
        ({"model": "m"}, "messages"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_request_is_said_in_a_line(folder: Path, capsys: Any, body: Any, words: str) -> None:
    """With exit code 2."""
    name = str(folder / "absent.json") if body is None else body_in(folder, body)
    assert cli.main(["route", name]) == 2
    found = capsys.readouterr()
    assert (found.out, found.err.count("\n")) == ("", 1)
    assert words in found.err


def test_an_unknown_model_is_said_in_a_line(folder: Path, capsys: Any) -> None:
    """As the client would be told."""
    assert cli.main(["route", "--model", "nowhere", body_in(folder, user())]) == 2
    assert capsys.readouterr().err == "ccproxy: x-ccproxy-model: no such model: nowhere\n"


def test_as_a_program(folder: Path) -> None:
    """The shell's way: a pipe in, one object out."""
    done = subprocess.run(
        [sys.executable, "-m", "ccproxy", "route", "--json"],
        cwd=folder,
        env=environment(folder, {}),
        input=json.dumps(user()),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["model"] == "main"
