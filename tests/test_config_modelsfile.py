"""models.yaml: every key, every way to write it, and errors that name file, line and key."""

from __future__ import annotations

from decimal import Decimal

import pytest

from ccproxy.config.modelsfile import parse_models
from ccproxy.config.schema import Model
from ccproxy.errors import ConfigError

BASE = "api_base: http://p.test/v1"

EVERY_KEY = """
- model_id: deepseek-v3
  model_name: deepseek-chat
  api_base: https://api.deepseek.com/v1/
  api_key_name: DEEPSEEK_API_KEY
  can_stream: no
  max_tokens: 8k
  max_input_tokens: 128k
  input_cost_per_token: 1e-06
  output_cost_per_million_tokens: "1.1"
  cache_read_cost_per_token: 0.00000007
  cache_write_cost_per_million_tokens: 2
  dialect: deepseek
  api: responses
  direct: false
  reasoning_effort: medium
  temperature: 0.5
  extra_headers: {X-Title: ccproxy, X-Number: 5}
  extra_body: {a: {b: [1, true, null]}}
  supports_images: true
  fallbacks: [b, openai/gpt-5]
- model_id: b
  api_base: http://127.0.0.1:8000/v1
"""


def test_every_key_of_a_model() -> None:
    """Numbers written as ``1e-06``, ``8k`` or in quotes are numbers; prices are exact."""
    assert parse_models(EVERY_KEY, "models.yaml")["deepseek-v3"] == Model(
        model_id="deepseek-v3",
        api_base="https://api.deepseek.com/v1",
        model_name="deepseek-chat",
        api_key_name="DEEPSEEK_API_KEY",
        can_stream=False,
        max_tokens=8000,
        max_input_tokens=128_000,
        input_cost_per_token=Decimal("0.000001"),
        output_cost_per_token=Decimal("0.0000011"),
        cache_read_cost_per_token=Decimal("0.00000007"),
        cache_write_cost_per_token=Decimal("0.000002"),
        dialect_name="deepseek",
        api_name="responses",
        reasoning_effort="medium",
        temperature=0.5,
        extra_headers={"X-Title": "ccproxy", "X-Number": "5"},
        extra_body={"a": {"b": [1, True, None]}},
        supports_images=True,
        fallbacks=("b", "openai/gpt-5"),
        needs_key=True,
    )


@pytest.mark.parametrize(
    "text",
    [f"- model_id: m\n  {BASE}\n", f"m:\n  {BASE}\n", f"m: {{{BASE}}}", f"x:\n  model_id: m\n  {BASE}\n"],
)
def test_a_list_or_a_mapping(text: str) -> None:
    """By id, or as entries."""
    assert parse_models(text, "models.yaml") == {"m": Model("m", "http://p.test/v1", needs_key=False)}


@pytest.mark.parametrize("text", ["", "# nothing\n", "[]", "{}", "null", "~"])
def test_an_empty_models_file(text: str) -> None:
    """No models is no error."""
    assert parse_models(text, "models.yaml") == {}


WRONG = [
    (f"- model_id: m\n  {BASE}\n  colour: red\n", "models.yaml:3: colour: ", "unknown key"),
    (f"- {BASE}\n", "models.yaml:1: model_id: ", "missing"),
    ("- model_id: m\n", "models.yaml:1: api_base: ", "missing"),
    (f"- model_id: m\n  {BASE}\n- model_id: m\n  {BASE}\n", "models.yaml:3: model_id: ", "twice"),
    (f"- model_id: m\n  {BASE}\n  {BASE}\n", "models.yaml:3: api_base: ", "already"),
    (f"- model_id: m\n  {BASE}\n  max_tokens: many\n", "models.yaml:3: max_tokens: ", "'many'"),
    (f"- model_id: m\n  {BASE}\n  max_tokens: -5\n", "models.yaml:3: max_tokens: ", "-5"),
    (f"- model_id: m\n  {BASE}\n  max_tokens: true\n", "models.yaml:3: max_tokens: ", "True"),
    (f"- model_id: m\n  {BASE}\n  can_stream: maybe\n", "models.yaml:3: can_stream: ", "true or false"),
    (f"- model_id: m\n  {BASE}\n  input_cost_per_token: -1\n", "models.yaml:3: input_cost_per_token: ", "at least 0"),
    (f"- model_id: m\n  {BASE}\n  dialect: klingon\n", "models.yaml:3: dialect: ", "deepseek"),
    (f"- model_id: m\n  {BASE}\n  api: soap\n", "models.yaml:3: api: ", "chat, responses"),
    (f"- model_id: m\n  {BASE}\n  reasoning_effort: huge\n", "models.yaml:3: reasoning_effort: ", "medium"),
    (f"- model_id: m\n  {BASE}\n  extra_headers: [a]\n", "models.yaml:3: extra_headers: ", "mapping"),
    (
        f'- model_id: m\n  {BASE}\n  extra_headers: {{a: "b\\nc"}}\n',
        "models.yaml:3: extra_headers: ",
        "control characters",
    ),
    (f"- model_id: m\n  {BASE}\n  extra_headers: {{a: 日本}}\n", "models.yaml:3: extra_headers: ", "Latin-1"),
    (f"- model_id: m\n  {BASE}\n  extra_body: 5\n", "models.yaml:3: extra_body: ", "mapping"),
    (f"- model_id: m\n  {BASE}\n  extra_body: {{since: 2026-01-31}}\n", "models.yaml:3: extra_body: ", "JSON"),
    (f"- model_id: m\n  {BASE}\n  extra_body: {{seed: .nan}}\n", "models.yaml:3: extra_body: ", "JSON"),
    (f"- model_id: m\n  {BASE}\n  temperature: 1e400\n", "models.yaml:3: temperature: ", "finite"),
    ("- model_id: m\n  api_base: api.deepseek.com\n", "models.yaml:2: api_base: ", "https://"),
    ("- model_id: [m]\n  api_base: http://x\n", "models.yaml:1: model_id: ", "text"),
    ("- just text\n", "models.yaml:1: ", "mapping"),
    ("just text\n", "models.yaml:1: ", "list of models"),
    ("- model_id: 'm\n", "models.yaml:", "not YAML"),
    ("- a: [\n", "models.yaml:", "not YAML"),
    ("- a: \x07\n", "models.yaml", "not YAML"),
    pytest.param("[" * 5000, "models.yaml", "not YAML", id="deep"),
    (f"- model_id: m\n  {BASE}\n  extra_body: !!python/object:os.system {{}}\n", "models.yaml:3: extra_body: ", ""),
    (f"- &a\n  model_id: m\n  {BASE}\n  extra_body: *a\n", "models.yaml:", ""),
]


@pytest.mark.parametrize(("text", "place", "words"), WRONG)
def test_a_wrong_models_file_is_named(text: str, place: str, words: str) -> None:
    """File, line and key, the value seen and what is allowed, in one line."""
    with pytest.raises(ConfigError) as caught:
        parse_models(text, "models.yaml")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(place)
    assert words in str(caught.value)
