"""Configuration: .env, environment and command line, references and keys, and errors that say where and what."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Optional

import pytest

from ccproxy.config.envfile import parse_env
from ccproxy.config.load import Loaded, load_config
from ccproxy.config.providers import PROVIDERS
from ccproxy.config.schema import Config, build_config
from ccproxy.errors import ConfigError
from support import make_config

BASE = "api_base: http://p.test/v1"


def load(
    folder: Path, env: str = "", models: str = "", environment: Optional[Dict[str, str]] = None, **overrides: str
) -> Loaded:
    """The configuration of a folder with these two files."""
    for name, content in ((".env", env), ("models.yaml", models)):
        if content:
            (folder / name).write_text(content, encoding="utf-8")
    given = {name.upper(): (value, f"--{name}") for name, value in overrides.items()}
    return load_config(environment or {}, overrides=given, folders=[folder])


def problem(folder: Path, **files: Any) -> str:
    """What the owner is told, with file names without their folder."""
    with pytest.raises(ConfigError) as caught:
        load(folder, **files)
    return str(caught.value).replace(f"{folder}/", "")


# --- precedence ----------------------------------------------------------------------------------------------


def test_nothing_is_needed(tmp_path: Path) -> None:
    """Every setting has a default."""
    loaded = load(tmp_path)
    assert loaded.config == Config()
    assert (loaded.config.host, loaded.config.port, loaded.config.warnings) == ("127.0.0.1", 8082, ())


def test_the_command_line_wins_then_the_environment_then_the_file(tmp_path: Path) -> None:
    """And the default comes last."""
    env = "PORT=1001\nHOST=a\nLOG_LEVEL=debug\n"
    config = load(tmp_path, env=env, environment={"PORT": "1002", "HOST": "b"}, port="1003").config
    assert (config.port, config.host, config.log_level, config.max_request_bytes) == (1003, "b", "DEBUG", 33_554_432)


def test_an_empty_value_is_not_set(tmp_path: Path) -> None:
    """As in the example file, where every variable stands without a value."""
    assert load(tmp_path, env="PORT=\nMAX_TOKENS_LIMIT=  \n").config == Config(
        variables={"PORT": "", "MAX_TOKENS_LIMIT": ""}
    )


def test_files_are_looked_for_in_both_folders(tmp_path: Path) -> None:
    """The first folder that has one."""
    first, second = tmp_path / "a", tmp_path / "b"
    for folder, port in ((first, 1), (second, 2)):
        folder.mkdir()
        (folder / ".env").write_text(f"PORT={port}")
    (second / "models.yaml").write_text(f"- model_id: m\n  {BASE}\n")
    loaded = load_config({}, folders=[first, second])
    assert (loaded.config.port, loaded.env_file, loaded.models_file) == (1, first / ".env", second / "models.yaml")


def test_a_named_models_file(tmp_path: Path) -> None:
    """``CUSTOM_MODELS_FILE`` names another one; one that does not exist is an error that says who named it."""
    (tmp_path / "mine.yaml").write_text(f"- model_id: mine\n  {BASE}\n")
    assert list(load(tmp_path, env="CUSTOM_MODELS_FILE=mine.yaml").config.models) == ["mine"]
    assert ".env:1: CUSTOM_MODELS_FILE: no such file" in problem(tmp_path, env="CUSTOM_MODELS_FILE=none.yaml")
    assert "not a file: /dev/null" in problem(tmp_path, env="CUSTOM_MODELS_FILE=/dev/null")


def test_a_path_may_begin_with_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One's own or another user's; there must be one."""
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    config = load(tmp_path, env="STATE_DIR=~/state\nLOG_FILE_PATH=~/logs\n").config
    assert (config.state_dir, config.log_file_path) == (str(tmp_path / "me/state"), str(tmp_path / "me/logs"))
    for name in ("STATE_DIR", "LOG_FILE_PATH", "CUSTOM_MODELS_FILE"):
        assert problem(tmp_path, env=f"{name}=~nobody-at-all/x").startswith(f".env:1: {name}: ~nobody-at-all/x: ")


def test_a_folder_that_cannot_be_looked_into_has_no_files(tmp_path: Path) -> None:
    """Such as the home folder that somebody else's environment names."""
    assert load_config({}, folders=[tmp_path / ("x" * 300), tmp_path]).config == Config()


