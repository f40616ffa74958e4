"""The Messages API's requests as values, read and checked field by field.

Errors name the field by its path and use Anthropic's wording, which clients match. Fields nobody knows yet are kept
in ``raw`` and never refused: clients add beta fields monthly.
"""

from __future__ import annotations

import math
from dataclasses import field
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, Type, TypeVar, Union

from .encoded import Json
from .errors import InvalidRequest
from .frozen import frozen
from .remembered import once, once_each_in

T = TypeVar("T")


@frozen
class TextBlock:
    """Visible text."""

    text: str
    cache_control: Optional[Json] = None


@frozen
class ImageBlock:
    """An image; ``source`` is Anthropic's base64, url or file object."""

    source: Json
    cache_control: Optional[Json] = None


@frozen
class DocumentBlock:
    """A PDF or text document; ``source`` is Anthropic's base64, url, text, content or file object."""

    source: Json
    title: str = ""
    context: str = ""
    has_citations: bool = False
    cache_control: Optional[Json] = None


@frozen
class ThinkingBlock:
    """Thinking of an earlier turn, with the signature it was given."""

    thinking: str
    signature: str


@frozen
class ToolUseBlock:
    """A call the model made."""

    id: str
    name: str
    input: Json
    cache_control: Optional[Json] = field(default=None, compare=False)


@frozen
class ToolResultBlock:
    """What a call gave."""

    tool_use_id: str
    content: Tuple[Block, ...]
    is_error: bool = False
    cache_control: Optional[Json] = None


@frozen
class OtherBlock:
    """Any other block, kept as it came: server tool blocks, search results, betas."""

    type: str
    raw: Json

    @property
    def cache_control(self) -> Optional[Json]:
        """The cache breakpoint after it."""
        value = self.raw.get("cache_control")
        return value if isinstance(value, dict) else None


Block = Union[TextBlock, ImageBlock, DocumentBlock, ThinkingBlock, ToolUseBlock, ToolResultBlock, OtherBlock]


@frozen
class Message:
    """One turn; ``role`` is user, assistant or system."""

    role: str
    content: Tuple[Block, ...]
    raw: Json = field(default_factory=dict)
    made: Dict[Any, Any] = field(default_factory=dict, init=False, compare=False, repr=False)
    """What was made of it, for the next turn of the conversation, which brings it again."""


@frozen
class Tool:
    """A tool of the client (``input_schema``) or one Anthropic defines (``type``)."""

    name: str
    type: str
    description: str
    input_schema: Optional[Json]
    raw: Json = field(default_factory=dict)
    made: Dict[Any, Any] = field(default_factory=dict, init=False, compare=False, repr=False)
    """What was made of it, for the next request that brings it again."""


@frozen
class ToolChoice:
    """``type`` is auto, any, tool or none."""

    type: str
    name: str = ""
    disable_parallel_tool_use: bool = False


