"""Conversations that come again: what is in the same words is the same value, read, counted and translated once."""

from __future__ import annotations

import gc
import json
from typing import Any, Dict, List

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccproxy.anthropic import MessagesRequest
from ccproxy.encoded import encode
from ccproxy.errors import InvalidRequest
from ccproxy.handlers.context import parse_body
from ccproxy.recall import LEAST_BODY, Recall
from ccproxy.remembered import Item
from ccproxy.translate.request import translate_request
from ccproxy.web import Request
from sent import model_of, translated
from support import ask, proxy_with

Json = Dict[str, Any]
WORDS = "some words of a turn " * 20


def said(number: int, **more: Any) -> Json:
    return {"role": "user", "content": [{"type": "text", "text": f"text {number} {WORDS}", **more}]}


def conversation(turns: int) -> List[Json]:
    return [said(number) for number in range(turns)]


def body(messages: List[Json], **fields: Any) -> Json:
    return {"model": "m", "max_tokens": 9, "messages": messages, "system": "y" * LEAST_BODY, **fields}


def read(recall: Recall, value: Json, **style: Any) -> Any:
    found = recall.read(json.dumps(value, **style).encode(), json.JSONDecoder())
    assert found == value
    return found


def new(before: Json, now: Json) -> List[int]:
    """The numbers of the messages that were not known."""
    known = {id(message) for message in before["messages"]}
    return [number for number, message in enumerate(now["messages"]) if id(message) not in known]


# --- what is known -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", [1, 2, 100])
def test_what_is_new_is_parsed(turns: int) -> None:
    """At the end, as clients send it."""
    recall = Recall()
    first = read(recall, body(conversation(turns)))
    assert new(first, read(recall, body(conversation(turns)))) == []
    assert new(first, read(recall, body(conversation(turns + 2)))) == [turns, turns + 1]


@pytest.mark.parametrize("style", [{}, {"separators": (",", ":")}])
@pytest.mark.parametrize("changed", [0, 1, 40, 98])
def test_what_changed_is_parsed_again(changed: int, style: Json) -> None:
    """A mark on a message, a result that was cleared: only that one, wherever it is; and what was taken out."""
    recall = Recall()
    first = read(recall, body(conversation(100)), **style)
    messages = conversation(100)
    messages[changed] = said(changed, cache_control={"type": "ephemeral"})
    assert new(first, read(recall, body(messages), **style)) == [changed]
    del messages[changed]
    assert new(first, read(recall, body(messages), **style)) == []


def test_short_messages_are_known_where_the_same_follows() -> None:
    """They are looked up by what follows them, too."""
    recall = Recall()
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, *conversation(2)]
    first = read(recall, body(messages))
    assert new(first, read(recall, body([*messages, said(9)]))) == [4]


def test_system_blocks_are_known() -> None:
    """But for the line that changes with each request."""
    recall = Recall()

    def system(number: int) -> List[Json]:
        return [
            {"type": "text", "text": f"x-anthropic-billing-header: cch={number};"},
            {"type": "text", "text": "y" * 9000},
        ]

    first, again = (read(recall, body([said(1)], system=system(number)))["system"] for number in (1, 2))
    assert [one is other for one, other in zip(first, again)] == [False, True]


def test_tools_are_known() -> None:
    """In any conversation."""
    tools = [{"name": name, "description": WORDS, "input_schema": {"type": "object"}} for name in ("Read", "Write")]
    recall = Recall()
    first = read(recall, body(conversation(1), tools=tools))["tools"]
    again = read(recall, body([said(7)], tools=[*tools[::-1], {**tools[0], "name": "Third"}]))["tools"]
    assert again[0] is first[1]
    assert again[1] is first[0]


def test_what_was_used_longest_ago_is_forgotten() -> None:
    """The memory is bounded by characters; what is larger than a quarter of it is not kept at all."""
    recall = Recall(most_characters=3 * 1100)
    seen = {number: read(recall, body([said(number)])) for number in (10, 20, 30)}
    assert new(seen[10], read(recall, body([said(10)]))) == []
    read(recall, body([said(40)]))
    assert new(seen[10], read(recall, body([said(10)]))) == []
    assert new(seen[20], read(recall, body([said(20)]))) == [0]
    assert recall._characters <= 3 * 1100
    assert len(recall._items) == sum(map(len, recall._alike.values()))


def test_what_follows_is_used_with_what_it_follows() -> None:
    """It is forgotten no sooner."""
    recall = Recall(most_characters=4 * 1100)
    style = {"separators": (",", ":")}
    first = read(recall, body([said(1), said(2)]), **style)
    for messages in ([said(3)], [said(1), said(2)], [said(4)], [said(5)]):
        read(recall, body(messages), **style)
    assert new(first, read(recall, body([said(1), said(2)]), **style)) == []


