"""Asks every configured provider for a sign of life: is it there, does it take the key, how long did it take.

The model list is asked for, which costs nothing. Where there is none, or where it is given to everybody and so says
nothing about the key (OpenRouter), one output token is asked for. All are asked at once, and none is waited for longer
than a limit, not even a name server that does not answer.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

from ..config.credentials import without_password
from ..config.providers import PROVIDERS
from ..config.schema import Config, Model
from ..errors import ApiError, ProviderError
from ..frozen import frozen
from ..masking import mask
from ..routing import configured_models
from ..translate.failure import Target, error_in_stream
from .cancel import Cancel
from .client import APIS, Call, ProviderClient
from .response import ProviderResponse, whole

LIMIT = 15.0
_TICK = 0.25
_HEADERS = {"accept-encoding": "identity", "user-agent": "ccproxy"}
_ANY_MODEL = "model list"
"""Stands for the model, also in messages, where only a provider's key is configured."""
_KEY_ACCEPTED = {401: False, 402: True, 403: False, 429: True}


@frozen
class Finding:
    """What one provider said to one key."""

    provider: str
    api_base: str
    key: str
    """The variable that holds it, and which of several it is; empty: none is needed."""
    models: Tuple[str, ...]
    """The configured models that are behind it; none where only the key is set."""
    reachable: bool = False
    key_accepted: Optional[bool] = None
    """None: nobody can tell, or none is needed."""
    latency: Optional[float] = None
    """Seconds to its first answer."""
    error: Optional[str] = None


def probe_all(client: ProviderClient, config: Config, cancel: Cancel, limit: float = LIMIT) -> List[Finding]:
    """Ask all providers at once, with each of their keys; return what they said, in the order of the configuration.

    Args:
        limit: seconds after which those that are not done count as failed.

    Raises:
        ApiError: why ``cancel`` was cancelled.
    """
    bounded = replace(
        config,
        provider_connect_timeout=min(config.provider_connect_timeout, limit),
        provider_read_timeout=min(config.provider_read_timeout, limit),
    )
    probes = [
        _Probe(client, bounded, models, key, name, limit)
        for models in _endpoints(config)
        for key, name in _keys(config, models[0])
    ]
    deadline = time.monotonic() + limit
    for probe in probes:
        probe.start()
    try:
        for probe in probes:
            while probe.is_alive() and time.monotonic() < deadline:
                probe.join(min(_TICK, max(0.0, deadline - time.monotonic())))
                cancel.check()
        return [probe.finding for probe in probes]
    finally:
        for probe in probes:
            probe.cancel.cancel(_late(limit))


def _late(limit: float) -> ProviderError:
    return ProviderError(f"no answer within {limit:g} s", status=504)


def _endpoints(config: Config) -> Iterable[Tuple[Model, ...]]:
    """Return the models in groups that share address, key and the way there; one nameless where only a key is set."""
    groups: Dict[Any, List[Model]] = {}
    for model in configured_models(config):
        way = (model.api_base, model.api_key_name, model.direct, model.ca_bundle, model.client_cert)
        groups.setdefault((*way, tuple(model.extra_headers.items())), []).append(model)
    asked = {(models[0].api_base, models[0].api_key_name) for models in groups.values()}
    for row in PROVIDERS.values():
        nameless = config.find(f"{row.name}/{_ANY_MODEL}")
        assert nameless is not None
        is_configured = config.keys_of(nameless) or (
            row.is_local and config.variables.get(f"{row.name.upper()}_API_BASE")
        )
        if is_configured and (nameless.api_base, nameless.api_key_name) not in asked:
            groups[row.name] = [nameless]
    return map(tuple, groups.values())


def _keys(config: Config, model: Model) -> List[Tuple[str, str]]:
    """Return each key and what it is called; one empty key where there is none."""
    keys = config.keys_of(model)
    if len(keys) < 2:
        return [(keys[0] if keys else "", model.api_key_name if model.needs_key or keys else "")]
    return [(key, f"{model.api_key_name}, {number} of {len(keys)}") for number, key in enumerate(keys, 1)]


