"""``GET /health``, ``GET /`` and ``/api/hello``: signs of life, without asking any provider."""

from __future__ import annotations

from typing import Any, Dict

from .. import __version__
from ..access import check_access
from ..errors import ApiError
from ..web import Request, Response
from .context import Context


def handle(context: Context, request: Request) -> Response:
    """Answer that the process serves; and with what, to whom may ask for more."""
    answer: Dict[str, Any] = {"status": "ok"}
    if context.config.ccproxy_auth_token:
        try:
            check_access(request, context.config.ccproxy_auth_token, context.config.host)
        except ApiError:
            return Response.json(answer)
    problem = context.config_problem or None
    return Response.json(
        {**answer, "version": __version__, "models": len(context.config.models), "config_problem": problem}
    )


def hello(context: Context, request: Request) -> Response:
    """Answer the request with which clients warm their connection up."""
    return Response.json({"name": "ccproxy"})
