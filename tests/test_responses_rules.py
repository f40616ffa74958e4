"""Every request to the Responses API keeps its rules, whatever the client's request looks like; reasoning returns.

The requests are those of real clients, and generated ones.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest
from hypothesis import HealthCheck, given, settings

from ccproxy.responses import ResponsesReader
from ccproxy.translate.envelope import Envelope, seal
from chunks import read, stream_of, wire
from conversations import FIELDS
from grammar import fold
from recordings import Recording, server_sent_data
from replay import Answer
from responses_rules import faults
from sent import model_of, result, text, turn, use, user
from support import Answer as Got
from support import ask, running_proxy
from support import user as asked
from test_recordings import DIALECTS, RECORDINGS, each
from test_repair import PNG, ROUND, TOOLS, Refusing, refusal
from test_request_rules import REQUESTS, body_of
from test_responses import response, said

Json = Dict[str, Any]

TARGETS = [
    ("openai", "gpt-5.6"),
    ("openai", "gpt-4.1"),
    ("openai", "gpt-5-codex"),
    ("azure", "my-deployment"),
    ("openrouter", "openai/gpt-5"),
    ("openrouter", "anthropic/claude-sonnet-5"),
    ("xai", "grok-4.3"),
    ("deepseek", "deepseek-v4-flash"),
    ("llamacpp", "qwen3-8b"),
    ("generic", "some-model"),
]
ALL_TARGETS = pytest.mark.parametrize(("dialect", "name"), TARGETS, ids=["-".join(target) for target in TARGETS])
DIALECT_FIELDS = {"llamacpp": ("chat_template_kwargs", "thinking_budget_tokens"), "openrouter": ("plugins",)}
DIALECT_REASONING = {"openrouter": "max_tokens"}


def request_faults(request: Json, dialect: str, name: str) -> List[str]:
    """What is wrong with the request that a model is sent; what the dialect adds is set aside."""
    body = body_of(request, dialect, name, api="responses")
    if body is None:
        return []
    plain = {key: value for key, value in body.items() if key not in DIALECT_FIELDS.get(dialect, ())}
    if DIALECT_REASONING.get(dialect) in plain.get("reasoning", {}):
        del plain["reasoning"]
    return faults(plain)


@ALL_TARGETS
def test_requests_of_real_clients(dialect: str, name: str) -> None:
    """What Claude Code and other clients really send is a good request."""
    broken = {
        title: found for title, body in REQUESTS.items() for found in [request_faults(body, dialect, name)] if found
    }
    assert not broken, f"{len(broken)} of {len(REQUESTS)}: {json.dumps(dict(list(broken.items())[:6]), indent=1)}"


@ALL_TARGETS
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(fields=FIELDS)
def test_any_conversation(dialect: str, name: str, fields: Json) -> None:
    """Blocks of all kinds, tool rounds that are broken, odd names and ids: a good request, or a 400 with the field."""
    assert request_faults({"model": "claude", **fields}, dialect, name) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"input": []},
        {"input": [said("Hi")]},
        {"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]},
        {"store": True},
        {"max_tokens": 5},
        {"max_output_tokens": 1},
        {"tool_choice": "auto"},
        {"tools": [{"type": "function", "function": {"name": "x"}}]},
        {"metadata": {"user_id": "x"}},
        {"reasoning": {"effort": "huge"}},
    ],
)
def test_the_checker_finds_what_is_wrong(wrong: Json) -> None:
    """A rule that nothing breaks proves nothing."""
    good = body_of({"model": "claude", "max_tokens": 20, "messages": user("Hi")}, "openai", "gpt-5.6", api="responses")
    assert good is not None
    assert faults(good) == []
    assert faults({**good, **wrong}) != []


# --- reasoning across turns ---------------------------------------------------------------------------------------


def items_of(source: Recording) -> List[Json]:
    """The reasoning items of a recorded answer that can be read again, as they stand in its bytes but for a status."""
    if not source.is_stream:
        output = json.loads(source.body).get("output") or []
    else:
        events = [json.loads(data) for data in server_sent_data(source.body) if data.strip() != "[DONE]"]
        output = [event["item"] for event in events if event.get("type") == "response.output_item.done"]
    return [
        {name: value for name, value in item.items() if name != "status" and value is not None}
        for item in output
        if item["type"] == "reasoning" and (item.get("encrypted_content") or item.get("content"))
    ]


REASONED = [source for source in RECORDINGS if source.api == "responses" and not source.is_error and items_of(source)]


@pytest.mark.parametrize("hidden", [False, True], ids=["shown", "hidden"])
@each(REASONED)
def test_reasoning_returns_as_it_was(source: Recording, hidden: bool) -> None:
    """Byte by byte, before what it led to, whether the client was shown it or not; and so do the calls."""
    dialect = DIALECTS.get(source.provider, "generic")
    model = model_of(dialect, model_name=source.model, api="responses", api_base=f"http://{source.provider}.test/v1")
    if source.is_stream:
        chunks, done = read([source.body], "responses")
    else:
        chunks, done = ResponsesReader().whole(json.loads(source.body)), True
    origin = {"dialect": model.dialect, "provider": model.provider, "model_name": model.name, "hides_thinking": hidden}
    answer = fold(wire(stream_of(chunks, done=done, **origin)))
    blocks = [block for block in answer["content"] if block.get("text") != ""]
    results = [result(block["id"]) for block in blocks if block["type"] == "tool_use"]
    messages = [turn("user", "Hello"), turn("assistant", *blocks), turn("user", *(results or [text("Thanks")]))]
    request = {"model": "claude", "max_tokens": 100, "messages": messages}
    body = body_of(request, dialect, source.model, api="responses", api_base=model.api_base)
    assert body is not None
    returned = [item for item in body["input"] if item["type"] == "reasoning"]
    assert json.dumps(returned) == json.dumps(items_of(source))
    assert body["input"][1 : 1 + len(returned)] == returned
    elsewhere = body_of(request, dialect, source.model, api="responses", api_base="http://elsewhere.test/v1")
    assert "reasoning" not in [item["type"] for item in (elsewhere or {})["input"]]


# --- mended requests ----------------------------------------------------------------------------------------------

OK = Answer(200, {"content-type": "application/json"}, [json.dumps(response(said("Hello"))).encode()], "length")
THINK = {"thinking": {"type": "adaptive"}}


class RefusingResponses(Refusing):
    """The same provider behind the Responses API."""

    def answer_to(self, key: str, body: Json) -> Answer:
        """Refuse or answer."""
        return self._refusal if self._refuses(body) else OK


@contextmanager
def proxy_before(provider: Refusing, **entry: Any) -> Iterator[Callable[..., Got]]:
    """Serve the model `m` of a provider; yields a function that asks it."""
    with provider:
        base = {"model_id": "m", "model_name": "gpt-5.6", "api_base": provider.base("p"), "dialect": "openai"}
        with running_proxy(
            {"ROUTER_DEFAULT": "m", "MAX_RETRIES": "0"}, [{**base, "api": "responses", **entry}]
        ) as proxy:
            yield lambda **fields: ask(proxy.url, "/v1/messages", asked(**fields))


def within(word: str) -> Callable[[Json], bool]:
    """Whether a word stands in the body as a name or a value."""
    return lambda body: f'"{word}"' in json.dumps(body)


MENDED: List[Tuple[str, str, Json]] = [
    ("temperature", "Unsupported parameter: 'temperature' is not supported with this model.", {"temperature": 0.5}),
    ("include", "Encrypted content is not supported with this model.", {}),
    ("summary", "Your organization must be verified to generate reasoning summaries.", THINK),
    ("effort", "Unsupported value: 'high' is not supported with 'x'. param: reasoning.effort", THINK),
    ("max_output_tokens", "Unsupported parameter: max_output_tokens", {}),
    ("prompt_cache_key", "Unknown parameter: 'prompt_cache_key'.", {"metadata": {"user_id": "u"}}),
    ("phase", "Unknown parameter: 'input[1].phase'.", {"messages": ROUND, "tools": TOOLS}),
    ("required", "tool_choice 'required' is not supported", {"tools": TOOLS, "tool_choice": {"type": "any"}}),
    ("uri", "Invalid schema for function 'Read': 'uri' is not a valid format.", {"tools": TOOLS}),
    ("input_image", "This model does not support image inputs.", {"messages": user(PNG)}),
]


@pytest.mark.parametrize(("refused", "words", "fields"), MENDED)
def test_a_refused_field(refused: str, words: str, fields: Json) -> None:
    """Is left out in a second request, and in all that follow."""
    provider = RefusingResponses(within(refused), refusal(words))
    entry = {"dialect": "xai", "model_name": "grok"} if refused in ("temperature",) else {}
    with proxy_before(provider, **entry) as ask_model:
        assert [ask_model(**fields).status for _ in range(2)] == [200, 200]
    assert [within(refused)(body) for body in provider.bodies] == [True, False, False]
    assert all(faults({"max_output_tokens": 16, **body}) == [] for body in provider.bodies if refused != "effort")


def test_reasoning_that_cannot_be_read_any_more() -> None:
    """Is left out of that request; the next conversation's is sent again."""
    words = "The encrypted content for item rs_1 could not be verified."
    provider = RefusingResponses(within("rs_1"), refusal(words, code="invalid_encrypted_content"))
    with proxy_before(provider) as ask_model:
        for number in (1, 2):
            item = {"type": "reasoning", "id": f"rs_{number}", "summary": [], "encrypted_content": "x"}
            host = provider.url.partition("//")[2]
            signature = seal(Envelope(host, "gpt-5.6", fields={"output_items": [item]}))
            thought = {"type": "thinking", "thinking": "", "signature": signature}
            messages = [turn("user", "Hi"), turn("assistant", thought, use()), turn("user", result())]
            assert ask_model(messages=messages, tools=TOOLS).status == 200
    assert [within("reasoning")(json.loads(json.dumps(body["input"]))) for body in provider.bodies] == [
        True,
        False,
        True,
    ]
