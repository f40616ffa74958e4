"""Which models may answer a request, in which order, and why."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import Callable, List, Optional, Tuple

from .accounting.budget import Budget
from .anthropic import Block, ImageBlock, MessagesRequest, ToolResultBlock
from .config.schema import EFFORTS, Config, Model, demo_model
from .config.values import references
from .errors import NotFound
from .frozen import frozen
from .translate.effort import thinking_intent
from .translate.search_request import can_search, is_search

MODEL_HEADER = "x-ccproxy-model"
BUDGET, LONG_CONTEXT = "budget", "long_context"
ALIASED = {"default": "claude-sonnet-4-5", "background": "claude-haiku-4-5"}
"""The rules by which Claude Code is told models, such as ``background:gpt-5-nano``, and a name of its own for each."""
STAYS_ABOVE = 0.9
"""The share of the limit down to which a conversation that was above it stays: its cache is where it was."""


@frozen
class Decision:
    """A route: the models in order, the rule that chose them, and the reason in words."""

    models: Tuple[Model, ...]
    rule: str
    reason: str


def configured_models(config: Config) -> Tuple[Model, ...]:
    """Return the models that the configuration names: entries, those of rules, fallbacks; the demo where it answers."""
    routed = map(config.find, chain.from_iterable(config.routers.values()))
    named = [*config.models.values(), *(model for model in routed if model is not None)]
    named += [model for entry in list(named) for model in map(config.find, entry.fallbacks) if model is not None]
    if (
        not config.router_default
        and not config.variables.get("ANTHROPIC_API_KEY")
        and not any(map(config.is_ready, named))
    ):
        named.append(demo_model(config))
    return tuple({model.model_id: model for model in named}.values())


def has_images(request: MessagesRequest) -> bool:
    """Whether any message, or any tool result in it, holds an image."""

    def any_image(blocks: Tuple[Block, ...]) -> bool:
        return any(
            isinstance(block, ImageBlock) or (isinstance(block, ToolResultBlock) and any_image(block.content))
            for block in blocks
        )

    return any(any_image(message.content) for message in request.messages)


def is_web_search(request: MessagesRequest) -> bool:
    """Whether the only tool is Anthropic's web search: Claude Code's side request."""
    return len(request.tools) == 1 and is_search(request.tools[0])


def decide(
    request: MessagesRequest,
    config: Config,
    count_tokens: Callable[[Model], int],
    surely_fit: Callable[[Model, int], bool] = lambda model, limit: False,
    *,
    last: Optional[Decision] = None,
    named: str = "",
    budget: Optional[Budget] = None,
) -> Decision:
    """Return the route of a request; the first rule that fires wins.

    Args:
        count_tokens: the input tokens for a model; called, for the model that would answer a request of any length,
            only where the count can change the decision.
        surely_fit: whether the count for a model cannot exceed a limit, where that is known without counting.
        last: the conversation's last route, when it is recent enough for a provider's cache to hold the prompt.
        named: the models that the client named in the header ``x-ccproxy-model``, past all rules.
        budget: the budget of which the least is left.

    Raises:
        NotFound: one of ``named`` is not known.
    """
    if named:
        return _named(named, config)
    cheap = _budget_rule(config, budget, count_tokens, surely_fit)
    base = cheap or _without_length(request, config)
    long = None if cheap else _length_rule(config, base, count_tokens, surely_fit, last)
    return _search_rule(request, _image_rule(request, config, long or base))


def plain_route(name: str, config: Config) -> Decision:
    """Return the route of a request for this name about which nothing else is special."""
    fields = {"model": name, "max_tokens": 1, "messages": [{"role": "user", "content": "Hello"}]}
    return decide(MessagesRequest.from_dict(fields), config, lambda model: 0)


def _search_rule(request: MessagesRequest, decision: Decision) -> Decision:
    """Of a search's route leave the models that can search, as far as there are any."""
    able = tuple(model for model in decision.models if can_search(model, request)) if is_web_search(request) else ()
    return replace(decision, models=able) if able else decision


def _named(named: str, config: Config) -> Decision:
    wanted = references(named)
    unknown = next((reference for reference in wanted if config.find(reference) is None), None)
    if unknown is not None or not wanted:
        raise NotFound(f"{MODEL_HEADER}: no such model: {unknown or named}")
    return _route(config, wanted, "header", f"{MODEL_HEADER} asks for {named}")


def _budget_rule(
    config: Config,
    budget: Optional[Budget],
    count_tokens: Callable[[Model], int],
    surely_fit: Callable[[Model, int], bool],
) -> Optional[Decision]:
    """Land softly: what fits into the cheaper model goes there."""
    if budget is None or not budget.is_nearly_spent or not config.router_background:
        return None
    decision = _route(config, config.router_background, BUDGET, f"{budget.words}: ROUTER_BACKGROUND answers")
    model = decision.models[0]
    window = config.window(model)
    return decision if surely_fit(model, window) or count_tokens(model) <= window else None


