"""Reasoning across turns: each recorded answer goes back, as history, to the provider that gave it and to all others.

The answers are those of `recordings`; what of each must return is read from its raw bytes here, without ccproxy's code.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import pytest

from ccproxy.anthropic import MessagesRequest
from ccproxy.config.schema import Model
from ccproxy.openai import Chunk
from ccproxy.translate.envelope import Envelope, seal, seal_id
from ccproxy.translate.request import translate_request
from chunks import delta, entry, read, stream_of, wire
from grammar import fold
from recordings import Recording, server_sent_data
from recordings import read as reading_of
from request_rules import RULES, SKIP, faults
from sent import called, model_of, result, text, turn, use
from test_recordings import DIALECTS, RECORDINGS, each

Json = Dict[str, Any]

TAKES_NOTHING_BACK = ("openai", "azure", "groq")
TEXT_FIELDS = ("reasoning_content", "reasoning", "reasoning_text")
LATER = {"role": "user", "content": "And now?"}


# --- what an answer gave ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Given:
    """What of an answer must return: the message's fields, and per call its id, name, inputs and fields."""

    fields: Json
    calls: Tuple[Tuple[str, str, Tuple[Json, ...], Json], ...]
    thinking_part: str = ""
    """Mistral: the reasoning is a part of the content."""
    is_tagged: bool = False


def deltas_of(source: Recording) -> Iterator[Json]:
    """Yield the deltas of the answer, or its one message."""
    texts = server_sent_data(source.body) if source.is_stream else [source.body.decode("utf-8")]
    for data in texts:
        if data.strip() == "[DONE]":
            return
        for choice in json.loads(data).get("choices") or []:
            if choice.get("index") in (0, None):
                keys = ("delta", "message") if source.is_stream else ("message", "delta")
                yield next((choice[key] for key in keys if isinstance(choice.get(key), dict)), {})


def given(source: Recording) -> Given:
    """Read what must return from the raw answer."""
    fields: Json = {}
    details: List[Json] = []
    signatures: Dict[str, Json] = {}
    parts: List[str] = []
    last_id = ""
    for said in deltas_of(source):
        name = next((name for name in TEXT_FIELDS if isinstance(said.get(name), str) and said[name]), None)
        if name:
            fields[name] = fields.get(name, "") + said[name]
        details += [item for item in said.get("reasoning_details") or [] if isinstance(item, dict)]
        if said.get("reasoning_opaque"):
            fields["reasoning_opaque"] = said["reasoning_opaque"]
        if is_signed(said):
            fields["extra_content"] = said["extra_content"]
        for call in said.get("tool_calls") or []:
            last_id = call.get("id") or last_id
            if is_signed(call):
                signatures[last_id] = call["extra_content"]
        parts += [item for part in thinking_parts(said) for item in part]
    if details:
        fields["reasoning_details"] = merged(details)
    calls = tuple(
        (call.id, call.name, call.inputs, {"extra_content": signatures[call.id]} if call.id in signatures else {})
        for call in reading_of(source).calls
    )
    return Given(fields, calls, "".join(parts), reading_of(source).is_tagged)


def is_signed(carrier: Json) -> bool:
    """Whether a message or call holds a thought signature."""
    extra = carrier.get("extra_content") or {}
    return any(isinstance(vendor, dict) and vendor.get("thought_signature") for vendor in extra.values())


def thinking_parts(delta: Json) -> Iterator[List[str]]:
    """Yield the texts of Mistral's thinking parts."""
    content = delta.get("content")
    for part in content if isinstance(content, list) else ():
        if part.get("type") == "thinking":
            yield [item["text"] for item in part["thinking"]]


def merged(details: Sequence[Json]) -> List[Json]:
    """Join fragments of `reasoning_details` per index and type: what the answer holds when it is not streamed."""
    joined: Dict[Tuple[Any, Any], Json] = {}
    for number, item in enumerate(details):
        known = joined.setdefault((item.get("index", -1 - number), item.get("type")), {})
        for key, value in item.items():
            if key in ("text", "summary", "data") and isinstance(known.get(key), str) and isinstance(value, str):
                known[key] += value
            elif key not in known or value:
                known[key] = value
    return list(joined.values())


# --- the way through ccproxy ------------------------------------------------------------------------------------


def model_for(provider: str, name: str, dialect: Optional[str] = None) -> Model:
    """The model of a recording, each provider at its own address."""
    chosen = dialect or DIALECTS.get(provider, "generic")
    return model_of(chosen, model_name=name, api_base=f"http://{provider}.test/v1", supports_images=True)


