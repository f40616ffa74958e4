"""A request refused for one field is mended and sent once more, and the mend is remembered.

The texts are those providers were seen to answer with status 400.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Mapping, Tuple

import pytest

from ccproxy.provider.repair import MOST_MODELS, Repairs, find_repair
from replay import Answer, ReplayProvider
from request_rules import faults
from sent import result, text, turn, use
from support import Answer as Got
from support import ask, running_proxy, user

Json = Dict[str, Any]

PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "format": "uri", "default": "x"}}}
TOOLS = [{"name": "Read", "input_schema": SCHEMA}]
ROUND = [turn("user", "Hi"), turn("assistant", text("Well."), use()), turn("user", result())]
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "EqQB"}
THINKING_ROUND = [turn("user", "Hi"), turn("assistant", THOUGHT, use()), turn("user", result())]
HELLO = {"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}
OK = Answer(200, {"content-type": "application/json"}, [json.dumps({"choices": [HELLO]}).encode()], "length")


class Refusing(ReplayProvider):
    """A provider that refuses what `refuses` finds in a body, with a text, and answers everything else."""

    def __init__(self, refuses: Callable[[Json], bool], refusal: Answer) -> None:
        super().__init__()
        self._refuses, self._refusal = refuses, refusal

    @property
    def bodies(self) -> List[Json]:
        """The bodies of the requests so far."""
        return [received.body for received in self.received]

    def answer_to(self, key: str, body: Json) -> Answer:
        """Refuse or answer."""
        return self._refusal if self._refuses(body) else OK


def refusal(words: str, status: int = 400, **fields: Any) -> Answer:
    """A refusal in OpenAI's shape."""
    body = {"error": {"message": words, "type": "invalid_request_error", **fields}}
    return Answer(status, {"content-type": "application/json"}, [json.dumps(body).encode()], "length")


@contextmanager
def proxy_before(provider: Refusing, dialect: str = "generic", **entry: Any) -> Iterator[Callable[..., Got]]:
    """Serve the model `m` of a provider; yields a function that asks it."""
    with provider:
        model = {"model_id": "m", "api_base": provider.base("p"), "dialect": dialect, "max_tokens": 50_000, **entry}
        with running_proxy({"ROUTER_DEFAULT": "m", "MAX_RETRIES": "0"}, [model]) as proxy:
            yield lambda **fields: ask(proxy.url, "/v1/messages", user(**{"max_tokens": 20_000, **fields}))


def has(*names: str) -> Callable[[Json], bool]:
    """Whether a body has a field."""
    return lambda body: any(name in body for name in names)


def in_messages(name: str) -> Callable[[Json], bool]:
    """Whether a message has a field."""
    return lambda body: any(name in message for message in body["messages"])


def lacks_reasoning(body: Json) -> bool:
    """Whether a message with calls comes without its reasoning."""
    return any(m.get("tool_calls") and not m.get("reasoning_content") for m in body["messages"])


def lacks_signature(body: Json) -> bool:
    """Whether a call comes without a thought signature."""
    return any("extra_content" not in m["tool_calls"][0] for m in body["messages"] if m.get("tool_calls"))


def has_long_ids(body: Json) -> bool:
    """Whether a call or a result has an id of more than nine characters."""
    called = [call["id"] for m in body["messages"] for call in m.get("tool_calls") or ()]
    answered = [m["tool_call_id"] for m in body["messages"] if m["role"] == "tool"]
    return any(len(one) != 9 for one in called + answered)


def speaks_after_a_tool(body: Json) -> bool:
    """Whether the user speaks right after a tool."""
    said = [m["role"] for m in body["messages"]]
    return ("tool", "user") in zip(said, said[1:])


def in_text(word: str) -> Callable[[Json], bool]:
    """Whether a word stands anywhere in the body."""
    return lambda body: f'"{word}"' in json.dumps(body)


EFFORT = {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}
FORCED = {"tools": TOOLS, "tool_choice": {"type": "any"}}

