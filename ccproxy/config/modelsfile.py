"""``models.yaml`` text to ``Model`` rows; errors name file, line and key."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from decimal import Decimal
from typing import Any, Callable, Dict, List, Mapping, Tuple

import yaml

from ..errors import ConfigError
from ..provider.dialects import DIALECTS
from .credentials import shown
from .schema import APIS, EFFORTS, Model
from .values import fitting, money, one_of, positive_number, real_number, references, text, truth

_MILLION = Decimal(1_000_000)
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\xa0-\xff]*")


def _address(value: Any) -> str:
    address = text(value).rstrip("/")
    if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", address):
        raise ValueError("an address that begins with http:// or https://")
    return address


def _headers(value: Any) -> Dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("a mapping of header names to text")
    headers = {text(name): text(item) for name, item in value.items()}
    if not all(_HEADER.fullmatch(f"{name}:{item}") for name, item in headers.items()):
        raise ValueError("header names and values without control characters, and without any beyond Latin-1")
    return headers


def _mapping(value: Any) -> Dict[str, Any]:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):  # a date, say
        raise ValueError("a mapping of what JSON knows") from None
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ValueError("a mapping")
    return value


def _list(value: Any) -> Tuple[str, ...]:
    return tuple(text(item) for item in value) if isinstance(value, list) else references(value)


_filled = fitting(text, bool, "text that is not empty")

# Key of models.yaml: the field of Model, and the reader of its value.
_KEYS: Dict[str, Tuple[str, Callable[[Any], Any]]] = {
    "model_id": ("model_id", _filled),
    "model_name": ("model_name", _filled),
    "api_base": ("api_base", _address),
    "api_key_name": ("api_key_name", text),
    "can_stream": ("can_stream", truth),
    "max_tokens": ("max_tokens", positive_number),
    "max_input_tokens": ("max_input_tokens", positive_number),
    "long_context_threshold": ("long_context_threshold", positive_number),
    "dialect": ("dialect_name", one_of(*DIALECTS)),
    "api": ("api_name", one_of(*APIS)),
    "direct": ("direct", truth),
    "reasoning_effort": ("reasoning_effort", one_of("none", "minimal", *EFFORTS)),
    "temperature": ("temperature", real_number),
    "extra_headers": ("extra_headers", _headers),
    "extra_body": ("extra_body", _mapping),
    "supports_images": ("supports_images", truth),
    "fallbacks": ("fallbacks", _list),
    "ca_bundle": ("ca_bundle", _filled),
    "client_cert": ("client_cert", _list),
    "forward_client_key": ("forward_client_key", truth),
}
for _kind in ("input", "output", "cache_read", "cache_write", "cache_write_1h"):
    _KEYS[f"{_kind}_cost_per_token"] = (f"{_kind}_cost_per_token", money)
    _KEYS[f"{_kind}_cost_per_million_tokens"] = (f"{_kind}_cost_per_token", lambda value: money(value) / _MILLION)


def parse_models(content: str, filename: str) -> Dict[str, Model]:
    """Return the models by id, in the order of the file: a list of entries, or a mapping by id.

    Raises:
        ConfigError: naming file, line and key.
    """
    try:
        root = yaml.compose(content, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{filename}:{line}: not YAML: {error.problem}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{filename}: not YAML: {_words(error)}") from None
    models: Dict[str, Model] = {}
    for place, entry in _entries(root, filename):
        model = _model(entry, place, filename)
        if model.model_id in models:
            raise ConfigError(f"{place}: model_id: {model.model_id!r} is there twice")
        models[model.model_id] = model
    return models


def _words(error: Exception) -> str:
    """Return what is wrong in one line; PyYAML has the lines around it too."""
    return getattr(error, "problem", None) or " ".join(str(error).split())


_Pairs = List[Tuple[str, Any, int]]


def _entries(root: Any, filename: str) -> List[Tuple[str, _Pairs]]:
    """Return each entry's place and its (key, value, line) triples."""
    if root is None or (isinstance(root, yaml.ScalarNode) and root.tag.endswith(":null")):
        return []
    if isinstance(root, yaml.SequenceNode):
        return [(_place(node, filename), _pairs(node, filename)) for node in root.value]
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{_place(root, filename)}: expected a list of models, or a mapping by model_id")
    entries = []
    for key, node in root.value:
        pairs = _pairs(node, filename)
        if not any(name == "model_id" for name, _, _ in pairs):
            pairs.insert(0, ("model_id", key.value, key.start_mark.line + 1))
        entries.append((_place(key, filename), pairs))
    return entries


def _place(node: yaml.Node, filename: str) -> str:
    return f"{filename}:{node.start_mark.line + 1}"


def _pairs(node: yaml.Node, filename: str) -> _Pairs:
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{_place(node, filename)}: expected a mapping with model_id and api_base")
    pairs = []
    constructor = yaml.SafeLoader("")
    for key, value in node.value:
        try:
            pairs.append((str(key.value), constructor.construct_object(value, deep=True), key.start_mark.line + 1))
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"{_place(key, filename)}: {key.value}: {_words(error)}") from None
    return pairs


def _model(pairs: _Pairs, place: str, filename: str) -> Model:
    values: Dict[str, Any] = {}
    seen: Dict[str, str] = {}
    for name, raw, line in pairs:
        if name not in _KEYS:
            raise ConfigError(f"{filename}:{line}: {name}: unknown key; known: {', '.join(_KEYS)}")
        field_name, read = _KEYS[name]
        if field_name in seen:
            raise ConfigError(f"{filename}:{line}: {name}: {seen[field_name]} says it already")
        seen[field_name] = name
        if raw is None:
            continue
        try:
            values[field_name] = read(raw)
        except ValueError as error:
            raise ConfigError(f"{filename}:{line}: {name}: expected {error}, not {shown(name, raw)}") from None
    for required in ("model_id", "api_base"):
        if required not in values:
            raise ConfigError(f"{place}: {required}: missing")
    return _with_defaults(values)


def _with_defaults(values: Mapping[str, Any]) -> Model:
    """A model without ``api_key_name`` needs no key; Anthropic's own address is always passed through."""
    model = Model(**values, needs_key=bool(values.get("api_key_name")))
    return replace(model, direct=model.direct or model.is_at_anthropic)
