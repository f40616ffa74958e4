"""Tools and tool choice: functions for every kind of tool, and how a call is demanded or forbidden."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Dict, List

import pytest

from ccproxy.errors import InvalidRequest
from sent import body, called, result, sent, tool, translated, turn, use, user

Json = Dict[str, Any]
EMPTY = {"type": "object", "properties": {}}
HI = {"role": "user", "content": "Hi"}


def custom(name: str = "Read", description: str = "", schema: Any = None, **more: Any) -> Json:
    return {"name": name, "description": description, "input_schema": schema if schema is not None else EMPTY, **more}


def functions(*tools: Json, **fields: Any) -> List[Json]:
    """The functions a provider is given."""
    return [
        entry["function"]
        for entry in body(dialect=fields.pop("dialect", "generic"), tools=list(tools), **fields)["tools"]
    ]


@pytest.mark.parametrize(
    ("given", "function"),
    [
        (custom("Read", "Reads."), {"name": "Read", "description": "Reads.", "parameters": EMPTY}),
        (custom(type="custom"), {"name": "Read", "parameters": EMPTY}),
        (custom(type="future_20270101"), {"name": "Read", "parameters": EMPTY}),  # unknown type with a schema
        (
            custom(
                cache_control={"type": "ephemeral"},
                eager_input_streaming=True,
                allowed_callers=["x"],
                defer_loading=True,
            ),
            {"name": "Read", "parameters": EMPTY},
        ),
        (custom(strict=True), {"name": "Read", "parameters": EMPTY}),  # the dialect has no strict mode
        (custom(schema={}), {"name": "Read", "parameters": EMPTY}),
        (
            custom(schema={"properties": {"a": {}}}),
            {"name": "Read", "parameters": {"type": "object", "properties": {"a": {}}}},
        ),
        (custom(schema={**EMPTY, "$schema": "x", "$id": "y", "$comment": "z"}), {"name": "Read", "parameters": EMPTY}),
        (
            custom(schema={**EMPTY, "additionalProperties": False, "$defs": {"d": {}}}),
            {"name": "Read", "parameters": {**EMPTY, "additionalProperties": False, "$defs": {"d": {}}}},
        ),
    ],
)
def test_a_tool_is_a_function(given: Json, function: Json) -> None:
    """Name, description and schema; the root is an object, and what no provider reads is left out."""
    assert functions(given) == [function]
    assert body(tools=[given])["tools"][0]["type"] == "function"


def test_strict_where_provider_and_schema_allow_it() -> None:
    """OpenAI's strict subset: every object closed, every property required."""
    closed = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    opened = {**closed, "required": []}
    assert functions(custom(schema=closed, strict=True), dialect="openai")[0].get("strict") is True
    assert "strict" not in functions(custom(schema=opened, strict=True), dialect="openai")[0]
    assert "strict" not in functions(custom(schema=closed, strict=True), dialect="xai")[0]


@pytest.mark.parametrize(
    ("type", "name", "properties"),
    [
        ("bash_20250124", "bash", {"command", "restart"}),
        (
            "text_editor_20250728",
            "str_replace_based_edit_tool",
            {"command", "path", "view_range", "file_text", "old_str", "new_str", "insert_line", "insert_text"},
        ),
        (
            "memory_20250818",
            "memory",
            {
                *("command", "path", "view_range", "file_text", "old_str", "new_str"),
                *("insert_line", "insert_text", "old_path", "new_path"),
            },
        ),
    ],
)
def test_tools_that_anthropic_defines_are_written_out(type: str, name: str, properties: Any) -> None:
    """The client runs them; the provider's model learns what they take."""
    (function,) = functions({"type": type, "name": name})
    assert (function["name"], set(function["parameters"]["properties"])) == (name, properties)
    assert function["description"]


