"""The conversation: system prompt, order, merging, tool results in their place, prefill."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, List

import pytest

from ccproxy.errors import InvalidRequest
from sent import called, result, roles, sent, text, tool, translated, turn, use, user

HI = {"role": "user", "content": "Hi"}
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
PNG_PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
BILLING = "x-anthropic-billing-header: cc_version=2.1; cc_entrypoint=cli;"


@pytest.mark.parametrize(
    ("system", "content"),
    [
        ("Be brief.", "Be brief."),
        ([text("One."), text("Two.", cache_control={"type": "ephemeral"})], "One.\n\nTwo."),
        ([text("One."), text(""), text(" \n")], "One."),
        ([text(BILLING), text("Be brief.")], "Be brief."),
        (f"{BILLING}\nBe brief.", "Be brief."),
        ([text(f"{BILLING}\nOne."), text("Two.")], "One.\n\nTwo."),
        ([text("Say x-anthropic-billing-header: now.")], "Say x-anthropic-billing-header: now."),
    ],
)
def test_the_system_prompt_is_one_message(system: Any, content: str) -> None:
    """Texts joined with a blank line; the attribution line, which changes per request, is dropped."""
    assert sent([HI], system=system) == [{"role": "system", "content": content}, HI]


@pytest.mark.parametrize(("size", "is_known"), [(15_000, True), (65_537, False)])
def test_a_system_prompt_that_comes_again_is_encoded_once(size: int, is_known: bool) -> None:
    """Unless it is so long that remembering it would take much memory."""
    first, again = (translated([HI], system=[text("s" * size)]).request.to_dict()["messages"][0] for _ in range(2))
    assert first == again == {"role": "system", "content": "s" * size}
    assert (first is again) == is_known


@pytest.mark.parametrize("system", [None, "", [], [text("")], BILLING, [text(BILLING)]])
def test_an_empty_system_prompt_is_no_message(system: Any) -> None:
    """Nothing is sent for nothing."""
    assert sent([HI], system=system) == [HI]


CALL = [HI, turn("assistant", use())]
CONVERSATIONS: List[Any] = [
    ("strings and blocks", user(text("Hi")), [HI]),
    ("empty texts are dropped", user(text(""), text("Hi"), text(" \n")), [HI]),
    (
        "neighbours of one role are one message",
        [turn("user", "a"), turn("user", "b"), turn("assistant", "c"), turn("assistant", "d"), turn("user", "e")],
        [
            {"role": "user", "content": "a\n\nb"},
            {"role": "assistant", "content": "cd"},
            {"role": "user", "content": "e"},
        ],
    ),
    (
        "a call and its result",
        [*CALL, turn("user", result())],
        [HI, {"role": "assistant", "content": None, "tool_calls": [called()]}, tool()],
    ),
    (
        "text beside calls; arguments as compact JSON",
        [HI, turn("assistant", text("Let me."), use(p="ü", q=[1, {"r": None}])), turn("user", result())],
        [
            HI,
            {
                "role": "assistant",
                "content": "Let me.",
                "tool_calls": [called(arguments='{"p":"ü","q":[1,{"r":null}]}')],
            },
            tool(),
        ],
    ),
    (
        "results in the order of the calls, before the user's words wherever these stood",
        [
            HI,
            turn("assistant", use("a"), use("b")),
            turn("user", text("Go on."), result("b", "two"), result("a", "one")),
        ],
        [
            HI,
            {"role": "assistant", "content": None, "tool_calls": [called("a"), called("b")]},
            tool("one", "a"),
            tool("two", "b"),
            {"role": "user", "content": "Go on."},
        ],
    ),
    (
        "a result that never comes",
        [HI, turn("assistant", use("a"), use("b")), turn("user", result("a"), text("Go on."))],
        [
            HI,
            {"role": "assistant", "content": None, "tool_calls": [called("a"), called("b")]},
            tool("out", "a"),
            tool("[tool result missing]", "b"),
            {"role": "user", "content": "Go on."},
        ],
    ),
    (
        "a call at the end, and one that the user talked over",
        [HI, turn("assistant", use("a")), turn("user", "No."), turn("assistant", use("b"))],
        [
            HI,
            {"role": "assistant", "content": None, "tool_calls": [called("a")]},
            tool("[tool result missing]", "a"),
            {"role": "user", "content": "No."},
            {"role": "assistant", "content": None, "tool_calls": [called("b")]},
            tool("[tool result missing]", "b"),
        ],
    ),
    (
        "a result whose call was trimmed is the user's text",
        user(result("gone", "out")),
        [{"role": "user", "content": "[tool result gone]\nout"}],
    ),
    (
        "a turn of thinking alone is no message",
        [
            HI,
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm", "signature": "s"}]},
            turn("user", "b"),
        ],
        [{"role": "user", "content": "Hi\n\nb"}],
    ),
    (
        "a tool turn that is there twice, as Claude Code 1.0 sends it",
        [
            *CALL,
            turn("user", result()),
            *CALL[1:],
            turn("user", result()),
            turn("assistant", "Done."),
            turn("user", "Thanks"),
        ],
        [
            HI,
            {"role": "assistant", "content": None, "tool_calls": [called()]},
            tool(),
            {"role": "assistant", "content": "Done."},
            {"role": "user", "content": "Thanks"},
        ],
    ),
    (
        "a tool turn that comes again later: what is said beside its result stays",
        [
            *CALL,
            turn("user", result()),
            turn("assistant", "Done."),
            turn("user", "Thanks"),
            *CALL[1:],
            turn("user", result(), text("More.")),
        ],
        [
            HI,
            {"role": "assistant", "content": None, "tool_calls": [called()]},
            tool(),
            {"role": "assistant", "content": "Done."},
            {"role": "user", "content": "Thanks\n\nMore."},
        ],
    ),
]


@pytest.mark.parametrize(
    ("messages", "expected"), [row[1:] for row in CONVERSATIONS], ids=[row[0] for row in CONVERSATIONS]
)
def test_a_conversation(messages: Any, expected: Any) -> None:
    """Every call is followed by its results, no result stands without its call, roles take turns."""
    assert sent(messages) == expected


@pytest.mark.parametrize("dialect", ["generic", "vllm", "mistral"])
@pytest.mark.parametrize("content", ["", [], [text(" ")], [{"type": "redacted_thinking", "data": "x"}]])
def test_a_conversation_of_nothing_never_fails_here(dialect: str, content: Any) -> None:
    """It is sent, or refused as the client's; an internal error would be ours."""
    with suppress(InvalidRequest):
        sent([{"role": "user", "content": content}], dialect)


