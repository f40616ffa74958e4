"""``Config`` and ``Model``: every setting with its default and how it is read."""

from __future__ import annotations

import re
from dataclasses import field, fields, replace
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Any, Callable, Dict, FrozenSet, Mapping, Optional, Set, Tuple, TypeVar

from ..errors import ConfigError
from ..frozen import frozen
from ..provider.dialects import DIALECTS, RESPONSES, Dialect, needs_responses, recognise
from .credentials import secret_headers
from .providers import PROVIDERS, Provider
from .values import (
    Reader,
    budget,
    host_name,
    money,
    one_of,
    port_number,
    positive_number,
    references,
    seconds,
    text,
    token,
    truth,
    whole_number,
    worker_count,
)

T = TypeVar("T")

EFFORTS = ("low", "medium", "high", "xhigh", "max")
APIS = ("chat", "responses")
"""The APIs of OpenAI's that a provider may speak: chat completions and responses."""


@frozen
class Model:
    """One model that can answer. Prices are USD per token; None where nobody told."""

    model_id: str
    api_base: str
    model_name: str = ""
    api_key_name: str = ""
    can_stream: bool = True
    max_tokens: Optional[int] = None
    max_input_tokens: Optional[int] = None
    long_context_threshold: Optional[int] = None
    """In place of LONG_CONTEXT_THRESHOLD, when this model would answer."""
    input_cost_per_token: Optional[Decimal] = None
    output_cost_per_token: Optional[Decimal] = None
    cache_read_cost_per_token: Optional[Decimal] = None
    cache_write_cost_per_token: Optional[Decimal] = None
    cache_write_1h_cost_per_token: Optional[Decimal] = None
    dialect_name: str = ""
    api_name: str = ""
    direct: bool = False
    reasoning_effort: Optional[str] = None
    temperature: Optional[float] = None
    extra_headers: Mapping[str, str] = field(default_factory=dict)
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    supports_images: Optional[bool] = None
    fallbacks: Tuple[str, ...] = ()
    forward_client_key: bool = False
    """Whether a ``direct`` provider is given the client's own credential, as it came."""
    ca_bundle: str = ""
    """A file of CA certificates to trust instead of the usual ones."""
    client_cert: Tuple[str, ...] = ()
    """A client certificate: one file, or certificate and key."""
    needs_key: bool = True

    @property
    def name(self) -> str:
        """The name the provider is sent."""
        return self.model_name or self.model_id

    @cached_property
    def dialect(self) -> Dialect:
        """The model's dialect: the configured one, else the one recognised from address and name."""
        name = self.dialect_name or recognise(self.api_base, self.name).name
        return (RESPONSES if self.api == "responses" else DIALECTS)[name]

    @cached_property
    def api(self) -> str:
        """One of ``APIS``: the configured one, else chat completions for all models that do not need the other."""
        return self.api_name or ("responses" if needs_responses(self.api_base, self.name) else "chat")

    @cached_property
    def over_responses(self) -> Model:
        """The same model over the Responses API."""
        return replace(self, api_name="responses")

    @property
    def is_at_anthropic(self) -> bool:
        """Whether Anthropic itself is asked."""
        return "//api.anthropic.com" in self.api_base

    def messages_path(self, path: str) -> str:
        """Return what follows ``api_base``, which may end with ``/v1``, for a path of the Messages API."""
        return path[len("/v1") :] if self.api_base.endswith("/v1") else path

    @property
    def takes_images(self) -> bool:
        """Whether images may be sent."""
        return self.dialect.takes_images if self.supports_images is None else self.supports_images

    @cached_property
    def provider(self) -> str:
        """A short name of the provider, for messages; an address may hold a password, which is left out."""
        known = next((row.name for row in PROVIDERS.values() if row.api_base == self.api_base), None)
        return known or re.sub(r"^\w+://|/.*$", "", self.api_base).rpartition("@")[2]


# --- settings ------------------------------------------------------------------------------------------------


