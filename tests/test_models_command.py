"""``ccproxy models``: each model with its key, limits, prices and routes, as a table and for scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict

import pytest

from ccproxy import cli
from ccproxy.commands.models import describe
from ccproxy.config import schema
from ccproxy.config.providers import PROVIDERS
from ccproxy.routing import configured_models
from support import make_config

ENTRIES = [
    {
        "model_id": "deepseek-v3",
        "model_name": "deepseek-chat",
        "api_base": "https://api.deepseek.com/v1",
        "api_key_name": "DEEPSEEK_API_KEY",
        "max_tokens": 8192,
        "max_input_tokens": "128k",
        "input_cost_per_token": "0.00000027",
    },
    {"model_id": "local", "api_base": "http://127.0.0.1:8000", "direct": True},
]
SETTINGS = {
    "ROUTER_DEFAULT": "deepseek-v3, openai/gpt-5",
    "ROUTER_THINK": "custom/deepseek-v3",
    "ROUTER_BACKGROUND": "ollama/qwen3",
    "OPENAI_API_KEY": "sk-12345678",
    "OLLAMA_API_BASE": "http://me:secret@127.0.0.1:11434/v1",
}


def described() -> Dict[str, Dict[str, Any]]:
    """What is known about each model, by its id."""
    config = make_config(SETTINGS, ENTRIES)
    return {model.model_id: describe(model, config) for model in configured_models(config)}


def test_models_of_the_file_and_of_the_routers() -> None:
    """Each once, whatever names it; those of models.yaml first."""
    assert list(described()) == ["deepseek-v3", "local", "openai/gpt-5", "ollama/qwen3"]
    assert [model.model_id for model in configured_models(make_config())] == ["demo/echo"]


def test_keys() -> None:
    """Present, missing or not needed; never the key itself, nor the password in an address."""
    found = described()
    assert {name: row["key"] for name, row in found.items()} == {
        "deepseek-v3": "missing",
        "local": "not needed",
        "openai/gpt-5": "present",
        "ollama/qwen3": "not needed",
    }
    assert found["deepseek-v3"]["key_name"] == "DEEPSEEK_API_KEY"
    assert "sk-12345678" not in str(found)
    assert "secret" not in str(found)


def test_limits_prices_and_routes() -> None:
    """Limits in tokens, with the defaults; prices exact, None where nobody told; the routers that name a model."""
    row = described()["deepseek-v3"]
    assert (row["max_input_tokens"], row["max_tokens"]) == (128_000, 8192)
    assert (row["input_cost_per_token"], row["output_cost_per_token"]) == ("0.00000027", None)
    assert row["routes"] == ["default", "think"]
    assert (row["dialect"], row["direct"], row["images"]) == ("deepseek", False, False)
    assert described()["local"]["direct"] is True


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with that configuration."""
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in SETTINGS.items()))
    (tmp_path / "models.yaml").write_text(json.dumps(ENTRIES))  # JSON is YAML
    monkeypatch.chdir(tmp_path)
    for name in ("DEEPSEEK_API_KEY", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """One line a model; prices per million tokens."""
    assert cli.main(["models"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == [
        "model",
        "key",
        "input",
        "output",
        "$/M",
        "in",
        "$/M",
        "out",
        "images",
        "api",
        "dialect",
        "routes",
    ]
    assert "DEEPSEEK_API_KEY missing" in lines[0]
    assert lines[0].split()[3:] == ["128k", "8192", "0.27", "?", "no", "chat", "deepseek", "default,", "think"]
    assert lines[1].split()[-1] == "messages"
    assert lines[-1] == "Also any <provider>/<model name>; there are keys for: openai"


def test_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With Anthropic's key alone everything is passed through, and there is no model to list, or to probe."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (*schema.SETTINGS, *(row.api_key_name for row in PROVIDERS.values())):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    assert cli.main(["models"]) == 0
    assert capsys.readouterr().out == "Any <provider>/<model name>; there are keys for: anthropic\n"
    assert cli.main(["check", "--live"]) == 2
    assert "name one" in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
def test_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    """The same as JSON."""
    assert cli.main(["models", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"models": list(described().values()), "providers": ["openai"]}