def model_of_recording(source: Recording) -> Model:
    """The model that gave a recorded answer."""
    return model_for(source.provider, source.model)


def answer_of(source: Recording, model: Model, **context: Any) -> Json:
    """The message a client has after a recorded answer of this model."""
    if source.is_stream:
        chunks, done = read([source.body])
    else:
        chunks, done = [Chunk.from_completion(json.loads(source.body))], True
    origin = {"dialect": model.dialect, "provider": model.provider, "model_name": model.name}
    return fold(wire(stream_of(chunks, done=done, **origin, **context)))


def history(answer: Json) -> List[Json]:
    """A conversation with this answer in it, its calls answered, and one more word of the user."""
    blocks = [block for block in answer["content"] if block.get("text") != ""]
    results = [result(block["id"], f"result of {block['name']}") for block in blocks if block["type"] == "tool_use"]
    return [
        turn("user", "Hello"),
        {"role": "assistant", "content": blocks},
        {"role": "user", "content": results or [text("Thanks")]},
    ]


def body_for(messages: Sequence[Json], model: Model) -> Json:
    """The body that this model is sent, as it reads on the wire."""
    tools = sorted({block["name"] for message in messages for block in blocks_of(message) if "name" in block})
    request = {"model": "claude", "max_tokens": 100, "messages": messages, "stream": True}
    if tools:
        request["tools"] = [{"name": name, "input_schema": {"type": "object"}} for name in tools]
    chat = translate_request(MessagesRequest.from_dict(request), model, output_limit=4096, stream=True).request
    return json.loads(json.dumps(chat.to_dict(), ensure_ascii=False).encode("utf-8", "replace"))  # type: ignore[no-any-return]


def blocks_of(message: Json) -> List[Json]:
    """The blocks of a message."""
    return message["content"] if isinstance(message["content"], list) else []


def assistant_of(body: Json) -> Json:
    """The first assistant message."""
    return next(message for message in body["messages"] if message["role"] == "assistant")


def is_told(source: Recording) -> bool:
    """Whether a recording is a whole chat completion with reasoning or calls."""
    if source.is_error or source.api != "chat":
        return False
    reading = reading_of(source)
    return reading.failure is None and bool(reading.calls or (reading.reasoning and reading.text))


TOLD = [source for source in RECORDINGS if is_told(source)]


# --- back to where it came from ---------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [False, True], ids=["shown", "hidden"])
@each(TOLD)
def test_a_provider_gets_its_own_fields_back(source: Recording, hidden: bool) -> None:
    """What a provider said of its reasoning returns as it was, shown to the client or not; and so do its calls."""
    model = model_of_recording(source)
    answer = answer_of(source, model, hides_thinking=hidden)
    message = assistant_of(body_for(history(answer), model))
    assert differences(given(source), message, model.dialect.name) == []


@each(TOLD)
def test_after_a_turn_of_another_provider(source: Recording) -> None:
    """The turns of two providers in one history: each gets its own back, unchanged by the other's turn."""
    model = model_of_recording(source)
    turns = history(answer_of(source, model))
    alone = assistant_of(body_for([*turns, turn("assistant", "Well."), LATER], model))
    other = {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": seal(Envelope("elsewhere.test", "x", "reasoning"))},
            text("Well."),
        ],
    }
    assert assistant_of(body_for([*turns, other, LATER], model)) == alone


