"""``POST /v1/messages/count_tokens``: the estimate that routing and ``message_start`` use too."""

from __future__ import annotations

from ..anthropic import MessagesRequest
from ..tokens import estimate
from ..web import Request, Response
from .context import Context, parse_body


def handle(context: Context, request: Request) -> Response:
    """Answer ``{"input_tokens": N}``."""
    messages = MessagesRequest.from_dict(parse_body(request), needs_max_tokens=False)
    return Response.json({"input_tokens": estimate(messages, context.counter.count)})