def setting(read: Reader[T], default: T, **options: Any) -> T:
    """Return a field of ``Config`` that the variable of its name sets: how its value is read, and its default."""
    made: T = field(default=default, metadata={"read": read}, **options)
    return made


@frozen
class Config:
    """One snapshot of the configuration; a request keeps the one it began with. What each setting is for, the README
    tells.

    ``variables`` holds what is no setting but may be used by a model: keys and local addresses.
    """

    router_default: Tuple[str, ...] = setting(references, ())
    router_background: Tuple[str, ...] = setting(references, ())
    router_think: Tuple[str, ...] = setting(references, ())
    router_long_context: Tuple[str, ...] = setting(references, ())
    router_image: Tuple[str, ...] = setting(references, ())
    router_web_search: Tuple[str, ...] = setting(references, ())
    router_think_effort: str = setting(one_of(*EFFORTS), "xhigh")
    long_context_threshold: int = setting(positive_number, 128_000)
    host: str = setting(host_name, "127.0.0.1")
    port: int = setting(port_number, 8082)
    ccproxy_auth_token: str = setting(token, "", repr=False)
    custom_models_file: str = setting(text, "models.yaml")
    max_tokens_limit: Optional[int] = setting(positive_number, None)
    default_max_tokens: int = setting(positive_number, 8192)
    default_max_input_tokens: int = setting(positive_number, 128_000)
    default_input_cost_per_token: Optional[Decimal] = setting(money, None)
    default_output_cost_per_token: Optional[Decimal] = setting(money, None)
    max_retries: int = setting(whole_number, 2)
    retry_max_wait: float = setting(seconds, 30.0)
    ping_interval: float = setting(seconds, 10.0)
    commit_after: float = setting(seconds, 10.0)
    max_request_bytes: int = setting(positive_number, 33_554_432)
    max_connections: int = setting(positive_number, 4096)
    keepalive_timeout: float = setting(seconds, 60.0)
    client_header_timeout: float = setting(seconds, 15.0)
    client_body_timeout: float = setting(seconds, 30.0)
    client_write_timeout: float = setting(seconds, 60.0)
    provider_connect_timeout: float = setting(seconds, 10.0)
    provider_read_timeout: float = setting(seconds, 300.0)
    provider_total_timeout: float = setting(seconds, 3600.0)
    drain_timeout: float = setting(seconds, 30.0)
    log_level: str = setting(one_of("DEBUG", "INFO", "WARNING", "ERROR"), "INFO")
    log_file_path: str = setting(text, "")
    log_bodies: bool = setting(truth, False)
    state_dir: str = setting(text, "")
    session_budget_usd: Optional[Decimal] = setting(budget, None)
    daily_budget_usd: Optional[Decimal] = setting(budget, None)
    workers: int = setting(worker_count, 1)
    models: Mapping[str, Model] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    warnings: Tuple[str, ...] = ()
    """What its owner should know about it."""

    @cached_property
    def routers(self) -> Dict[str, Tuple[str, ...]]:
        """The references of each router setting, by the name of its rule."""
        return {rule: getattr(self, f"router_{rule}") for rule in ROUTER_RULES}

    def find(self, reference: str) -> Optional[Model]:
        """Return the model a reference names: a model_id, ``custom/<model_id>`` or ``<provider>/<model name>``."""
        if reference in self.models:
            return self.models[reference]
        head, _, rest = reference.partition("/")
        if head == "custom" or not rest:
            return self.models.get(rest)
        provider = PROVIDERS.get(head)
        return None if provider is None else _model_of(head, rest, self.address_of(provider))

    def address_of(self, provider: Provider) -> str:
        """Return the address of a built-in provider."""
        own = self.variables.get(f"{provider.name.upper()}_API_BASE", "") if provider.is_local else ""
        return own.strip().rstrip("/") or provider.api_base

    def keys_of(self, model: Model) -> Tuple[str, ...]:
        """Return the model's API keys; several are separated by commas."""
        return _keys(self.variables.get(model.api_key_name, ""))

    def is_ready(self, model: Model) -> bool:
        """Whether the model can be asked: it has a key or needs none."""
        return not model.needs_key or bool(self.keys_of(model))

    def output_limit(self, model: Model) -> int:
        """Return the most output tokens that may be asked of a model."""
        limit = model.max_tokens or self.default_max_tokens
        return min(limit, self.max_tokens_limit) if self.max_tokens_limit else limit

    def window(self, model: Model) -> int:
        """Return a model's context window in tokens."""
        return model.max_input_tokens or self.default_max_input_tokens

    @property
    def key_names(self) -> Set[str]:
        """The names of the variables that hold keys."""
        return {row.api_key_name for row in PROVIDERS.values()} | {row.api_key_name for row in self.models.values()}

    @cached_property
    def secrets(self) -> FrozenSet[str]:
        """Everything that must never be shown: the token, all keys in use, and what models.yaml holds of the kind."""
        found = {key.strip() for name in self.key_names for key in self.variables.get(name, "").split(",")}
        found.update(secret for row in self.models.values() for secret in secret_headers(row.extra_headers))
        return frozenset((found | {self.ccproxy_auth_token}) - {""})


