"""The request fields beside messages and tools."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from ccproxy.anthropic import MessagesRequest
from ccproxy.provider.dialects import DIALECTS
from ccproxy.translate.envelope import seal_id
from ccproxy.translate.request import used_tool_ids
from sent import OUTPUT_LIMIT, body, result, roles, text, translated, turn, use, user

PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
PNG_PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}


def test_a_plain_request() -> None:
    """Nothing is added to what was asked."""
    assert body(user("Hi")) == {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100}


def test_the_provider_gets_its_own_name_for_the_model() -> None:
    """``model_name``, else the ``model_id``."""
    assert body(model={"model_name": "deepseek-chat"})["model"] == "deepseek-chat"
    assert body()["model"] == "m"


@pytest.mark.parametrize(("asked", "sent"), [(100, 100), (OUTPUT_LIMIT + 1, OUTPUT_LIMIT), (64_000, OUTPUT_LIMIT)])
def test_the_output_limit_caps_max_tokens(asked: int, sent: int) -> None:
    """More than the model has is not asked for."""
    assert body(max_tokens=asked)["max_tokens"] == sent


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_max_tokens_under_the_providers_name(dialect: str) -> None:
    """OpenAI and Groq call it ``max_completion_tokens``."""
    name = "max_completion_tokens" if dialect in ("openai", "azure", "groq") else "max_tokens"
    other = {"max_tokens", "max_completion_tokens"} - {name}
    assert body(dialect=dialect)[name] == 100
    assert not other & set(body(dialect=dialect))


@pytest.mark.parametrize(
    ("dialect", "stops", "sent"),
    [
        ("generic", ["a", "b"], ["a", "b"]),
        ("generic", ["a", "b", "c", "d", "e"], ["a", "b", "c", "d"]),
        ("deepseek", list("abcdefghijklmnopqr"), list("abcdefghijklmnop")),
        ("generic", ["", " ", "a"], ["a"]),
        ("generic", [" "], None),
        ("generic", [], None),
    ],
)
def test_stop_sequences(dialect: str, stops: Any, sent: Any) -> None:
    """As many as the provider takes; the others are matched here."""
    assert body(dialect=dialect, stop_sequences=stops).get("stop") == sent


@pytest.mark.parametrize(("dialect", "model"), [("openai", "o3"), ("openai", "o4-mini"), ("xai", "grok-4")])
def test_models_that_refuse_stop_are_not_sent_it(dialect: str, model: str) -> None:
    """Matched here alone."""
    assert "stop" not in body(dialect=dialect, model={"model_name": model}, stop_sequences=["END"])


def test_sampling() -> None:
    """Passed on; ``top_k`` only where it is known; what models.yaml says wins."""
    fields = {"temperature": 0.5, "top_p": 0.9, "top_k": 40}
    assert {key: body(dialect="vllm", **fields)[key] for key in fields} == fields
    generic = body(**fields)
    assert (generic["temperature"], generic["top_p"], "top_k" in generic) == (0.5, 0.9, False)
    assert any("top_k" in note for note in translated(user("Hi"), **fields).dropped)
    assert body(model={"temperature": 0.2}, **fields)["temperature"] == 0.2
    assert body(temperature=0)["temperature"] == 0


def test_sampling_that_a_model_refuses_is_left_out() -> None:
    """OpenAI's reasoning models and Kimi's take no temperature."""
    for dialect, model in (("openai", "o3"), ("openai", "gpt-5"), ("moonshot", "kimi-k2.5")):
        assert not {"temperature", "top_p"} & set(
            body(dialect=dialect, model={"model_name": model}, temperature=1, top_p=0.9)
        )
    assert "temperature" in body(dialect="openai", model={"model_name": "gpt-4.1"}, temperature=1)


@pytest.mark.parametrize(("dialect", "options"), [("generic", {"include_usage": True}), ("mistral", None)])
def test_streams_ask_for_usage(dialect: str, options: Any) -> None:
    """Where the provider does not refuse the field."""
    streamed = translated(user("Hi"), dialect, stream=True).request.to_dict()
    assert (streamed["stream"], streamed.get("stream_options")) == (True, options)
    assert not {"stream", "stream_options"} & set(body(dialect=dialect))


def test_models_yaml_adds_to_the_body() -> None:
    """``extra_body`` wins over everything."""
    assert body(model={"extra_body": {"provider": {"only": ["x"]}, "max_tokens": 5}})["provider"] == {"only": ["x"]}
    assert body(model={"extra_body": {"max_tokens": 5}})["max_tokens"] == 5


SILENT = {
    "service_tier": "auto",
    "speed": "fast",
    "container": "c",
    "inference_geo": "us",
    "diagnostics": {},
    "user_profile_id": "u",
    "workspace_id": "w",
    "context_management": {"edits": []},
    "fallbacks": [],
    "fallback_credit_token": "t",
    "billing_policy": {},
    "cache_control": {"type": "ephemeral"},
    "safeguards": {"paths": ["/home/me"]},
    "metadata": {"user_id": None},
}


@pytest.mark.parametrize("name", sorted(SILENT))
def test_fields_without_a_counterpart_are_dropped(name: str) -> None:
    """Clients send them always: neither refused, nor forwarded, nor worth a note."""
    done = translated(user("Hi"), "openai", **{name: SILENT[name]})
    assert done.request.to_dict() == translated(user("Hi"), "openai").request.to_dict()
    assert done.dropped == ()


def test_unknown_fields_are_dropped_with_a_note() -> None:
    """Clients add beta fields monthly; the log says what was not passed on."""
    done = translated(user("Hi"), of_tomorrow=1)
    assert "of_tomorrow" not in done.request.to_dict()
    assert any("of_tomorrow" in note for note in done.dropped)


def test_the_user_id_is_never_sent() -> None:
    """It names accounts and sessions: OpenAI gets a hash as cache key, others nothing."""
    user_id = "user_abc_account__session_" + "x" * 90
    for dialect in DIALECTS:
        assert user_id not in str(body(dialect=dialect, metadata={"user_id": user_id}))
    sent = body(dialect="openai", metadata={"user_id": user_id})
    assert sent["prompt_cache_key"] == sent["safety_identifier"] == hashlib.sha256(user_id.encode()).hexdigest()[:64]


FORMAT = {"type": "json_schema", "schema": {"type": "object", "properties": {"title": {"type": "string"}}}}


@pytest.mark.parametrize("fields", [{"output_config": {"format": FORMAT}}, {"output_format": FORMAT}])
def test_structured_output(fields: Any) -> None:
    """As a schema, as JSON mode with the schema in the prompt, or in the prompt alone: never lost."""
    openai = body(dialect="openai", **fields)["response_format"]
    assert openai["type"] == "json_schema"
    assert openai["json_schema"]["schema"]["properties"] == FORMAT["schema"]["properties"]
    deepseek = body(dialect="deepseek", **fields)
    assert deepseek["response_format"] == {"type": "json_object"}
    for sent in (deepseek, body(**fields)):
        assert roles(sent["messages"]) == ["system", "user"]
        assert "json" in sent["messages"][0]["content"].lower()
        assert '"title"' in sent["messages"][0]["content"]


def test_cache_control_goes_where_it_means_something() -> None:
    """On the text parts of Claude behind OpenRouter; nowhere else, not even as a key."""
    block = {"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}
    claude = body(user(block), "openrouter", model={"model_name": "anthropic/claude-sonnet-5"}, system=[block])
    assert [message["content"] for message in claude["messages"]] == [[block], [block]]
    for dialect in ("generic", "openai", "deepseek", "mistral"):
        assert "cache_control" not in str(body(user(block), dialect, system=[block]))


MARK = {"cache_control": {"type": "ephemeral"}}
CLAUDE: Any = {"dialect": "openrouter", "model": {"model_name": "anthropic/claude-sonnet-5"}}


@pytest.mark.parametrize(
    ("messages", "role", "content"),
    [
        ([turn("user", result(**MARK))], "tool", [text("out", **MARK)]),
        ([turn("user", result(), text("Go on.", **MARK))], "user", [text("Go on.", **MARK)]),
        (
            [turn("user", result(content=[text("A picture."), PNG], **MARK))],
            "tool",
            [text("A picture.\n[image 1 of this result follows]", **MARK)],
        ),
        (
            [turn("user", result()), {"role": "system", "content": [text("Be kind.", **MARK)]}],
            "user",
            [text("<system-reminder>\nBe kind.\n</system-reminder>", **MARK)],
        ),
        ([turn("user", result(), text("See."), {**PNG, **MARK})], "user", [text("See.", **MARK), PNG_PART]),
        (
            [turn("user", result(), {"type": "document", "source": {"type": "text", "data": "It."}, **MARK})],
            "user",
            [text('<document title="">\nIt.\n</document>', **MARK)],
        ),
        (
            [turn("user", result(), {"type": "search_result", "title": "t", "source": "s", "content": [], **MARK})],
            "user",
            [text('<search_result title="t" source="s"></search_result>', **MARK)],
        ),
    ],
    ids=["result", "text", "result with an image", "system message", "image", "document", "search result"],
)
def test_a_cache_breakpoint_stays_at_its_place(messages: Any, role: str, content: Any) -> None:
    """Claude Code sets one at the end of each conversation, mostly on a result; without it all is paid for again."""
    sent = body([*user("Hi"), turn("assistant", use()), *messages], **CLAUDE)["messages"]
    assert [message for message in sent if "cache_control" in str(message)] == [
        message for message in sent if message["role"] == role and message["content"] == content
    ]
    assert str(sent).count("cache_control") == 1


@pytest.mark.parametrize("more", [{}, MARK])
def test_a_breakpoint_on_a_call_moves_to_its_result(more: Any) -> None:
    """Claude Code sets it there to compact a conversation, older ones beside that of the result: it stays one."""
    turns = [turn("assistant", use("a"), {**use("b"), **MARK}), turn("user", result("a"), result("b", **more))]
    sent = body([*user("Hi"), *turns], **CLAUDE)["messages"]
    assert [message["content"] for message in sent[2:]] == ["out", [text("out", **MARK)]]
    assert "cache_control" not in str(body([*user("Hi"), *turns]))


@pytest.mark.parametrize(
    ("last", "role"), [(turn("user", result()), "tool"), (turn("user", result(), text("Go on.")), "user")]
)
def test_the_breakpoint_of_a_whole_request_is_at_its_end(last: Any, role: str) -> None:
    """On what the user or a tool said last."""
    sent = body([*user("Hi"), turn("assistant", use()), last], **MARK, **CLAUDE)["messages"]
    assert [message["role"] for message in sent if "cache_control" in str(message)] == [role]
    assert "cache_control" in str(sent[-1])


def test_a_prefix_is_the_same_once_the_breakpoint_moved_on() -> None:
    """Texts stay apart, for only equal blocks are found in the cache."""
    first, later = (
        body([*user(text("a"), text("b", **more)), turn("assistant", "c"), *user("d")], **CLAUDE)["messages"][0]
        for more in (MARK, {})
    )
    assert [part["text"] for part in first["content"]] == [part["text"] for part in later["content"]] == ["a", "b"]


@pytest.mark.parametrize("dialect", ["generic", "deepseek", "moonshot", "openai", "groq"])
def test_text_alone_is_a_string(dialect: str) -> None:
    """Every server takes it; DeepSeek and text models take nothing else."""
    assert body(user(text("a"), text("b")), dialect)["messages"] == user("a\n\nb")


@pytest.mark.parametrize(
    ("dialect", "stream", "tools", "is_sent"),
    [("zai", True, 1, True), ("zai", False, 1, False), ("zai", True, 0, False), ("generic", True, 1, False)],
)
def test_arguments_come_as_they_are_made(dialect: str, stream: bool, tools: int, is_sent: bool) -> None:
    """Z.ai sends those of a call at its end alone unless it is asked, and hangs up in so long a silence."""
    asked = [{"name": "Read", "input_schema": {"type": "object"}}] * tools
    sent = translated(user("Hi"), dialect, stream=stream, tools=asked).request.to_dict()
    assert sent.get("tool_stream", False) == is_sent


def test_the_ids_of_a_conversation() -> None:
    """New ids must differ from all of them."""
    calls = [use("a"), use(seal_id("b", "what it carries"))]
    messages = [*user("Hi"), turn("assistant", *calls), turn("user", result("a"), result("gone"))]
    request = MessagesRequest.from_dict({"model": "m", "max_tokens": 1, "messages": messages})
    assert used_tool_ids(request) == {"a", "b", "gone"}