def test_what_is_forgotten_is_free_at_once() -> None:
    """With all that was read and translated of it: what waited for the collector would be many times the bound."""

    def kept(number: int) -> List[Item]:
        return [item for item in gc.get_objects() if isinstance(item, Item) and f"text {number} " in str(item.text)]

    def use(number: int) -> None:
        tools = [{"name": "do", "description": f"text {number} {WORDS}", "input_schema": {"type": "object"}}]
        value = read(recall, body([said(number)], tools=tools))
        translated(value["messages"], tools=value["tools"])

    recall = Recall(most_characters=3 * 1100)
    gc.disable()
    try:
        use(810)
        assert kept(810)
        for number in (820, 830, 840):
            use(number)
        assert kept(810) == []
    finally:
        gc.enable()


def test_messages_that_begin_alike_are_told_apart() -> None:
    """A project's conversations begin with the same words; of too many such the oldest are forgotten."""
    recall = Recall()
    for number in range(200):
        value = body([{"role": "user", "content": "The same beginning. " * 50 + str(number)}])
        assert new(read(recall, value), read(recall, value)) == []
    assert len(recall._items) == 64


def test_what_follows_is_forgotten_with_the_rest() -> None:
    """What came after a message that is still known is looked up anew when it was forgotten, and kept again."""
    recall = Recall(most_characters=5 * 1100)
    style = {"separators": (",", ":")}
    first = read(recall, body([said(1), said(2)]), **style)
    for number in (3, 4, 5, 6):
        read(recall, body([said(1), said(number)]), **style)
    again = read(recall, body([said(1), said(2)]), **style)
    assert new(first, again) == [1]
    assert new(again, read(recall, body([said(1), said(2)]), **style)) == []


# --- that nothing is lost ------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", [{}, {"separators": (",", ":")}, {"indent": 2}, {"ensure_ascii": False}])
def test_any_layout_is_read(style: Json) -> None:
    """White space, escapes and characters beyond ASCII, when it is read first and when it is known."""
    value = body([said(1, extra='é漢😀\n"\\/'), said(2)], tools=[], stop_sequences=["]", "}"], metadata={})
    recall = Recall()
    for _ in range(3):
        read(recall, value, **style)


WHOLE = json.dumps(body(conversation(3)))


@pytest.mark.parametrize(
    "text",
    [
        "[" + WHOLE + "]",
        WHOLE + "x",
        WHOLE + "}",
        WHOLE[:-1],
        WHOLE[:-1] + "]",
        WHOLE[:-1] + ",}",
        WHOLE[:-1] + ', "model": "twice"}',
        WHOLE[:-1] + ', "mod\\u0065l": "twice"}',
        WHOLE[:-1] + ', "a": NaN}',
        WHOLE[:-1] + ', "a": {"b": 1, "b": 2}}',
        WHOLE.replace('"messages": [', '"messages": [,'),
        WHOLE.replace("]}, {", "]} {"),
        WHOLE.replace("]}, {", "]}, }"),
        WHOLE.replace('}], "system"', '}}, "system"'),
        WHOLE.replace('}], "system"', '},], "system"'),
        "\ufeff" + WHOLE,
        WHOLE[:-1] + ', "é": 1}',
        WHOLE[:-1] + ', "a": "é\udcff"}',
        WHOLE.replace("text 1", "é\udcff"),
        WHOLE.replace('"messages"', '"\udcff"'),
    ],
)
def test_what_is_odd_is_read_or_refused_as_without_a_memory(text: str) -> None:
    """With the same words, after the conversation was seen, too."""
    recall = Recall()
    parse_body(Request("POST", "/", body=WHOLE.encode()), recall)
    answers, data = [], text.encode("utf-8", "surrogateescape")
    for memory in (None, recall):
        try:
            answers.append(parse_body(Request("POST", "/", body=data), memory))
        except InvalidRequest as error:
            answers.append(error.message)
    assert answers[0] == answers[1]


MARK = {"cache_control": {"type": "ephemeral"}}


def agent(turns: List[int], marked: int, escapes: bool, layout: str) -> bytes:
    """Return the body of an agent's request: calls and results, the last one or another one marked for the cache."""
    messages = []
    for place, number in enumerate(turns):
        mark = MARK if place == marked else {}
        call = {"type": "tool_use", "id": f"toolu_{number}", "name": "Read", "input": {"path": f"/é{number}"}}
        given = {"type": "tool_result", "tool_use_id": f"toolu_{number}", "content": f"{number} 漢 {WORDS}", **mark}
        messages += [{"role": "assistant", "content": [call]}, {"role": "user", "content": [given]}]
    tools = [{"name": "Read", "description": WORDS * 20, "input_schema": {"type": "object"}}]
    fields = {"messages": messages, "system": [{"type": "text", "text": WORDS}], "tools": tools}
    order = [*fields][:: -1 if "reverse" in layout else 1]
    value = {"model": "m", "max_tokens": 9, **{name: fields[name] for name in order}}
    return json.dumps(value, ensure_ascii=escapes, separators=(",", ":") if "compact" in layout else None).encode()


