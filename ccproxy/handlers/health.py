"""``GET /health``, ``GET /`` and ``/api/hello``: signs of life, without asking any provider."""

from __future__ import annotations

from .. import __version__
from ..web import Request, Response
from .context import Context


def handle(context: Context, request: Request) -> Response:
    """Answer that the process serves, and with what."""
    answer = {"status": "ok", "version": __version__, "models": len(context.config.models)}
    return Response.json({"status": "ok"} if context.config.ccproxy_auth_token else answer)


def hello(context: Context, request: Request) -> Response:
    """Answer the request with which clients warm their connection up."""
    return Response.json({"name": "ccproxy"})
