"""Chat completions as values: the request we send, and the chunk that every kind of reply is read into.

A whole completion is read as one chunk whose delta is its message, so that streams and completions take one path.
Provider JSON is not trusted: wrong types read as absent.

What chunks are read into are named tuples: one is made in a third of the time of a frozen dataclass, a thousand times
an answer.
"""

from __future__ import annotations

from dataclasses import field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, List, Mapping, NamedTuple, Optional, Tuple, Union

from .citations import Citation, Search, read_citations
from .encoded import Encoded, Json, dump
from .frozen import frozen


@frozen
class ToolCall:
    """One function call of an assistant message; ``arguments`` is JSON text."""

    id: str
    name: str
    arguments: str
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> Json:
        """Return the ``tool_calls`` entry."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function, **self.extra}


@frozen
class ChatMessage:
    """One message of a request. ``content`` is text, a list of parts, or None for null; ``extra`` dialect fields."""

    role: str
    content: Union[str, List[Json], None]
    tool_calls: Tuple[ToolCall, ...] = ()
    tool_call_id: Optional[str] = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> Encoded:
        """Return the message object, always the same one."""
        return self._object

    @cached_property
    def _object(self) -> Encoded:
        body: Json = {"role": self.role, "content": self.content, **self.extra}
        if self.tool_calls:
            body["tool_calls"] = [call.to_dict() for call in self.tool_calls]
        if self.tool_call_id is not None:
            body["tool_call_id"] = self.tool_call_id
        return Encoded(body)


@frozen
class ChatRequest:
    """A request body. ``options`` holds every further field under the name the provider knows."""

    model: str
    messages: Tuple[ChatMessage, ...]
    tools: Tuple[Json, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    stream: bool = False

    def to_dict(self) -> Json:
        """Return the request body; equal requests give equal bytes, so that prefix caches hit."""
        body: Json = {"model": self.model, "messages": [message.to_dict() for message in self.messages]}
        if self.tools:
            body["tools"] = list(self.tools)
        body.update(self.options)
        if self.stream:
            body["stream"] = True
        return body


_NOTHING: Any = MappingProxyType({})


class Piece(NamedTuple):
    """A run of text in a delta; ``kind`` is ``text``, ``thinking`` or ``refusal``."""

    kind: str
    text: str


@frozen
class ToolCallDelta:
    """One entry of ``tool_calls``. ``index`` is None where the provider sends none; ``arguments`` always text."""

    index: Optional[int]
    id: str
    name: str
    arguments: str
    state: Json = field(default_factory=dict)
    """What must come back on this call: Gemini's thought signature in ``extra_content``."""


class Chunk(NamedTuple):
    """What one chunk, or one whole completion, says."""

    has_choice: bool = False
    pieces: Tuple[Piece, ...] = ()
    tool_calls: Tuple[ToolCallDelta, ...] = ()
    finish_reason: Optional[str] = None
    stop_sequence: Optional[str] = None
    """What stopped the answer; an empty one is one of those asked for."""
    usage: Optional[Json] = None
    error: Any = None
    state: Json = _NOTHING
    """What must come back on the message: reasoning details, opaque or signed reasoning."""
    reasoning_field: str = ""
    """The field the reasoning text came in."""
    is_whole: bool = False
    """Whether it holds a whole message, which repeats what a stream said before it."""
    searches: Tuple[Search, ...] = ()
    citations: Tuple[Citation, ...] = ()
    """Where the text up to the end of this chunk comes from."""

    @classmethod
    def from_dict(cls, data: Any) -> Chunk:
        """Read one item of a stream; some servers put a ``message`` in place of the ``delta``."""
        return plain_chunk(data) or cls._read(data, ("delta", "message"))

    @classmethod
    def from_completion(cls, data: Any) -> Chunk:
        """Read a whole completion; Perplexity puts an empty ``delta`` beside the ``message``."""
        return plain_chunk(data, "message") or cls._read(data, ("message", "delta"))

    @classmethod
    def _read(cls, data: Any, order: Tuple[str, str]) -> Chunk:
        if not isinstance(data, dict):
            return cls()
        # The one with index 0; choices without an index all belong to the one answer (Copilot).
        choices = [choice for choice in objects_in(data, "choices") if choice.get("index") in (0, None)]
        deltas = [_delta_of(choice, order) for choice in choices]
        reasons = [choice["finish_reason"] for choice in choices if isinstance(choice.get("finish_reason"), str)]
        is_whole = any("delta" not in choice for choice in choices)
        return cls(
            has_choice=bool(choices),
            pieces=tuple(piece for delta in deltas for piece in _pieces(delta)),
            tool_calls=tuple(call for delta in deltas for call in _tool_calls(delta, is_whole)),
            finish_reason=reasons[-1] if reasons else None,
            stop_sequence=_stop_sequence(data, choices),
            usage=_usage(data, choices),
            state=_state(deltas),
            reasoning_field=next(filter(None, map(_reasoning_field, deltas)), ""),
            error=_error(data, choices),
            is_whole=is_whole,
            citations=tuple(citation for delta in deltas for citation in read_citations(delta.get("annotations"))),
        )


