"""Content blocks, one row for each kind and place: what an OpenAI-compatible provider gets for it."""

from __future__ import annotations

from typing import Any, Dict

import pytest

from ccproxy.errors import InvalidRequest
from sent import body, called, result, sent, text, tool, translated, turn, use, user

Json = Dict[str, Any]
HI = {"role": "user", "content": "Hi"}
OMITTED = "[image omitted: this model has no image input]"


def image(**source: Any) -> Json:
    return {"type": "image", "source": source}


def document(title: Any = None, context: Any = None, **source: Any) -> Json:
    head = {key: value for key, value in (("title", title), ("context", context)) if value}
    return {"type": "document", "source": source, **head}


PNG = image(type="base64", media_type="image/png", data="aGk=")
PNG_PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
PDF = document(type="base64", media_type="application/pdf", data="JVBERg==")
NAMED_PDF = document("Report", type="base64", media_type="application/pdf", data="JVBERg==")

USER_BLOCKS = [
    (text("Hi", citations=[]), "Hi"),
    (PNG, [PNG_PART]),
    ({**PNG, "transformations": [{"type": "crop"}]}, [PNG_PART]),
    (image(type="url", url="https://x/y.png"), [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]),
    (document("T", type="text", media_type="text/plain", data="Words."), '<document title="T">\nWords.\n</document>'),
    (
        document("T", "C", type="text", media_type="text/plain", data="Words."),
        '<document title="T">\nC\nWords.\n</document>',
    ),
    (document("T", type="content", content="Words."), '<document title="T">\nWords.\n</document>'),
    (document("T", type="content", content=[text("a"), text("b")]), '<document title="T">\na\nb\n</document>'),
    (document("T", type="content", content=[text("a"), PNG]), [text('<document title="T">\na\n</document>'), PNG_PART]),
    (
        {"type": "search_result", "source": "https://x", "title": "T", "content": [text("a"), text("b")]},
        '<search_result title="T" source="https://x">a\nb</search_result>',
    ),
    ({"type": "of_tomorrow", "text": "words"}, "words"),
    ({"type": "of_tomorrow", "content": "words"}, "words"),
]


@pytest.mark.parametrize(("block", "content"), USER_BLOCKS)
def test_a_block_of_the_user(block: Json, content: Any) -> None:
    """As the provider's part, or as text where there is none."""
    assert sent(user(block)) == [{"role": "user", "content": content}]


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_a_block_of_no_known_type_is_named(api: str) -> None:
    """It is left out wherever it stands, which is told; where nothing else was said, the refusal tells it."""
    block = {"type": "of_tomorrow", "secret": "x"}
    assert translated(user(text("Hi"), block), model={"api": api}).dropped == ("content block 'of_tomorrow'",)
    said = turn("assistant", text("Hm"), use(), block)
    for messages in (
        [*user("Hi"), said, *user(result())],
        [*user("Hi"), turn("assistant", use()), *user(result(content=[text("r"), block]))],
    ):
        assert translated(messages, model={"api": api}).dropped == ("content block 'of_tomorrow'",)
    of_system = translated(user(text("Hi")), model={"api": api}, system=[text("Be brief."), block])
    assert of_system.dropped == ("content block 'of_tomorrow'",)
    with pytest.raises(InvalidRequest, match=r"non-empty \(left out: content block 'of_tomorrow'\)"):
        translated(user(block), model={"api": api})


def test_pdfs_go_as_files_where_the_provider_reads_them() -> None:
    """OpenAI and OpenRouter; the file is named by its title."""
    data = "data:application/pdf;base64,JVBERg=="
    for dialect in ("openai", "openrouter"):
        assert sent(user(NAMED_PDF), dialect)[0]["content"] == [
            {"type": "file", "file": {"filename": "Report", "file_data": data}}
        ]
        assert sent(user(PDF), dialect)[0]["content"][0]["file"]["filename"] == "document.pdf"


def test_pdfs_are_named_where_the_provider_cannot_read_them() -> None:
    """The model is told what it does not see, and so is the owner."""
    done = translated(user(NAMED_PDF))
    assert '[PDF "Report" omitted' in done.request.to_dict()["messages"][0]["content"]
    assert done.dropped


def test_a_document_by_address_is_named() -> None:
    """Title and address as text: nothing is fetched."""
    content = sent(user(document("T", type="url", url="https://x/y.pdf")))[0]["content"]
    assert "T" in content
    assert "https://x/y.pdf" in content


def test_openrouter_fetches_a_document_by_its_address() -> None:
    """On chat completions; its Responses API is not known to."""
    block = document("T", type="url", url="https://x/y.pdf")
    expected = {"type": "file", "file": {"filename": "T", "file_data": "https://x/y.pdf"}}
    assert sent(user(block), "openrouter")[0]["content"] == [expected]
    assert "T" in body(user(block), "openrouter", model={"api": "responses"})["input"][0]["content"]


def test_a_model_without_eyes_reads_a_note() -> None:
    """Images become words, in messages and in results, and the owner is told."""
    for blind in ({"dialect": "deepseek"}, {"model": {"supports_images": False}}):
        done = translated([*user(PNG), turn("assistant", use()), turn("user", result(content=[PNG]))], **blind)
        messages = done.request.to_dict()["messages"]
        assert (messages[0]["content"], messages[2]["content"]) == (OMITTED, OMITTED)
        assert done.dropped


FILES = [
    image(type="file", file_id="f"),
    document(type="file", file_id="f"),
    {"type": "container_upload", "file_id": "f"},
]


