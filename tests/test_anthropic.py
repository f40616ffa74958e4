"""Requests of the Messages API: what is read, and the words in which a wrong field is refused."""

from __future__ import annotations

from typing import Any, Dict, List

import pytest

from ccproxy.anthropic import (
    DocumentBlock,
    ImageBlock,
    Message,
    MessagesRequest,
    OtherBlock,
    TextBlock,
    ThinkingBlock,
    Tool,
    ToolChoice,
    ToolResultBlock,
    ToolUseBlock,
    refuse_unsupported,
)
from ccproxy.errors import InvalidRequest

Json = Dict[str, Any]


def body(**fields: Any) -> Json:
    """A valid request body with some fields replaced; None takes one away."""
    whole = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}], **fields}
    return {key: value for key, value in whole.items() if value is not None}


def parse(**fields: Any) -> MessagesRequest:
    return MessagesRequest.from_dict(body(**fields))


def with_block(block: Any, role: str = "user") -> List[Json]:
    return [{"role": role, "content": [block]}]


def blocks(*content: Any) -> Any:
    return parse(messages=[{"role": "user", "content": list(content)}]).messages[0].content


PNG = {"type": "base64", "media_type": "image/png", "data": "aGk="}

REFUSED = [
    # a missing field is named by its path
    ({"model": None}, "model: Field required"),
    ({"max_tokens": None}, "max_tokens: Field required"),
    ({"messages": None}, "messages: Field required"),
    ({"messages": [{"content": "Hi"}]}, "messages.0.role: Field required"),
    ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
    ({"messages": with_block({"text": "Hi"})}, "messages.0.content.0.type: Field required"),
    ({"messages": with_block({"type": "text"})}, "messages.0.content.0.text: Field required"),
    ({"messages": with_block({"type": "image"})}, "messages.0.content.0.source: Field required"),
    (
        {"messages": with_block({"type": "image", "source": {"type": "base64", "media_type": "image/png"}})},
        "messages.0.content.0.source.data: Field required",
    ),
    (
        {"messages": with_block({"type": "image", "source": {"type": "url"}})},
        "messages.0.content.0.source.url: Field required",
    ),
    (
        {"messages": with_block({"type": "tool_use", "name": "T"}, "assistant")},
        "messages.0.content.0.id: Field required",
    ),
    (
        {"messages": with_block({"type": "tool_use", "id": "i"}, "assistant")},
        "messages.0.content.0.name: Field required",
    ),
    ({"messages": with_block({"type": "tool_result"})}, "messages.0.content.0.tool_use_id: Field required"),
    ({"tools": [{"input_schema": {}}]}, "tools.0.name: Field required"),
    ({"tools": [{"name": "T"}]}, "tools.0.input_schema: Field required"),
    ({"tool_choice": {}}, "tool_choice.type: Field required"),
    ({"tool_choice": {"type": "tool"}}, "tool_choice.name: Field required"),
    # a wrong type is named with the right one
    ({"model": 5}, "model: Input should be a valid string"),
    ({"max_tokens": "100"}, "max_tokens: Input should be a valid integer"),
    ({"max_tokens": True}, "max_tokens: Input should be a valid integer"),
    ({"messages": "Hi"}, "messages: Input should be a valid list"),
    ({"messages": ["Hi"]}, "messages.0: Input should be a valid dictionary"),
    ({"messages": with_block("Hi")}, "messages.0.content.0: Input should be a valid dictionary"),
    (
        {"messages": with_block({"type": "text", "text": 1})},
        "messages.0.content.0.text: Input should be a valid string",
    ),
    (
        {"messages": with_block({"type": "tool_use", "id": "i", "name": "T", "input": "{}"}, "assistant")},
        "messages.0.content.0.input: Input should be a valid dictionary",
    ),
    ({"tools": {}}, "tools: Input should be a valid list"),
    ({"tools": ["T"]}, "tools.0: Input should be a valid dictionary"),
    ({"stream": "yes"}, "stream: Input should be a valid boolean"),
    ({"temperature": "1"}, "temperature: Input should be a valid number"),
    ({"top_k": 1.5}, "top_k: Input should be a valid integer"),
    ({"stop_sequences": [1]}, "stop_sequences.0: Input should be a valid string"),
    ({"thinking": "on"}, "thinking: Input should be a valid dictionary"),
    ({"tool_choice": "auto"}, "tool_choice: Input should be a valid dictionary"),
    # values
    ({"max_tokens": -1}, "max_tokens: Input should be greater than or equal to 0"),
    ({"messages": []}, "messages: at least one message is required"),
    (
        {"messages": [{"role": "tool", "content": "Hi"}]},
        "messages.0.role: Input should be 'user', 'assistant' or 'system'",
    ),
    (
        {"tools": [{"name": "T", "input_schema": {}}, {"name": "T", "input_schema": {}}]},
        "tools: Tool names must be unique.",
    ),
]


