"""README.md and the example files stay true: settings, keys, paths, commands, providers, snippets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Dict

import yaml

from ccproxy import cli
from ccproxy.app import ROUTES
from ccproxy.config.envfile import parse_env
from ccproxy.config.modelsfile import _KEYS, parse_models
from ccproxy.config.providers import PROVIDERS
from ccproxy.config.schema import SETTINGS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
ENV_EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")
MODELS_EXAMPLE = (ROOT / "models.yaml.example").read_text(encoding="utf-8")


def _section(title: str) -> str:
    return re.split(r"^#+ ", README.partition(f" {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def _uncommented(text: str, pattern: str) -> str:
    return "\n".join(re.sub(pattern, "", line, count=1) for line in text.splitlines() if re.match(pattern, line))


def test_every_setting_is_in_the_readme_and_in_the_example() -> None:
    """Nothing can be set that is not explained."""
    for setting in SETTINGS:
        assert f"`{setting.name}`" in _section("Settings"), setting.name
        assert re.search(rf"^#{setting.name}=", ENV_EXAMPLE, re.MULTILINE), setting.name


def test_the_defaults_in_the_readme_are_the_real_ones() -> None:
    """Each row of the settings table tells the default of each setting in it."""
    defaults = {setting.name: setting.default for setting in SETTINGS}
    for names, values in re.findall(r"^\| (`[A-Z`, _]+`) \| ([^|]*) \|", _section("Settings"), re.MULTILINE):
        shown = [value.strip(" `") for value in values.split(",")]
        for name, value in zip(re.findall(r"`(\w+)`", names), shown * 2):
            default = defaults[name]
            expected = (
                "" if default in (None, (), "") else f"{default:g}" if isinstance(default, float) else str(default)
            )
            assert value == expected, name


def test_the_examples_name_nothing_that_does_not_exist() -> None:
    """With every line of the examples switched on, the configuration is valid."""
    variables = parse_env(_uncommented(ENV_EXAMPLE, r"#(?=[A-Z_]+=)"), ".env.example")
    known = {setting.name for setting in SETTINGS} | {row.api_key_name for row in PROVIDERS.values()}
    known |= {f"{name.upper()}_API_BASE" for name in PROVIDERS}
    assert set(variables) <= known
    models = parse_models(_uncommented(MODELS_EXAMPLE.partition("#\n")[2], r"# ?"), "models.yaml.example")
    assert {"deepseek-v3", "gemini-pro", "doubao-seed", "local"} == set(models)


def test_the_models_file_of_the_readme_is_valid_and_complete() -> None:
    """The entry shows every key, and the text every other form of one."""
    snippet = re.search(r"```yaml\n(.*?)```", _section("models.yaml"), re.DOTALL)
    assert snippet is not None
    parse_models(snippet[1], "README.md")
    shown = set(yaml.safe_load(snippet[1])[0])
    others = {key for key in _KEYS if re.search(r"million_tokens$|^cache_", key)}
    assert shown == set(_KEYS) - others
    assert "input_cost_per_million_tokens" in snippet[1]


def test_every_path_is_in_the_readme() -> None:
    """The endpoint table is the application's own path table."""
    for path, methods in ROUTES.items():
        if path not in ("/", "/api/hello"):
            assert re.search(rf"`{'|'.join(methods)} {re.escape(path)}`", _section("Endpoints")), path


def test_every_command_and_make_target_is_real() -> None:
    """What the README tells to type exists."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z-]+)\b", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for command in cli.COMMANDS:
        assert re.search(rf"`ccproxy \[?{command}\b", _section("Commands")), command


def test_every_provider_is_in_the_readme() -> None:
    """The list of built-in providers is complete."""
    for name in PROVIDERS:
        assert f"`{name}`" in _section("models.yaml"), name


def test_every_module_of_the_journey_exists() -> None:
    """The files under "How a request travels" are there."""
    for name in re.findall(r"\b([a-z_]+(?:/[a-z_]+)?\.py)\b", _section("How a request travels")):
        assert (ROOT / "ccproxy" / name).is_file(), name


def test_the_python_of_the_readme_runs() -> None:
    """The vendoring snippet builds a server that listens."""
    snippet = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert snippet is not None
    names: Dict[str, Any] = {}
    exec(snippet[1], names)
    try:
        assert names["server"].url.startswith("http://127.0.0.1:")
    finally:
        names["server"].server_close()
        names["app"].close()
