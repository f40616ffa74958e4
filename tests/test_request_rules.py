"""Every request that a provider is sent keeps the rules of its dialect, whatever the client's request looks like.

The requests are those of real clients (`../shared/claude-code` and the recordings of Anthropic's API) and generated
ones. Each is a good request for every dialect, or it is refused with a 400 that names the field.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import pytest
from hypothesis import HealthCheck, given, settings

from ccproxy.anthropic import MessagesRequest
from ccproxy.errors import InvalidRequest
from ccproxy.translate.request import translate_request
from conversations import FIELDS
from recordings import VARIABLE, folder
from request_rules import RULES, faults
from sent import model_of, result, text, turn, use, user

Json = Dict[str, Any]
LIMIT = 4096

MODELS: Mapping[str, Tuple[str, ...]] = {
    "openai": ("gpt-4.1", "gpt-5", "gpt-5.4", "gpt-5.6", "o4-mini"),
    "gemini": ("gemini-2.5-flash", "gemini-3-pro"),
    "deepseek": ("deepseek-chat", "deepseek-v4-flash"),
    "openrouter": ("anthropic/claude-sonnet-4.5", "google/gemini-3-pro", "openai/gpt-5"),
    "moonshot": ("kimi-k2.6", "kimi-k3"),
    "zai": ("glm-4.6", "glm-5.3"),
    "qwen": ("qwen3-max",),
    "doubao": ("doubao-seed-1-6",),
    "groq": ("openai/gpt-oss-120b", "qwen/qwen3-32b"),
    "mistral": ("mistral-medium-latest",),
    "vllm": ("qwen3-8b",),
    "llamacpp": ("qwen3-8b",),
    "ollama": ("qwen3:8b",),
}
"""Dialect -> models that this dialect treats differently; the others have one model of no note."""
TARGETS = [(dialect, name) for dialect in RULES for name in MODELS.get(dialect, ("some-model",))]
ALL_TARGETS = pytest.mark.parametrize(("dialect", "name"), TARGETS, ids=["-".join(target) for target in TARGETS])

FIELD = re.compile(
    r"^(messages|system|tools|tool_choice|max_tokens|thinking|output_config|stop_sequences|temperature|tool_addition"
    r"|metadata|stream|top_[pk]|model|thread|compaction|mcp_servers|image|document|container_upload|cache_control)\b"
)


def body_of(request: Json, dialect: str, name: str = "some-model", **entry: Any) -> Optional[Json]:
    """The body that a model is sent, as it reads on the wire; None when the request is refused as it should be."""
    model = model_of(dialect, model_name=name, **entry)
    try:
        parsed = MessagesRequest.from_dict(request)
        chat = translate_request(parsed, model, output_limit=LIMIT, stream=parsed.stream).request
    except InvalidRequest as error:
        refusal = error.message
    else:
        data = json.dumps(chat.to_dict(), ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
        return json.loads(data)  # type: ignore[no-any-return]
    assert FIELD.match(refusal), f"the message names no field: {refusal}"
    return None


def request_faults(request: Json, dialect: str, name: str = "some-model") -> List[str]:
    """What is wrong with the request that a model is sent."""
    body = body_of(request, dialect, name)
    if body is None:
        return []
    limit = body.get(RULES[dialect].limit)
    wrong = [] if limit == min(request["max_tokens"], LIMIT) else [f"{limit} output tokens"]
    return [*faults(body, dialect), *wrong]


# --- requests of real clients -----------------------------------------------------------------------------------


def client_requests() -> Dict[str, Json]:
    """Every recorded Messages request that asks for output, by its name."""
    found: Dict[str, Json] = {}
    for path in sorted((folder().parent / "claude-code").glob("*.json")):
        for number, request in enumerate(read(path)["requests"]):
            if request["path"] == "/v1/messages" and isinstance(request["body"], dict):
                found[f"{path.stem}-{number}"] = request["body"]
    for path in sorted([*folder().glob("anthropic/*.json"), *folder().glob("claude-code-requests/*.json")]):
        data = read(path)
        refused = (data["response"] or {}).get("status") == 400  # by Anthropic itself
        if data["kind"] == "anthropic.messages" and isinstance(data["request"]["body"], dict) and not refused:
            found[path.stem] = data["request"]["body"]
    return found


def read(path: Path) -> Json:
    """The JSON of a file."""
    return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


REQUESTS = client_requests()


def test_the_requests_are_there() -> None:
    """Where CI runs, the recorded requests must be: a run without them proves nothing."""
    if not REQUESTS and not os.environ.get("CI"):
        pytest.skip(f"no requests beside {folder().name!r}: set {VARIABLE}")
    assert len(REQUESTS) > 50, f"no requests in or beside {folder()}: set {VARIABLE}"


@ALL_TARGETS
def test_requests_of_real_clients(dialect: str, name: str) -> None:
    """What Claude Code and other clients really send is a good request for every provider."""
    broken = {
        title: found for title, body in REQUESTS.items() for found in [request_faults(body, dialect, name)] if found
    }
    assert not broken, f"{len(broken)} of {len(REQUESTS)}: {json.dumps(dict(list(broken.items())[:6]), indent=1)}"


# --- generated requests -------------------------------------------------------------------------------------------


@ALL_TARGETS
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(fields=FIELDS)
def test_any_conversation(dialect: str, name: str, fields: Json) -> None:
    """Blocks of all kinds, tool rounds that are broken, odd names and ids: a good request, or a 400 with the field."""
    assert request_faults({"model": "claude", **fields}, dialect, name) == []


# --- rules one by one -------------------------------------------------------------------------------------------

EVERY = pytest.mark.parametrize("dialect", RULES)
TOOL = {"name": "Read", "input_schema": {"type": "object"}}


@EVERY
def test_nothing_a_client_invents_reaches_a_provider(dialect: str) -> None:
    """Top-level fields that nobody knows, and those only Anthropic has, are left out."""
    invented = {
        "of_tomorrow": "INVENTED",
        "safeguards": {"x": "INVENTED"},
        "n": 2,
        "logprobs": True,
        "user": "INVENTED",
    }
    known = {"metadata": {"user_id": "INVENTED"}, "service_tier": "auto", "speed": "fast", "inference_geo": "INVENTED"}
    request = {"model": "claude", "max_tokens": 9, "messages": user("Hi"), **invented, **known}
    body = body_of(request, dialect)
    assert body is not None
    assert faults(body, dialect) == []
    assert "INVENTED" not in json.dumps(body)
    assert not {"n", "logprobs", "user"} & set(body)


@EVERY
@pytest.mark.parametrize("asked", [1, LIMIT, LIMIT + 1])
def test_the_output_limit(dialect: str, asked: int) -> None:
    """No more output is asked for than the model gives, and no more than the client wants."""
    body = body_of({"model": "claude", "max_tokens": asked, "messages": user("Hi")}, dialect)
    assert body is not None
    assert body[RULES[dialect].limit] == min(asked, LIMIT)


@EVERY
@pytest.mark.parametrize(
    "messages",
    [
        user(""),
        user(" ", "\n"),
        [turn("assistant", {"type": "thinking", "thinking": "Hm.", "signature": ""})],
        [turn("user", "Hi"), turn("assistant", {"type": "redacted_thinking", "data": "x"}), turn("user", "Hi")],
        [turn("user", "Hi"), turn("assistant", "A"), turn("user", ""), turn("assistant", "B"), turn("user", "Hi")],
    ],
)
def test_turns_that_say_nothing(dialect: str, messages: Sequence[Json]) -> None:
    """Are left out, and the turns around them joined; a conversation of nothing else is refused."""
    blocks = [{**m, "content": [text(c) if isinstance(c, str) else c for c in m["content"]]} for m in messages]
    assert request_faults({"model": "claude", "max_tokens": 9, "messages": blocks}, dialect) == []


@EVERY
@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "Read"}, {"type": "none"}])
@pytest.mark.parametrize("thinking", [{"type": "adaptive"}, {"type": "disabled"}, {}])
def test_a_tool_choice(dialect: str, choice: Json, thinking: Json) -> None:
    """Is in the dialect's words, and is not forced on a model that refuses that while it thinks."""
    request = {"model": "claude", "max_tokens": 9, "messages": user("Hi"), "tools": [TOOL], "tool_choice": choice}
    for name in MODELS.get(dialect, ("some-model",)):
        assert request_faults({**request, "thinking": thinking}, dialect, name) == []