class _Probe(threading.Thread):
    """Asks one provider with one key."""

    def __init__(
        self, client: ProviderClient, config: Config, models: Tuple[Model, ...], key: str, name: str, limit: float
    ) -> None:
        super().__init__(name="probe", daemon=True)  # one that waits for a name server must not hold up an exit
        self._client, self._config, self._key, self._model = client, config, key, models[0]
        self._began = time.monotonic()
        self._answered: Optional[float] = None
        self.cancel = Cancel()
        self.finding = Finding(
            provider=self._model.provider,
            api_base=without_password(self._model.api_base),
            key=name,
            models=tuple(model.model_id for model in models if model.name != _ANY_MODEL),
            error=_late(limit).message,
        )

    def run(self) -> None:
        """Ask, and keep what was found."""
        accepted, words = None, None
        try:
            accepted, words = self._ask(), self._missing_key()
        except ApiError as error:
            accepted, words = self._judge(self.cancel.error or error)
        except Exception as error:  # noqa: BLE001 - a thread's top
            words = mask(f"{type(error).__name__}: {error}", self._config.secrets)
        self.finding = replace(
            self.finding,
            reachable=self._answered is not None,
            key_accepted=accepted,
            latency=None if self._answered is None else round(self._answered - self._began, 3),
            error=words,
        )

    def _ask(self) -> Optional[bool]:
        """Return whether the key is accepted, as far as it can be told.

        Raises:
            ApiError: it is not, or the provider does not answer as it should.
        """
        if self._has_list(self._key):
            if not self._key:
                return None
            if not self._has_public_list():
                return True
            if not self.finding.models:
                return None  # there is no model whose token could be asked for
        self._ask_for_a_token()
        return True if self._key else None

    def _judge(self, error: ApiError) -> Tuple[Optional[bool], Optional[str]]:
        """Return what a failure says about the key, and in words."""
        is_about_key = error.status in (401, 403)
        if self._key:
            return _KEY_ACCEPTED.get(error.status), error.message
        if is_about_key and self._model.forward_client_key:
            return None, None  # the clients bring their own
        return None, (self._missing_key() if is_about_key else None) or error.message

    def _missing_key(self) -> Optional[str]:
        is_missing = self._model.needs_key and not self._key and not self._model.forward_client_key
        return f"{self._model.api_key_name} is not set" if is_missing else None

    def _has_list(self, key: str) -> bool:
        """Whether there is a model list for a key.

        Raises:
            ApiError: the provider is out of reach, or has something against the key.
        """
        path = self._model.messages_path("/v1/models") if self._model.direct else "/models"
        try:
            value = _read(self._send(key, path))
        except ProviderError as error:
            if self._answered is None or error.status in _KEY_ACCEPTED:
                raise
            return False
        return isinstance(value, list) or (isinstance(value, dict) and isinstance(value.get("data"), list))

    def _has_public_list(self) -> bool:
        try:
            return self._has_list("")
        except ProviderError as error:
            if not error.provider_status:
                raise
            return False

    def _ask_for_a_token(self) -> None:
        body: Dict[str, Any] = {"model": self._model.name, "messages": [{"role": "user", "content": "Hi"}]}
        if self._model.direct:
            path = self._model.messages_path("/v1/messages")
            value = _read(self._send(self._key, path, {**body, "max_tokens": 1}))
            if not isinstance(value, dict) or value.get("type") != "message":
                raise ProviderError("it answers, but not as the Messages API does")
            return
        if self._model.api == "responses":
            body = {"model": self._model.name, "input": "Hi", "store": False}
        dialect = self._model.dialect
        body.update({dialect.max_tokens_field: dialect.min_output_tokens, **self._model.extra_body})
        try:
            response = self._send(self._key, APIS[self._model.api].path, body)
        except ProviderError as error:
            if error.is_output_limit:
                return  # it thought, and had no token left to say so
            raise
        try:
            chunks = [chunk for batch in response.chunks() for chunk in batch]
        finally:
            response.close()
        failed = next((chunk.error for chunk in chunks if chunk.error), None)
        if failed:
            secrets = tuple(self._config.secrets)
            raise error_in_stream(failed, Target(self.finding.provider, self._model.name, secrets=secrets))
        if not any(chunk.has_choice for chunk in chunks):
            raise ProviderError(f"it answers, but not as {APIS[self._model.api].name} do")

    def _send(self, key: str, path: str, body: Optional[Mapping[str, Any]] = None) -> ProviderResponse:
        headers = {**_HEADERS, **({"anthropic-version": "2023-06-01"} if self._model.direct else {})}
        if body is None:
            call = Call(self._model, path, b"", headers, method="GET")
        else:
            call = Call(self._model, path, json.dumps(body).encode(), {**headers, "content-type": "application/json"})
        try:
            response = self._client.send_with(key, call, self._config, self.cancel)
        except ProviderError as error:
            if error.provider_status:
                self._note_answer()
            raise
        self._note_answer()
        return response

    def _note_answer(self) -> None:
        if self._answered is None:
            self._answered = time.monotonic()


def _read(response: ProviderResponse) -> Any:
    """Return the JSON of an answer; None when it is none, or has no end."""
    try:
        body = whole(response.reads())
        response.is_done = True
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
    finally:
        response.close()
