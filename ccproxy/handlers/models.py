"""``GET /v1/models`` and ``/v1/models/{id}``: what clients may ask for, in both APIs' shapes at once."""

from __future__ import annotations

from typing import List

from ..config.schema import Config, Model
from ..encoded import Json
from ..errors import InvalidRequest, NotFound
from ..routing import find_requested
from ..web import Request, Response
from .context import Context

_EPOCH = "1970-01-01T00:00:00Z"


def handle_list(context: Context, request: Request) -> Response:
    """Answer one page; ``limit``, ``after_id`` and ``before_id`` as in the Messages API."""
    entries = list_models(context.config)
    ids = [entry["id"] for entry in entries]
    limit = _limit(request.query.get("limit", "20"))
    before, after = request.query.get("before_id"), request.query.get("after_id")
    for name, wanted in (("before_id", before), ("after_id", after)):
        if wanted is not None and wanted not in ids:
            raise InvalidRequest(f"{name}: no such model: {wanted}")
    if before is not None:
        end = ids.index(before)
        page, has_more = entries[max(0, end - limit) : end], end > limit
    else:
        start = ids.index(after) + 1 if after is not None else 0
        page, has_more = entries[start : start + limit], start + limit < len(entries)
    answer = {
        "object": "list",
        "data": page,
        "has_more": has_more,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }
    return Response.json(answer)


def handle_one(context: Context, request: Request) -> Response:
    """Answer one model; its id may contain slashes."""
    name = request.path[len("/v1/models/") :]
    entry = next((entry for entry in list_models(context.config) if entry["id"] == name), None)
    if entry is None:
        model = find_requested(name, context.config)
        if model is None:
            raise NotFound(f"model: {name}")
        entry = _entry(name, name, model, context.config)
    return Response.json(entry)


def list_models(config: Config) -> List[Json]:
    """Return the configured models, each also under an alias with ``claude``: Claude Code hides other names."""
    routed = filter(None, map(config.find, config.router_default))
    models = {**config.models, **{model.model_id: model for model in routed}}
    entries = [_entry(name, name, model, config) for name, model in models.items()]
    aliased = {f"claude-{name}": model for name, model in config.models.items() if "claude" not in name.lower()}
    return entries + [
        _entry(alias, model.model_id, model, config) for alias, model in aliased.items() if alias not in models
    ]


def _entry(id: str, shown: str, model: Model, config: Config) -> Json:
    return {
        "type": "model",
        "id": id,
        "display_name": shown,
        "created_at": _EPOCH,
        "lifecycle": "active",
        "deprecated_at": None,
        "retires_at": None,
        "line": None,
        "max_input_tokens": config.window(model),
        "max_tokens": config.output_limit(model),
        "capabilities": None,
        "object": "model",
        "owned_by": "ccproxy",
        "created": 0,
    }


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:5]) <= 1000:
        raise InvalidRequest("limit: Input should be a whole number from 1 to 1000")
    return int(text)
