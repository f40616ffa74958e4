"""Requests in the words of the Responses API: the conversation as items, tools flat, fields renamed."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

import pytest

from ccproxy.config.schema import Model
from ccproxy.provider.dialects import DIALECTS
from ccproxy.translate.envelope import Envelope, seal
from sent import body, model_of, result, text, turn, use, user

Json = Dict[str, Any]

GPT, LOCAL = "gpt-5.4", "some-model"
PNG = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
IMAGE = {"type": "image", "source": PNG}
PDF = {"type": "document", "title": "Report", "source": {**PNG, "media_type": "application/pdf"}}
INPUT_IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"}
INPUT_FILE = {"type": "input_file", "filename": "Report", "file_data": "data:application/pdf;base64,AAAA"}
TOOL = {"name": "Read", "description": "Reads", "input_schema": {"type": "object", "properties": {}}}


def asked(
    messages: Any = None, dialect: str = "openai", name: str = GPT, model: Optional[Json] = None, **fields: Any
) -> Json:
    """The body that a model behind the Responses API is sent."""
    return body(messages, dialect, model={"model_name": name, "api": "responses", **(model or {})}, **fields)


def items(messages: List[Json], **more: Any) -> List[Json]:
    """The conversation it is sent."""
    return asked(messages, **more)["input"]


def said(role: str, content: Any, **more: Any) -> Json:
    """A message item."""
    return {"type": "message", "role": role, "content": content, **more}


def called(id: str = "toolu_1", name: str = "Read", arguments: str = "{}") -> Json:
    """A function call item."""
    return {"type": "function_call", "call_id": id, "name": name, "arguments": arguments}


def output(value: Any = "out", id: str = "toolu_1") -> Json:
    """A function call's output item."""
    return {"type": "function_call_output", "call_id": id, "output": value}


def thinking(*carried: Json, model: Optional[Model] = None, shown: str = "Hm.") -> Json:
    """A thinking block that carries output items."""
    owner = model or model_of("openai", model_name=GPT, api="responses")
    return {
        "type": "thinking",
        "thinking": shown,
        "signature": seal(Envelope(owner.provider, owner.name, fields={"output_items": list(carried)})),
    }


def reasoning(number: int = 1) -> Json:
    """A reasoning item as a provider sends it."""
    return {"type": "reasoning", "id": f"rs_{number}", "summary": [], "encrypted_content": "gAAA=="}


def test_a_whole_request() -> None:
    """Nothing is kept at the provider, and reasoning comes back encrypted."""
    sent = asked(
        user("Hi"), system="Be brief.", tools=[TOOL], stop_sequences=["X"], thinking={"type": "adaptive"}, temperature=1
    )
    assert sent == {
        "model": GPT,
        "instructions": "Be brief.",
        "input": [said("user", "Hi")],
        "tools": [
            {
                "type": "function",
                "name": "Read",
                "description": "Reads",
                "parameters": {"type": "object", "properties": {}},
                "strict": False,
            }
        ],
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "max_output_tokens": 100,
        "reasoning": {"effort": "high", "summary": "auto"},
    }


def test_a_conversation() -> None:
    """Every turn becomes items, in order; what the model said beside calls is commentary."""
    messages = [
        turn("user", "Hi"),
        turn("assistant", thinking(reasoning()), text("I read."), use(path="a")),
        turn("user", result(), text("And?")),
        turn("assistant", text("It says a.")),
        turn("user", text("See"), IMAGE, PDF),
    ]
    assert items(messages) == [
        said("user", "Hi"),
        reasoning(),
        said("assistant", "I read.", phase="commentary"),
        called(arguments='{"path":"a"}'),
        output(),
        said("user", "And?"),
        said("assistant", "It says a.", phase="final_answer"),
        said("user", [{"type": "input_text", "text": "See"}, INPUT_IMAGE, INPUT_FILE]),
    ]


@pytest.mark.parametrize("name", ["gpt-4.1", "gpt-5", "o4-mini"])
def test_phases_are_told_to_the_models_that_know_them(name: str) -> None:
    """Others are told none."""
    messages = [turn("user", "Hi"), turn("assistant", "Hello"), turn("user", "Hi")]
    assert items(messages, name=name)[1] == said("assistant", "Hello")