@pytest.mark.parametrize("key", ["“sk-abc”", "sk-abc\u200b", "sk-a\\nb"])
def test_a_key_that_no_header_can_carry(tmp_path: Path, key: str) -> None:
    """Said at the start, with its place, and without it; a request would fail for a reason that nobody guesses."""
    models = f"- model_id: m\n  {BASE}\n  api_key_name: M_KEY\n"
    for name, where in (("M_KEY", ".env:2"), ("OPENAI_API_KEY", ".env:2"), ("CCPROXY_AUTH_TOKEN", ".env:2")):
        text = problem(tmp_path, env=f'#\n{name}="{key}"\n', models=models)
        assert text.startswith(f"{where}: {name}: ")
        assert "ASCII" in text
        assert "sk-a" not in text


@pytest.mark.parametrize(
    ("name", "value", "env"),
    [
        ("OPENAI_API_KEY", "sk-a\u200bbc", "ROUTER_DEFAULT=openai/gpt-5"),
        ("OLLAMA_API_BASE", "host:11434", "ROUTER_DEFAULT=gemini/x\nROUTER_THINK=ollama/qwen3"),
        ("ANTHROPIC_API_KEY", "“sk-abc”", "ROUTER_THINK=gemini/x"),
    ],
)
def test_another_programs_variable(tmp_path: Path, name: str, value: str, env: str) -> None:
    """What the environment has for other programs is left out, with a warning, unless a model named here takes it."""
    assert problem(tmp_path, env=env, environment={name: value}).startswith(f"environment: {name}: ")
    config = load(tmp_path, env="ROUTER_DEFAULT=demo/echo", environment={name: value}).config
    (warning,) = config.warnings
    assert warning.startswith(f"environment: {name}: ")
    assert "sk-a" not in warning
    assert name not in config.variables


def test_keys_one_a_line(tmp_path: Path) -> None:
    """The end of a line beside a comma is none of a key."""
    config = load_config({"OPENAI_API_KEY": "sk-a,\n  sk-b\n"}, folders=[tmp_path]).config
    model = config.find("openai/gpt-5")
    assert model is not None
    assert config.keys_of(model) == ("sk-a", "sk-b")


def test_a_named_env_file_must_exist(tmp_path: Path) -> None:
    """The option that named it is told."""
    with pytest.raises(ConfigError, match="--env-file"):
        load_config({}, env_file=str(tmp_path / "none.env"), folders=[tmp_path])


# --- .env ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=b", "b"),
        ("export A=b", "b"),
        ("  A = b  ", "b"),
        ("A='b c'", "b c"),
        ('A="b\\nc"', "b\nc"),
        ("A=b # comment", "b"),
        ("A='b # c'", "b # c"),
        ("A=${HOME}$X", "${HOME}$X"),
        ("A=b\nA=c", "c"),
        ("\ufeffA=b", "b"),
        ("A=b\r\n", "b"),
        ("A=", ""),
        ("A", ""),
    ],
)
def test_a_line_of_the_env_file(text: str, value: str) -> None:
    """Quotes, comments and ``export`` as in a shell; nothing is expanded, for keys may contain it."""
    assert parse_env(text, ".env")["A"][0] == value


def test_places_are_lines() -> None:
    """Comments and empty lines count."""
    places = parse_env("# first\n\nA=1\n\n\n# more\nB=2\nC='x\ny'\nD=4\n", ".env")
    assert {name: place for name, (_, place) in places.items()} == {
        "A": ".env:3",
        "B": ".env:7",
        "C": ".env:8",
        "D": ".env:10",
    }


def test_a_line_that_is_no_assignment() -> None:
    """The line is named, with the empty ones before it counted."""
    with pytest.raises(ConfigError) as caught:
        parse_env("A=1\n\n\n'oops\n", ".env")
    assert str(caught.value).startswith(".env:4:")


# --- settings ------------------------------------------------------------------------------------------------

VALUES = [
    ("PORT", "9000", 9000),
    ("HOST", "[::1]", "::1"),
    ("LONG_CONTEXT_THRESHOLD", "128k", 128_000),
    ("LONG_CONTEXT_THRESHOLD", "1.5m", 1_500_000),
    ("LONG_CONTEXT_THRESHOLD", "200_000", 200_000),
    ("MAX_TOKENS_LIMIT", "8K", 8000),
    ("PROVIDER_READ_TIMEOUT", "0.5", 0.5),
    ("LOG_LEVEL", "warning", "WARNING"),
    ("ROUTER_THINK_EFFORT", "LOW", "low"),
]


