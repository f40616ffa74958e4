"""``GET /v1/stats``: usage and cost of a period."""

from __future__ import annotations

import time

from ..errors import ApiError, InvalidRequest, NotFound
from ..usage import PERIODS, SESSION, LedgerUnreadable, report
from ..web import Request, Response
from .context import Context

_FLUSH_WAIT = 2.0


def handle(context: Context, request: Request) -> Response:
    """Answer with the totals of ``?period=``, by model, by rule and by session; all that ended before is in them."""
    period = request.query.get("period") or SESSION
    if period not in PERIODS:
        raise InvalidRequest(f"period: Input should be {', '.join(PERIODS)}")
    if context.ledger is None:
        raise NotFound("no usage is recorded here")
    context.ledger.flush(_FLUSH_WAIT)
    try:
        return Response.json(report(context.ledger.path, period, time.time()), headers={"cache-control": "no-store"})
    except LedgerUnreadable as error:
        raise ApiError(str(error)) from None