# What the provider refuses, the words it does that with, the dialect and model, and the client's fields.
ROWS: List[Tuple[Callable[[Json], bool], str, str, str, Json]] = [
    (
        has("max_tokens"),
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        "generic",
        "o9",
        {},
    ),
    (
        lambda body: body["max_tokens"] < 16,
        "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got 1 instead.",
        "openrouter",
        "openai/gpt-x",
        {"max_tokens": 1},  # as Claude Code asks before it takes a model
    ),
    (
        has("temperature"),
        "Unsupported value: 'temperature' does not support 0.5 with this model. Only the default (1) is supported.",
        "generic",
        "x",
        {"temperature": 0.5},
    ),
    (has("top_p"), "Unsupported parameter: 'top_p' is not supported with this model.", "generic", "x", {"top_p": 0.5}),
    (
        has("stop"),
        "Unsupported parameter: 'stop' is not supported with this model.",
        "openai",
        "gpt-4x",
        {"stop_sequences": ["END"]},
    ),
    (
        has("parallel_tool_calls"),
        "Unsupported parameter: 'parallel_tool_calls' is not supported with this model.",
        "openai",
        "gpt-4x",
        {"tools": TOOLS, "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
    ),
    (
        has("tool_stream"),
        "property 'tool_stream' is unsupported",
        "zai",
        "glm-4.6",
        {"stream": True, "tools": TOOLS},
    ),
    (
        has("stream_options"),
        '[{"type":"extra_forbidden","loc":["body","stream_options"],"msg":"Extra inputs are not permitted"}]',
        "generic",
        "x",
        {"stream": True},
    ),
    (
        lambda body: body["max_tokens"] > 8192,
        "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]",
        "generic",
        "x",
        {},
    ),
    (
        lambda body: body["max_completion_tokens"] > 16384,
        "max_tokens is too large: 20000. This model supports at most 16384 completion tokens, whereas you gave 20000.",
        "openai",
        "gpt-4x",
        {},
    ),
    (
        lambda body: body["max_completion_tokens"] > 4096,
        "`max_completion_tokens` must be less than or equal to `4096`, the maximum value for `max_completion_tokens`",
        "groq",
        "x",
        {},
    ),
    (
        lambda body: body.get("reasoning_effort") != "none",
        "Function tools with reasoning_effort are not supported. Use /v1/responses or set reasoning_effort to 'none'.",
        "openai",
        "gpt-5.2",
        {"tools": TOOLS, **EFFORT},
    ),
    (
        has("reasoning_effort"),
        "Function tools with reasoning_effort are not supported for gpt-5.1 in /v1/chat/completions.",
        "openai",
        "gpt-5.1",
        {"tools": TOOLS, **EFFORT},
    ),
    (
        has("reasoning_effort"),
        "Model grok-3-mini-x does not support parameter reasoningEffort.",
        "xai",
        "grok-3-mini-x",
        EFFORT,
    ),
    (has("reasoning_effort"), "`reasoning_effort` is not supported with this model", "groq", "gpt-oss-9b", EFFORT),
    (
        in_messages("reasoning_content"),
        "'messages.1' : for 'role:assistant' [('messages.1' : property 'reasoning_content' is unsupported)]",
        "qwen",
        "qwen3-max",
        {"messages": THINKING_ROUND},
    ),
    (
        in_messages("reasoning_content"),
        '[{"type":"extra_forbidden","loc":["body","messages",1,"reasoning_content"],"msg":"Extra inputs"}]',
        "qwen",
        "qwen3-max",
        {"messages": THINKING_ROUND},
    ),
    (
        lacks_reasoning,
        "The `reasoning_content` in the thinking mode must be passed back to the API.",
        "generic",
        "x",
        {"messages": ROUND},
    ),
    (
        lacks_reasoning,
        "thinking is enabled but reasoning_content is missing in assistant tool call message at index 1",
        "generic",
        "x",
        {"messages": ROUND},
    ),
    (
        lacks_signature,
        "Function call is missing a thought_signature in functionCall parts. This is required for tools to work.",
        "generic",
        "x",
        {"messages": ROUND},
    ),
    (
        lacks_signature,
        "Unable to submit request because function call `Read` in content block 2 is missing a `thought_signature`",
        "generic",
        "x",
        {"messages": ROUND},
    ),
    (
        has_long_ids,
        "Tool call id was toolu_1 but must be a-z, A-Z, 0-9, with a length of 9.",
        "openrouter",
        "mistralai/devstral",
        {"messages": ROUND},
    ),
    (
        has_long_ids,
        "Tool call IDs should be alphanumeric strings with length 9!",
        "vllm",
        "devstral",
        {"messages": ROUND},
    ),
    (
        speaks_after_a_tool,
        "Unexpected role 'user' after role 'tool'",
        "openrouter",
        "mistralai/devstral",
        {"messages": [*ROUND[:2], turn("user", result(), text("Go on."))]},
    ),
    (
        has("extra_body"),
        "Thinking level HIGH is not supported for this model. Please retry with other thinking level.",
        "gemini",
        "gemini-3-nano",
        EFFORT,
    ),
    (
        lambda body: body.get("tool_choice") == "required",
        "tool_choice 'required' is incompatible with thinking enabled",
        "generic",
        "x",
        FORCED,
    ),
    (
        lambda body: body.get("tool_choice") not in ("auto", None),
        "The tool_choice parameter does not support being set to required or object in thinking mode",
        "generic",
        "x",
        FORCED,
    ),
    (
        in_text("default"),
        "Unknown name \"default\" at 'request.tools[0].function_declarations[0].parameters.properties[0].value'.",
        "generic",
        "x",
        {"tools": TOOLS},
    ),
    (
        in_text("format"),
        "Invalid schema for function 'Read': In context=('properties', 'a'), 'format' is not permitted.",
        "openai",
        "gpt-4x",
        {"tools": TOOLS},
    ),
    (
        in_text("image_url"),
        "Failed to deserialize the JSON body: messages[0]: unknown variant `image_url`, expected `text`",
        "generic",
        "x",
        {"messages": [turn("user", text("See"), PNG)]},
    ),
    (
        in_text("image_url"),
        "The model is not a VLM (Vision Language Model). Please use a VLM for requests with images.",
        "generic",
        "x",
        {"messages": [turn("user", text("See"), PNG)]},
    ),
    (
        in_text("image_url"),
        "This model does not support image input.",
        "generic",
        "x",
        {"messages": [turn("user", text("See"), PNG)]},
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=[f"{number}-{row[1][:40]}" for number, row in enumerate(ROWS)])
def test_a_refused_field(row: Tuple[Callable[[Json], bool], str, str, str, Json]) -> None:
    """Costs one attempt more, once: the client gets its answer, and the next request is right at the first try."""
    refuses, words, dialect, name, fields = row
    provider = Refusing(refuses, refusal(words))
    with proxy_before(provider, dialect, model_name=name) as ask_model:
        first = ask_model(**fields)
        assert (first.status, len(provider.bodies)) == (200, 2), first.body
        first_body, mended = provider.bodies
        assert refuses(first_body)
        assert not refuses(mended)
        again = ask_model(**fields)
        assert (again.status, provider.bodies[2:]) == (200, [mended])
    # The mend follows the provider, not its dialect: a signature belongs to Gemini's.
    found = faults(mended, "gemini" if refuses is lacks_signature else dialect)
    assert [fault for fault in found if "output limit" not in fault and "calls without" not in fault] == []


NO_IMAGES = "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"


def test_images_that_the_server_fails_at() -> None:
    """llama.cpp answers 500 for a model without eyes: it gets the rest, and is not sent images again."""
    provider = Refusing(in_text("image_url"), refusal(NO_IMAGES, 500, type="server_error"))
    fields = {"messages": [turn("user", text("See"), PNG)]}
    with proxy_before(provider, "llamacpp") as ask_model:
        assert [ask_model(**fields).status for _ in range(2)] == [200, 200]
    assert [in_text("image_url")(body) for body in provider.bodies] == [True, False, False]


def test_other_words_of_a_failure_mend_nothing() -> None:
    """What succeeds after a failure might have done so anyway."""
    provider = Refusing(lambda body: True, refusal("Unsupported parameter: 'temperature'.", 500))
    with proxy_before(provider) as ask_model:
        assert (ask_model(temperature=0.5).status, len(provider.bodies)) == (500, 1)


def cannot_afford(tokens: int) -> Answer:
    """OpenRouter's refusal of more output than is paid for."""
    words = "This request requires more credits, or fewer max_tokens. You requested up to 20000 tokens, but can only "
    return refusal(f"{words}afford {tokens}. To increase, visit the settings and add more credits", 402)


def test_output_that_cannot_be_paid_for() -> None:
    """What the credits pay for is asked for, while that is worth an answer; then the client is told."""
    provider = Refusing(lambda body: body["max_tokens"] > 3919, cannot_afford(3919))
    with proxy_before(provider, "openrouter") as ask_model:
        assert ask_model().status == 200
    assert [body["max_tokens"] for body in provider.bodies] == [20_000, 3919]


@pytest.mark.parametrize(("tokens", "requests"), [(0, 1), (1023, 1), (3919, 2)])
def test_credits_that_are_spent(tokens: int, requests: int) -> None:
    """There is no third attempt either, whatever the second answer is."""
    provider = Refusing(lambda body: True, cannot_afford(tokens))
    with proxy_before(provider, "openrouter") as ask_model:
        answer = ask_model()
    assert (answer.status, len(provider.bodies)) == (402, requests)
    assert f"can only afford {tokens}" in answer.json["error"]["message"]


TOO_LONG = refusal(
    "This model's maximum context length is 32768 tokens. However, you requested 20000 output tokens and your prompt "
    "contains 30000 input tokens, for a total of 50000 tokens (30000 + 20000 = 50000 > 32768)."
)


def too_long(body: Json) -> bool:
    """Whether a prompt of 30,000 tokens and the output do not fit into 32,768."""
    return bool(30_000 + body["max_tokens"] > 32_768)


def test_output_that_does_not_fit_beside_the_prompt() -> None:
    """As much is asked for as there is room, as Anthropic gives; each time anew, for the next prompt is another."""
    provider = Refusing(too_long, TOO_LONG)
    with proxy_before(provider) as ask_model:
        assert ask_model().status == 200
        assert ask_model(max_tokens=2_000).status == 200
    assert [body["max_tokens"] for body in provider.bodies] == [20_000, 1_744, 2_000]


@pytest.mark.parametrize("second", [TOO_LONG, refusal("Not so little.")], ids=["the same", "another"])
def test_a_prompt_that_is_refused_with_less_output_too(second: Answer) -> None:
    """The client is told of the window, which it can do something about; there is no third attempt."""
    refusals = iter([TOO_LONG, second])

    class Strict(Refusing):
        def answer_to(self, key: str, body: Json) -> Answer:
            return next(refusals)

    provider = Strict(lambda body: True, OK)
    with proxy_before(provider) as ask_model:
        answer = ask_model()
    assert (answer.status, len(provider.bodies)) == (400, 2)
    assert "exceed context limit: 30000 + 20000 > 32768" in answer.json["error"]["message"]


@pytest.mark.parametrize("row", ROWS[:4] + ROWS[-1:], ids=["limit", "least", "temperature", "top_p", "image"])
def test_a_refusal_that_the_mend_does_not_end(row: Tuple[Callable[[Json], bool], str, str, str, Json]) -> None:
    """Is the client's: no third attempt, and nothing is remembered."""
    _, words, dialect, name, fields = row
    provider = Refusing(lambda body: True, refusal(words))
    with proxy_before(provider, dialect, model_name=name) as ask_model:
        answer = ask_model(**fields)
        assert (answer.status, len(provider.bodies)) == (400, 2)
        assert words[:30] in answer.json["error"]["message"]
        ask_model(**fields)
    assert provider.bodies[2] == provider.bodies[0]


def test_one_refused_field_after_the_other() -> None:
    """A model may refuse several, and name one at a time: each is mended, and all of that is remembered."""
    names = ("temperature", "top_p", "stop")

    class Choosy(Refusing):
        def answer_to(self, key: str, body: Json) -> Answer:
            refused = next((name for name in names if name in body), None)
            return refusal(f"Unsupported parameter: '{refused}' is not supported.") if refused else OK

    provider = Choosy(lambda body: False, OK)
    with proxy_before(provider) as ask_model:
        for _ in range(2):
            assert ask_model(temperature=0.5, top_p=0.5, stop_sequences=["x"]).status == 200
    assert [sum(name in body for name in names) for body in provider.bodies] == [3, 2, 1, 0, 0]


def test_a_model_that_is_never_content() -> None:
    """Is not asked without end."""
    fields = ("temperature", "top_p", "stop", "stream_options", "top_k")
    words = iter([f"Unsupported parameter: '{name}' is not supported." for name in fields])

    class Grumpy(Refusing):
        def answer_to(self, key: str, body: Json) -> Answer:
            return refusal(next(words))

    provider = Grumpy(lambda body: False, OK)
    with proxy_before(provider, "vllm") as ask_model:
        answer = ask_model(temperature=0.5, top_p=0.5, stop_sequences=["x"], top_k=5, stream=True)
    assert (answer.status, len(provider.bodies)) == (400, 4)


def test_how_many_models_are_remembered() -> None:
    """A client may name any model: beyond so many, the one known longest needs its mend once more."""
    repairs, mend = Repairs(), find_repair(400, "Unsupported parameter: 'top_p'")
    assert mend is not None
    for number in range(MOST_MODELS + 1):
        repairs.remember(("p", str(number)), mend)
    body = {"top_p": 0.5}
    assert [repairs.apply(("p", str(number)), body) for number in (0, 1, MOST_MODELS)] == [body, {}, {}]


UNMENDED: Mapping[str, Answer] = {
    "overflow": refusal(
        "This model's maximum context length is 8192 tokens. However, you requested 28000 tokens (8000 in the "
        "messages, 20000 in the completion). Please reduce the length of the messages or completion.",
        code="context_length_exceeded",
    ),
    "overflow that names max_tokens": refusal(
        "'max_tokens' or 'max_completion_tokens' is too large: 20000. This model's maximum context length is 32768 "
        "tokens and your request has 32000 input tokens (20000 > 32768 - 32000)."
    ),
    "a field nobody sent": refusal("Unsupported parameter: 'top_p' is not supported with this model."),
    "other words": refusal("The messages are not to my liking."),
    "another status": refusal("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'.", 429),
    "content": refusal("Your request was rejected: content_policy_violation, temperature not supported"),
}


@pytest.mark.parametrize("kind", UNMENDED)
def test_what_no_mend_can_help(kind: str) -> None:
    """A prompt that is too long, and faults that no field explains, are told at once."""
    provider = Refusing(lambda body: True, UNMENDED[kind])
    with proxy_before(provider) as ask_model:
        answer = ask_model()
    assert (answer.status, len(provider.bodies)) == (429 if kind == "another status" else 400, 1)
    if kind == "overflow":
        assert (
            "input length and `max_tokens` exceed context limit: 8000 + 20000 > 8192" in answer.json["error"]["message"]
        )


def test_each_model_has_its_own_mends() -> None:
    """What one model refuses is still sent to another at the same address."""
    provider = Refusing(lambda body: body["model"] == "a" and "temperature" in body, refusal(ROWS[2][1]))
    with provider:
        models = [{"model_id": name, "api_base": provider.base("p"), "dialect": "generic"} for name in "ab"]
        with running_proxy({"ROUTER_DEFAULT": "a"}, models) as proxy:
            for name in "ab":
                assert ask(proxy.url, "/v1/messages", user(model=name, temperature=0.5)).status == 200
    assert [(body["model"], "temperature" in body) for body in provider.bodies] == [
        ("a", True),
        ("a", False),
        ("b", True),
    ]


@pytest.mark.parametrize(("words", "status"), [(40_000, 400), (10, 200)])
def test_a_prompt_beyond_the_window(words: int, status: int) -> None:
    """Is refused before anyone is asked, in the words that make clients compact."""
    provider = Refusing(lambda body: False, OK)
    with proxy_before(provider, max_input_tokens=8192) as ask_model:
        answer = ask_model(messages=[turn("user", "word " * words)])
    assert (answer.status, len(provider.bodies)) == (status, int(status == 200))
    if status == 400:
        assert answer.json["error"]["message"].startswith("prompt is too long: ")
        assert answer.json["error"]["message"].endswith(" tokens > 8192 maximum")
