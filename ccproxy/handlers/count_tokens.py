"""``POST /v1/messages/count_tokens``: the estimate that routing uses too; Anthropic-format providers are asked."""

from __future__ import annotations

import logging

from ..anthropic import MessagesRequest
from ..errors import ProviderError
from ..tokens import Estimates
from ..web import Request, Response
from .context import Context, parse_body
from .messages import route
from .passthrough import Relay

log = logging.getLogger(__name__)


def handle(context: Context, request: Request) -> Response:
    """Answer ``{"input_tokens": N}``."""
    messages = MessagesRequest.from_dict(parse_body(request), needs_max_tokens=False)
    estimates = Estimates(messages, context.counter.size)
    model = route(context, request, messages, estimates).models[0]
    if model.direct:
        try:
            counted = Relay.open(request, messages, model, context, "/v1/messages/count_tokens").read()
            return Response(200, {"content-type": "application/json"}, counted)
        except ProviderError as error:
            log.info("%s does not count tokens, they are estimated: %s", model.model_id, error.message)
    return Response.json({"input_tokens": estimates.of(model.name)})