def _length_rule(
    config: Config,
    base: Decision,
    count_tokens: Callable[[Model], int],
    surely_fit: Callable[[Model, int], bool],
    last: Optional[Decision],
) -> Optional[Decision]:
    model = base.models[0]
    window, threshold, name = config.window(model), config.long_context_threshold, "LONG_CONTEXT_THRESHOLD"
    if model.long_context_threshold:
        threshold, name = model.long_context_threshold, f"the long_context_threshold of {model.model_id}:"
    limit = min(window, threshold)
    was_long = last is not None and last.rule == LONG_CONTEXT
    floor = int(limit * STAYS_ABOVE) if was_long else limit
    if not config.router_long_context or surely_fit(model, floor):
        return None
    tokens = count_tokens(model)
    if tokens > threshold:
        reason = f"{tokens} tokens > {name} {threshold}"
    elif tokens > window:
        reason = f"{tokens} tokens > the {window} of {model.model_id}"
    elif tokens > floor:
        reason = f"{tokens} tokens, it was above {limit} and stays where its cache is until {floor}"
    else:
        return None
    return _route(config, config.router_long_context, LONG_CONTEXT, reason)


def _without_length(request: MessagesRequest, config: Config) -> Decision:
    if config.router_web_search and is_web_search(request):
        return _route(config, config.router_web_search, "web_search", "the only tool is a web search")
    if config.router_think:
        reason = _thinking_reason(request, config)
        if reason:
            return _route(config, config.router_think, "think", reason)
    requested = find_requested(request.model, config)
    if requested is not None:
        return _route(config, (), "override", f"the client asked for {requested.model_id}", requested)
    small = _background_reason(request.model)
    if config.router_background and small:
        return _route(config, config.router_background, "background", small)
    return _default(request, config)


def _thinking_reason(request: MessagesRequest, config: Config) -> Optional[str]:
    """Return why a request counts as thinking; newer clients ask for adaptive thinking in every request."""
    kind, intent = request.thinking.get("type"), thinking_intent(request)
    if kind == "enabled":
        return f"thinking is enabled with a budget of {request.thinking.get('budget_tokens')} tokens"
    least = config.router_think_effort
    if kind == "adaptive" and EFFORTS.index(intent) >= EFFORTS.index(least):
        return f"adaptive thinking at effort {intent}, ROUTER_THINK_EFFORT is {least}"
    return None


def find_requested(name: str, config: Config) -> Optional[Model]:
    """Return the model a client names on purpose; other ``claude-*`` names merely pass by.

    ``[1m]`` is Claude Code's own suffix. ``claude-<model_id>`` is the alias under which models are listed for
    clients that show only Claude's names.
    """
    plain = without_suffix(name)
    if plain in config.models or not plain.startswith("claude"):
        return config.find(plain)
    return config.models.get(plain[len("claude-") :])


def aliased_rule(name: str) -> str:
    """Return the rule in an alias such as ``background:gpt-5-nano``, of other names an empty text.

    The model in it is for the reader: what the rule says now is what counts.
    """
    rule, colon, _ = name.partition(":")
    return rule if colon and rule in ALIASED else ""


def _background_reason(name: str) -> str:
    """Return why a name is one for small tasks, or an empty text."""
    rule = aliased_rule(name)
    if rule == "background":
        return "the name of the client's small model"
    return f"{name} is a haiku-class name" if not rule and "haiku" in name.lower() else ""


def without_suffix(name: str) -> str:
    """Return a model name without ``[1m]``, which Claude Code puts behind names and the API does not know."""
    return name[: -len("[1m]")] if name.endswith("[1m]") else name


def _default(request: MessagesRequest, config: Config) -> Decision:
    if config.router_default:
        return _route(config, config.router_default, "default", "no other rule fired")
    if config.variables.get("ANTHROPIC_API_KEY"):
        name = ALIASED.get(aliased_rule(request.model)) or without_suffix(request.model)
        model = config.find(f"anthropic/{name}")
        assert model is not None
        return Decision((model,), "default", "ROUTER_DEFAULT is not set: passed through to Anthropic")
    ready = next((model for model in config.models.values() if config.is_ready(model)), None)
    if ready is not None:
        return _route(config, (), "default", "ROUTER_DEFAULT is not set: the first model with a key", ready)
    return Decision((demo_model(config),), "default", "no model is configured: the built-in demo answers")


def _image_rule(request: MessagesRequest, config: Config, decision: Decision) -> Decision:
    model = decision.models[0]
    if not config.router_image or model.direct or model.takes_images or not has_images(request):
        return decision
    reason = f"{decision.rule} would be {model.model_id}, which cannot see the images"
    return _route(config, config.router_image, "image", reason)


def _route(
    config: Config, references: Tuple[str, ...], rule: str, reason: str, first: Optional[Model] = None
) -> Decision:
    """Return the decision for a list of references; each model brings its own fallbacks along."""
    wanted: List[Optional[Model]] = [first] if first else [config.find(reference) for reference in references]
    wanted += [config.find(name) for model in list(wanted) if model for name in model.fallbacks]
    models = {model.model_id: model for model in wanted if model is not None}
    return Decision(tuple(models.values()), rule, reason)
