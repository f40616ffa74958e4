"""``GET /dashboard``: the page; ``/dashboard/events``: what it shows, as it happens.

The page itself is the same for everybody and holds nothing: its script asks for the token, where there is one, and
sends it with each request for data. So a browser that has not shown the token yet is given it too, with the 401.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from dataclasses import replace
from functools import lru_cache
from typing import Any, Dict, Iterator, List, Tuple

from .. import __version__
from ..accounting.usage import LedgerUnreadable
from ..config.schema import Config, Model
from ..encoded import Json, dump_ascii
from ..errors import InvalidRequest
from ..provider.fallback import cooldown_key
from ..routing import configured_models, plain_route
from ..web import EVENT_STREAM, Request, Response
from . import health
from .context import Context
from .record import Record

PAGE = "dashboard.html"
PATHS = ("/", "/dashboard")
MAX_ROWS = 200
"""Requests that are told at once."""
LOOK_EVERY = 0.5
COME_BACK = b"retry: 2000\n\n"


# --- the page -----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _page() -> Tuple[bytes, Dict[str, str]]:
    """Return the page, and headers under which nothing but its own script and style can run."""
    from importlib import resources  # slow, and a start does not need it

    package = __package__.rpartition(".")[0]
    body = (resources.files(package) / PAGE).read_bytes()
    policy = [
        "default-src 'none'",
        f"script-src {_hashes('script', body)}",
        f"style-src {_hashes('style', body)}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    ]
    headers = {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": "; ".join(policy),
        "cache-control": "no-store",
        "referrer-policy": "no-referrer",
        "vary": "accept",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
    }
    return body, headers


def _hashes(element: str, page: bytes) -> str:
    found = re.findall(rb"<%s>(.*?)</%s>" % (element.encode(), element.encode()), page, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'" for text in found)


def is_browser(request: Request) -> bool:
    """Whether a person wants to look at something here."""
    return request.method == "GET" and "text/html" in request.headers.get("accept", "")


def page(status: int = 200) -> Response:
    """Return the page as an answer."""
    body, headers = _page()
    return Response(status, dict(headers), body)


def handle(context: Context, request: Request) -> Response:
    """Answer with the page."""
    return page()


def handle_root(context: Context, request: Request) -> Response:
    """Answer a browser with the page, and a client that warms its connection up shortly."""
    return page() if is_browser(request) else health.hello(context, request)


# --- what it shows ------------------------------------------------------------------------------------------------


def handle_events(context: Context, request: Request) -> Response:
    """Answer with server-sent events: ``state`` and ``running`` when they change, ``requests`` as they are recorded.

    ``?after=ID`` leaves out the requests up to the one with this ``id``. Behind a WSGI server, whose threads are few,
    the stream ends at once and asks the client to come back.
    """
    after = request.query.get("after", "0")
    if not re.fullmatch(r"\d{1,18}", after, re.ASCII):
        raise InvalidRequest("after: Input should be the id of a request")
    if request.method == "HEAD":
        return Response(200, dict(EVENT_STREAM))
    context.feed.enter()
    context.running.start(float("inf"), None)

    def on_close() -> None:
        context.running.stop()
        context.feed.leave()

    return Response.stream(_events(context, int(after), request.line is not None), on_close)


def _events(context: Context, after: int, is_live: bool) -> Iterator[bytes]:
    told: Json = {}
    offset = time.time() - time.monotonic()  # once: a clock that is set must not look like a change
    silent_since = time.monotonic()
    if not is_live:
        yield COME_BACK
    token = context.config.ccproxy_auth_token
    while context.running.cancel.error is None:
        config, config_problem = context.latest()
        if config.ccproxy_auth_token != token:
            return  # who watches has to show the new one
        context = replace(context, config=config, config_problem=config_problem)
        rows, problem = _rows(context, after)
        after = rows[-1]["id"] if rows else after
        now = {
            "state": {**state(context, offset), "ledger_problem": problem},
            "running": running(context, offset),
        }
        changed = [(name, value) for name, value in now.items() if told.get(name) != value]
        told = now
        parts = [_encode(name, value) for name, value in changed + ([("requests", rows)] if rows else [])]
        if parts:
            silent_since = time.monotonic()
            yield b"".join(parts)
        elif time.monotonic() - silent_since > context.config.ping_interval:
            silent_since = time.monotonic()
            yield b": ping\n\n"
        if not is_live or not context.feed.pause(LOOK_EVERY):
            return


def _rows(context: Context, after: int) -> Tuple[List[Json], str]:
    try:
        return context.feed.rows(after, MAX_ROWS), ""
    except LedgerUnreadable as error:
        return [], str(error)


def _encode(name: str, value: Any) -> bytes:
    return f"event: {name}\ndata: {dump_ascii(value)}\n\n".encode()


def state(context: Context, offset: float) -> Json:
    """Return what the owner configured, and which models rest; ``offset`` makes a time of day of a monotonic one."""
    config = context.config
    ordinary = plain_route("claude-sonnet-4-5", config)
    return {
        "version": __version__,
        "has_ledger": context.ledger is not None,
        "problem": context.config_problem,
        "warnings": list(config.warnings),
        "models": [_model(model, context, offset) for model in configured_models(config)],
        "rules": [
            {"setting": f"ROUTER_{rule.upper()}", "models": list(router)}
            for rule, router in config.routers.items()
            if router
        ],
        "default": {"models": [model.model_id for model in ordinary.models], "reason": ordinary.reason},
    }


def _model(model: Model, context: Context, offset: float) -> Json:
    config: Config = context.config
    rests_until = context.cooldown.rests_until(cooldown_key(model))
    return {
        "id": model.model_id,
        "name": model.name,
        "provider": model.provider,
        "key": model.api_key_name if model.needs_key else "",
        "is_ready": config.is_ready(model),
        "rests_until": round(offset + rests_until) if rests_until > context.now() else None,
    }


def running(context: Context, offset: float) -> List[Json]:
    """Return the requests that this process works on, oldest first."""
    records = [item.record for item in context.running.all() if isinstance(item.record, Record)]
    return [_running(record, offset) for record in sorted(records, key=lambda record: record.started)]


def _running(record: Record, offset: float) -> Json:
    first = record.first_content
    return {
        "request_id": record.context.request_id,
        "started": round(offset + record.started, 1),
        "requested_model": record.requested,
        "model": record.model.model_id if record.model else "",
        "provider": record.model.provider if record.model else "",
        "rule": record.decision.rule,
        "reason": record.decision.reason,
        "attempts": record.attempts,
        "unanswered": ",".join(record.unanswered),
        "first_content": None if first is None else round(first - record.started, 3),
    }
