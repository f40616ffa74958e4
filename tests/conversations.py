"""Messages requests of every kind, generated: all block types, broken tool rounds, odd names, ids and schemas."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ccproxy.translate.envelope import Envelope, seal, seal_id
from sent import result, text, use

WORDS = st.sampled_from(["Hi", "", " ", "\n", "Fix it.", "é 🙂", "\ud83d", "<|endoftext|>", "null", "{}", "a" * 300])
IDS = st.sampled_from(
    [
        "toolu_1",
        "toolu_2",
        "call_0",
        "functions.Bash:0",
        "toolu_xZnVuY3Rpb25zLkJhc2g6MA",
        "toolu_xZnVuY3Rpb25zLkJhc2g6MA_2",
        "a" * 90,
        "x|y",
        "é",
        "\udc00",
        "ABCdef123",
        seal_id("toolu_1", "c2lnbmF0dXJl"),
        "toolu_3--ccp1_broken",
    ]
)
NAMES = st.sampled_from(["Read", "Bash", "mcp__s__" + "t" * 70, "1st", "a b", "a.b/c", "é", "\ud800", "-x", "_"])
SIGNATURES = st.sampled_from(
    [
        "",
        "EqQBCkYIBhgC",
        "ccp1_",
        "ccp1_broken",
        seal(Envelope("other.test", "some-model", "reasoning_content", "hidden")),
        seal(
            Envelope(
                "other.test", "some-model", "reasoning", fields={"reasoning_details": [{"type": "reasoning.text"}]}
            )
        ),
        seal(Envelope("elsewhere", "x", "content", "t", {"reasoning_opaque": "o"}, {"toolu_1": {"extra_content": {}}})),
    ]
)
PNG = {"type": "base64", "media_type": "image/png", "data": "aGk="}
SOURCES = st.sampled_from([PNG, {"type": "url", "url": "https://x.test/a.png"}, {"type": "file", "file_id": "f"}])
CACHE = st.sampled_from([{}, {"cache_control": {"type": "ephemeral"}}])
TEXTS = st.builds(lambda value, cache: text(value, **cache), WORDS, CACHE)
IMAGES = st.builds(lambda source: {"type": "image", "source": source}, SOURCES)
DOCUMENTS = st.builds(
    lambda source, title: {"type": "document", "source": source, "title": title},
    st.sampled_from(
        [
            {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
            {"type": "text", "media_type": "text/plain", "data": "words"},
            {"type": "url", "url": "https://x.test/a.pdf"},
            {"type": "content", "content": "words"},
            {"type": "content", "content": [{"type": "text", "text": "w"}, {"type": "image", "source": PNG}]},
            {"type": "content", "content": [{"type": "image", "source": {"type": "url"}}, 5]},
            {"type": "file", "file_id": "f"},
        ]
    ),
    st.sampled_from(["", "a.pdf", None]),
)
OTHERS = st.sampled_from(
    [
        {"type": "redacted_thinking", "data": "x"},
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}},
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"title": "t", "url": "u"}]},
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": {"error_code": "unavailable"}},
        {"type": "web_fetch_tool_result", "tool_use_id": "srvtoolu_1", "content": {"url": "u", "content": None}},
        {"type": "bash_code_execution_tool_result", "content": {"stdout": "o", "return_code": 0}},
        {"type": "tool_search_tool_result", "content": {"tool_references": [{"type": "tool_reference"}]}},
        {"type": "mcp_tool_use", "id": "m", "name": "n", "input": {}},
        {"type": "mcp_tool_result", "tool_use_id": "m", "content": [{"type": "text", "text": "r"}]},
        {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "r"}]},
        {"type": "compaction", "content": "so far"},
        {"type": "fallback"},
        {"type": "container_upload", "file_id": "f"},
        {"type": "tool_removal", "tool_name": "Read"},
        {"type": "tool_addition", "tool_definition": {"definition": {"name": "New", "input_schema": {}}}},
        {"type": "of_tomorrow", "content": "words"},
        {"type": "of_tomorrow", "content": [1, None]},
    ]
)
RESULTS = st.builds(
    lambda tool_id, content, is_error: result(tool_id, content, is_error=is_error),
    IDS,
    st.one_of(WORDS, st.none(), st.lists(st.one_of(TEXTS, IMAGES, DOCUMENTS, OTHERS), max_size=2)),
    st.booleans(),
)
USES = st.builds(lambda tool_id, name, value: use(tool_id, name, a=value), IDS, NAMES, WORDS)
THOUGHTS = st.builds(lambda words, seal: {"type": "thinking", "thinking": words, "signature": seal}, WORDS, SIGNATURES)


def turns(role: str, *blocks: Any) -> Any:
    """Messages of one role with some of these blocks."""
    content = st.one_of(WORDS, st.lists(st.one_of(*blocks), max_size=4))
    return st.builds(lambda content: {"role": role, "content": content}, content)


SCHEMAS = st.recursive(
    st.sampled_from(
        [
            {},
            {"type": "string", "format": "uri", "default": ""},
            {"type": ["string", "null"], "enum": ["a", "", None]},
            {"type": "integer", "exclusiveMinimum": 0, "enum": [1, 2]},
            {"const": 5},
            {"$ref": "#/$defs/Node"},
            {"$ref": "#/elsewhere/Nothing"},
            {"type": "array"},
            {"type": "object", "required": ["a"], "additionalProperties": False},
        ]
    ),
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items}, inner),
        st.builds(lambda items: {"items": items}, inner),
        st.builds(lambda a, b: {"anyOf": [a, b]}, inner, inner),
        st.builds(lambda a, b: {"oneOf": [a, b], "not": a}, inner, inner),
        st.builds(lambda a, b: {"allOf": [a, b], "title": "t"}, inner, inner),
        st.builds(lambda a: {"type": "object", "properties": {"default": a, "$ref": a}, "required": ["x"]}, inner),
        st.builds(lambda a: {"type": "object", "patternProperties": {"^x": a}, "propertyNames": a, "if": a}, inner),
    ),
    max_leaves=4,
)
ROOTS = st.builds(
    lambda a, b, more: {"$schema": "s", "type": "object", "properties": {"a": a, "b": b}, **more},
    SCHEMAS,
    SCHEMAS,
    st.sampled_from(
        [
            {},
            {"$defs": {"Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}}},
            {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
            {"required": ["a"], "additionalProperties": False},
        ]
    ),
)
TOOLS = st.one_of(
    st.builds(lambda name, schema: {"name": name, "input_schema": schema, "description": "d"}, NAMES, ROOTS),
    st.sampled_from(
        [
            {"type": "bash_20250124", "name": "bash"},
            {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"},
            {"type": "web_search_20250305", "name": "web_search"},
            {"type": "computer_20250124", "name": "computer"},
            {"type": "custom", "name": "C", "input_schema": {}, "strict": True, "defer_loading": True},
        ]
    ),
)
CHOICES = st.one_of(
    st.builds(
        lambda kind, single: {"type": kind, "disable_parallel_tool_use": single},
        st.sampled_from(["auto", "any", "none"]),
        st.booleans(),
    ),
    st.builds(lambda name: {"type": "tool", "name": name}, NAMES),
)
FIELDS = st.fixed_dictionaries(
    {
        "max_tokens": st.sampled_from([1, 100, 10**6]),
        "messages": st.lists(
            st.one_of(
                turns("user", TEXTS, TEXTS, RESULTS, RESULTS, IMAGES, DOCUMENTS, OTHERS),
                turns("assistant", TEXTS, USES, USES, THOUGHTS, OTHERS),
                turns("system", TEXTS),
            ),
            min_size=1,
            max_size=6,
        ),
    },
    optional={
        "system": st.one_of(WORDS, st.lists(TEXTS, max_size=2)),
        "tools": st.lists(TOOLS, max_size=3, unique_by=lambda tool: tool["name"]),
        "tool_choice": CHOICES,
        "stream": st.booleans(),
        "temperature": st.sampled_from([0, 0.5, 1]),
        "top_p": st.sampled_from([0.1, 1]),
        "top_k": st.just(5),
        "stop_sequences": st.lists(WORDS, max_size=20),
        "thinking": st.sampled_from(
            [{"type": "adaptive"}, {"type": "disabled"}, {"type": "enabled", "budget_tokens": 9000}, {"type": "x"}]
        ),
        "output_config": st.sampled_from(
            [{"effort": "low"}, {"effort": "max"}, {"format": {"type": "json_schema", "schema": {"type": "object"}}}]
        ),
        "metadata": st.just({"user_id": "user_" + "9" * 90}),
        "context_management": st.just({"edits": []}),
        "safeguards": st.just({"a": 1}),
        "cache_control": st.just({"type": "ephemeral"}),
        "of_tomorrow": st.just({"x": "INVENTED"}),
    },
)
