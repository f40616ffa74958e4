"""What Claude Code is told by its environment, so that it talks to the proxy and knows the limits of its models."""

from __future__ import annotations

from typing import Dict, Mapping, Tuple

from .anthropic import MessagesRequest
from .config.schema import Config, Model
from .routing import decide

ANY_TOKEN = "ccproxy"
"""The client insists on a token; without CCPROXY_AUTH_TOKEN any will do."""
# The oldest supported version waits 60 s for an answer unless told; later ones as long as this.
TIMEOUT_MS = 600_000
# What would lead the client past the proxy, or makes it present two credentials.
UNSET = (
    "ANTHROPIC_API_KEY",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_FOUNDRY",
    "CLAUDE_CODE_USE_VERTEX",
)
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def client_variables(config: Config, url: str, *, own_names: bool = False) -> Dict[str, str]:
    """Return the variables that connect Claude Code, for old and new versions.

    The client goes on to ask for Claude's models, and the routers choose; the newest version also lists the models of
    models.yaml in its menu. A conversation may grow as far as ROUTER_LONG_CONTEXT's model takes it: versions of 2026
    take names they do not know, and Claude's newest, for models of a million tokens unless told.

    Args:
        own_names: name the routers' models to the client, instead of Claude's. It then asks for them one by one, past
            the routers' fallbacks.
    """
    model = _plain_route(config)
    variables = {
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_AUTH_TOKEN": config.ccproxy_auth_token or ANY_TOKEN,
        "API_TIMEOUT_MS": str(TIMEOUT_MS),
        "CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY": "1",
    }
    if not model.direct or model.max_input_tokens:
        window = max(config.window(model), *map(config.window, _first(config, config.router_long_context)), 0)
        variables["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] = str(window)
        variables["CLAUDE_CODE_AUTO_COMPACT_WINDOW"] = str(window)
    if not model.direct or model.max_tokens:
        variables["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] = str(config.output_limit(model))
    return {**variables, **(_names(config, model) if own_names else {})}


def _plain_route(config: Config) -> Model:
    """Return the model that answers a request nothing is special about."""
    fields = {"model": "claude-sonnet-4-5", "max_tokens": 1, "messages": [{"role": "user", "content": "Hello"}]}
    return decide(MessagesRequest.from_dict(fields), config, lambda model: 0).models[0]


def _first(config: Config, references: Tuple[str, ...]) -> Tuple[Model, ...]:
    """Return the first model of a router, if it has one."""
    return tuple(model for model in map(config.find, references[:1]) if model is not None)


def _names(config: Config, model: Model) -> Dict[str, str]:
    """Return the names of the models by the client's classes; the first two are those of its oldest versions."""
    background, think = (
        (*_first(config, router), model)[0] for router in (config.router_background, config.router_think)
    )
    return {
        "ANTHROPIC_MODEL": model.model_id,
        "ANTHROPIC_SMALL_FAST_MODEL": background.model_id,
        "ANTHROPIC_DEFAULT_SONNET_MODEL": model.model_id,
        "ANTHROPIC_DEFAULT_OPUS_MODEL": think.model_id,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": background.model_id,
    }


def client_environment(environment: Mapping[str, str], variables: Mapping[str, str], host: str) -> Dict[str, str]:
    """Return the environment of a client: its owner's own choices stay, but for what leads it past the proxy.

    ``host`` is the proxy's: the client must reach it without the HTTP proxy that the environment may name.
    """
    connection = ("ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN")
    own = {name: value for name, value in environment.items() if name not in (*UNSET, *connection)}
    chosen = {**variables, **own}
    if any(own.get(name) or own.get(name.lower()) for name in _PROXIES):
        hosts = ",".join(filter(None, [own.get("NO_PROXY") or own.get("no_proxy"), host]))
        chosen.update(NO_PROXY=hosts, no_proxy=hosts)
    return chosen