@pytest.mark.parametrize("blank", [turn("user", ""), turn("user", text(" "))])
def test_turns_around_a_blank_one_are_neighbours(blank: Any) -> None:
    """A turn of nothing is dropped, and the turns it parted are one message: strict templates alternate."""
    messages = [HI, turn("assistant", "a"), blank, turn("assistant", "b"), turn("user", "c")]
    assert sent(messages) == [HI, {"role": "assistant", "content": "ab"}, {"role": "user", "content": "c"}]


RESULTS = [
    ("out", "out"),
    ("", "(no output)"),
    ([], "(no output)"),
    (None, "(no output)"),
    ([text("a"), text("b")], "a\nb"),
    ([{"type": "tool_reference", "tool_name": "Grep"}], "Tool available: Grep"),
]


@pytest.mark.parametrize(("content", "expected"), RESULTS)
def test_a_result_is_one_string(content: Any, expected: str) -> None:
    """Many servers take nothing else; some refuse an empty one."""
    assert sent([*CALL, turn("user", result(content=content))])[-1] == tool(expected)


@pytest.mark.parametrize(
    ("content", "expected"),
    [("no such file", "Error: no such file"), ("error: x", "error: x"), ("ERROR", "ERROR"), ("Error: x", "Error: x")],
)
def test_a_failed_result_says_so(content: str, expected: str) -> None:
    """There is no other field for it."""
    assert sent([*CALL, turn("user", result(content=content, is_error=True))])[-1] == tool(expected)


def test_images_of_results_follow_after_all_results() -> None:
    """Tool messages take text alone; the images come with the user's next words."""
    answers = turn("user", result("a", [text("one"), PNG]), result("b", "two"))
    assert sent([HI, turn("assistant", use("a"), use("b")), answers])[2:] == [
        tool("one\n[image 1 of this result follows]", "a"),
        tool("two", "b"),
        {"role": "user", "content": [text("Image from tool result a:"), PNG_PART]},
    ]