# The members that chunks have everywhere. One with any other is read with care for what some provider means by it.
_CHUNK_MEMBERS = frozenset(
    {"id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier", "obfuscation"}
)
_CHOICE_MEMBERS = {part: frozenset({"index", part, "finish_reason", "logprobs"}) for part in ("delta", "message")}
_DELTA_MEMBERS = frozenset({"role", "content", "reasoning_content", "tool_calls", "refusal"})


def plain_chunk(data: Any, part: str = "delta") -> Optional[Chunk]:
    """Read a chunk that has only the common members, in an eighth of the time of ``_read``; return None for others."""
    if not isinstance(data, dict) or not data.keys() <= _CHUNK_MEMBERS:
        return None
    choices, usage = data.get("choices"), data.get("usage") or None
    if data.get("object") == "error" or not isinstance(choices, list) or len(choices) > 1:
        return None
    if usage is not None and not isinstance(usage, dict):
        return None
    if not choices:
        return Chunk(usage=usage)
    choice = choices[0]
    if not isinstance(choice, dict) or not choice.keys() <= _CHOICE_MEMBERS[part] or choice.get("index") != 0:
        return None
    reason = choice.get("finish_reason")
    return plain_delta(choice.get(part), reason if isinstance(reason, str) else None, usage, part == "message")


def plain_delta(
    delta: Any, finish_reason: Optional[str] = None, usage: Optional[Json] = None, is_whole: bool = False
) -> Optional[Chunk]:
    """Return the chunk of a delta that has only the common members."""
    if type(delta) is dict and len(delta) == 1 and type(delta.get("content")) is str and delta["content"]:
        pieces = (Piece("text", delta["content"]),)
        return Chunk(True, pieces, (), finish_reason, usage=usage, is_whole=is_whole)  # as nearly all are: 1 us less
    if not isinstance(delta, dict) or not delta.keys() <= _DELTA_MEMBERS or delta.get("refusal"):
        return None
    content, reasoning = delta.get("content") or "", delta.get("reasoning_content") or ""
    if not isinstance(content, str) or not isinstance(reasoning, str):
        return None
    texts = (Piece("text", content),) if content else ()
    return Chunk(
        has_choice=True,
        pieces=(Piece("thinking", reasoning), *texts) if reasoning else texts,
        tool_calls=tuple(_tool_calls(delta, is_whole)) if "tool_calls" in delta else (),
        finish_reason=finish_reason,
        usage=usage,
        reasoning_field="reasoning_content" if reasoning else "",
        is_whole=is_whole,
    )


def _error(data: Json, choices: List[Json]) -> Any:
    """Return the error inside a 200: its own member, the whole body (vLLM, SGLang), MiniMax's status, or why Groq
    stopped early."""
    if data.get("object") == "error":
        return data
    status = data.get("base_resp")
    if not choices and isinstance(status, dict) and status.get("status_code"):
        return {"message": status.get("status_msg"), "code": status["status_code"]}
    own = data.get("error") or object_in(data, "x_groq").get("error")
    return own or next((choice["error"] for choice in choices if choice.get("error")), None)


def _delta_of(choice: Json, order: Tuple[str, str]) -> Json:
    for key in order:
        if isinstance(choice.get(key), dict):
            return choice[key]  # type: ignore[no-any-return]
    return {}


def _pieces(delta: Json) -> List[Piece]:
    """Return the text runs of a delta in reading order; of several copies of the reasoning exactly one."""
    content = delta.get("content")
    if isinstance(content, dict):  # Cloudflare gives structured output as the object itself
        content = dump(content)
    parts = content if isinstance(content, list) else [content]
    pieces = [Piece("thinking", text) for text in (_reasoning(delta),) if text]
    for part in parts:
        if isinstance(part, str) and part:
            pieces.append(Piece("text", part))
        elif isinstance(part, dict):
            pieces.extend(_part_pieces(part))
    if isinstance(delta.get("refusal"), str) and delta["refusal"]:
        pieces.append(Piece("refusal", delta["refusal"]))
    return pieces