@pytest.mark.parametrize(("fields", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_a_wrong_field_is_refused_in_anthropic_words(fields: Json, words: str) -> None:
    """Clients show and match these texts: the path joined with dots, then what should be there."""
    whole = {**body(), **fields}
    with pytest.raises(InvalidRequest) as caught:
        MessagesRequest.from_dict({key: value for key, value in whole.items() if value is not None})
    assert caught.value.message == words
    assert (caught.value.status, caught.value.type) == (400, "invalid_request_error")


@pytest.mark.parametrize("value", [[], "text", 5, None, True])
def test_a_body_that_is_no_object_is_refused(value: Any) -> None:
    """Any JSON document may arrive; only an object is a request."""
    with pytest.raises(InvalidRequest):
        MessagesRequest.from_dict(value)


def test_message_threads_are_refused_with_the_code_that_sdks_act_on() -> None:
    """The SDKs' tool runner goes on with full requests after exactly this error code."""
    with pytest.raises(InvalidRequest) as caught:
        refuse_unsupported(body(thread={"type": "create"}))
    assert caught.value.details == {"error_code": "thread_unsupported_request", "unsupported": []}


@pytest.mark.parametrize("fields", [{"mcp_servers": [{"type": "url"}]}, {"compaction": {"type": "summarize"}}])
def test_what_cannot_be_honoured_is_refused(fields: Json) -> None:
    """A field that would change the answer, and that no other provider can run, is never ignored."""
    assert parse(**fields).raw == body(**fields), "an Anthropic-format provider may honour it"
    with pytest.raises(InvalidRequest):
        refuse_unsupported(body(**fields))


@pytest.mark.parametrize("fields", [{"mcp_servers": []}, {"future_field": {"a": 1}}, {"context_management": {}}])
def test_fields_without_effect_are_accepted(fields: Json) -> None:
    """Clients add beta fields monthly; they are kept in ``raw``."""
    assert parse(**fields).raw == body(**fields)


def test_count_tokens_needs_no_max_tokens() -> None:
    """``count_tokens`` takes the same body without ``max_tokens``."""
    assert MessagesRequest.from_dict(body(max_tokens=None), needs_max_tokens=False).max_tokens is None


def test_every_field_is_read() -> None:
    """Each field that has a meaning for other providers has its place."""
    fields: Json = {
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "tools": [{"name": "T", "description": "Does it.", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "stream": True,
        "temperature": 1,
        "top_p": 0.5,
        "top_k": 40,
        "stop_sequences": ["END"],
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "high"},
        "metadata": {"user_id": "u"},
    }
    assert parse(**fields) == MessagesRequest(
        model="m",
        max_tokens=100,
        messages=(Message("user", (TextBlock("Hi"),), {"role": "user", "content": "Hi"}),),
        system=(TextBlock("Be brief.", {"type": "ephemeral"}),),
        tools=(Tool("T", "custom", "Does it.", {"type": "object"}, fields["tools"][0]),),
        tool_choice=ToolChoice("any", "", True),
        stream=True,
        temperature=1,
        top_p=0.5,
        top_k=40,
        stop_sequences=("END",),
        thinking={"type": "adaptive"},
        output_config={"effort": "high"},
        metadata={"user_id": "u"},
        raw=body(**fields),
    )


def test_null_is_absent() -> None:
    """SDKs in other languages send null for what was not set."""
    optional = (
        "system",
        "tools",
        "tool_choice",
        "stream",
        "temperature",
        "top_p",
        "top_k",
        "stop_sequences",
        "thinking",
    )
    nulls = dict.fromkeys((*optional, "output_config", "metadata", "mcp_servers", "thread", "compaction"))
    request = MessagesRequest.from_dict({**body(), **nulls})
    assert (request.system, request.tools, request.stream, request.thinking) == ((), (), False, {})


TYPED_TOOL = {"type": "bash_20250124", "name": "bash"}
TOOLSET = {"type": "computer_toolset_20260801"}


@pytest.mark.parametrize(
    ("raw", "tool"),
    [
        (TYPED_TOOL, Tool("bash", "bash_20250124", "", None, TYPED_TOOL)),
        (TOOLSET, Tool("", "computer_toolset_20260801", "", None, TOOLSET)),
    ],
)
def test_tools_that_anthropic_defines_need_no_schema(raw: Json, tool: Tool) -> None:
    """A tool with a ``type`` of its own is read as it comes; a toolset has not even a name."""
    assert parse(tools=[raw]).tools == (tool,)


SEARCH = {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}
REDACTED = {"type": "redacted_thinking", "data": "x"}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}
BLOCKS = [
    ({"type": "text", "text": "Hi"}, TextBlock("Hi")),
    ({"type": "text", "text": ""}, TextBlock("")),
    ({"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}, TextBlock("Hi", {"type": "ephemeral"})),
    ({"type": "text", "text": "Hi", "citations": None, "new": 1}, TextBlock("Hi")),
    ({"type": "image", "source": PNG}, ImageBlock(PNG)),
    ({"type": "image", "source": {"type": "url", "url": "u"}}, ImageBlock({"type": "url", "url": "u"})),
    ({"type": "image", "source": {"type": "file", "file_id": "f"}}, ImageBlock({"type": "file", "file_id": "f"})),
    ({"type": "document", "source": PDF}, DocumentBlock(PDF)),
    ({"type": "document", "source": PDF, "title": "T", "context": "C"}, DocumentBlock(PDF, "T", "C")),
    ({"type": "thinking", "thinking": "Hm", "signature": "s"}, ThinkingBlock("Hm", "s")),
    ({"type": "thinking", "thinking": ""}, ThinkingBlock("", "")),
    ({"type": "tool_use", "id": "i", "name": "T", "input": {"a": 1}}, ToolUseBlock("i", "T", {"a": 1})),
    ({"type": "tool_use", "id": "i", "name": "T"}, ToolUseBlock("i", "T", {})),
    ({"type": "tool_result", "tool_use_id": "i"}, ToolResultBlock("i", ())),
    ({"type": "tool_result", "tool_use_id": "i", "content": ""}, ToolResultBlock("i", (TextBlock(""),))),
    (
        {"type": "tool_result", "tool_use_id": "i", "content": "out", "is_error": True},
        ToolResultBlock("i", (TextBlock("out"),), True),
    ),
    (
        {
            "type": "tool_result",
            "tool_use_id": "i",
            "content": [{"type": "text", "text": "a"}, {"type": "image", "source": PNG}],
        },
        ToolResultBlock("i", (TextBlock("a"), ImageBlock(PNG))),
    ),
    (REDACTED, OtherBlock("redacted_thinking", REDACTED)),
    (SEARCH, OtherBlock("web_search_tool_result", SEARCH)),
    ({"type": "of_tomorrow", "x": 1}, OtherBlock("of_tomorrow", {"type": "of_tomorrow", "x": 1})),
]


@pytest.mark.parametrize(("raw", "block"), BLOCKS)
def test_every_block_type_is_read(raw: Json, block: Any) -> None:
    """Known blocks become values; all others are kept whole, so that no conversation fails over a historic block."""
    assert blocks(raw) == (block,)


def test_a_string_is_one_text_block() -> None:
    """``content`` and ``system`` may be plain strings."""
    request = parse(system="Be brief.", messages=[{"role": "user", "content": "Hi"}])
    assert request.system == (TextBlock("Be brief."),)
    assert request.messages[0].content == (TextBlock("Hi"),)


def test_a_system_message_may_have_no_content() -> None:
    """It then only carries an effort, or tools to add."""
    raw = {"role": "system", "output_config": {"effort": "low"}}
    assert parse(messages=[body()["messages"][0], raw]).messages[1] == Message("system", (), raw)
