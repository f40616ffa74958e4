"""``Context``: what every handler is given."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Callable, Optional

from ..config.schema import Config
from ..errors import InvalidRequest
from ..feed import Feed
from ..last_routes import LastRoutes
from ..ledger import Ledger
from ..metrics import Metrics
from ..provider.client import ProviderClient
from ..provider.cooldown import Cooldown
from ..provider.repair import Repairs
from ..spending import Spending
from ..tokens import Counter
from ..web import Request
from .running import Running


@dataclass(frozen=True)
class Context:
    """One request's surroundings; ``config`` is the snapshot it keeps to its end."""

    config: Config
    client: ProviderClient
    counter: Counter
    repairs: Repairs
    request_id: str
    new_id: Callable[[str], str]
    """Makes an id with a prefix, such as ``msg_``."""
    now: Callable[[], float]
    """Seconds on a clock that only runs forward."""
    sleep: Callable[[float], None]
    running: Running
    """This request among those that are watched, once it waits for a provider."""
    cooldown: Cooldown
    metrics: Metrics
    last_routes: LastRoutes
    spending: Spending
    feed: Feed
    ledger: Optional[Ledger] = None
    """Where requests are recorded; None: nowhere."""


def parse_body(request: Request) -> Any:
    """Return the JSON document of a request body.

    Raises:
        InvalidRequest: saying where the text stops being JSON.
    """
    try:
        text = request.body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The request body is not valid JSON: not UTF-8 at byte {error.start}") from None
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise InvalidRequest("The request body is not valid JSON: nested too deeply") from None
    except ValueError as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}") from None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