@frozen
class MessagesRequest:
    """The body of ``POST /v1/messages``. ``max_tokens`` is None only for count_tokens."""

    model: str
    messages: Tuple[Message, ...]
    max_tokens: Optional[int]
    system: Tuple[Block, ...] = ()
    tools: Tuple[Tool, ...] = ()
    tool_choice: Optional[ToolChoice] = None
    stream: bool = False
    temperature: Optional[float] = None
    top_p: Optional[float] = None
    top_k: Optional[int] = None
    stop_sequences: Tuple[str, ...] = ()
    thinking: Json = field(default_factory=dict)
    output_config: Json = field(default_factory=dict)
    metadata: Json = field(default_factory=dict)
    raw: Json = field(default_factory=dict)

    @classmethod
    def from_dict(cls, body: Any, *, needs_max_tokens: bool = True) -> MessagesRequest:
        """Check and read a request body.

        Raises:
            InvalidRequest: naming the field and what it should be.
        """
        if not isinstance(body, dict):
            raise InvalidRequest("The request body should be a JSON object")
        max_tokens = _field(body, "max_tokens", int, required=needs_max_tokens)
        if max_tokens is not None and max_tokens < 0:
            raise InvalidRequest("max_tokens: Input should be greater than or equal to 0")
        model = _field(body, "model", str, required=True)
        if not model:
            raise InvalidRequest("model: String should have at least 1 character")
        stops = _field(body, "stop_sequences", list) or []
        return cls(
            model=model,
            messages=_messages(body),
            max_tokens=max_tokens,
            system=_content(body.get("system"), "system") if body.get("system") is not None else (),
            tools=_tools(_field(body, "tools", list) or []),
            tool_choice=_tool_choice(_field(body, "tool_choice", dict)),
            stream=bool(_field(body, "stream", bool)),
            temperature=_field(body, "temperature", float),
            top_p=_field(body, "top_p", float),
            top_k=_field(body, "top_k", int),
            stop_sequences=tuple(_item(stop, str, f"stop_sequences.{n}") for n, stop in enumerate(stops)),
            thinking=_field(body, "thinking", dict) or {},
            output_config=_field(body, "output_config", dict) or {},
            metadata=_field(body, "metadata", dict) or {},
            raw=body,
        )


# --- field checks --------------------------------------------------------------------------------------------

_SHOULD_BE: Mapping[type, str] = {
    str: "a valid string",
    int: "a valid integer",
    float: "a valid number",
    bool: "a valid boolean",
    list: "a valid list",
    dict: "a valid dictionary",
}


