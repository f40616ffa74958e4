"""``MessagesRequest`` to ``ChatRequest``, and what had to be dropped on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, FrozenSet, Optional, Tuple

from ..anthropic import MessagesRequest, ToolResultBlock, ToolUseBlock
from ..config.schema import Model
from ..openai import ChatRequest
from .content import Notes, Target
from .ids import ToolNames
from .messages import translate_messages
from .tools import translate_choice, translate_tools

Json = Dict[str, Any]

# Request fields without a counterpart at other providers; left out in silence, clients send them always.
IGNORED_FIELDS = frozenset(
    """
    model messages max_tokens system tools tool_choice stream temperature top_p top_k stop_sequences
    thinking output_config metadata context_management safeguards service_tier speed container inference_geo
    diagnostics user_profile_id workspace_id fallbacks fallback_credit_token billing_policy cache_control mcp_servers
    """.split()  # noqa: SIM905 - a list of one word a line says no more
)


@dataclass(frozen=True)
class Translated:
    """A request in the provider's words, the way back for tool names, and notes on what was dropped."""

    chat: ChatRequest
    tool_names: ToolNames
    dropped: Tuple[str, ...]


def translate_request(request: MessagesRequest, model: Model, *, output_limit: int, stream: bool) -> Translated:
    """Translate a request for one model.

    Args:
        output_limit: the most output tokens that may be asked of the model.
        stream: whether the provider is asked for a stream.

    Raises:
        InvalidRequest: the request needs something that only Anthropic has.
    """
    dialect, notes = model.dialect, Notes()
    target = Target(dialect, model.takes_images)
    tools = translate_tools(request, dialect, notes)
    choice = translate_choice(request.tool_choice, dialect, tools, notes)
    options = {**_sampling(request, model, notes), **_length(request, model, output_limit), **choice}
    if stream and dialect.takes_stream_options:
        options["stream_options"] = {"include_usage": True}
    options.update(model.extra_body)
    for name in sorted(set(request.raw) - IGNORED_FIELDS):
        notes.drop(f"unknown field {name!r}")
    chat = ChatRequest(model.name, tuple(translate_messages(request, target, notes)), tuple(tools), options, stream)
    return Translated(chat, ToolNames(tool.name for tool in request.tools), tuple(notes.dropped))


def _length(request: MessagesRequest, model: Model, output_limit: int) -> Json:
    asked = request.max_tokens if request.max_tokens is not None else output_limit
    options: Json = {model.dialect.max_tokens_field: min(asked, output_limit)}
    stops = [stop for stop in request.stop_sequences if stop.strip()][: model.dialect.max_stop_sequences]
    return {**options, "stop": stops} if stops else options


def _sampling(request: MessagesRequest, model: Model, notes: Notes) -> Json:
    temperature = model.temperature if model.temperature is not None else request.temperature
    options: Dict[str, Optional[Any]] = {"temperature": temperature, "top_p": request.top_p}
    if model.dialect.takes_top_k:
        options["top_k"] = request.top_k
    elif request.top_k is not None:
        notes.drop("top_k: the provider has no such parameter")
    options["reasoning_effort"] = model.reasoning_effort
    return {name: value for name, value in options.items() if value is not None}


def used_tool_ids(request: MessagesRequest) -> FrozenSet[str]:
    """Return the tool ids of the conversation so far; new ones must differ, clients key results by id."""
    return frozenset(
        block.id if isinstance(block, ToolUseBlock) else block.tool_use_id
        for message in request.messages
        for block in message.content
        if isinstance(block, (ToolUseBlock, ToolResultBlock))
    )