def test_files_of_results_are_called_files() -> None:
    """Claude Code puts a PDF that it reads into the result."""
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}}
    answer, follows = sent([*CALL, turn("user", result(content=[pdf]))], "openrouter")[-2:]
    assert answer == tool("[file 1 of this result follows]")
    assert follows["content"][0] == text("File from tool result toolu_1:")
    assert follows["content"][1]["type"] == "file"


def test_mistral_wants_a_turn_between_tool_and_user() -> None:
    """Its templates refuse a user message directly after a tool message."""
    messages = sent([*CALL, turn("user", result(), text("Go on."))], "mistral")
    assert roles(messages) == ["user", "assistant", "tool", "assistant", "user"]
    assert messages[1]["tool_calls"][0]["id"] == messages[2]["tool_call_id"]


@pytest.mark.parametrize(("dialect", "content"), [("generic", None), ("groq", ""), ("openai", None)])
def test_the_content_beside_calls(dialect: str, content: Any) -> None:
    """Null; Groq refuses explicit nulls."""
    assert sent([*CALL, turn("user", result())], dialect)[1].get("content", "") == content


# --- system messages in the conversation ---------------------------------------------------------------------


def system(content: Any, **fields: Any) -> Any:
    return {"role": "system", "content": content, **fields}


REMINDER = "<system-reminder>\nBe kind.\n</system-reminder>"


def test_a_system_message_becomes_a_reminder() -> None:
    """Many templates raise on one that is not first; hoisting it would spoil prefix caches."""
    assert sent([HI, system("Be kind.")], "gemini") == user(f"Hi\n\n{REMINDER}")
    messages = [HI, turn("assistant", "a"), system("Be kind."), turn("user", "b")]
    assert sent(messages, "gemini")[2:] == user(f"{REMINDER}\n\nb")


def test_a_system_message_stays_where_the_provider_takes_it() -> None:
    """OpenAI and DeepSeek keep it in its place."""
    for dialect in ("openai", "deepseek"):
        assert sent([HI, system("Be kind.")], dialect) == [HI, {"role": "system", "content": "Be kind."}]


@pytest.mark.parametrize("dialect", ["generic", "openai"])
def test_a_system_message_never_parts_a_call_from_its_result(dialect: str) -> None:
    """It moves behind the results."""
    messages = sent([*CALL, system("Be kind."), turn("user", result())], dialect)
    assert roles(messages)[:3] == ["user", "assistant", "tool"]
    assert "Be kind." in str(messages[3])


@pytest.mark.parametrize("content", [None, "", [], [text("")]])
def test_an_empty_system_message_is_nothing(content: Any) -> None:
    """It may only carry an effort."""
    assert sent([HI, system(content, output_config={"effort": "low"})]) == [HI]


def test_a_system_message_for_one_turn_is_hidden_afterwards() -> None:
    """``clear_at`` hides it once a later user message exists, not before."""
    passing = system("Be kind.", clear_at="next_user_message")
    assert sent([HI, passing]) == sent([HI, system("Be kind.")])
    later = [HI, turn("assistant", "a"), turn("user", "b")]
    assert sent([HI, passing, *later[1:]]) == sent([*later[:2], passing, later[2]]) == sent(later)


# --- prefill -------------------------------------------------------------------------------------------------

PREFILL = [HI, turn("assistant", "{")]


@pytest.mark.parametrize(("dialect", "flag"), [("mistral", "prefix"), ("moonshot", "partial")])
def test_a_prefill_with_the_providers_flag(dialect: str, flag: str) -> None:
    """Providers that can continue a message are asked to."""
    assert sent(PREFILL, dialect)[-1] == {"role": "assistant", "content": "{", flag: True}


def test_a_prefill_without_a_flag() -> None:
    """The last words stay, and the user asks to go on from exactly there."""
    messages = sent(PREFILL)
    assert messages[:2] == PREFILL
    assert (messages[2]["role"], len(messages)) == ("user", 3)


def test_equal_requests_are_equal_bytes() -> None:
    """Prefix caches hit only then; nothing random and no clock is in a translation."""
    messages = [*CALL, turn("user", result("toolu_1", [text("a"), PNG])), turn("assistant", use("é" * 70, "my.tool"))]
    assert str(sent(messages)) == str(sent(messages))
    longer = sent([*messages, turn("user", result("é" * 70))])
    assert longer[:4] == sent(messages)[:4]