def _reasoning_field(delta: Json) -> str:
    """Return the name of the field with the reasoning text; several hold copies, thinking parts are in the content."""
    for key in ("reasoning_content", "reasoning", "reasoning_text"):
        if isinstance(delta.get(key), str) and delta[key]:
            return key
    return "content" if any(part.get("type") == "thinking" for part in objects_in(delta, "content")) else ""


def _state(deltas: List[Json]) -> Json:
    state: Json = {}
    for delta in deltas:
        details = delta.get("reasoning_details")
        if isinstance(details, list) and details:
            state["reasoning_details"] = [detail for detail in details if isinstance(detail, dict)]
        if isinstance(delta.get("reasoning_opaque"), str) and delta["reasoning_opaque"]:
            state["reasoning_opaque"] = delta["reasoning_opaque"]
        state.update(_signed_content(delta))
    return state


def _signed_content(carrier: Json) -> Json:
    """Return ``extra_content`` where a vendor's part of it holds a thought signature."""
    extra = carrier.get("extra_content")
    vendors = extra.values() if isinstance(extra, dict) else ()
    if any(isinstance(vendor, dict) and vendor.get("thought_signature") for vendor in vendors):
        return {"extra_content": extra}
    return {}


def _reasoning(delta: Json) -> str:
    name = _reasoning_field(delta)
    if name and name != "content":
        return str(delta[name])
    texts = [detail.get("text") or detail.get("summary") for detail in objects_in(delta, "reasoning_details")]
    return "".join(text for text in texts if isinstance(text, str))


def _part_pieces(part: Json) -> List[Piece]:
    """Read a content part; Mistral's ``{"type": "thinking", "thinking": [{"type": "text", ...}]}`` is reasoning."""
    kind = {"thinking": "thinking", "refusal": "refusal"}.get(str(part.get("type")), "text")
    value = part.get(kind)
    if isinstance(value, list):
        value = "".join(str(item.get("text") or "") for item in value if isinstance(item, dict))
    return [Piece(kind, value)] if isinstance(value, str) and value else []


def _tool_calls(delta: Json, is_whole: bool) -> List[ToolCallDelta]:
    """Return the calls of a delta; each entry of a whole message is one, whatever index or id it shares."""
    calls = [_tool_call(entry) for entry in objects_in(delta, "tool_calls")]
    legacy = delta.get("function_call")
    if isinstance(legacy, dict):
        calls.append(_tool_call({"index": 0, "function": legacy}))
    return [replace(call, index=place) for place, call in enumerate(calls)] if is_whole else calls


def _tool_call(entry: Json) -> ToolCallDelta:
    function = object_in(entry, "function") or object_in(entry, "custom")
    arguments = function.get("arguments", function.get("input"))
    if arguments is None:
        arguments = ""
    elif not isinstance(arguments, str):
        arguments = dump(arguments)  # llama.cpp forks and Ollama-like servers send the object itself
    index = entry.get("index")
    return ToolCallDelta(
        index=index if isinstance(index, int) and not isinstance(index, bool) else None,
        id=text_in(entry, "id"),
        name=text_in(function, "name"),
        arguments=arguments,
        state=_signed_content(entry),
    )


def _usage(data: Json, choices: List[Json]) -> Optional[Json]:
    """Return the chunk's usage: top level, in the choice (Moonshot) or in ``x_groq``."""
    groq = object_in(data, "x_groq").get("usage")
    candidates = [data.get("usage"), *(choice.get("usage") for choice in choices), groq]
    return next((usage for usage in candidates if isinstance(usage, dict) and usage), None)


def _stop_sequence(data: Json, choices: List[Json]) -> Optional[str]:
    """Return the stop string that fired where the provider tells it (vLLM, llama.cpp), or only that one did
    (OpenRouter of Claude)."""
    for value in [choice.get("stop_reason") for choice in choices] + [data.get("stopping_word")]:
        if isinstance(value, str) and value:
            return value
    return "" if any(choice.get("native_finish_reason") == "stop_sequence" for choice in choices) else None


def object_in(value: Mapping[str, Any], name: str) -> Json:
    """Return the object that a member is; an empty one where it is none, or missing."""
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def objects_in(value: Mapping[str, Any], name: str) -> List[Json]:
    """Return the objects in the list that a member is; none where it is no list, or missing."""
    found = value.get(name)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def text_in(value: Mapping[str, Any], name: str) -> str:
    """Return the text that a member is; an empty one where it is none, or missing."""
    found = value.get(name)
    return found if isinstance(found, str) else ""
