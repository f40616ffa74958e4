"""Anthropic's web-search tool in the words of providers that search by themselves."""

from __future__ import annotations

import re
from typing import List, Optional, Tuple

from ..anthropic import MessagesRequest, TextBlock, Tool
from ..config.providers import PROVIDERS
from ..config.schema import Model
from ..encoded import Json
from ..provider.dialects import RESPONSES, Dialect
from .content import Notes

# How Claude Code begins the one message of a search.
_CLAUDE_CODE = re.compile(r"^Perform a web search for the query:\s*")
_MAX_WORDS = 400
SERVERS = "OpenAI, xAI, OpenRouter or Anthropic"


def is_search(tool: Tool) -> bool:
    """Whether a tool is Anthropic's web search."""
    return tool.type.startswith("web_search_")


def search_tool(request: MessagesRequest) -> Optional[Tool]:
    """Return the web search a request asks for, unless no tool may be used."""
    if request.tool_choice is not None and request.tool_choice.type == "none":
        return None
    return next(filter(is_search, request.tools), None)


def with_search(model: Model, request: MessagesRequest) -> Model:
    """Return the model as it is to be asked: of OpenAI and xAI over the Responses API, which alone can search."""
    is_known = not model.api_name and not model.direct and model.provider in PROVIDERS
    if search_tool(request) is None or model.dialect.web_search or not is_known:
        return model
    return model.over_responses if RESPONSES[model.dialect.name].web_search else model


def can_search(model: Model, request: MessagesRequest) -> bool:
    """Whether a model's provider can do the web search a request asks for."""
    return model.direct or bool(with_search(model, request).dialect.web_search)


def search_words(request: MessagesRequest) -> str:
    """Return what is to be searched: the last words of the user."""
    texts = [
        block.text
        for message in request.messages
        if message.role == "user"
        for block in message.content
        if isinstance(block, TextBlock) and block.text.strip()
    ]
    return _CLAUDE_CODE.sub("", texts[-1].strip())[:_MAX_WORDS] if texts else ""


def search_fields(tool: Tool, dialect: Dialect, notes: Notes) -> Tuple[List[Json], Json]:
    """Return the tools and the request fields that have a provider search."""
    allowed, blocked = tool.raw.get("allowed_domains"), tool.raw.get("blocked_domains")
    if dialect.web_search == "plugin":
        plugin: Json = {"id": "web", "include_domains": allowed, "exclude_domains": blocked}
        return [], {"plugins": [{name: value for name, value in plugin.items() if value}]}
    filters: Json = {"allowed_domains": allowed, "excluded_domains": blocked}
    if blocked and dialect.web_search == "openai":
        notes.drop("blocked_domains of the web search")
        del filters["excluded_domains"]
    filters = {name: value for name, value in filters.items() if value}
    entry: Json = {"type": "web_search"}
    if filters:
        entry["filters"] = filters
    if isinstance(tool.raw.get("user_location"), dict):
        entry["user_location"] = tool.raw["user_location"]
    if dialect.web_search != "openai":
        return [entry], {}
    fields: Json = {"include": ["web_search_call.action.sources"]}
    if isinstance(tool.raw.get("max_uses"), int):
        fields["max_tool_calls"] = max(1, tool.raw["max_uses"])
    return [entry], fields
