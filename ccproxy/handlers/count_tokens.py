"""``POST /v1/messages/count_tokens``: the estimate that routing uses too; Anthropic-format providers are asked."""

from __future__ import annotations

import json
import logging
from typing import Optional

from ..anthropic import MessagesRequest
from ..errors import ProviderError
from ..http1 import field_value
from ..web import Request, Response
from .context import Context, parse_body
from .messages import route
from .passthrough import Relay

HOW = "x-ccproxy-estimate"

log = logging.getLogger(__name__)


def handle(context: Context, request: Request) -> Response:
    """Answer ``{"input_tokens": N}``."""
    messages = MessagesRequest.from_dict(parse_body(request, context.recall), needs_max_tokens=False)
    estimates = context.estimator.of(messages, len(request.body))
    model = route(context, request, messages, estimates).models[0]
    if model.direct:
        context.running.start(context.config.provider_total_timeout, None)
        try:
            relay = Relay.open(request, messages, model, context, "/v1/messages/count_tokens")
            relay.close()
            if _is_count(relay.document):
                headers = {"content-type": "application/json", HOW: f"counted by {model.provider}"}
                return Response(200, headers, relay.document)
        except ProviderError as error:
            log.info("%s does not count tokens, they are estimated: %s", model.model_id, error.message)
    answer = {"input_tokens": estimates.of(model)}
    return Response.json(answer, headers={HOW: field_value(estimates.how(model))})


def _is_count(body: Optional[bytes]) -> bool:
    try:
        return isinstance(json.loads(body or b"")["input_tokens"], int)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