def differences(expected: Given, message: Json, dialect: str) -> List[str]:
    """Say what of an answer did not return."""
    found = []
    fields = {} if dialect in TAKES_NOTHING_BACK else expected.fields
    names = ("reasoning_details", "reasoning_opaque", "extra_content")
    # Reasoning that came in tags has no field of its own: it may come back in the one that takes any text.
    for name in names if expected.is_tagged else (*TEXT_FIELDS, *names):
        filler = name == "reasoning_content" and RULES[dialect].needs_reasoning in (
            "all",
            "calls" if expected.calls else "all",
        )
        wanted = fields.get(name, " " if filler else None)
        # Only tool turns need the state that came after the text; the text of the reasoning returns with all.
        if message.get(name) != wanted and (expected.calls or name in TEXT_FIELDS):
            found.append(f"{name}: {str(message.get(name))[:300]}, gave {str(wanted)[:300]}")
    if expected.thinking_part:
        part = {"type": "thinking", "thinking": [{"type": "text", "text": expected.thinking_part}]}
        if message["content"][0] != part:
            found.append(f"content starts with {str(message['content'])[:300]}")
    calls = message.get("tool_calls", [])
    if len(calls) != len(expected.calls):
        return [*found, f"{len(calls)} calls, gave {len(expected.calls)}"]
    ids = [call[0] for call in expected.calls]
    for number, (call, (own_id, name, inputs, extra)) in enumerate(zip(calls, expected.calls)):
        # Ids that were redacted in the recording are not in the provider's own alphabet.
        is_plain = ids.count(own_id) == 1 and re.fullmatch(RULES[dialect].tool_id, own_id)
        if is_plain and call["id"] != own_id:
            found.append(f"call {number}: id {call['id']!r}, gave {own_id!r}")
        if call["function"]["name"] != name:
            found.append(f"call {number}: name {call['function']['name']!r}, gave {name!r}")
        if inputs and json.loads(call["function"]["arguments"]) not in inputs:
            found.append(f"call {number}: {call['function']['arguments']}, gave {inputs}")
        own = {key: value for key, value in call.items() if key not in ("id", "type", "function")}
        skip = {"extra_content": {"google": {"thought_signature": SKIP}}}
        filled = skip if RULES[dialect].needs_signature and not number and not extra else {}
        if own != (extra or filled):
            found.append(f"call {number}: {own}, gave {extra}")
    return found


# --- to everyone else -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", RULES)
def test_every_other_dialect_takes_it(dialect: str) -> None:
    """A history of one provider is a good request for any other: nothing of the first is left, fillers where needed."""
    broken = {}
    for source in TOLD:
        if DIALECTS.get(source.provider, "generic") != dialect:
            model = model_for("elsewhere", "some-model", dialect)
            body = body_for(history(answer_of(source, model_of_recording(source))), model)
            found = [*faults(body, dialect), *foreign_state(body, dialect)]
            if found:
                broken[source.id] = found
    assert not broken, f"{len(broken)}: {json.dumps(dict(list(broken.items())[:5]), indent=1)}"


def foreign_state(body: Json, dialect: str) -> Iterator[str]:
    """Yield the state of another provider in a request; reasoning as plain text may go where any is taken."""
    for message in body["messages"]:
        for name in ("reasoning_details", "reasoning_opaque", "extra_content"):
            if name in message:
                yield f"{name} of another provider"
        for call in message.get("tool_calls") or ():
            extra = call.get("extra_content")
            if extra not in (None, {"google": {"thought_signature": SKIP}}):
                yield f"extra_content of another provider on a call: {str(extra)[:200]}"
        if isinstance(message["content"], list) and any(part["type"] == "thinking" for part in message["content"]):
            yield "a thinking part of another provider"


def test_claude_thinking_goes_back_to_claude_behind_openrouter() -> None:
    """Thinking that Anthropic signed has its form at OpenRouter; nobody else is given the signature."""
    signed = {"type": "thinking", "thinking": "Hm.", "signature": "EqQB"}
    messages = [turn("user", "Hi"), turn("assistant", signed, use()), turn("user", result())]
    detail = {"type": "reasoning.text", "text": "Hm.", "signature": "EqQB", "format": "anthropic-claude-v1", "index": 0}
    claude = model_of("openrouter", model_name="anthropic/claude-sonnet-4.5")
    assert assistant_of(body_for(messages, claude))["reasoning_details"] == [detail]
    for dialect in RULES:
        assert "EqQB" not in json.dumps(body_for(messages, model_of(dialect, model_name="some-model")))


@pytest.mark.parametrize(("name", "is_told"), [("google/gemini-3-pro", True), ("google/gemini-2.5-pro", False)])
def test_gemini_behind_openrouter_takes_the_calls_of_others(name: str, is_told: bool) -> None:
    """By one detail a message, of its first call; its own calls bring theirs."""
    turns = [turn("user", "Hi"), turn("assistant", use("a"), use("b")), turn("user", result("a"), result("b"))]
    detail = {"type": "reasoning.encrypted", "data": SKIP, "id": "a", "format": "google-gemini-v1", "index": 0}
    gemini = model_for("openrouter", name, "openrouter")
    assert assistant_of(body_for(turns, gemini)).get("reasoning_details") == ([detail] if is_told else None)
    own = {**detail, "data": "c2lnbmVk"}
    signature = seal(Envelope(gemini.provider, name, fields={"reasoning_details": [own]}))
    turns[1]["content"].insert(0, {"type": "thinking", "thinking": "", "signature": signature})
    assert assistant_of(body_for(turns, gemini))["reasoning_details"] == [own]


