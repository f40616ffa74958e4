"""``GET /v1/stats``: usage and cost of a period."""

from __future__ import annotations

import time

from ..accounting.budget import SESSION, limits
from ..accounting.usage import PERIODS, LedgerUnreadable, report
from ..errors import ApiError, InvalidRequest, NotFound
from ..web import Request, Response
from .context import Context

_FLUSH_WAIT = 2.0


def handle(context: Context, request: Request) -> Response:
    """Answer with the budgets, and the totals of ``?period=``, by model, by rule and by session, of all that ended."""
    period = request.query.get("period") or SESSION
    if period not in PERIODS:
        raise InvalidRequest(f"period: Input should be {', '.join(PERIODS)}")
    if context.ledger is None:
        raise NotFound("no usage is recorded here")
    context.ledger.flush(_FLUSH_WAIT)
    try:
        found = report(context.ledger.path, period, time.time(), limits(context.config))
        return Response.json(found)
    except LedgerUnreadable as error:
        raise ApiError(str(error)) from None
