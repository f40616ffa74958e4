"""``ccproxy route``: say which model a request body would go to, and why, without sending it."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import List, Optional

from ..accounting.ledger import FILE_NAME
from ..accounting.spending import Spending
from ..anthropic import MessagesRequest
from ..config.load import state_folder
from ..config.schema import Config
from ..counting.counter import Counter
from ..counting.estimates import Estimator
from ..encoded import Json
from ..errors import BudgetSpent
from ..handlers.context import parse_body
from ..handlers.record import session_of
from ..routing import decide
from ..web import Request
from .options import add_configuration, load, read_file

EXAMPLES = (
    "ccproxy route request.json",
    """echo '{"model": "claude-haiku-4-5", "messages": []}' | ccproxy route --json""",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("file", nargs="?", default="-", help="the body of a /v1/messages request; - is stdin (default)")
    parser.add_argument("--model", default="", help="what a script would send in the header x-ccproxy-model")
    parser.add_argument("--json", action="store_true", help="print an object")
    add_configuration(parser)


def run(options: argparse.Namespace) -> int:
    """Print the route."""
    config = load(options).config
    found = route(read_file(options.file), config, options.model, state_folder(config, os.environ) / FILE_NAME)
    print(json.dumps(found, indent=2) if options.json else "\n".join(_lines(found)))
    return 0


def route(body: bytes, config: Config, named: str = "", ledger: Optional[Path] = None) -> Json:
    """Return the route of a request body: its models in order, rule and reason, and the tokens of its input.

    Raises:
        ApiError: what a client would be answered that sends it.
    """
    asked = Request("POST", "/v1/messages", body=body)
    request = MessagesRequest.from_dict(parse_body(asked), needs_max_tokens=False)
    counter = Counter()
    counter.load()
    estimates = Estimator(counter, ledger).of(request, len(body))
    budget = Spending(ledger).budget(config, session_of(asked, request))
    if budget is not None and budget.is_spent:
        raise BudgetSpent(budget.refusal)
    decision = decide(request, config, estimates.of, estimates.surely_fit, named=named, budget=budget)
    return {
        "model": decision.models[0].model_id,
        "rule": decision.rule,
        "reason": decision.reason,
        "input_tokens": estimates.of(decision.models[0]),
        "estimate": estimates.how(decision.models[0]),
        "models": [
            {"model_id": model.model_id, "model_name": model.name, "provider": model.provider}
            for model in decision.models
        ],
    }


def _lines(found: Json) -> List[str]:
    fallbacks = ", ".join(model["model_id"] for model in found["models"][1:])
    return [
        f"model   {found['model']}",
        f"rule    {found['rule']}",
        f"reason  {found['reason']}",
        f"tokens  {found['input_tokens']} ({found['estimate']})",
        *([f"then    {fallbacks}"] if fallbacks else []),
    ]