@pytest.mark.parametrize(("name", "raw", "value"), VALUES)
def test_a_value_is_read(name: str, raw: str, value: Any) -> None:
    """k is a thousand, m a million; words in any case."""
    assert getattr(make_config({name: raw}), name.lower()) == value


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("PORT=http", "whole number"),
        ("PORT=70000", "65535"),
        ("PORT=-1", "number"),
        ("HOST=mÿ..laptop", "a host name"),
        ("MAX_TOKENS_LIMIT=0", "above 0"),
        ("MAX_TOKENS_LIMIT=1000000000000000000", "whole number"),
        ("LONG_CONTEXT_THRESHOLD=12x", "128k"),
        ("LONG_CONTEXT_THRESHOLD=1.5", "whole number"),
        ("PROVIDER_READ_TIMEOUT=0", "above 0"),
        ("PROVIDER_READ_TIMEOUT=nan", "number"),
        ("KEEPALIVE_TIMEOUT=1e10", "at most 1000000"),
        ("MAX_TOKENS_LIMIT=8q", "whole number"),
        ("LOG_LEVEL=loud", "DEBUG"),
        ("ROUTER_THINK_EFFORT=huge", "xhigh"),
        ("ROUTER_DEFAULT=nobody", "unknown model 'nobody'"),
        ("ROUTER_IMAGE=openai/", "unknown model"),
        ("OLLAMA_API_BASE=localhost:11434", "begins with http://"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, line: str, allowed: str) -> None:
    """File, line, variable, the value seen and what is allowed."""
    text = problem(tmp_path, env=f"# settings\n{line}\n")
    assert text.startswith(f".env:2: {line.partition('=')[0]}: ")
    assert allowed in text
    assert line.partition("=")[2] in text


def test_a_wrong_value_in_the_environment_is_named(tmp_path: Path) -> None:
    """Its place is the environment, or the option."""
    assert problem(tmp_path, environment={"PORT": "x"}).startswith("environment: PORT: ")
    assert problem(tmp_path, port="x").startswith("--port: PORT: ")


DEFAULTS = {
    "host": "127.0.0.1",
    "ccproxy_auth_token": "",
    "client_header_timeout": 15,
    "client_body_timeout": 30,
    "client_write_timeout": 60,
    "keepalive_timeout": 60,
    "max_request_bytes": 32 * 1024 * 1024,
    "provider_connect_timeout": 10,
    "provider_read_timeout": 300,
    "provider_total_timeout": 3600,
    "max_retries": 2,
    "retry_max_wait": 30,
    "drain_timeout": 30,
    "log_level": "INFO",
    "log_bodies": False,
}


def test_who_sets_nothing_is_protected(tmp_path: Path) -> None:
    """The limits that hold out of the box, of this machine alone."""
    for config in (Config(), load(tmp_path).config):
        assert {name: getattr(config, name) for name in DEFAULTS} == DEFAULTS


def test_secrets_are_not_shown() -> None:
    """Neither in an error nor in a printed configuration."""
    config = make_config({"CCPROXY_AUTH_TOKEN": "s3cr3t", "OPENAI_API_KEY": "k1,k2"})
    assert not {"s3cr3t", "k1"} & set(repr(config).replace("'", " ").replace(",", " ").split())
    assert {"s3cr3t", "k1", "k2"} <= config.secrets


def test_fallbacks_must_exist(tmp_path: Path) -> None:
    """The model and the key are named."""
    text = problem(tmp_path, models=f"- model_id: m\n  {BASE}\n  fallbacks: [gone]\n")
    assert all(word in text for word in ("m: fallbacks", "'gone'"))


# --- references and keys -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_a_built_in_provider_needs_no_entry(name: str) -> None:
    """``<provider>/<model name>`` names any model there, also one with a slash."""
    model = make_config().find(f"{name}/some/model")
    assert model is not None
    assert (model.model_id, model.name, model.api_base) == (
        f"{name}/some/model",
        "some/model",
        PROVIDERS[name].api_base,
    )
    assert model.direct == (name == "anthropic")


def test_a_providers_model_is_one_object() -> None:
    """Each turn of a conversation is compared with the model it was translated for: that must not take a moment."""
    config = make_config()
    assert config.find("openai/m") is config.find("openai/m")
    assert config.find("openai/m") != config.find("openai/n")