TURNS = st.lists(st.integers(0, 12), min_size=1, max_size=14)
BODIES = st.builds(
    agent, TURNS, st.integers(-1, 13), st.booleans(), st.sampled_from(["compact", "compact reverse", "spaced"])
)
EDITS = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.sampled_from([0, 1, 1, 1, 7, 40]),
        st.sampled_from([b"", b"}", b"]", b",", b"{}", b'"', b"\\", b"\\u00e9", b"\xff", b" ", b"1", b',"model":"x"']),
    ),
    max_size=2,
)


def edited(data: bytes, edits: List[Any]) -> bytes:
    """Return a body in which bytes were taken out, and others put there."""
    for place, size, put in edits:
        start = int(place * len(data))
        data = data[:start] + put + data[start + size :]
    return data


def outcome(data: bytes, recall: Any) -> Any:
    """Return what a provider is sent for a body, or the words in which it is refused."""
    try:
        asked = MessagesRequest.from_dict(parse_body(Request("POST", "/", body=data), recall))
        made = translate_request(asked, model_of("openai"), output_limit=100, stream=False)
        return encode(made.request.to_dict()), made.dropped
    except InvalidRequest as error:
        return error.message


@given(st.lists(st.tuples(BODIES, EDITS), min_size=2, max_size=6), st.sampled_from([4_000, 8_000_000]))
@settings(max_examples=60)
def test_a_body_is_read_as_without_a_memory(sent: List[Any], most: int) -> None:
    """Whatever came before it and wherever it differs: turns that came, went or changed places, marks that moved,
    another order or way of writing, bytes that are missing or too many."""
    recall = Recall(most)
    for data, edits in sent:
        for whole in (data, edited(data, edits)):
            assert outcome(whole, recall) == outcome(whole, None)


def test_a_body_that_differs_in_one_character_is_another_one() -> None:
    """Wherever that is."""
    recall, whole = Recall(), json.dumps(body(conversation(4)), separators=(",", ":"))
    for place in range(0, len(whole), 41):
        outcome(whole.encode(), recall)
        data = f"{whole[:place]}1{whole[place + 1 :]}".encode()
        assert outcome(data, recall) == outcome(data, None)


def test_one_text_may_be_message_and_tool() -> None:
    """What an item was read as belongs to where it stood."""
    item = {"name": "n", "role": "user", "content": WORDS, "input_schema": {"type": "object"}}
    value = read(Recall(), body([item, item], tools=[item]))
    asked = MessagesRequest.from_dict(value)
    assert asked.messages[0] is asked.messages[1]
    assert (asked.messages[0].role, asked.tools[0].name) == ("user", "n")


def test_errors_name_the_place() -> None:
    """Of an item that was refused before, too."""
    recall = Recall()
    wrong = {"role": "nobody", "content": WORDS}
    for before in (0, 1, 2):
        with pytest.raises(InvalidRequest, match=rf"messages\.{before}\.role"):
            MessagesRequest.from_dict(read(recall, body([*conversation(before), wrong])))


def test_each_model_is_sent_its_own() -> None:
    """What was made for one dialect is not sent in another one, nor is what was dropped forgotten."""
    recall = Recall()
    call = {"type": "tool_use", "id": "toolu_" + "x" * 60, "name": "Read", "input": {"path": WORDS}}
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": WORDS}
    media = {"type": "image", "source": {"type": "url", "url": "http://i.test/" + "p" * 200}}
    messages = [
        said(0),
        {"role": "assistant", "content": [call, call]},
        {"role": "user", "content": [result, media]},
    ]
    tools = [{"name": "Read", "input_schema": {"type": "object", "$id": WORDS, "additionalProperties": False}}]
    for dialect, api in (("openai", "chat"), ("mistral", "chat"), ("openai", "responses"), ("gemini", "chat")) * 2:
        alone = translated(messages, dialect, {"api": api}, tools=tools)
        value = read(recall, body(messages, tools=tools))
        known = translated(value["messages"], dialect, {"api": api}, tools=value["tools"])
        assert known.request.to_dict() == alone.request.to_dict()
        assert known.dropped == alone.dropped


def test_a_provider_gets_the_same() -> None:
    """From a proxy that knows the conversation as from one that does not."""
    messages: List[Json] = [said(0)]
    for number in range(1, 4):
        call = {"type": "tool_use", "id": f"toolu_{number}", "name": "Read", "input": {"path": f"/é{number}"}}
        result = {"type": "tool_result", "tool_use_id": call["id"], "content": f"\udcff {WORDS}"}
        messages += [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    with proxy_with() as (knowing, provider):
        for turns in (1, 3, 5, 7):
            asked = body(messages[:turns])
            with proxy_with() as (fresh, other):
                for proxy in (knowing, fresh):
                    assert ask(proxy.url, "/v1/messages", asked).status == 200
                assert json.dumps(provider.requests[-1].body) == json.dumps(other.requests[-1].body)
