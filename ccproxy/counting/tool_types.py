"""Tools as OpenAI's models are shown them: TypeScript, which takes half the tokens of their JSON.

The form is that of the Harmony format, which OpenAI published with its open models; its other models count alike.
"""

from __future__ import annotations

import json
from typing import Any, Mapping

_NAMES = {"integer": "number"}
_DEPTH = 20  # what is deeper is "any"


def declaration(name: str, description: str, schema: Mapping[str, Any]) -> str:
    """Return a tool as a function type."""
    inside = _members(schema, 0)
    arguments = f"(_: {{\n{inside}}})" if inside else "()"
    return f"{_comment(description)}type {name} = {arguments} => any;\n\n"


def _comment(text: Any) -> str:
    return f"// {text}\n" if isinstance(text, str) and text else ""


def _members(schema: Mapping[str, Any], depth: int) -> str:
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, dict):
        return ""
    needed = required if isinstance(required, list) else []
    return "".join(
        f"{_comment(value.get('description'))}{name}{'' if name in needed else '?'}: {_type(value, depth)},\n"
        for name, value in properties.items()
        if isinstance(value, dict)
    )


def _type(schema: Any, depth: int) -> str:
    if not isinstance(schema, dict) or depth > _DEPTH:
        return "any"
    choices = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(schema.get("enum"), list):
        return " | ".join(json.dumps(value, ensure_ascii=False) for value in schema["enum"])
    if isinstance(choices, list):
        return " | ".join(_type(choice, depth + 1) for choice in choices)
    kind = schema.get("type")
    if isinstance(kind, list):
        return " | ".join(map(str, kind))
    if kind == "array":
        return _type(schema.get("items"), depth + 1) + "[]"
    inside = _members(schema, depth + 1) if kind == "object" else ""
    return f"{{\n{inside}}}" if inside else _NAMES.get(str(kind), str(kind or "any"))