def test_no_tool_may_be_called_where_none_cannot_be_said() -> None:
    """Without a word for `none` the tools are not sent; they are when the history has calls."""
    request = {"model": "claude", "max_tokens": 9, "tools": [TOOL], "tool_choice": {"type": "none"}}
    body = body_of({**request, "messages": user("Hi")}, "zai", "glm-4.6")
    assert body is not None
    assert "tools" not in body
    history = [turn("user", "Hi"), turn("assistant", use()), turn("user", result())]
    assert "tools" in (body_of({**request, "messages": history}, "zai", "glm-4.6") or {})


@pytest.mark.parametrize("dialect", [name for name, rules in RULES.items() if rules.tools])
def test_more_tools_than_a_provider_takes(dialect: str) -> None:
    """Are refused with the limit; tools are never dropped in silence."""
    limit = RULES[dialect].tools or 0
    tools = [{"name": f"t{number}", "input_schema": {}} for number in range(limit + 1)]
    request = {"model": "claude", "max_tokens": 9, "messages": user("Hi")}
    body = body_of({**request, "tools": tools[:limit]}, dialect)
    assert len((body or {})["tools"]) == limit
    assert body_of({**request, "tools": tools}, dialect) is None


@EVERY
def test_a_tool_that_was_removed(dialect: str) -> None:
    """The last tool may go in mid-conversation: then there are no tools, which is no fault of the request."""
    messages = [turn("user", "Hi"), turn("system", {"type": "tool_removal", "tool_name": "Read"}), turn("user", "Hi")]
    body = body_of({"model": "claude", "max_tokens": 9, "messages": messages, "tools": [TOOL]}, dialect)
    assert body is not None
    assert "tools" not in body


@EVERY
def test_two_calls_with_one_id(dialect: str) -> None:
    """Are told apart, or one of them is dropped: a provider refuses the same id twice in a message."""
    messages = [turn("user", "Hi"), turn("assistant", use(a=1), use(a=2)), turn("user", result(), result())]
    assert request_faults({"model": "claude", "max_tokens": 9, "messages": messages}, dialect) == []


@EVERY
def test_an_id_that_another_turn_used_for_another_call(dialect: str) -> None:
    """Servers that count from 0 in each answer reuse ids: no such turn is taken for a repetition and lost."""
    rounds = [[turn("assistant", use("call_0", a=n)), turn("user", result("call_0", f"out {n}"))] for n in (1, 2)]
    request = {"model": "claude", "max_tokens": 9, "messages": [turn("user", "Hi"), *rounds[0], *rounds[1]]}
    body = body_of(request, dialect)
    assert body is not None
    assert faults(body, dialect) == []
    assert [message["content"] for message in body["messages"] if message["role"] == "tool"] == ["out 1", "out 2"]