def test_deepseek_gets_reasoning_with_every_message() -> None:
    """Also with the words after a tool's result; a space stands for what another model thought, or nobody did."""
    turns = [turn("user", "Hi"), turn("assistant", use()), turn("user", result()), turn("assistant", "Done."), LATER]
    said = body_for(turns, model_of("deepseek"))["messages"]
    assert [message["reasoning_content"] for message in said if message["role"] == "assistant"] == [" ", " "]


def signed_call(tool_id: str, name: str, signature: str = "") -> Json:
    """A call as Gemini streams it: without an index, whole, signed or not."""
    extra = {"extra_content": {"google": {"thought_signature": signature}}} if signature else {}
    return {**entry(id=tool_id, name=name, arguments='{"a":1}'), **extra}


@pytest.mark.parametrize("drops_thinking", [False, True])
@pytest.mark.parametrize("dialect", RULES)
def test_the_signatures_of_gemini(dialect: str, drops_thinking: bool) -> None:
    """Return to Gemini on their own calls, even when the client drops thinking, and to nobody else in any form."""
    gemini = model_for("google", "gemini-3-pro", "gemini")
    calls = [signed_call("call_a", "one", "c2lnbmF0dXJlIG9uZQ=="), signed_call("call_b", "two")]
    origin = {"dialect": gemini.dialect, "provider": gemini.provider, "model_name": gemini.name}
    chunks = [delta(tool_calls=[call]) for call in calls] + [delta("stop")]
    answer = fold(wire(stream_of([Chunk.from_dict(chunk) for chunk in chunks], **origin)))
    if drops_thinking:
        answer["content"] = [block for block in answer["content"] if block["type"] != "thinking"]
    messages = history(answer)
    returned = assistant_of(body_for(messages, gemini))["tool_calls"]
    assert returned == [{"type": "function", **call} for call in calls]
    if dialect != "gemini":
        body = body_for(messages, model_of(dialect, model_name="some-model"))
        assert [*faults(body, dialect), *foreign_state(body, dialect)] == []


SIGNED = [{"type": "reasoning.text", "text": word, "signature": f"of {word}", "index": 0} for word in ("a", "b")]
ENCRYPTED = [{"type": "reasoning.encrypted", "data": word, "id": f"rs_{word}", "index": 0} for word in ("a", "b")]
UNNUMBERED = [{"type": "reasoning.encrypted", "data": word, "index": None} for word in ("a", "b")]


@pytest.mark.parametrize("details", [SIGNED, ENCRYPTED, UNNUMBERED], ids=["signed", "encrypted", "unnumbered"])
def test_the_details_of_two_messages_stay_apart(details: List[Json]) -> None:
    """Neighbouring assistant messages become one; their details are not taken for fragments of one."""
    model = model_for("here", "anthropic/claude-x", "openrouter")
    blocks = [
        {
            "type": "thinking",
            "thinking": detail.get("text", ""),
            "signature": seal(Envelope(model.provider, model.name, **fields)),
        }
        for detail in details
        for fields in [{"text_field": "reasoning", "fields": {"reasoning_details": [detail]}}]
    ]
    messages = [turn("user", "Hi"), turn("assistant", blocks[0], text("So.")), turn("assistant", blocks[1], use())]
    returned = assistant_of(body_for([*messages, turn("user", result())], model))["reasoning_details"]
    assert returned == details


# --- what nobody sealed -----------------------------------------------------------------------------------------


