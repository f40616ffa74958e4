"""Tools and tool choice: what the model may call, as functions."""

from __future__ import annotations

from typing import Any, List, Tuple

from ..anthropic import Message, MessagesRequest, OtherBlock, Tool, ToolUseBlock, read_tool
from ..encoded import Encoded, Json
from ..errors import InvalidRequest
from ..frozen import frozen
from ..provider.dialects import Dialect
from ..remembered import once_each
from .content import Notes
from .ids import ToolNames
from .schema import clean_schema, fits_strict
from .search_request import SERVERS, is_search

_STRING = {"type": "string"}


def _schema(required: List[str], **properties: Any) -> Json:
    return {"type": "object", "properties": properties, "required": required}


def _command(*names: str) -> Json:
    return {"type": "string", "enum": list(names)}


_EDITS: Json = {
    "path": _STRING,
    "view_range": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
    "file_text": _STRING,
    "old_str": _STRING,
    "new_str": _STRING,
    "insert_line": {"type": "integer"},
    "insert_text": _STRING,
}


@frozen
class TypedTool:
    """A tool that Anthropic defines and the client runs, written out as a function."""

    prefix: str
    description: str
    parameters: Json


TYPED_TOOLS: Tuple[TypedTool, ...] = (
    TypedTool(
        "bash_",
        "Run a command in a bash shell. The shell is persistent: variables, the working directory and background jobs "
        "live from call to call. With restart it is started anew.",
        _schema([], command=_STRING, restart={"type": "boolean"}),
    ),
    TypedTool(
        "text_editor_",
        "View, create and edit files. view shows a file or folder (view_range: first and last line); create writes "
        "file_text; str_replace replaces old_str, which must occur exactly once, by new_str; insert puts insert_text "
        "(or new_str) after line insert_line.",
        _schema(
            ["command", "path"],
            command=_command("view", "create", "str_replace", "insert"),
            **_EDITS,
        ),
    ),
    TypedTool(
        "memory_",
        "Keep notes in files under /memories across conversations: view, create, str_replace, insert, delete, rename.",
        _schema(
            ["command"],
            command=_command("view", "create", "str_replace", "insert", "delete", "rename"),
            **_EDITS,
            old_path=_STRING,
            new_path=_STRING,
        ),
    ),
)
# Run by Anthropic: no other provider has them.
_SERVER_TOOLS = ("web_search_", "web_fetch_", "code_execution_", "tool_search_tool_", "mcp_toolset", "advisor_")


def translate_tools(request: MessagesRequest, dialect: Dialect, notes: Notes) -> List[Json]:
    """Return the function list.

    Raises:
        InvalidRequest: a tool that nobody could run, or more tools than the provider takes.
    """
    current = current_tools(request)
    functions = [_function(tool, dialect, notes) for tool in current]
    given = [tool for tool, found in zip(current, functions) if found or (is_search(tool) and dialect.web_search)]
    if current and not given:
        names = ", ".join(tool.type for tool in current)
        help_out = f"; ROUTER_WEB_SEARCH may name a model of {SERVERS}" if any(map(is_search, current)) else ""
        raise InvalidRequest(f"tools: {names}: this provider has no such server tool{help_out}")
    choice = request.tool_choice
    if choice and choice.type == "tool" and choice.name not in {tool.name for tool in given}:
        raise InvalidRequest(f"tool_choice.name: {choice.name!r} is not a tool this provider can be given")
    tools = [function for found in functions for function in found]
    if dialect.max_tools is not None and len(tools) > dialect.max_tools:
        raise InvalidRequest(f"tools: {len(tools)} tools, the provider takes at most {dialect.max_tools}")
    return tools


