"""requests + sseclient-py: one attempt at one model, chunks out, failures as ``ProviderError``."""

from __future__ import annotations

import os
import threading
import time
from copy import copy
from dataclasses import replace
from functools import lru_cache
from typing import Any, Callable, Dict, Mapping, Optional, Tuple, Union
from urllib.parse import urlsplit

import requests
from urllib3 import HTTPHeaderDict

from ..access import is_local_name
from ..chunk_reader import ChunkReader
from ..config.credentials import secret_headers
from ..config.providers import DEMO_BASE
from ..config.schema import Config, Model
from ..errors import NO_RETRY, ProviderError
from ..frozen import frozen
from ..masking import mask
from ..responses import ResponsesReader
from ..translate.failure import Target, translate_failure
from .answer import Answer, LibraryAnswer
from .cancel import Cancel, nothing
from .connections import CancellableAdapter
from .faults import Faults
from .kept import KeptConnections
from .keys import REFUSED_REST, THROTTLED_REST, KeyRing
from .response import MAX_ERROR_BYTES, ProviderResponse
from .retry import retry_after

# requests' default of 10 would open a new connection for every stream beyond it.
POOL_SIZE = 1000
# Idle connections of each provider that are kept, and the seconds after which the others are closed.
KEPT_IDLE, IDLE_TIME = 8, 5.0
# Response headers of Anthropic-format providers that clients act on, beside those named anthropic-*.
DIRECT_HEADERS = ("content-type", "retry-after", "retry-after-ms", "x-should-retry", "request-id")


@frozen
class Api:
    """One of OpenAI's APIs: its name, where it is behind a provider's address, and the reader of an answer."""

    name: str
    path: str
    reader: Callable[[], Union[ChunkReader, ResponsesReader]]


APIS: Dict[str, Api] = {
    "chat": Api("chat completions", "/chat/completions", ChunkReader),
    "responses": Api("responses", "/responses", ResponsesReader),
}


@frozen
class Call:
    """One attempt: whom to ask, with what."""

    model: Model
    path: str
    body: bytes
    headers: Mapping[str, str]
    count: Callable[[], int] = lambda: 0
    """Counts the prompt's tokens."""
    counts_ahead: bool = True
    """Whether that is done while the provider works, and not only where its failure has to tell."""
    method: str = "POST"


class ProviderClient:
    """Sends calls over pooled connections that all threads share."""

    def __init__(self, demo_base: Callable[[], str]) -> None:
        """``demo_base`` starts the demo provider on first use and returns its address."""
        self._demo_base = demo_base
        # Not a Session: it keeps cookies, reads .netrc, and merging its settings takes longer than all the rest.
        self._adapter = CancellableAdapter(pool_connections=64, pool_maxsize=POOL_SIZE)
        self._kept = KeptConnections()
        self._keys = KeyRing()
        self._environments: Dict[str, Dict[str, Any]] = {}
        self._environments_lock = threading.Lock()

    def close(self) -> None:
        """Close the idle connections."""
        self._kept.forget()
        self._adapter.close()

    def close_idle(self) -> None:
        """Close those that a burst of requests left behind; a few of each provider are kept."""
        self._adapter.close_idle(KEPT_IDLE, time.monotonic() - IDLE_TIME)

    def send(self, call: Call, config: Config, cancel: Cancel) -> ProviderResponse:
        """Send one call and return the open answer, its status known to be 200.

        A key that is refused or throttled rests, and another one of the same provider takes over at once.

        Raises:
            ProviderError: no connection, no answer in time, or an answer that is an error.
            ApiError: why the request was cancelled.
        """
        model, keys = call.model, config.keys_of(call.model)
        if "x-api-key" in call.headers or "authorization" in call.headers:
            return self.send_with("", call, config, cancel)  # the client's own credential, and no other beside it
        if model.needs_key and not keys:
            raise ProviderError(
                f"no key for {model.model_id}: {model.api_key_name} is not set",
                status=401,
                is_transient=False,
                headers=NO_RETRY,
            )
        for left in range(len(keys) - 1, -1, -1):
            key = self._keys.choose(model.api_key_name, keys, time.monotonic())
            try:
                return self.send_with(key, call, config, cancel)
            except ProviderError as error:
                rest, now = rest_of_key(error), time.monotonic()
                if rest is None:
                    raise
                self._keys.rest(model.api_key_name, key, now + rest)
                if not left or not self._keys.has_awake(model.api_key_name, keys, now):
                    raise
        return self.send_with("", call, config, cancel)

    def send_with(self, key: str, call: Call, config: Config, cancel: Cancel) -> ProviderResponse:
        """Send one call with one key, or with none when it is empty; otherwise like ``send``."""
        model = call.model
        base = self._demo_base() if model.api_base == DEMO_BASE else model.api_base
        secrets = (*config.secrets, *secret_headers(call.headers))  # the client's own credential, if it is passed on
        target = Target(model.provider, model.name, config.window(model), secrets=secrets)
        cancel.check()
        with cancel.is_current(call.count if call.counts_ahead else nothing), Faults(target):
            address = _blank(call.method, base + call.path)
            headers = _headers(model, key, call, address)
            answer = self._ask(call, base, address, headers, config)
            if answer.status == 200:
                return ProviderResponse(answer, target, APIS[model.api].reader(), tuple(secret_headers(headers)))
            try:
                body = answer.start(MAX_ERROR_BYTES)
            finally:
                answer.close()
        raise _failure(call, answer, body, replace(target, input_tokens=call.count()))  # a name would keep it

    def _ask(
        self, call: Call, base: str, address: requests.PreparedRequest, headers: Dict[str, str], config: Config
    ) -> Answer:
        """Send a request the short way, where a connection was kept, else through the libraries."""
        timeouts = (config.provider_connect_timeout, config.provider_read_timeout)
        key = (base, call.model.ca_bundle, call.model.client_cert)
        if call.body and call.method == "POST":
            answer = self._kept.ask(key, _target(call.method, base + call.path), headers, call.body, timeouts)
            if answer is not None:
                return answer
        settings = {**self._environment(base), **_certificates(call.model)}
        prepared = _prepared(address, headers, call.body)
        response = self._adapter.send(prepared, stream=True, timeout=timeouts, **settings)
        self._kept.learn(key, response.raw)
        return LibraryAnswer(response.raw)

    def _environment(self, base: str) -> Dict[str, Any]:
        """Return the proxies and CA bundle that the environment gives an address, as users of requests expect.

        But for this machine's own addresses: another one's proxy cannot reach them, and NO_PROXY is often forgotten.
        """
        with self._environments_lock:
            if base not in self._environments:
                with requests.Session() as probe:
                    merged = probe.merge_environment_settings(base, {}, True, None, None)
                if is_local_name(urlsplit(base).hostname or "", ""):
                    merged["proxies"] = {}
                self._environments[base] = {name: merged[name] for name in ("proxies", "verify")}
            return self._environments[base]


