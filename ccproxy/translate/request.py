"""``MessagesRequest`` to ``ChatRequest`` or ``ResponsesRequest``, and what had to be dropped on the way."""

from __future__ import annotations

import re
from typing import FrozenSet, List, Optional, Tuple, Union

from ..anthropic import Message, MessagesRequest, ToolResultBlock, ToolUseBlock, refuse_unsupported
from ..config.schema import Model
from ..encoded import Json
from ..frozen import frozen
from ..openai import ChatRequest
from ..remembered import once_each
from ..responses import ResponsesRequest
from .content import Notes, Target
from .effort import effort_fields
from .envelope import unseal_id
from .ids import ToolNames
from .messages import translate_messages, with_breakpoint
from .options import format_fields, format_instruction, identity_fields, length_fields, sampling_fields
from .responses_request import responses_request
from .search_request import search_fields, search_tool, search_words
from .tools import current_tools, translate_choice, translate_tools

# Request fields without a counterpart at other providers; left out in silence, clients send them always.
IGNORED_FIELDS = frozenset(
    """
    model messages max_tokens system tools tool_choice stream temperature top_p top_k stop_sequences
    thinking output_config output_format metadata context_management safeguards service_tier speed container
    inference_geo diagnostics user_profile_id workspace_id fallbacks fallback_credit_token billing_policy
    cache_control mcp_servers
    """.split()  # noqa: SIM905 - a list of one word a line says no more
)


@frozen
class Translated:
    """A request in the provider's words, the way back for tool names, and notes on what was dropped."""

    request: Union[ChatRequest, ResponsesRequest]
    tool_names: ToolNames
    has_fence: bool
    """Whether a JSON answer may come in a Markdown fence: the schema was only asked for in words."""
    search: Optional[str]
    """What is to be searched in the web; None where no search was asked for."""
    dropped: Tuple[str, ...]


def translate_request(request: MessagesRequest, model: Model, *, output_limit: int, stream: bool) -> Translated:
    """Translate a request for one model.

    Args:
        output_limit: the most output tokens that may be asked of the model.
        stream: whether the provider is asked for a stream.

    Raises:
        InvalidRequest: the request needs something that only Anthropic has.
    """
    refuse_unsupported(request.raw)
    dialect, notes = model.dialect, Notes()
    target = Target(model, keeps_cache_control=bool(re.search(dialect.keeps_cache_control, model.name.lower())))
    tools = translate_tools(request, dialect, notes)
    choice, demand = translate_choice(request, dialect, tools, notes)
    instruction = format_instruction(request, model)
    options = {
        **sampling_fields(request, model, notes),
        **length_fields(request, model, output_limit),
        **choice,
        **effort_fields(request, model, bool(tools), min(request.max_tokens or output_limit, output_limit)),
        **format_fields(request, model),
        **identity_fields(request, model),
    }
    search = search_tool(request) if dialect.web_search else None
    if search is not None:
        hosted, fields = search_fields(search, dialect, notes)
        tools += hosted
        options.update(fields)
    build = responses_request if model.api == "responses" else _chat
    body = build(request, target, notes, [text for text in (instruction, demand) if text], tools, options, stream)
    for name in sorted(set(request.raw) - IGNORED_FIELDS):
        notes.drop(f"unknown field {name!r}")
    names = ToolNames(tool.name for tool in current_tools(request))
    return Translated(
        body,
        names,
        has_fence=bool(instruction),
        search=search_words(request) if search else None,
        dropped=tuple(notes.dropped),
    )


def _chat(
    request: MessagesRequest,
    target: Target,
    notes: Notes,
    instructions: List[str],
    tools: List[Json],
    options: Json,
    stream: bool,
) -> ChatRequest:
    if stream and target.dialect.takes_stream_options:
        options["stream_options"] = {"include_usage": True}
    if stream and tools and target.dialect.takes_tool_stream:
        options["tool_stream"] = True
    messages = translate_messages(request, target, notes, instructions)
    if target.keeps_cache_control and isinstance(request.raw.get("cache_control"), dict):
        messages = with_breakpoint(messages, request.raw["cache_control"], target)
    if messages[-1].role == "assistant":
        options.update(target.dialect.continue_fields)
    options.update(target.model.extra_body)
    return ChatRequest(target.model.name, tuple(messages), tuple(tools), options, stream)


def used_tool_ids(request: MessagesRequest) -> FrozenSet[str]:
    """Return the conversation's tool ids without what they carry: new ones must differ, clients key results by id."""
    return frozenset().union(*once_each(request.messages, _tool_ids))


def _tool_ids(message: Message) -> List[str]:
    return [
        unseal_id(block.id if isinstance(block, ToolUseBlock) else block.tool_use_id)[0]
        for block in message.content
        if isinstance(block, (ToolUseBlock, ToolResultBlock))
    ]