def current_tools(request: MessagesRequest) -> List[Tool]:
    """Return the tools after what the conversation added and removed; deferred ones are sent at once."""
    tools = {tool.name or tool.type: tool for tool in request.tools}
    for changes in once_each(request.messages, _tool_changes):
        for block in changes:
            if block.type == "tool_removal":
                tools.pop(str(block.raw.get("tool_name") or block.raw.get("name")), None)
            else:
                definition = block.raw.get("tool_definition")
                added = definition.get("definition") if isinstance(definition, dict) else None
                if isinstance(added, dict) and isinstance(added.get("name"), str):
                    tools[added["name"]] = read_tool(added, "tool_addition.")
    return list(tools.values())


def _tool_changes(message: Message) -> List[OtherBlock]:
    kinds = ("tool_removal", "tool_addition")
    return [block for block in message.content if isinstance(block, OtherBlock) and block.type in kinds]


def _function(tool: Tool, dialect: Dialect, notes: Notes) -> List[Json]:
    if tool.input_schema is not None:
        made_for, entry = tool.made.get(_function, (None, {}))
        if made_for is not dialect:
            entry = _declared(tool, tool.input_schema, dialect)
            tool.made[_function] = (dialect, entry)
        return [entry]
    typed = next((row for row in TYPED_TOOLS if tool.type.startswith(row.prefix)), None)
    if typed is not None:
        return [_entry(tool.name, tool.description or typed.description, typed.parameters, dialect)]
    if is_search(tool) and dialect.web_search:
        return []  # a tool of its own kind, see ``search_request``
    if tool.type.startswith(_SERVER_TOOLS):
        notes.drop(f"server tool {tool.type!r}")
        return []
    raise InvalidRequest(f"tools: {tool.type!r} cannot be used through this proxy")


def _declared(tool: Tool, schema: Json, dialect: Dialect) -> Json:
    is_strict = bool(tool.raw.get("strict")) and dialect.takes_strict and fits_strict(schema)
    return Encoded(_entry(tool.name, tool.description, clean_schema(schema, dialect.name), dialect, is_strict))


def _entry(name: str, description: str, parameters: Json, dialect: Dialect, is_strict: bool = False) -> Json:
    function: Json = {"name": ToolNames.to_provider(name)}
    if description:
        function["description"] = description[: dialect.max_tool_description]
    function["parameters"] = parameters
    return {"type": "function", "function": {**function, "strict": True} if is_strict else function}


def translate_choice(request: MessagesRequest, dialect: Dialect, tools: List[Json], notes: Notes) -> Tuple[Json, str]:
    """Return the request fields for a tool choice, and the words that stand for it where it cannot be forced.

    ``tools`` loses the tools that a choice rules out where the provider cannot be told.
    """
    choice = request.tool_choice
    if choice is None or not tools:
        return {}, ""
    if choice.type == "tool" and any(is_search(tool) and tool.name == choice.name for tool in request.tools):
        return ({} if dialect.web_search == "plugin" else {"tool_choice": {"type": "web_search"}}), ""
    if choice.type == "none" and not dialect.takes_tool_choice_none:
        if not any(isinstance(block, ToolUseBlock) for message in request.messages for block in message.content):
            tools.clear()  # with calls in the history the list has to stay
        return {}, "" if not tools else "Do not call any tool."
    fields: Json = {}
    demand = ""
    if choice.type == "tool" and dialect.tool_choice_takes_name:
        fields["tool_choice"] = {"type": "function", "function": {"name": ToolNames.to_provider(choice.name)}}
    elif choice.type in ("any", "tool"):
        if choice.type == "tool":
            wanted = ToolNames.to_provider(choice.name)
            tools[:] = [tool for tool in tools if tool["function"]["name"] == wanted]
        fields["tool_choice"] = dialect.tool_choice_any
        if dialect.tool_choice_any == "auto":
            demand = "Answer with a tool call" + (f" of {tools[0]['function']['name']}." if len(tools) == 1 else ".")
            notes.drop("tool_choice: the provider cannot be forced to call a tool, it is asked to")
    else:
        fields["tool_choice"] = choice.type
    if choice.disable_parallel_tool_use and dialect.takes_parallel_tool_calls:
        fields["parallel_tool_calls"] = False
    return fields, demand