def _failure(call: Call, answer: Answer, body: bytes, target: Target) -> ProviderError:
    """Return an answer that is an error as one; what a direct model said goes to the client as it is, without keys."""
    error = translate_failure(answer.status, answer.headers, body, target)
    error.provider_status, error.detail = answer.status, body.decode("utf-8", "replace")
    if call.model.direct and answer.status >= 400:
        unmasked = body.decode("utf-8", "surrogateescape")
        error.status, error.verbatim = answer.status, mask(unmasked, target.secrets).encode("utf-8", "surrogateescape")
        error.headers = direct_headers(answer.headers, target.secrets)
    return error


def direct_headers(headers: Mapping[str, str], secrets: Tuple[str, ...]) -> Dict[str, str]:
    """Return those of an Anthropic-format provider's headers that are the client's."""
    return {
        name: mask(value, secrets)
        for name, value in headers.items()
        if name in DIRECT_HEADERS or name.startswith("anthropic-")
    }


def _headers(model: Model, key: str, call: Call, address: requests.PreparedRequest) -> Dict[str, str]:
    """Return a request's headers, names in lower case. The address may hold a user name and password."""
    headers = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "ccproxy"}
    headers.update(_key_header(model, key))
    headers.update(call.headers)
    headers.update({name.lower(): value for name, value in model.extra_headers.items()})
    headers.update(_fields(address))
    if call.body:
        headers["content-length"] = str(len(call.body))
    return headers


def _prepared(address: requests.PreparedRequest, headers: Mapping[str, str], body: bytes) -> requests.PreparedRequest:
    """Return a request that an adapter can send."""
    prepared = copy(address)
    prepared.headers = HTTPHeaderDict(headers)  # type: ignore[assignment]  # requests' own is slower, and slow to copy
    prepared.body = body or None
    return prepared


@lru_cache(maxsize=256)
def _blank(method: str, url: str) -> requests.PreparedRequest:
    """Return a request without headers and body, its address checked and encoded."""
    return requests.Request(method, url).prepare()


@lru_cache(maxsize=256)
def _fields(address: requests.PreparedRequest) -> Dict[str, str]:
    """Return the headers that come from an address; its own mapping takes 3 us to go through."""
    return {name.lower(): value for name, value in address.headers.items()}


@lru_cache(maxsize=256)
def _target(method: str, url: str) -> str:
    """Return what stands in the request line."""
    return str(_blank(method, url).path_url)


def rest_of_key(error: ProviderError) -> Optional[float]:
    """Return how long the key of a failed call should rest, in seconds; None when it was not the key's fault."""
    if error.status in (401, 402, 403):
        return REFUSED_REST
    if error.status != 429 or error.provider_status != 429:
        return None
    return retry_after(error.headers, time.time()) or THROTTLED_REST


def _certificates(model: Model) -> Dict[str, Any]:
    """Return the model's own CA bundle and client certificate."""
    own: Dict[str, Any] = {}
    if model.ca_bundle:
        own["verify"] = os.path.expanduser(model.ca_bundle)
    if model.client_cert:
        files = tuple(map(os.path.expanduser, model.client_cert))
        own["cert"] = files if len(files) > 1 else files[0]
    return own


def _key_header(model: Model, key: str) -> Dict[str, str]:
    if not key:
        return {}
    return {"x-api-key": key} if model.direct else {"authorization": f"Bearer {key}"}
