"""``GET /metrics``: the counts of this process for Prometheus."""

from __future__ import annotations

from ..metrics import CONTENT_TYPE
from ..web import Request, Response
from .context import Context


def handle(context: Context, request: Request) -> Response:
    """Answer with the counts since the start."""
    return Response(200, {"content-type": CONTENT_TYPE}, context.metrics.text().encode())
