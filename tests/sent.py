"""What a provider is sent for a client's request."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence

from ccproxy.anthropic import MessagesRequest
from ccproxy.config.schema import Model
from ccproxy.translate.request import Translated, translate_request
from support import make_config

Json = Dict[str, Any]
OUTPUT_LIMIT = 8192


def model_of(dialect: str = "generic", **entry: Any) -> Model:
    """One model as models.yaml describes it."""
    row = {"model_id": "m", "api_base": "http://p.test/v1", "dialect": dialect, **entry}
    return make_config(models=[row]).models[row["model_id"]]


def translated(
    messages: Any, dialect: str = "generic", model: Any = None, stream: bool = False, **fields: Any
) -> Translated:
    """The translation of a request with these messages and fields; ``model`` adds keys to the model's entry."""
    request = MessagesRequest.from_dict({"model": "claude", "max_tokens": 100, "messages": messages, **fields})
    return translate_request(request, model_of(dialect, **(model or {})), output_limit=OUTPUT_LIMIT, stream=stream)


def body(messages: Any = None, dialect: str = "generic", **fields: Any) -> Json:
    """The provider's request body."""
    return translated(messages if messages is not None else user("Hi"), dialect, **fields).request.to_dict()


def sent(messages: Any, dialect: str = "generic", **fields: Any) -> List[Json]:
    """The provider's messages."""
    return body(messages, dialect, **fields)["messages"]


def user(*content: Any) -> List[Json]:
    """One user message; a single text stays a string."""
    return [turn("user", *content)]


def turn(role: str, *content: Any) -> Json:
    """One message of a conversation."""
    return {"role": role, "content": content[0] if len(content) == 1 and isinstance(content[0], str) else list(content)}


def text(value: str, **more: Any) -> Json:
    """A text block, and a text part too: both sides write it alike."""
    return {"type": "text", "text": value, **more}


def use(id: str = "toolu_1", name: str = "Read", **arguments: Any) -> Json:
    """A call the model made."""
    return {"type": "tool_use", "id": id, "name": name, "input": arguments}


def result(id: str = "toolu_1", content: Any = "out", **more: Any) -> Json:
    """What a call gave."""
    return {"type": "tool_result", "tool_use_id": id, "content": content, **more}


def called(id: str = "toolu_1", name: str = "Read", arguments: str = "{}") -> Json:
    """The call in the provider's words."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def tool(content: str = "out", id: str = "toolu_1") -> Json:
    """The result in the provider's words."""
    return {"role": "tool", "content": content, "tool_call_id": id}


def roles(messages: Sequence[Json]) -> List[str]:
    """The roles of messages in order."""
    return [message["role"] for message in messages]
