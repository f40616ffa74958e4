"""What Claude Code is told by its environment, so that it talks to the proxy and knows the limits of its models."""

from __future__ import annotations

from typing import Dict, Mapping

from .config.schema import Config, Model
from .routing import ALIASED, plain_route

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
LEAST_COMPACT_WINDOW = 100_000
"""Versions of 2026 warn of a smaller one, and take this."""
_CLASSES = {  # the rule, and the variables by which the client names the models for such requests
    "default": ("ANTHROPIC_DEFAULT_OPUS_MODEL", "ANTHROPIC_DEFAULT_SONNET_MODEL", "ANTHROPIC_DEFAULT_FABLE_MODEL"),
    "background": ("ANTHROPIC_DEFAULT_HAIKU_MODEL", "ANTHROPIC_SMALL_FAST_MODEL"),
}
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def client_variables(config: Config, url: str) -> Dict[str, str]:
    """Return the variables that connect Claude Code, for old and new versions.

    The newest version also lists the models of models.yaml in its menu. A conversation may grow as far as
    ROUTER_LONG_CONTEXT's model takes it: versions of 2026 take names they do not know, and Claude's newest, for models
    of a million tokens unless told. They take no window below 100,000 tokens for a setting of when to compact, but
    believe any for a model that they do not know.
    """
    model = plain_route(ALIASED["default"], config).models[0]
    variables = {
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_AUTH_TOKEN": config.ccproxy_auth_token or ANY_TOKEN,
        "API_TIMEOUT_MS": str(TIMEOUT_MS),
        "CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY": "1",
    }
    if _has_own_window(model):
        long = [found for found in map(config.find, config.router_long_context[:1]) if found is not None]
        window = max(map(config.window, [model, *long]))
        variables["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] = str(window)
        if window >= LEAST_COMPACT_WINDOW:
            variables["CLAUDE_CODE_AUTO_COMPACT_WINDOW"] = str(window)
    if not model.direct or model.max_tokens:
        variables["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] = str(config.output_limit(model))
    return {**variables, **_aliases(config)}


def _aliases(config: Config) -> Dict[str, str]:
    """Return what the client calls its classes of models: the rule, and the model that it leads to.

    A rule and no class of Claude's, since 2.1.112 thinks at length with every unknown name that has one in it. Models
    of which the client knows more than we, Anthropic's own, keep their names.
    """
    aliases: Dict[str, str] = {}
    for rule, names in _CLASSES.items():
        model = plain_route(ALIASED[rule], config).models[0]
        if _has_own_window(model):
            aliases.update(dict.fromkeys(names, f"{rule}:{model.model_id}"))
    if "ANTHROPIC_DEFAULT_OPUS_MODEL" in aliases:  # behind this one the client writes [1m]
        aliases["CLAUDE_CODE_DISABLE_1M_CONTEXT"] = "1"
    return aliases


def _has_own_window(model: Model) -> bool:
    """Whether what we know of a model's window is more than what the client knows: that of Claude's own models."""
    return not model.direct or bool(model.max_input_tokens)


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