SETTINGS: Dict[str, Callable[[Any], Any]] = {
    row.name.upper(): row.metadata["read"] for row in fields(Config) if "read" in row.metadata
}
"""Each variable, and how its value is read."""
ROUTER_RULES = tuple(name[len("ROUTER_") :].lower() for name, read in SETTINGS.items() if read is references)


@lru_cache(maxsize=64)
def _keys(text: str) -> Tuple[str, ...]:
    return tuple(key.strip() for key in text.split(",") if key.strip())


@lru_cache(maxsize=256)  # one object each: each turn of a conversation is compared with it, 15 us if it is another one
def _model_of(name: str, model_name: str, api_base: str) -> Model:
    """Return a model of the built-in provider of that name, at its address."""
    provider = PROVIDERS[name]
    return Model(
        model_id=f"{name}/{model_name}",
        api_base=api_base,
        model_name=model_name,
        api_key_name=provider.api_key_name,
        dialect_name=provider.dialect,
        direct=provider.is_direct,
        needs_key=not provider.is_local,
    )


def build_config(
    values: Mapping[str, Tuple[Any, str]], models: Mapping[str, Model], variables: Mapping[str, str]
) -> Config:
    """Return the checked configuration.

    Args:
        values: per setting its raw value and where it was found, such as ``.env:3``.

    Raises:
        ConfigError: naming the place, the setting and what is allowed.
    """
    chosen: Dict[str, Any] = {}
    for name, (raw, place) in values.items():
        read = SETTINGS[name]
        try:
            chosen[name.lower()] = read(raw)
        except ValueError as error:
            shown = "what is there" if read is token else repr(raw)
            raise ConfigError(f"{place}: {name}: expected {error}, not {shown}") from None
    config = Config(models=models, variables=variables, **chosen)
    _check_references(config, {name: place for name, (_, place) in values.items()})
    return config


def _check_references(config: Config, places: Mapping[str, str]) -> None:
    for rule, router in config.routers.items():
        name = f"ROUTER_{rule.upper()}"
        for reference in router:
            _check_reference(config, reference, f"{places.get(name, 'settings')}: {name}")
    for model in config.models.values():
        for reference in model.fallbacks:
            _check_reference(config, reference, f"models file: {model.model_id}: fallbacks")


def _check_reference(config: Config, reference: str, where: str) -> None:
    if config.find(reference) is None:
        known = ", ".join([*config.models, *(f"{name}/<model>" for name in PROVIDERS)])
        raise ConfigError(f"{where}: unknown model {reference!r}; known: {known}")


def demo_model(config: Config) -> Model:
    """Return the model that answers when nothing is configured."""
    model = config.find("demo/echo")
    assert model is not None
    return model