@pytest.mark.parametrize("name", ["ollama", "lmstudio", "vllm", "llamacpp"])
def test_local_providers_take_their_address_from_the_environment(name: str) -> None:
    """And need no key. The others do not: other programs' ``OPENAI_API_BASE`` is not meant for the key here."""
    config = make_config({f"{name.upper()}_API_BASE": "http://box:1/v1/", "OPENAI_API_BASE": "http://box:1/v1"})
    openai = config.find("openai/m")
    assert openai is not None
    assert openai.api_base == PROVIDERS["openai"].api_base
    model = config.find(f"{name}/m")
    assert model is not None
    assert (model.api_base, config.is_ready(model)) == ("http://box:1/v1", True)


@pytest.mark.parametrize(
    ("reference", "found"),
    [("m", "m"), ("custom/m", "m"), ("custom/none", None), ("none", None), ("none/m", None), ("a/b", "a/b")],
)
def test_a_reference(reference: str, found: Optional[str]) -> None:
    """A ``model_id``, ``custom/<model_id>``; an id may itself contain a slash."""
    config = make_config(models=[{"model_id": name, "api_base": "http://x"} for name in ("m", "a/b")])
    model = config.find(reference)
    assert (model.model_id if model else None) == found


def test_several_keys() -> None:
    """Separated by commas; a model without one is told at the start and cannot be asked."""
    config = make_config({"OPENAI_API_KEY": " k1 ,k2,, "})
    openai, gemini = config.find("openai/x"), config.find("gemini/x")
    assert openai is not None
    assert gemini is not None
    assert (config.keys_of(openai), config.is_ready(openai), config.is_ready(gemini)) == (("k1", "k2"), True, False)


def test_a_missing_key_is_a_warning(tmp_path: Path) -> None:
    """Of a configured model, and of one that a router names, whichever it is."""
    models = f"- model_id: m\n  {BASE}\n  api_key_name: M_KEY\n"
    for router in ("ROUTER_DEFAULT", "ROUTER_IMAGE", "ROUTER_WEB_SEARCH"):
        warnings = "\n".join(load(tmp_path, env=f"{router}=openai/gpt-5\n", models=models).config.warnings)
        assert "M_KEY" in warnings
        assert "OPENAI_API_KEY" in warnings
    assert load(tmp_path, models=models, environment={"M_KEY": "k", "OPENAI_API_KEY": "k"}).config.warnings == ()


def test_limits() -> None:
    """A model's own, else the default; ``MAX_TOKENS_LIMIT`` bounds the output of all."""
    rows = [
        {"model_id": "a", "api_base": "http://x", "max_tokens": "64k", "max_input_tokens": "1m"},
        {"model_id": "b", "api_base": "http://x"},
    ]
    config = make_config({"MAX_TOKENS_LIMIT": "16k"}, rows)
    a, b = config.models["a"], config.models["b"]
    assert [config.output_limit(a), config.output_limit(b)] == [16_000, 8192]
    assert [config.window(a), config.window(b)] == [1_000_000, 128_000]


@pytest.mark.parametrize(
    ("name", "api"),
    [
        ("gpt-4.1", "chat"),
        ("gpt-4o", "chat"),
        ("gpt-5", "chat"),
        ("gpt-5.2", "chat"),
        ("o3", "chat"),
        ("o3-pro", "responses"),
        ("gpt-5-pro", "responses"),
        ("gpt-5-codex", "responses"),
        ("gpt-5.1-codex-mini", "responses"),
        ("gpt-5.4", "responses"),
        ("gpt-5.6-luna", "responses"),
        ("gpt-6-astra", "responses"),
        ("gpt-6.1-sol", "responses"),
        ("o4-mini-deep-research", "responses"),
    ],
)
def test_the_api_of_openais_models(name: str, api: str) -> None:
    """Chat completions, but for the models that take functions, or think beside them, on the Responses API alone.

    The same name at another address says nothing; models.yaml has the last word.
    """
    model = make_config().find(f"openai/{name}")
    assert model is not None
    assert (model.api, model.dialect.max_tokens_field == "max_output_tokens") == (api, api == "responses")
    row = {"model_id": "m", "model_name": name}
    rows = [{**row, "api_base": "http://x"}, {**row, "model_id": "n", "api_base": model.api_base, "api": "chat"}]
    assert [entry.api for entry in make_config(models=rows).models.values()] == ["chat", "chat"]


def test_any_mapping_configures() -> None:
    """No file and no environment is needed."""
    assert build_config({"PORT": ("1", "here")}, {}, {}).port == 1