def sealed(value: Any) -> str:
    """A signature in the form of ours, around any JSON value or bytes."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return "ccp1_" + base64.urlsafe_b64encode(zlib.compress(data, 9)).decode().rstrip("=")


HERE = {"p": "here.test", "m": "some-model"}
GOOD = sealed({**HERE, "r": "reasoning_content", "f": {"reasoning_details": [{"type": "reasoning.text", "text": "x"}]}})
FORGED: Mapping[str, Callable[[], str]] = {
    "foreign": lambda: "EqQBCkYIBhgCKkDx",
    "empty": lambda: "ccp1_",
    "truncated": lambda: GOOD[:-9],
    "tampered": lambda: GOOD[:20] + ("A" if GOOD[20] != "A" else "B") + GOOD[21:],
    "not base64": lambda: "ccp1_!?",
    "not zlib": lambda: "ccp1_" + base64.urlsafe_b64encode(b"nothing").decode(),
    "not JSON": lambda: sealed(b"{"),
    "no object": lambda: sealed([1, 2]),
    "bad UTF-8": lambda: sealed(b'{"p":"\xff"}'),
    "bomb": lambda: sealed(b" " * (64 << 20)),
    "deep": lambda: sealed(b'{"p":"here.test","m":"some-model","f":{"extra_content":' + b"[" * 100_000),
    "deep but whole": lambda: sealed(b'{"p":"here.test","m":"m","x":' + b"[" * 5000 + b"]" * 5000 + b"}"),
    "NaN": lambda: sealed(
        b'{"p":"here.test","m":"some-model","f":{"extra_content":{"google":NaN},"reasoning_details":[{"a":Infinity}]}}'
    ),
    "wrong types": lambda: sealed({**HERE, "r": 1, "t": [], "f": [], "c": 7}),
    "wrong details": lambda: sealed({**HERE, "f": {"reasoning_details": ["x", 1], "reasoning_opaque": {}}}),
    "unhashable details": lambda: sealed(
        {**HERE, "f": {"reasoning_details": [{"index": [1], "type": {}}, {"index": {"a": 1}, "type": []}]}}
    ),
    "unknown fields": lambda: sealed(
        {**HERE, "r": "role", "f": {"role": "system", "content": "INJECTED", "tool_calls": [], "name": "INJECTED"}}
    ),
    "unknown call fields": lambda: sealed(
        {**HERE, "c": {"toolu_1": {"id": "INJECTED", "function": {"name": "INJECTED"}}, "toolu_2": 5}}
    ),
    "lone surrogates": lambda: sealed({**HERE, "t": "\ud800"}),
}


@pytest.mark.parametrize("kind", FORGED)
@pytest.mark.parametrize("dialect", RULES)
def test_a_signature_that_nobody_sealed(dialect: str, kind: str) -> None:
    """Is never trusted, whoever made it: the request stays good, nothing is injected, nothing fails."""
    model = model_for("here", "some-model", dialect)
    signature = FORGED[kind]()
    block = {"type": "thinking", "thinking": "", "signature": signature}
    messages = [turn("user", "Hi"), turn("assistant", block, text("Well."), use()), turn("user", result())]
    body = body_for(messages, model)
    assert faults(body, dialect) == []
    message = assistant_of(body)
    assert [call["function"] for call in message["tool_calls"]] == [called()["function"]]
    assert "INJECTED" not in json.dumps(body)
    json.loads(json.dumps(body), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@pytest.mark.parametrize("packed", ["", "!!", "eJw", "eJwDAAAAAAE", "ccp1_", "--ccp1_x"])
@pytest.mark.parametrize("dialect", RULES)
def test_a_broken_mark_on_a_tool_id(dialect: str, packed: str) -> None:
    """Is cut off all the same: no part of it reaches a provider."""
    tool_id = f"toolu_1--ccp1_{packed}"
    messages = [turn("user", "Hi"), turn("assistant", use(tool_id)), turn("user", result(tool_id), text("Go."))]
    assert faults(body_for(messages, model_of(dialect, model_name="some-model")), dialect) == []


@pytest.mark.parametrize("dialect", RULES)
def test_a_mark_on_the_id_of_a_result_without_its_call(dialect: str) -> None:
    """Is cut off too: such a result becomes text, and what the id carried must not stand in it."""
    messages = [turn("user", result(seal_id("toolu_1", "c2lnbmF0dXJl")), text("Go."))]
    assert faults(body_for(messages, model_of(dialect, model_name="some-model")), dialect) == []


def test_state_that_is_too_large_is_left_out() -> None:
    """An answer of any size stays usable: an envelope that would pass the bound is sent without its state."""
    source = next((source for source in TOLD if source.provider == "openrouter" and not source.is_stream), None)
    if source is None:
        pytest.skip("no recordings")
    data = json.loads(source.body)
    data["choices"][0]["message"]["reasoning_details"] = [{"type": "reasoning.encrypted", "data": "x" * (5 << 20)}]
    model = model_of_recording(source)
    answer = answer_of(replace(source, body=json.dumps(data).encode()), model)
    assert faults(body_for(history(answer), model), model.dialect.name) == []
    assert len(json.dumps(answer)) < 1 << 20
