"""JSON schemas of tools and structured output, without the keywords a provider refuses.

Property names are never changed. A constraint that has to go is said in words in the description instead.
"""

from __future__ import annotations

import json
from typing import Any, List, Sequence, Tuple

from ..encoded import Json

ALWAYS_DROPPED = frozenset({"$schema", "$id", "$comment"})
_MAX_DEPTH = 64
_MAX_REFERENCES = 1000
# Of the keywords Gemini refuses, those whose meaning is worth a word; and the formats that it takes.
_TOLD = ("exclusiveMinimum", "exclusiveMaximum", "pattern", "format", "propertyNames", "not")
_KNOWN_FORMATS = ("enum", "date-time")
_TYPES = {
    frozenset({bool}): "boolean",
    frozenset({int}): "integer",
    frozenset({float}): "number",
    frozenset({int, float}): "number",
}
"""What choices without a type are, by the types of all; words otherwise."""
_GEMINI_DROPPED = frozenset(
    """
    additionalProperties propertyNames patternProperties not if then else default examples title contentMediaType
    contentEncoding unevaluatedProperties dependentRequired dependentSchemas $defs definitions $anchor readOnly
    writeOnly deprecated
    """.split()  # noqa: SIM905 - a list of one word a line says no more
)


def object_schema(schema: Json) -> Json:
    """Return a schema whose root is an object, as function parameters must be."""
    cleaned = {key: value for key, value in schema.items() if key not in ALWAYS_DROPPED}
    alternatives = [key for key in ("anyOf", "oneOf", "allOf", "enum", "not") if key in cleaned]
    if alternatives:
        cleaned = _flattened(cleaned, alternatives)
    cleaned["type"] = "object"
    cleaned.setdefault("properties", {})
    return cleaned


def _flattened(schema: Json, alternatives: Sequence[str]) -> Json:
    """Return one object with the properties of all alternatives: OpenAI refuses a choice at the root."""
    flat = {key: value for key, value in schema.items() if key not in alternatives}
    properties: Json = {}
    for key in ("allOf", "anyOf", "oneOf"):
        branches = schema.get(key)
        for branch in branches if isinstance(branches, list) else ():
            if isinstance(branch, dict) and isinstance(branch.get("properties"), dict):
                properties.update(branch["properties"])
                if key == "allOf":
                    flat["required"] = [*_list(flat.get("required")), *_list(branch.get("required"))]
    return {**flat, "properties": {**properties, **_dict(flat.get("properties"))}}


def clean_schema(schema: Json, dialect_name: str) -> Json:
    """Return function parameters for a dialect; Gemini takes the fewest keywords."""
    root = object_schema(schema)
    if dialect_name in ("gemini", "mistral"):
        definitions = {**_dict(root.get("definitions")), **_dict(root.get("$defs"))}
        root = _dict(_Inliner(definitions).inline(root))
    return _reduced(root) if dialect_name == "gemini" else root


