"""``Context``: what every handler is given."""

from __future__ import annotations

import codecs
import json
import math
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

from ..accounting.ledger import Ledger
from ..accounting.spending import Spending
from ..config.schema import Config
from ..counting.estimates import Estimator
from ..errors import InvalidRequest
from ..feed import Feed
from ..frozen import frozen
from ..last_routes import LastRoutes
from ..metrics import Metrics
from ..partial_json import refuse_constant
from ..provider.client import ProviderClient
from ..provider.cooldown import Cooldown
from ..provider.repair import Repairs
from ..recall import Recall
from ..web import Request
from .running import Running


@frozen
class Context:
    """One request's surroundings; ``config`` is the snapshot it keeps to its end."""

    config: Config
    client: ProviderClient
    recall: Recall
    estimator: Estimator
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
    latest: Callable[[], Tuple[Config, str]]
    """Returns the configuration of now, and what is wrong with its files: for an answer that outlasts a reload."""
    ledger: Optional[Ledger] = None
    """Where requests are recorded; None: nowhere."""
    config_problem: str = ""
    """Why the files of the configuration are not what is in force."""


def parse_body(request: Request, recall: Optional[Recall] = None) -> Any:
    """Return the JSON document of a request body; what ``recall`` knows of it is not read again.

    Raises:
        InvalidRequest: saying where the text stops being JSON.
    """
    try:
        known = recall.read(request.body, _DECODER) if recall is not None else None
        if known is not None:
            return known
        return _DECODER.decode(_text(request.body))
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The request body is not valid JSON: not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise InvalidRequest("The request body is not valid JSON: nested too deeply") from None
    except ValueError as error:
        words = "a number has too many digits" if "int_max_str_digits" in str(error) else str(error)
        raise InvalidRequest(f"The request body is not valid JSON: {words}") from None


def _text(body: bytes) -> str:
    return body.decode("utf-8-sig" if body.startswith(codecs.BOM_UTF8) else "utf-8")  # which is a third as long


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:20]} is beyond what a number can be")
    return number


def _unique(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    """Refuse what two programs would read in two ways: the router one model, the provider another."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: Set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"{twice[:50]!r} is there twice")
    return found


_DECODER = json.JSONDecoder(parse_constant=refuse_constant, parse_float=_finite, object_pairs_hook=_unique)
