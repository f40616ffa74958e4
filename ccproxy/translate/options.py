"""The request fields beside messages and tools: length, sampling, output format, identity."""

from __future__ import annotations

import hashlib
import re
from typing import Optional

from ..anthropic import MessagesRequest
from ..config.schema import Model
from ..encoded import Json, dump
from .content import Notes
from .schema import fits_strict, object_schema


def length_fields(request: MessagesRequest, model: Model, output_limit: int) -> Json:
    """Return the output limit under the provider's name, and the stop sequences it can take."""
    asked = request.max_tokens if request.max_tokens is not None else output_limit
    fields: Json = {model.dialect.max_tokens_field: max(min(asked, output_limit), model.dialect.min_output_tokens)}
    stops = [stop for stop in request.stop_sequences if stop.strip()][: model.dialect.max_stop_sequences]
    if stops and not re.search(model.dialect.fixed_stop, model.name):
        fields["stop"] = stops
    return fields


def sampling_fields(request: MessagesRequest, model: Model, notes: Notes) -> Json:
    """Return the sampling parameters the model takes; models.yaml's temperature wins over the client's."""
    dialect = model.dialect
    fields: Json = {"temperature": request.temperature, "top_p": request.top_p}
    if re.search(dialect.fixed_sampling, model.name):
        for name in [name for name, value in fields.items() if value is not None]:
            notes.drop(f"{name}: fixed for this model")
        fields = {}
    if model.temperature is not None:
        fields["temperature"] = model.temperature
    if dialect.takes_top_k:
        fields["top_k"] = request.top_k
    elif request.top_k is not None:
        notes.drop("top_k: the provider has no such parameter")
    return {name: value for name, value in fields.items() if value is not None}


def identity_fields(request: MessagesRequest, model: Model) -> Json:
    """Return the client's user id hashed: it names accounts and sessions, and providers limit its length."""
    user = request.metadata.get("user_id")
    if not model.dialect.takes_user_hash or not isinstance(user, str) or not user:
        return {}
    digest = hashlib.sha256(user.encode("utf-8", "replace")).hexdigest()
    return {"prompt_cache_key": digest, "safety_identifier": digest}


def output_schema(request: MessagesRequest) -> Optional[Json]:
    """Return the schema the answer must follow."""
    for candidate in (request.output_config.get("format"), request.raw.get("output_format")):
        if isinstance(candidate, dict) and candidate.get("type") == "json_schema":
            schema = candidate.get("schema")
            return schema if isinstance(schema, dict) else {}
    return None


def format_fields(request: MessagesRequest, model: Model) -> Json:
    """Return ``response_format`` in the strongest form the dialect has."""
    schema = output_schema(request)
    if schema is None or model.dialect.json_output == "instruction":
        return {}
    if model.dialect.json_output == "object":
        return {"response_format": {"type": "json_object"}}
    output: Json = {"name": "output", "schema": object_schema(schema)}
    if model.dialect.takes_strict and fits_strict(schema):
        output["strict"] = True
    return {"response_format": {"type": "json_schema", "json_schema": output}}


def format_instruction(request: MessagesRequest, model: Model) -> str:
    """Return what the system prompt must say where the provider does not enforce the schema."""
    schema = output_schema(request)
    if schema is None or model.dialect.json_output == "schema":
        return ""
    return f"Answer with one JSON object and nothing else. It must follow this JSON schema:\n{dump(schema)}"
