"""The application: path table to handler, errors to JSON, a request id on every answer."""

from __future__ import annotations

import logging
import random
import string
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Callable, Dict, Optional

from .access import check_access
from .accounting.ledger import Ledger
from .accounting.spending import Spending
from .config.schema import Config
from .counting.counter import Counter
from .counting.estimates import Estimator
from .errors import (
    ApiError,
    AuthenticationFailed,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    Stopping,
    forget_calls,
)
from .feed import Feed
from .handlers import bodies, connection, conversion, count_tokens, dashboard, health, messages, metrics, models, usage
from .handlers.context import Context
from .handlers.running import Running
from .http1 import date_of, field_values
from .last_routes import LastRoutes
from .metrics import Metrics
from .provider.client import ProviderClient
from .provider.cooldown import Cooldown
from .provider.repair import Repairs
from .recall import Recall
from .watch import Watch
from .web import PRIVATE, Request, Response, Stream

if TYPE_CHECKING:
    from .stub import StubProvider

log = logging.getLogger(__name__)

Handler = Callable[[Context, Request], Response]
ROUTES: Dict[str, Dict[str, Handler]] = {
    "/v1/messages": {"POST": messages.handle},
    "/v1/messages/count_tokens": {"POST": count_tokens.handle},
    "/v1/messages/test_conversion": {"POST": conversion.handle},
    "/v1/models": {"GET": models.handle_list},
    "/v1/models/{id}": {"GET": models.handle_one},
    "/v1/stats": {"GET": usage.handle},
    "/test-connection": {"GET": connection.handle},
    "/metrics": {"GET": metrics.handle},
    "/dashboard": {"GET": dashboard.handle},
    "/dashboard/events": {"GET": dashboard.handle_events},
    "/health": {"GET": health.handle},
    "/": {"GET": dashboard.handle_root},
    "/api/hello": {"GET": health.hello},
}
OPEN_PATHS = frozenset({"/health"})
# For each byte a letter or digit; that some are likelier than others costs an id two of its 140 bits.
_LETTERS = bytes((string.ascii_letters + string.digits).encode()[byte % 62] for byte in range(256))


def new_id(prefix: str) -> str:
    """Return a fresh id in Anthropic's form, such as ``msg_`` and 24 characters.

    It guards nothing, so it is not asked of the system, each time with a call; a forked process draws its own.
    """
    return prefix + random.getrandbits(24 * 8).to_bytes(24, "big").translate(_LETTERS).decode()