def _dict(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> List[Any]:
    return value if isinstance(value, list) else []


class _Inliner:
    """Puts referenced schemas in place; one that contains itself, or comes too often, becomes any object."""

    def __init__(self, definitions: Json) -> None:
        self._definitions = definitions
        self._left = _MAX_REFERENCES

    def inline(self, value: Any, path: Tuple[str, ...] = ()) -> Any:
        """Return a schema without references; ``path`` names those it stands in."""
        if isinstance(value, list):
            return [self.inline(item, path) for item in value]
        if not isinstance(value, dict):
            return value
        reference = value.get("$ref")
        if isinstance(reference, str):
            rest = {key: item for key, item in value.items() if key != "$ref"}
            return {**self._definition(reference.rpartition("/")[2], path), **rest}
        inlined = {}
        for key, item in value.items():
            if key == "properties" and isinstance(item, dict):
                inlined[key] = {name: self.inline(schema, path) for name, schema in item.items()}
            elif key not in ("$defs", "definitions"):
                inlined[key] = self.inline(item, path)
        return inlined

    def _definition(self, name: str, path: Tuple[str, ...]) -> Json:
        self._left -= 1
        definition = self._definitions.get(name)
        if name in path or self._left < 0 or not isinstance(definition, dict):
            return {"type": "object"}
        return _dict(self.inline(definition, (*path, name)))


def _reduced(schema: Any, depth: int = 0) -> Json:
    """Return one schema, and all inside it, in the subset of OpenAPI that Gemini reads."""
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return {"type": "object"}
    schema = _merged_all_of({key: value for key, value in schema.items() if key not in ALWAYS_DROPPED})
    has_known_format = schema.get("format") in _KNOWN_FORMATS
    told = [f"{key} {schema[key]}" for key in _TOLD if key in schema and not (key == "format" and has_known_format)]
    out = {key: value for key, value in schema.items() if key not in _GEMINI_DROPPED}
    _rewrite_keywords(out)
    told += _rewrite_choices(out)
    if isinstance(out.get("anyOf"), list):
        out["anyOf"] = [_reduced(item, depth + 1) for item in out["anyOf"]]
    if isinstance(out.get("properties"), dict):
        out["properties"] = {name: _reduced(item, depth + 1) for name, item in out["properties"].items()}
        if isinstance(out.get("required"), list):
            out["required"] = [name for name in out["required"] if isinstance(name, str) and name in out["properties"]]
    else:
        out.pop("required", None)
    if out.get("type") == "array" or "items" in out:
        items = out.get("items")
        out["type"] = "array"
        out["items"] = _reduced(items, depth + 1) if isinstance(items, dict) else {"type": "string"}
    if told:
        out["description"] = " ".join(filter(None, [str(out.get("description") or ""), f"({'; '.join(told)})"]))
    return out


def _merged_all_of(schema: Json) -> Json:
    branches = schema.get("allOf")
    if not isinstance(branches, list):
        return schema
    merged = {key: value for key, value in schema.items() if key != "allOf"}
    for branch in branches:
        for key, value in _dict(branch).items():
            if isinstance(value, dict) and isinstance(merged.get(key), dict):
                merged[key] = {**merged[key], **value}
            elif key == "required":
                merged[key] = [*_list(merged.get(key)), *_list(value)]
            else:
                merged.setdefault(key, value)
    return merged


def _rewrite_keywords(out: Json) -> None:
    if "const" in out:
        out["enum"] = [out.pop("const")]
    for exclusive, inclusive in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        bound = out.pop(exclusive, None)
        if isinstance(bound, (int, float)) and not isinstance(bound, bool):
            out.setdefault(inclusive, bound)
    if "oneOf" in out:
        out.setdefault("anyOf", out.pop("oneOf"))
    if isinstance(out.get("type"), list):
        kinds = [kind for kind in out["type"] if kind != "null"]
        if "null" in out["type"]:
            out["nullable"] = True
        out["type"] = kinds[0] if kinds else "string"
    out.pop("pattern", None)
    if out.get("format") not in _KNOWN_FORMATS:
        out.pop("format", None)


def _rewrite_choices(out: Json) -> List[str]:
    """Leave choices among words, and return what is to be told of all others: a number must not come back as a word."""
    choices = out.pop("enum", None)
    if not isinstance(choices, list):
        return []
    values = [item for item in choices if item is not None and item != ""]
    out.setdefault("type", _TYPES.get(frozenset(map(type, values)), "string"))
    if values and out["type"] == "string":
        out["enum"] = [_word(item) for item in values]
    return [f"one of {json.dumps(values, ensure_ascii=False)}"] if values and "enum" not in out else []


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def fits_strict(schema: Any) -> bool:
    """Whether a schema is in OpenAI's strict subset: every object closed, every property required."""
    if isinstance(schema, list):
        return all(fits_strict(item) for item in schema)
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        names = set(_dict(schema.get("properties")))
        required = {name for name in _list(schema.get("required")) if isinstance(name, str)}
        if schema.get("additionalProperties") is not False or required != names:
            return False
    return all(fits_strict(value) for value in schema.values())
