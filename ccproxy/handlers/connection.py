"""``GET /test-connection``: asks every configured provider, now."""

from __future__ import annotations

from dataclasses import asdict

from ..provider.probe import LIMIT, probe_all
from ..web import Request, Response
from .context import Context


def handle(context: Context, request: Request) -> Response:
    """Answer what each provider said to each key; ``ok`` when nothing is wrong with any of them."""
    context.running.start(2 * LIMIT, None)  # a client that leaves ends the asking
    findings = probe_all(context.client, context.config, context.running.cancel)
    answer = {"ok": all(item.error is None for item in findings), "providers": [asdict(item) for item in findings]}
    return Response.json(answer)