SERVER_TOOLS = [
    {"type": "web_search_20250305", "name": "web_search"},
    {"type": "web_fetch_20250910", "name": "web_fetch"},
    {"type": "code_execution_20250825", "name": "code_execution"},
    {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"},
    {"type": "mcp_toolset", "mcp_server_name": "x"},
    {"type": "advisor_20260301", "name": "advisor"},
]


@pytest.mark.parametrize("server_tool", SERVER_TOOLS, ids=lambda tool: tool["type"])
def test_tools_that_anthropic_runs_are_dropped(server_tool: Json) -> None:
    """Dropped with a note beside others; refused as the only tool or as the forced one."""
    done = translated(user("Hi"), tools=[custom(), server_tool])
    assert [entry["function"]["name"] for entry in done.request.to_dict()["tools"]] == ["Read"]
    assert any(server_tool["type"] in note for note in done.dropped)
    with pytest.raises(InvalidRequest):
        body(tools=[server_tool])
    if "name" in server_tool:
        with pytest.raises(InvalidRequest):
            body(tools=[custom(), server_tool], tool_choice={"type": "tool", "name": server_tool["name"]})


@pytest.mark.parametrize(
    "type", ["computer_20250124", "computer_toolset_20260801", "browser_toolset_20260801", "of_tomorrow_1"]
)
def test_tools_nobody_could_run_are_refused(type: str) -> None:
    """The error names the tool."""
    with pytest.raises(InvalidRequest) as caught:
        body(tools=[custom(), {"type": type, "name": "x"}])
    assert type in caught.value.message


@pytest.mark.parametrize("dialect", ["openai", "deepseek"])
def test_too_many_tools_are_refused(dialect: str) -> None:
    """The limit is named; dropping some in silence would change the answer."""
    many = [custom(f"t{n}") for n in range(129)]
    assert len(functions(*many[:128], dialect=dialect)) == 128
    with pytest.raises(InvalidRequest) as caught:
        body(dialect=dialect, tools=many)
    assert "128" in caught.value.message


@pytest.mark.parametrize("tools", [None, []])
def test_no_tools_are_no_list(tools: Any) -> None:
    """Providers refuse an empty list, and a choice without tools."""
    sent_body = body(tools=tools, tool_choice={"type": "auto"})
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(sent_body)


LONG = "mcp__server__" + "long_tool_name_" * 6


def test_long_names_are_the_same_everywhere() -> None:
    """In the list, in the choice and in the history; the answer's name is mapped back."""
    history = [HI, turn("assistant", use(name=LONG)), turn("user", result())]
    done = translated(history, tools=[custom(LONG)], tool_choice={"type": "tool", "name": LONG})
    request = done.request.to_dict()
    name = request["tools"][0]["function"]["name"]
    assert len(name) <= 64
    assert request["tool_choice"]["function"]["name"] == name
    assert request["messages"][1]["tool_calls"][0]["function"]["name"] == name
    assert done.tool_names.to_client(name) == LONG


def test_tools_may_be_added_and_removed_on_the_way() -> None:
    """The set is that at the end of the conversation."""
    addition = {"type": "tool_addition", "tool_definition": {"definition": custom("Grep")}}
    removal = {"type": "tool_removal", "tool_name": "Read"}
    messages = [HI, {"role": "system", "content": [addition, removal]}]
    names = [entry["function"]["name"] for entry in body(messages, tools=[custom("Read"), custom("Edit")])["tools"]]
    assert sorted(names) == ["Edit", "Grep"]


# --- tool choice ---------------------------------------------------------------------------------------------

NAMED = {"type": "function", "function": {"name": "Read"}}
CHOICES = [
    (None, "generic", None),
    ({"type": "auto"}, "generic", "auto"),
    ({"type": "any"}, "generic", "required"),
    ({"type": "any"}, "mistral", "any"),
    ({"type": "tool", "name": "Read"}, "generic", NAMED),
    ({"type": "tool", "name": "Read"}, "lmstudio", "required"),
    ({"type": "none"}, "generic", "none"),
    ({"type": "any"}, "zai", "auto"),
]


@pytest.mark.parametrize(("choice", "dialect", "expected"), CHOICES)
def test_the_tool_choice(choice: Any, dialect: str, expected: Any) -> None:
    """In the provider's words."""
    assert body(dialect=dialect, tools=[custom(), custom("Grep")], tool_choice=choice).get("tool_choice") == expected


def test_a_forced_tool_is_the_only_one_where_no_name_is_taken() -> None:
    """``required`` with the list cut down to it means the same."""
    choice = {"type": "tool", "name": "Grep"}
    assert [f["name"] for f in functions(custom(), custom("Grep"), dialect="lmstudio", tool_choice=choice)] == ["Grep"]
    assert len(functions(custom(), custom("Grep"), tool_choice=choice)) == 2


def test_a_call_that_cannot_be_forced_is_asked_for() -> None:
    """In words, and the owner is told."""
    done = translated(user("Hi"), "zai", tools=[custom()], tool_choice={"type": "any"})
    plain = translated(user("Hi"), "zai", tools=[custom()])
    assert done.request.messages != plain.request.messages
    assert "tool" in str(done.request.to_dict()["messages"]).lower()
    assert done.dropped


def test_none_keeps_the_tools() -> None:
    """The history stays valid."""
    history = [HI, turn("assistant", use()), turn("user", result())]
    assert sent(history, tools=[custom()], tool_choice={"type": "none"})[1:] == [
        {"role": "assistant", "content": None, "tool_calls": [called()]},
        tool(),
    ]
    assert body(history, tools=[custom()], tool_choice={"type": "none"})["tools"]


@pytest.mark.parametrize(
    ("dialect", "disabled", "expected"),
    [("openai", True, False), ("openai", False, None), ("generic", True, None), ("gemini", True, None)],
)
def test_parallel_calls(dialect: str, disabled: bool, expected: Any) -> None:
    """Forbidden only where the provider knows the field, and never mentioned otherwise."""
    choice = {"type": "auto", "disable_parallel_tool_use": disabled}
    assert body(dialect=dialect, tools=[custom()], tool_choice=choice).get("parallel_tool_calls") == expected


WRONG_SCHEMAS = [
    {"properties": 5, "anyOf": []},
    {"required": [{}], "properties": {}},
    {"properties": {"a": 5}, "required": 5},
    {"type": 5, "enum": {}, "allOf": [5], "$ref": 5},
]


@pytest.mark.parametrize("schema", WRONG_SCHEMAS)
@pytest.mark.parametrize("dialect", ["generic", "openai", "gemini", "mistral"])
def test_a_schema_that_is_none_never_fails_here(schema: Json, dialect: str) -> None:
    """Schemas are the client's, from any MCP server; the provider may judge them."""
    with suppress(InvalidRequest):
        functions(custom(schema=schema, strict=True), dialect=dialect)


CHOICES = [
    # what a client may give, and what Gemini is told: it chooses among words alone
    ({"enum": ["a", "", None]}, {"type": "string", "enum": ["a"]}),
    ({"type": "string", "enum": ["1", 2]}, {"type": "string", "enum": ["1", "2"]}),
    ({"enum": ["auto", 1, True]}, {"type": "string", "enum": ["auto", "1", "true"]}),
    ({"const": "k"}, {"type": "string", "enum": ["k"]}),
    ({"type": "integer", "enum": [0, 1, 3]}, {"type": "integer", "description": "(one of [0, 1, 3])"}),
    (
        {"type": ["number", "null"], "enum": [0.5, 1, None], "description": "D"},
        {"type": "number", "nullable": True, "description": "D (one of [0.5, 1])"},
    ),
    ({"enum": [1, 2]}, {"type": "integer", "description": "(one of [1, 2])"}),
    ({"enum": [0.5, 2]}, {"type": "number", "description": "(one of [0.5, 2])"}),
    ({"const": True}, {"type": "boolean", "description": "(one of [true])"}),
    ({"enum": []}, {"type": "string"}),
    ({"type": "integer", "enum": "x"}, {"type": "integer"}),
]


@pytest.mark.parametrize(("schema", "expected"), CHOICES)
def test_choices_keep_their_type(schema: Json, expected: Json) -> None:
    """A number that comes back as a word would be refused by the tool."""
    root = {"type": "object", "properties": {"a": schema}}
    assert functions(custom(schema=root), dialect="gemini")[0]["parameters"]["properties"]["a"] == expected


def test_property_names_are_never_changed() -> None:
    """Whatever a schema keyword a property is called like, every provider gets it."""
    names = ["definitions", "$defs", "title", "default", "not", "format", "pattern", "enum", "$schema", "const"]
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in names}, "required": names}
    for dialect in ("generic", "openai", "gemini", "mistral"):
        parameters = functions(custom(schema=schema), dialect=dialect)[0]["parameters"]
        assert list(parameters["properties"]) == names, dialect
        assert parameters["required"] == names, dialect