def test_reasoning_stays_where_it_was() -> None:
    """Items between calls stay between them; text between calls comes before them."""
    blocks = [thinking(reasoning(1)), use("a"), thinking(reasoning(2)), text("More."), use("b")]
    sent = items([turn("user", "Hi"), turn("assistant", *blocks), turn("user", result("b"), result("a"))], name="gpt-5")
    assert sent[1:] == [
        reasoning(1),
        said("assistant", "More."),
        called("a"),
        reasoning(2),
        called("b"),
        output(id="a"),
        output(id="b"),
    ]


@pytest.mark.parametrize(
    "other",
    [
        model_of("openai", model_name=GPT, api="responses", api_base="http://elsewhere.test/v1"),
        model_of("openrouter", model_name="openai/gpt-5", api="responses"),
    ],
)
def test_reasoning_of_another_provider_is_dropped(other: Model) -> None:
    """Nobody else can read it; its text is no substitute."""
    blocks = [thinking(reasoning(), model=other), text("Well.")]
    sent = items([turn("user", "Hi"), turn("assistant", *blocks), turn("user", "Hi")], name="gpt-5")
    assert sent == [said("user", "Hi"), said("assistant", "Well."), said("user", "Hi")]


def test_items_never_reach_chat_completions() -> None:
    """A model that changes its API does not get the items of the other."""
    owner = model_of("generic", model_name="m", api="responses")
    blocks = [thinking(reasoning(), model=owner), use()]
    sent = body([turn("user", "Hi"), turn("assistant", *blocks), turn("user", result())], model={"model_name": "m"})
    assert "rs_1" not in str(sent)


def test_the_results_of_calls() -> None:
    """Images and files stand in them where the provider takes them there, else behind them; errors say so."""
    calls = [turn("user", "Hi"), turn("assistant", use())]
    results = [*calls, turn("user", result(content=[text("Seen"), IMAGE, PDF]))]
    shown = [
        {"type": "input_text", "text": "Seen\n[image 1 of this result follows]\n[file 2 of this result follows]"},
        INPUT_IMAGE,
        INPUT_FILE,
    ]
    assert items(results)[2:] == [output(shown)]
    plain, follows = items(results, dialect="openrouter", name="x/y")[2:]
    assert plain == output(shown[0]["text"])
    assert [part["type"] for part in follows["content"]] == ["input_text", "input_image", "input_file"]
    assert items([*calls, turn("user", result(content="no", is_error=True))])[2:] == [output("Error: no")]
    assert items([*calls, turn("user", "Never mind")])[2:] == [
        output("[tool result missing]"),
        said("user", "Never mind"),
    ]
    assert items(calls)[2:] == [output("[tool result missing]")]


def test_system_messages() -> None:
    """Stay in their place where the provider takes them there; else they are a reminder."""
    messages = [turn("user", "Hi"), turn("system", "Be brief."), turn("user", "Go")]
    assert items(messages)[1] == said("system", "Be brief.")
    assert "<system-reminder>" in str(items(messages, dialect="generic", name=LOCAL))


def test_a_conversation_that_ends_with_the_assistant() -> None:
    """Is continued: the API has no other word for it, whatever the dialect does elsewhere."""
    messages = [turn("user", "Hi"), turn("assistant", "Hel")]
    for dialect in ("openai", "vllm", "mistral", "moonshot"):
        roles = [item["role"] for item in items(messages, dialect=dialect, name=LOCAL)]
        assert roles == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "tool", "name": "Read"}, {"tool_choice": {"type": "function", "name": "Read"}}),
        ({"type": "auto", "disable_parallel_tool_use": True}, {"tool_choice": "auto", "parallel_tool_calls": False}),
    ],
)
@pytest.mark.parametrize("dialect", ["openai", "generic", "openrouter", "xai"])
def test_a_tool_choice(choice: Json, expected: Json, dialect: str) -> None:
    """Is said in the API's own words in every dialect."""
    sent = asked(user("Hi"), dialect, tools=[TOOL], tool_choice=choice)
    assert {name: sent[name] for name in ("tool_choice", "parallel_tool_calls") if name in sent} == expected


