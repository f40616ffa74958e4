"""``POST /v1/messages/test_conversion``: one model, named in the query or the body, without the router."""

from __future__ import annotations

from ..anthropic import MessagesRequest
from ..config.schema import Model
from ..counting.estimates import Estimates
from ..errors import InvalidRequest, NotFound
from ..provider.client import APIS
from ..routing import Decision
from ..translate.search_request import with_search
from ..web import Request, Response
from . import topics
from .context import Context, parse_body
from .exchange import translate_for
from .messages import answer


def handle(context: Context, request: Request) -> Response:
    """Answer as that model, or with ``?dry_run=1`` show what it would be sent."""
    messages = MessagesRequest.from_dict(parse_body(request, context.recall))
    name = request.query.get("model") or messages.model
    model = context.config.find(name)
    if model is None:
        raise NotFound(f"model: {name}")
    if request.query.get("dry_run", "0") not in ("", "0", "false"):
        topics.simple.info("%s %s test_conversion dry_run", context.request_id, model.model_id)
        return _dry_run(context, messages, model, context.estimator.of(messages, len(request.body)))
    decision = Decision((model,), "test_conversion", f"asked for {name}, the router is bypassed")
    return answer(context, request, messages, decision, context.estimator.of(messages, len(request.body)))


def _dry_run(context: Context, messages: MessagesRequest, model: Model, estimates: Estimates) -> Response:
    if model.direct:
        raise InvalidRequest(f"dry_run: {model.model_id} takes the Messages API itself, nothing is translated")
    model = with_search(model, messages)
    translated = translate_for(messages, model, context)
    has_key = bool(context.config.keys_of(model))
    shown = {
        "url": f"{model.api_base}{APIS[model.api].path}",
        "headers": {
            **({"authorization": "Bearer ***"} if has_key else {}),
            **dict.fromkeys(model.extra_headers, "***"),
            "content-type": "application/json",
        },
        "body": translated.request.to_dict(),
        "dropped": list(translated.dropped),
        "input_tokens": {"estimate": estimates.of(model), "how": estimates.how(model)},
    }
    return Response.json(shown)