def _item(value: Any, kind: Type[T], path: str) -> T:
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise InvalidRequest(f"{path}: Input should be {_SHOULD_BE[kind]}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidRequest(f"{path}: Input should be a finite number")
    return value  # type: ignore[return-value]


def _field(body: Json, name: str, kind: Type[T], path: str = "", required: bool = False) -> Any:
    value = body.get(name)
    if type(value) is kind and kind is not float:  # as nearly all are
        return value
    if value is None:
        if required:
            raise InvalidRequest(f"{path}{name}: Field required")
        return None
    return _item(value, kind, path + name)


def refuse_unsupported(body: Json) -> None:
    """Refuse what only Anthropic can honour and would change the answer if it were ignored.

    Raises:
        InvalidRequest: naming the field.
    """
    if body.get("thread") is not None:
        # The SDKs' tool runner goes on with full requests when it reads this code.
        details = {"error_code": "thread_unsupported_request", "unsupported": []}
        raise InvalidRequest("thread: message threads are not supported here", details=details)
    for name in ("mcp_servers", "compaction"):
        if body.get(name):
            raise InvalidRequest(f"{name}: not available through this proxy")


# --- messages and blocks -------------------------------------------------------------------------------------


def _messages(body: Json) -> Tuple[Message, ...]:
    items = _field(body, "messages", list, required=True)
    if not items:
        raise InvalidRequest("messages: at least one message is required")
    return tuple(once_each_in(items, _message, "messages"))


def _message(item: Any, path: str) -> Message:
    item = _item(item, dict, path)
    role = _field(item, "role", str, path + ".", required=True)
    if role not in ("user", "assistant", "system"):
        raise InvalidRequest(f"{path}.role: Input should be 'user', 'assistant' or 'system'")
    content = item.get("content")
    if content is None and role != "system":
        raise InvalidRequest(f"{path}.content: Field required")
    # A copy: an item remembers what was read from it, and two that hold each other wait for the collector.
    return Message(role, _content(content, path + ".content") if content is not None else (), dict(item))


def _content(content: Any, path: str) -> Tuple[Block, ...]:
    if isinstance(content, str):
        return (TextBlock(content),)
    if not isinstance(content, list):
        raise InvalidRequest(f"{path}: Input should be a valid string or a valid list")
    return tuple(_block(item, f"{path}.{n}") for n, item in enumerate(content))


def _block(item: Any, path: str) -> Block:
    item = _item(item, dict, path)
    kind = _field(item, "type", str, path + ".", required=True)
    read = _BLOCKS.get(kind)
    return read(item, path + ".") if read else OtherBlock(kind, item)


def _text(item: Json, path: str) -> Block:
    return TextBlock(_field(item, "text", str, path, required=True), _breakpoint(item, path))


def _breakpoint(item: Json, path: str) -> Optional[Json]:
    found: Optional[Json] = _field(item, "cache_control", dict, path)
    return found


def _image(item: Json, path: str) -> Block:
    return ImageBlock(_source(item, path, ("base64", "url", "file")), _breakpoint(item, path))


def _document(item: Json, path: str) -> Block:
    title, context = _field(item, "title", str, path), _field(item, "context", str, path)
    source, citations = _source(item, path, ("base64", "url", "file", "text", "content")), item.get("citations")
    has_citations = isinstance(citations, dict) and citations.get("enabled") is True
    return DocumentBlock(source, title or "", context or "", has_citations, _breakpoint(item, path))


def _source(item: Json, path: str, kinds: Tuple[str, ...]) -> Json:
    source: Json = _field(item, "source", dict, path, required=True)
    kind = _field(source, "type", str, path + "source.", required=True)
    if kind not in kinds:
        raise InvalidRequest(f"{path}source.type: Input should be one of {', '.join(kinds)}, not {kind!r}")
    for name in {"base64": ("media_type", "data"), "url": ("url",)}.get(kind, ()):
        _field(source, name, str, path + "source.", required=True)
    return source


def _thinking(item: Json, path: str) -> Block:
    return ThinkingBlock(_field(item, "thinking", str, path) or "", _field(item, "signature", str, path) or "")


def _tool_use(item: Json, path: str) -> Block:
    return ToolUseBlock(
        _field(item, "id", str, path, required=True),
        _field(item, "name", str, path, required=True),
        _field(item, "input", dict, path) or {},
        _breakpoint(item, path),
    )


def _tool_result(item: Json, path: str) -> Block:
    content = item.get("content")
    return ToolResultBlock(
        _field(item, "tool_use_id", str, path, required=True),
        _content(content, path + "content") if content is not None else (),
        bool(_field(item, "is_error", bool, path)),
        _breakpoint(item, path),
    )


_BLOCKS: Dict[str, Callable[[Json, str], Block]] = {
    "text": _text,
    "image": _image,
    "document": _document,
    "thinking": _thinking,
    "tool_use": _tool_use,
    "tool_result": _tool_result,
}


# --- tools ---------------------------------------------------------------------------------------------------


def _tools(items: List[Any]) -> Tuple[Tool, ...]:
    if not items:
        return ()
    tools = tuple(once(item, read_tool, f"tools.{n}.") for n, item in enumerate(items))
    names = [tool.name for tool in tools if tool.name]
    if len(names) != len(set(names)):
        raise InvalidRequest("tools: Tool names must be unique.")
    return tools


def read_tool(item: Any, path: str) -> Tool:
    """Check and read one tool; ``path`` names it in errors and ends with a dot."""
    item = _item(item, dict, path.rstrip("."))
    kind = _field(item, "type", str, path) or "custom"
    schema = _field(item, "input_schema", dict, path, required=kind == "custom")
    name = _field(item, "name", str, path, required=kind == "custom") or ""
    return Tool(name, kind, _field(item, "description", str, path) or "", schema, dict(item))  # a copy, as of messages


def _tool_choice(item: Optional[Json]) -> Optional[ToolChoice]:
    if item is None:
        return None
    kind = _field(item, "type", str, "tool_choice.", required=True)
    if kind not in ("auto", "any", "tool", "none"):
        raise InvalidRequest(f"tool_choice.type: Input should be 'auto', 'any', 'tool' or 'none', not {kind!r}")
    name = _field(item, "name", str, "tool_choice.", required=kind == "tool") or ""
    return ToolChoice(kind, name, bool(_field(item, "disable_parallel_tool_use", bool, "tool_choice.")))