def test_strict_tools() -> None:
    """A function is strict unless it says otherwise: so it always says."""
    schema = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    sent = asked(user("Hi"), tools=[{**TOOL, "input_schema": schema, "strict": True}, {**TOOL, "name": "Edit"}])
    assert [tool["strict"] for tool in sent["tools"]] == [True, False]


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("gpt-5.6", {"thinking": {"type": "adaptive"}}, {"effort": "high", "summary": "auto"}),
        ("gpt-5.6", {"thinking": {"type": "adaptive", "display": "omitted"}}, {"effort": "high"}),
        ("gpt-5.6", {"thinking": {"type": "disabled"}}, {"effort": "none"}),
        ("gpt-5.6", {"output_config": {"effort": "max"}}, {"effort": "max", "summary": "auto"}),
        ("gpt-6.1-sol", {"thinking": {"type": "disabled"}}, {"effort": "low", "summary": "auto"}),
        ("gpt-5", {"thinking": {"type": "disabled"}}, {"effort": "minimal"}),
        ("gpt-5-codex", {"thinking": {"type": "disabled"}}, {"effort": "low", "summary": "auto"}),
        ("gpt-5.6", {}, None),
        ("gpt-4.1", {"thinking": {"type": "adaptive"}}, None),
    ],
)
def test_reasoning_beside_tools(name: str, fields: Json, expected: Optional[Json]) -> None:
    """Is asked for at the level of the request: here tools and reasoning go together."""
    assert asked(user("Hi"), name=name, tools=[TOOL], **fields).get("reasoning") == expected


@pytest.mark.parametrize("dialect", DIALECTS)
def test_only_fields_that_the_api_has(dialect: str) -> None:
    """Every dialect speaks the same API here: its own words for chat completions are left out."""
    sent = asked(
        user("Hi"),
        dialect,
        "gpt-oss-qwen3-deepseek-v4-k3-glm-5.3-gemini-3-seed",
        thinking={"type": "adaptive"},
        top_k=5,
        stop_sequences=["a"],
    )
    assert not {
        "thinking",
        "reasoning_effort",
        "extra_body",
        "stop",
        "top_k",
        "max_tokens",
        "max_completion_tokens",
    } & set(sent)
    assert sent["max_output_tokens"] == 100


def test_the_least_output() -> None:
    """Sixteen tokens are the least that may be asked for: a client that probes with one is served."""
    assert asked(user("Hi"), max_tokens=1)["max_output_tokens"] == 16


@pytest.mark.parametrize(
    ("dialect", "name", "is_asked"),
    [("openai", "gpt-4.1", False), ("openai", "o3", True), ("azure", "my-deployment", True), ("xai", "grok-4.3", True)],
)
def test_encrypted_reasoning(dialect: str, name: str, is_asked: bool) -> None:
    """Is asked of all but the models known to have none, which refuse the word."""
    assert ("include" in asked(user("Hi"), dialect, name)) == is_asked


def test_structured_output() -> None:
    """Is a format of the text."""
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    sent = asked(user("Hi"), output_config={"format": {"type": "json_schema", "schema": schema}})
    assert sent["text"] == {"format": {"type": "json_schema", "name": "output", "schema": schema, "strict": True}}
    assert asked(user("Hi"), "deepseek", output_config={"format": {"type": "json_schema", "schema": schema}})[
        "text"
    ] == {"format": {"type": "json_object"}}


def test_the_user_is_a_hash() -> None:
    """As cache key and safety identifier, as on chat completions."""
    sent = asked(user("Hi"), metadata={"user_id": "someone"})
    assert len(sent["prompt_cache_key"]) == 64
    assert "someone" not in str(sent)


def test_models_yaml_adds_to_the_body() -> None:
    """``extra_body`` wins over everything."""
    assert asked(user("Hi"), model={"extra_body": {"store": True}})["store"] is True
