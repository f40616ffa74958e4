"""README.md and the example files stay true: settings, keys, paths, commands, providers, snippets."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any, Dict, List

import pytest
import yaml

from ccproxy import cli
from ccproxy.anthropic import MessagesRequest
from ccproxy.app import ROUTES
from ccproxy.config.envfile import parse_env
from ccproxy.config.load import load_config
from ccproxy.config.modelsfile import _KEYS, parse_models
from ccproxy.config.providers import PROVIDERS
from ccproxy.config.schema import ROUTER_RULES, SETTINGS, Config
from ccproxy.routing import decide

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
    for name in SETTINGS:
        assert f"`{name}`" in _section("Settings"), name
        assert re.search(rf"^#{name}=", ENV_EXAMPLE, re.MULTILINE), name


def test_the_defaults_in_the_readme_are_the_real_ones() -> None:
    """The rows of the settings table tell the default of every setting."""
    defaults = {name: getattr(Config(), name.lower()) for name in SETTINGS}
    told = set()
    for names, values in re.findall(r"^\| (`[A-Z`, _]+`) \|([^|]*)\|", _section("Settings"), re.MULTILINE):
        shown = [value.strip(" `") for value in values.split(",")]
        for name, value in zip(re.findall(r"`(\w+)`", names), shown * 2):
            default = defaults[name]
            expected = (
                "" if default in (None, (), "") else f"{default:g}" if isinstance(default, float) else str(default)
            )
            assert value == expected, name
            told.add(name)
    assert told == set(SETTINGS)


def test_the_examples_name_nothing_that_does_not_exist() -> None:
    """With every line of the examples switched on, the configuration is valid."""
    variables = parse_env(_uncommented(ENV_EXAMPLE, r"#(?=[A-Z_]+=)"), ".env.example")
    known = set(SETTINGS) | {row.api_key_name for row in PROVIDERS.values()}
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
    named = re.findall(r"\b([a-z_]+(?:/[a-z_]+)?\.py)\b", _section("How a request travels"))
    assert len(named) > 40
    assert [name for name in named if not (ROOT / "ccproxy" / name).is_file()] == []


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


# --- recipes, the picture, symptoms, contents --------------------------------------------------------------------

RULES = ["budget", "long_context", "web_search", "think", "override", "background"]
PLAIN, HAIKU = {"model": "claude-sonnet-4-5"}, {"model": "claude-haiku-4-5"}
THINKING = {**PLAIN, "thinking": {"type": "enabled", "budget_tokens": 4096}}
# Recipe: who answers a plain request, its dialect and address, and who answers the others.
RECIPES: Dict[str, Dict[str, Any]] = {
    "DeepSeek": {
        "plain": ("deepseek/deepseek-chat", "deepseek", "https://api.deepseek.com/v1"),
        "thinking": "deepseek/deepseek-reasoner",
    },
    "OpenRouter": {
        "plain": ("openrouter/qwen/qwen3-coder", "openrouter", "https://openrouter.ai/api/v1"),
        "haiku": "openrouter/openai/gpt-5-nano",
    },
    "Gemini": {
        "plain": ("pro", "gemini", "https://generativelanguage.googleapis.com/v1beta/openai"),
        "haiku": "gemini/gemini-2.5-flash",
    },
    "Doubao": {"plain": ("doubao-seed", "doubao", "https://ark.cn-beijing.volces.com/api/v3")},
    "OpenAI": {"plain": ("openai/gpt-5", "openai", "https://api.openai.com/v1"), "haiku": "openai/gpt-5-mini"},
    "llama.cpp": {"plain": ("local", "llamacpp", "http://127.0.0.1:8080/v1")},
    "Ollama": {"plain": ("coder", "ollama", "http://127.0.0.1:11434/v1")},
    "vLLM": {"plain": ("vllm/Qwen/Qwen3-Coder-30B-A3B-Instruct", "vllm", "http://127.0.0.1:8000/v1")},
    "Anthropic passthrough": {
        "plain": ("anthropic/claude-sonnet-4-5", "generic", "https://api.anthropic.com"),
        "haiku": "deepseek/deepseek-chat",
    },
    "Another Anthropic-format provider": {
        "plain": ("deepseek-direct", "deepseek", "https://api.deepseek.com/anthropic")
    },
}


def _recipes() -> Dict[str, str]:
    text = README.partition("\n## Recipes\n")[2].partition("\n## ")[0]
    parts = re.split(r"^### (.*)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


def test_every_recipe_is_here() -> None:
    """What the README offers is what is tested below."""
    assert list(_recipes()) == list(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_works(name: str, tmp_path: Path) -> None:
    """Pasted as it is, without a warning, it sends each kind of request to the model that it says."""
    env = re.search(r"```sh\n(.*?)```", _recipes()[name], re.DOTALL)
    models = re.search(r"```yaml\n(.*?)```", _recipes()[name], re.DOTALL)
    assert env is not None
    (tmp_path / ".env").write_text(env[1], encoding="utf-8")
    if models:
        (tmp_path / "models.yaml").write_text(models[1], encoding="utf-8")
    loaded = load_config({}, folders=[tmp_path])
    assert loaded.config.warnings == ()
    answers = {}
    for kind, fields in (("plain", PLAIN), ("haiku", HAIKU), ("thinking", THINKING)):
        messages = {"max_tokens": 8192, "messages": [{"role": "user", "content": "Hello"}], **fields}
        answers[kind] = decide(MessagesRequest.from_dict(messages), loaded.config, lambda model: 1).models[0]
    model = answers["plain"]
    assert (model.model_id, model.dialect.name, model.api_base) == RECIPES[name]["plain"]
    for kind in ("haiku", "thinking"):
        assert answers[kind].model_id == RECIPES[name].get(kind, model.model_id), kind


def test_the_picture_shows_every_rule_in_order() -> None:
    """Boxes are named by their rules; a router setting stands where its rule leads."""
    picture = re.search(r"```mermaid\n(.*?)```", _section("Which model answers"), re.DOTALL)
    assert picture is not None
    lines = [line.strip() for line in picture[1].splitlines() if "{" in line]
    assert [re.findall(r"(\w+)\{", line)[0] for line in lines] == ["header", *RULES, "image"]
    for rule in ROUTER_RULES:
        assert f"[ROUTER_{rule.upper()}]" in picture[1], rule


def test_every_symptom_is_a_text_of_the_code() -> None:
    """What the table tells to look for is what the code says, word for word; dots stand for what varies."""
    texts: List[str] = []
    for path in (ROOT / "ccproxy").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    symptoms = re.findall(r"^\| `([^`]+)` \|", _section("Troubleshooting"), re.MULTILINE)
    assert len(symptoms) > 15
    for symptom in symptoms:
        for piece in filter(None, (part.strip() for part in symptom.split("..."))):
            assert any(piece in text for text in texts), (symptom, piece)


def test_the_contents_name_every_section_in_order() -> None:
    """And each link leads to one."""
    outside_code = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    headings = re.findall(r"^#{1,4} (.*)$", outside_code, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors
    contents = README.partition("<!-- contents -->")[2].partition("<!-- end of contents -->")[0]
    assert re.findall(r"\[([^]]+)\]\(#", contents) == re.findall(r"^## (.*)$", outside_code, re.MULTILINE)