@pytest.mark.parametrize("block", FILES)
def test_uploaded_files_are_refused(block: Json) -> None:
    """They are at Anthropic; an answer without them would be invented."""
    with pytest.raises(InvalidRequest):
        sent(user(block))


FETCHED = {"type": "web_fetch_result", "url": "https://x", "content": document("T", type="text", data="Words.")}
ASSISTANT_BLOCKS = [
    ({"type": "thinking", "thinking": "Hm", "signature": "s"}, ""),
    ({"type": "redacted_thinking", "data": "secret"}, ""),
    ({"type": "fallback", "model": "secret"}, ""),
    (
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"q": "ü"}},
        '[called web_search: {"q":"ü"}]',
    ),
    (
        {
            "type": "web_search_tool_result",
            "tool_use_id": "srvtoolu_1",
            "content": [{"type": "web_search_result", "title": "T", "url": "https://x", "encrypted_content": "secret"}],
        },
        "T — https://x",
    ),
    (
        {
            "type": "web_search_tool_result",
            "content": {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"},
        },
        "web search failed: max_uses_exceeded",
    ),
    ({"type": "web_fetch_tool_result", "content": FETCHED}, "https://x\nWords."),
    (
        {
            "type": "tool_search_tool_result",
            "content": {
                "type": "tool_search_tool_search_result",
                "tool_references": [{"type": "tool_reference", "tool_name": "Grep"}],
            },
        },
        "Tools available: Grep",
    ),
    ({"type": "mcp_tool_use", "id": "m", "name": "T", "input": {}}, "[called T: {}]"),
    ({"type": "mcp_tool_result", "content": [text("out")]}, "out"),
    ({"type": "of_tomorrow", "text": "words"}, "words"),
    ({"type": "of_tomorrow", "secret": "x"}, ""),
]


@pytest.mark.parametrize(("block", "words"), ASSISTANT_BLOCKS)
def test_a_block_of_the_assistant(block: Json, words: str) -> None:
    """What only Anthropic runs is told in words, never as a tool call; encrypted and signed content is dropped."""
    messages = sent([HI, turn("assistant", text("a"), block), turn("user", "b")])
    said = f"a\n{words}" if words else "a"
    assert messages == [HI, {"role": "assistant", "content": said}, {"role": "user", "content": "b"}]


SEARCHED = [
    text("I look. "),
    text("Wait."),
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}},
    {"type": "of_tomorrow", "secret": "x"},
    {"type": "web_search_tool_result", "content": [{"type": "web_search_result", "title": "T", "url": "https://x"}]},
    text("It is "),
    text("so."),
]
TOLD = 'I look. Wait.\n[called web_search: {"query":"q"}]\nT — https://x\nIt is so.'


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_words_around_a_block_of_the_assistant(api: str) -> None:
    """Each stands on lines of its own, or an address would run on into what was said; texts are one as they are."""
    provider_body = body([HI, turn("assistant", *SEARCHED), turn("user", "b")], model={"api": api})
    assert provider_body["messages" if api == "chat" else "input"][1]["content"] == TOLD


@pytest.mark.parametrize("kind", ["code_execution_tool_result", "bash_code_execution_tool_result"])
def test_results_of_anthropics_code_execution_are_text(kind: str) -> None:
    """Output, errors and the return code."""
    block = {
        "type": kind,
        "content": {"stdout": "out!", "stderr": "err!", "return_code": 3, "encrypted_stdout": "secret"},
    }
    content = sent([HI, turn("assistant", text("a"), block), turn("user", "b")])[1]["content"]
    assert all(word in content for word in ("out!", "err!", "3"))
    assert "secret" not in content


def test_a_compaction_is_a_summary() -> None:
    """Its plain content; the encrypted one is Anthropic's."""
    block = {"type": "compaction", "content": "So far.", "encrypted_content": "secret"}
    whole = str(sent([HI, turn("assistant", block), turn("user", "b")]))
    assert "<summary>So far.</summary>" in whole
    assert "secret" not in whole


RESULT_BLOCKS = [
    (text("a"), "a"),
    ({"type": "tool_reference", "tool_name": "Grep"}, "Tool available: Grep"),
    (document("T", type="text", data="Words."), '<document title="T">\nWords.\n</document>'),
    (
        {"type": "search_result", "source": "s", "title": "T", "content": [text("a")]},
        '<search_result title="T" source="s">a</search_result>',
    ),
    ({"type": "of_tomorrow", "content": "words"}, "words"),
]


@pytest.mark.parametrize(("block", "content"), RESULT_BLOCKS)
def test_a_block_inside_a_result(block: Json, content: str) -> None:
    """The same words, in the tool message."""
    messages = sent([HI, turn("assistant", use()), turn("user", result(content=[block]))])
    assert messages[1:] == [{"role": "assistant", "content": None, "tool_calls": [called()]}, tool(content)]


WRONG = [None, 5, "x", [5], {"a": 5}, [{"type": "text", "text": 5}]]
KINDS = [
    "search_result",
    "web_search_tool_result",
    "web_fetch_tool_result",
    "tool_search_tool_result",
    "mcp_tool_result",
    "compaction",
    "code_execution_tool_result",
    "advisor_tool_result",
    "browser_state",
    "server_tool_use",
    "of_tomorrow",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", WRONG)
def test_no_conversation_fails_over_a_historic_block(kind: str, content: Any) -> None:
    """Whatever an old answer holds, it is told or left out."""
    sent([HI, turn("assistant", text("a"), {"type": kind, "content": content, "input": content}), turn("user", "b")])