class App:
    """One application, behind any front door: ``handle`` takes a ``Request`` and returns a ``Response``.

    ``config`` is the snapshot that new requests take; assigning another one is how a reload happens. Requests are
    recorded in ``ledger``; without one, nowhere.
    """

    def __init__(self, config: Config, ledger: Optional[Ledger] = None, counter: Optional[Counter] = None) -> None:
        self.config = config
        self.config_problem = ""
        """What is wrong with the files of the configuration; empty when they are what is in force."""
        self._ledger = ledger
        self._metrics = Metrics()
        self.counter = counter or Counter()
        self._estimator = Estimator(self.counter, ledger.path if ledger else None)
        self._recall = Recall()
        self._repairs = Repairs()
        self._cooldown = Cooldown()
        self._last_routes = LastRoutes()
        self._spending = Spending(ledger.path if ledger else None)
        self._feed = Feed(ledger.path if ledger else None)
        self._watch = Watch()
        self._demo_lock = threading.Lock()
        self._demo: Optional[StubProvider] = None
        self._client = ProviderClient(self._demo_base)

    def _demo_base(self) -> str:
        with self._demo_lock:
            if self._demo is None:
                from .stub import StubProvider  # takes a start 20 ms, and most have no use for it

                self._demo = StubProvider(is_recording=False)
            return self._demo.url

    def drain(self) -> None:
        """Let answers that have no end of their own come to one: the process is about to stop."""
        self._feed.close()

    def abort(self) -> None:
        """Break off the providers' answers that are still coming; their streams end with an error event."""
        for running in self._watch.all():
            if isinstance(running, Running):
                running.cancel.cancel(Stopping("ccproxy is stopping"))

    def tidy(self) -> None:
        """Close connections to providers that nobody used for a while; to be called now and then."""
        self._client.close_idle()

    def forget(self) -> None:
        """Let go of what is made again when it is asked for: some would lie in each piece of memory that many took."""
        self._client.close()
        date_of.cache_clear()
        self.counter.forget()
        self._estimator.learned.forget()

    def close(self) -> None:
        """Let go of connections and of the demo provider; write down what was not yet."""
        self.drain()
        self._client.close()
        if self._demo is not None:
            self._demo.close()
        if self._ledger is not None:
            self._ledger.close()

    def handle(self, request: Request) -> Response:
        """Answer one request; never raises."""
        config, request_id = self.config, new_id("req_")
        context = self._context(config, request, request_id)
        try:
            response = self._dispatch(context, request)
        except ApiError as error:
            response = Response.error(error, request_id)
            forget_calls(error)
        except RecursionError:
            response = Response.error(InvalidRequest("the request is nested too deeply"), request_id)
        except Exception:
            log.exception("%s %s %s failed", request_id, request.method, request.path)
            response = Response.error(ApiError("ccproxy failed; its log says why"), request_id)
        if not isinstance(response.body, Stream):
            context.running.stop()
        response.headers = field_values({"request-id": request_id, **PRIVATE, **response.headers})
        log.debug("%s %s %s %d", request_id, request.method, request.path, response.status)
        return bodies.record(request, response, request_id, config) if config.log_bodies and request.body else response

    def admit(self, request: Request) -> None:
        """Let a request pass whose body was not read yet, or not.

        Raises:
            ApiError: nothing will be answered to it.
        """
        self._check(self.config, request)

    @staticmethod
    def _check(config: Config, request: Request) -> None:
        if not (config.ccproxy_auth_token and normalise(request.path) in OPEN_PATHS):
            check_access(request, config.ccproxy_auth_token, config.host)

    def _context(self, config: Config, request: Request, request_id: str) -> Context:
        return Context(
            config=config,
            client=self._client,
            recall=self._recall,
            estimator=self._estimator,
            repairs=self._repairs,
            cooldown=self._cooldown,
            request_id=request_id,
            new_id=new_id,
            now=time.monotonic,
            sleep=time.sleep,
            running=Running(self._watch, request.line),
            metrics=self._metrics,
            last_routes=self._last_routes,
            spending=self._spending,
            feed=self._feed,
            ledger=self._ledger,
            config_problem=self.config_problem,
            latest=lambda: (self.config, self.config_problem),
        )

    def _dispatch(self, context: Context, request: Request) -> Response:
        path = normalise(request.path)
        try:
            self._check(context.config, request)
        except AuthenticationFailed as refusal:
            if path in dashboard.PATHS and dashboard.is_browser(request):
                return dashboard.page(refusal.status)  # it asks its reader for the token
            raise
        methods = ROUTES.get("/v1/models/{id}" if path.startswith("/v1/models/") else path)
        if methods is None:
            raise NotFound(f"no such path: {request.path}")
        handler = methods.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            allowed = ", ".join([*methods, *(["HEAD"] if "GET" in methods else [])])
            raise MethodNotAllowed(f"{request.method} is not allowed here, only {allowed}", headers={"allow": allowed})
        return handler(context, request if path == request.path else replace(request, path=path))


def normalise(path: str) -> str:
    """Return the path of the table: base addresses come with and without ``/v1`` and a slash at the end."""
    path = "/" + path.strip("/")
    for extra, real in (("/v1/v1/", "/v1/"), ("/messages", "/v1/messages"), ("/models", "/v1/models")):
        if path.startswith(extra):
            path = real + path[len(extra) :]
    return path
