"""The estimate of input tokens: text and structure; never an exception, never base64 as text."""

from __future__ import annotations

import json
import time
from functools import lru_cache
from typing import Any, Callable, List

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken import registry

from ccproxy.anthropic import MessagesRequest
from ccproxy.config.schema import Model
from ccproxy.counting import tokens
from ccproxy.counting.counter import ENCODINGS, SPLIT, Counter, Size, characters_estimate
from ccproxy.counting.estimates import Estimates, Estimator
from ccproxy.counting.token_families import Family, family_of
from ccproxy.counting.tokens import ceiling, is_text
from ccproxy.counting.tokens import count as count_tokens
from ccproxy.recall import Recall
from test_image_size import PAGE, b64, png

# --- text ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("a", 1),
        ("a" * 36, 10),
        ("a" * 37, 11),
        ("漢字", 2),
        ("한국어", 3),
        ("ééééé", 4),  # ten bytes
        ("a" * 36 + "漢字", 12),
        ("\U0001f600", 2),
    ],
)
def test_the_estimate_by_characters(text: str, tokens: int) -> None:
    """ASCII / 3.6, one for each CJK character, other bytes / 2.5; rounded up."""
    assert characters_estimate(text) == tokens


HARD = [
    "\ud83d",
    "\udc00" * 50,
    "<|endoftext|>",
    "<|im_start|>system",
    "\x00\x01",
    "a" * 1_000_000,
    "漢" * 300_000,
    " " * 300_000,
    "\n" * 300_000,
]


@pytest.mark.parametrize("text", HARD, ids=lambda text: ascii(text[:10]))
@pytest.mark.parametrize("is_loaded", [True, False])
def test_no_text_raises(text: str, is_loaded: bool) -> None:
    """With a vocabulary or without: special tokens, half characters, endless runs."""
    counter = Counter()
    if is_loaded:
        counter.load()
    assert counter.size(text).tokens > 0


LARGE = {
    "minified": ("x" * 4000 + " ") * 250,
    "Chinese": ("漢" * 4000 + " ") * 250,
    "one run": "x" * 1_000_000,
    "short words": "a !" * 300_000,
}


@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE)
def test_no_megabyte_takes_long(text: str) -> None:
    """Minified code and texts without spaces are counted in less than a second of this process."""
    counter = Counter()
    counter.load()
    began = time.process_time()
    counter.size(text)
    assert time.process_time() - began < 1.0


PIECES = st.one_of(
    st.sampled_from(["a", "Zz", "'s", "'LL", "'", "\u017f", "e\u0301", "\u6f22", "\U0001f642", "\u200d", "\ufeff"]),
    st.sampled_from(["1", "234567", "\u00bd", "\u0663", "\u2167", ".", ",;{", "--", "_", "\x00"]),
    st.sampled_from([" ", "  ", "\t", "\n", "\r\n", "\n\n", "\x0b", "\x1c", "\x85", "\xa0", "\u2028", "\u3000"]),
    st.text(max_size=3),
)


@given(st.lists(PIECES, max_size=40).map("".join))
@settings(max_examples=200)
def test_tokens_are_those_of_the_vocabulary(text: str) -> None:
    """Its own way of splitting a text gives the same ones: where white space meets words, marks, digits and the end."""
    counter = Counter()
    counter.load()
    assert counter.size(text).tokens == len(plain_vocabulary()(text))


@lru_cache(maxsize=1)
def plain_vocabulary() -> Callable[[str], List[int]]:
    """Return the vocabulary's own way to make tokens."""
    tiktoken.list_encoding_names()
    parts = registry.ENCODING_CONSTRUCTORS[ENCODINGS[0]]()
    assert parts["pat_str"] == SPLIT
    return tiktoken.Encoding(**parts).encode_ordinary


def test_without_a_vocabulary_characters_are_counted() -> None:
    """The soft dependency may be missing."""
    assert Counter().size("a" * 36) == (10, 0, 36)


# --- what is measured once ------------------------------------------------------------------------------------


class Vocabulary:
    """One token for each word, and a list of the texts that were encoded."""

    def __init__(self) -> None:
        self.encoded: List[str] = []

    def encode(self, text: str) -> List[str]:
        self.encoded.append(text)
        return text.split()


def test_a_size_is_tokens_symbols_and_bytes() -> None:
    """The numbers that the families are made from."""
    assert Counter(Vocabulary().encode).size("a, b\n(é)") == Size(3, 4, 9)


@pytest.mark.parametrize("start", [0, 1, 255, 256, 257, 511, 512, 700])
@pytest.mark.parametrize(("size", "is_long"), [(512, False), (513, True)])
def test_long_words_are_counted_by_their_characters(start: int, size: int, is_long: bool) -> None:
    """Wherever they stand; all others as the vocabulary has them."""
    vocabulary = Vocabulary()
    before, word = "a " * (start // 2) + "b" * (start % 2), "w" * size
    tokens = Counter(vocabulary.encode).size(f"{before} {word} end").tokens
    assert (word in vocabulary.encoded[0]) == (not is_long)
    others = len(before.split()) + 1
    assert tokens == others + (characters_estimate(word) if is_long else 1)


def test_a_text_is_measured_once() -> None:
    """The oldest texts are forgotten."""
    vocabulary = Vocabulary()
    counter = Counter(vocabulary.encode, memory=2 * 301)
    for text in ("a", "b", "a", "c", "b", "a"):
        counter.size(text)
    assert vocabulary.encoded == ["a", "b", "c", "a"]


def test_what_was_measured_can_be_forgotten() -> None:
    """A text that comes again is measured again."""
    vocabulary = Vocabulary()
    counter = Counter(vocabulary.encode)
    before = counter.size("a b c")
    counter.forget()
    assert counter.size("a b c") == before
    assert vocabulary.encoded == ["a b c"] * 2


def test_what_was_counted_by_characters_is_counted_again() -> None:
    """Once the vocabulary is there."""
    counter = Counter()
    assert counter.size("word " * 100).tokens == 139
    counter.load()
    assert counter.size("word " * 100).tokens == 101


def long_conversation(turns: int, recall: Recall) -> MessagesRequest:
    """About 200,000 tokens in 200 turns, with tools; ``turns`` more of a thousand tokens each."""

    def turn(number: int) -> List[Any]:
        words = " ".join(f"{number}word{n}" for n in range(1000))
        use = {"type": "tool_use", "id": f"t{number}", "name": "Read", "input": {"path": f"/{number}"}}
        result = {"type": "tool_result", "tool_use_id": f"t{number}", "content": words}
        return [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]

    tool = {"name": "Read", "description": "Reads. " * 100, "input_schema": {"type": "object"}}
    messages = [{"role": "user", "content": "Hi"}] + [part for number in range(200 + turns) for part in turn(number)]
    body = {"model": "m", "max_tokens": 1, "system": "You help. " * 1000, "tools": [tool], "messages": messages}
    return MessagesRequest.from_dict(recall.read(json.dumps(body).encode(), json.JSONDecoder()))


def model(name: str) -> Model:
    return Model(name, "http://p.test/v1")


def estimates_of(asked: MessagesRequest, estimator: Estimator) -> Estimates:
    return estimator.of(asked, len(json.dumps(asked.raw)))


@pytest.mark.parametrize("name", ["claude-opus-5", "claude-haiku-4-5", "gpt-5", "deepseek-chat"])
def test_one_more_turn_costs_one_turn(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a conversation that is sent again only what is new is encoded, and only that is walked through."""
    vocabulary = Vocabulary()
    estimator, recall = Estimator(Counter(vocabulary.encode)), Recall()
    before = estimates_of(long_conversation(0, recall), estimator).of(model(name))
    assert before > 200_000
    vocabulary.encoded.clear()
    walked: List[Any] = []
    really = tokens._Count._block
    monkeypatch.setattr(tokens._Count, "_block", lambda self, block: walked.append(block) or really(self, block))
    longer = long_conversation(1, recall)
    after = estimates_of(longer, estimator).of(model(name))
    assert [len(text.split()) for text in vocabulary.encoded] == [1, 1000]  # the call's input and its result
    new = [*longer.system, *longer.messages[-2].content, *longer.messages[-1].content]
    assert len(walked) == len(new) + 1  # and the text inside the result
    unremembered = long_conversation(1, Recall())
    assert after > before + 1000
    assert after == estimates_of(unremembered, Estimator(Counter(vocabulary.encode))).of(model(name))


def test_a_family_is_counted_once() -> None:
    """However often one request is asked about, and for however many models of a family."""
    vocabulary = Vocabulary()
    estimates = estimates_of(request("a b c"), Estimator(Counter(vocabulary.encode)))
    assert estimates.of(model("gpt-4o")) == estimates.of(model("gpt-5"))
    assert estimates.of(model("claude-opus-5")) != estimates.of(model("gpt-5"))
    assert vocabulary.encoded == ["a b c"]


# --- requests ------------------------------------------------------------------------------------------------

PLAIN = Family(
    "plain", "", keeps_thinking=True, call=20, tools=200, forced_tools=300, deferred_tools=50, document=5, citations=100
)
THINKING = Family("thinking", "", thinking=28, output_format=125)
FORGETFUL = Family("forgetful", "", keeps_thinking=False)
TYPED = Family("typed", "", has_typed_tools=True)


def one_each(text: str) -> Size:
    """A token for each character."""
    return Size(len(text), 0, len(text.encode()))


def request(content: Any, **fields: Any) -> MessagesRequest:
    body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": content}], **fields}
    return MessagesRequest.from_dict(body)


def count(content: Any, family: Family = PLAIN, **fields: Any) -> int:
    """The estimate of one user message."""
    return count_tokens(request(content, **fields), one_each, family).tokens


NOTHING = count("")


def turns(*roles: str) -> List[Any]:
    return [{"role": role, "content": "abc"} for role in roles]


def test_requests_and_turns_have_a_price() -> None:
    """Messages of one role in a row are one turn; an answer that the client began needs no opening."""
    assert NOTHING == 7
    assert count("", messages=turns("user", "assistant", "user")) == 3 + 3 * 7
    assert count("", messages=turns("user", "user", "assistant", "user")) == 3 + 3 * 7 + 3
    assert count("", messages=turns("user", "assistant")) == 2 * 7


@pytest.mark.parametrize(
    ("block", "tokens"),
    [
        ({"type": "text", "text": "abc"}, 3),
        ({"type": "thinking", "thinking": "abc", "signature": "s" * 999}, 3),
        ({"type": "tool_use", "id": "i" * 99, "name": "abc", "input": {"a": "é"}}, 20 + 3 + len('{"a":"é"}')),
        ({"type": "tool_result", "tool_use_id": "i" * 99, "content": "abc"}, 3),
        ({"type": "tool_result", "tool_use_id": "i"}, 0),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": b64(png(28, 28))}}, 1),
        (
            {
                "type": "tool_result",
                "tool_use_id": "i",
                "content": [{"type": "image", "source": {"type": "url", "url": "u"}}],
            },
            1568,
        ),
        (
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": b64(PAGE * 2)}},
            2 * (1600 + 3),
        ),
        ({"type": "document", "title": "ab", "source": {"type": "text", "data": "abc"}}, 5 + 2 + 3),
        ({"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "abc"}]}}, 5 + 3),
        ({"type": "document", "source": {"type": "url", "url": "https://x/y.pdf"}}, 1600),
        ({"type": "document", "source": {"type": "file", "file_id": "f"}}, 1600),
        ({"type": "document", "citations": {"enabled": True}, "source": {"type": "text", "data": ""}}, 5 + 100),
        ({"type": "redacted_thinking", "data": "x" * 999}, 0),
        (
            {
                "type": "web_search_tool_result",
                "tool_use_id": "",
                "content": [{"type": "x", "title": "ab", "encrypted_content": "x" * 999}],
            },
            2,
        ),
    ],
)
def test_a_block_counts_what_the_model_reads(block: Any, tokens: int) -> None:
    """Its words and its frame; no id, no signature, no encrypted or base64 text."""
    assert count([block]) - NOTHING == tokens


TOOL = {"name": "ab", "description": "abc", "input_schema": {"type": "object"}}
SCHEMA = len('{"description":"abc","name":"ab","parameters":{"type":"object"}}')


@pytest.mark.parametrize(
    ("tools", "choice", "tokens"),
    [
        ([], None, 0),
        ([TOOL], None, 200 + 8 + SCHEMA),
        ([TOOL], "auto", 200 + 8 + SCHEMA),
        ([TOOL], "none", 200 + 8 + SCHEMA),
        ([TOOL], "any", 300 + 8 + SCHEMA),
        ([{**TOOL, "strict": True}, {**TOOL, "name": "cd"}], None, 200 + 2 * (8 + SCHEMA)),
        ([TOOL, {**TOOL, "name": "cd", "defer_loading": True}], None, 200 + 8 + SCHEMA + 50),
        ([{"type": "bash_20250124", "name": "bash"}], None, 200 + 325),
        ([{"type": "of_tomorrow", "name": "x"}], None, 200),
    ],
)
def test_tools_count(tools: Any, choice: Any, tokens: int) -> None:
    """Once the price of having tools, by ``tool_choice``; each tool as its schema is shown, until it is deferred."""
    choices = {"tool_choice": {"type": choice}} if choice else {}
    assert count("", tools=tools, **choices) - NOTHING == tokens


def test_openai_is_shown_tools_as_types() -> None:
    """Half the tokens of their JSON."""
    assert count("", TYPED, tools=[TOOL]) - NOTHING == 8 + len("// abc\ntype ab = () => any;\n\n")


def test_system_thinking_and_format_count() -> None:
    """What stands beside the messages."""
    assert count("", system="abc") - NOTHING == 3
    assert count("", THINKING, thinking={"type": "enabled", "budget_tokens": 1024}) - NOTHING == 28
    assert count("", THINKING, thinking={"type": "adaptive"}) == NOTHING
    form = {"type": "json_schema", "schema": {"a": 1}}
    assert count("", THINKING, output_config={"format": form}) - NOTHING == 125 + len('{"a":1}')
    assert count("", THINKING, output_format=form) - NOTHING == 125 + len('{"a":1}')
    assert count("", THINKING, output_config={"effort": "low"}) == NOTHING


def test_thinking_of_earlier_turns() -> None:
    """Some models are not shown it again, but for the turn that goes on with tool results."""
    thought = {"type": "thinking", "thinking": "a" * 100, "signature": "s"}
    said = {"role": "assistant", "content": [thought, {"type": "text", "text": "b"}]}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "i"}]}
    ask = {"role": "user", "content": ""}
    for family, earlier in ((PLAIN, 100), (FORGETFUL, 0)):
        assert count("", family, messages=[ask, said, ask]) == 3 + 3 * 4 + 1 + earlier
        assert count("", family, messages=[ask, said, result]) == 3 + 3 * 4 + 1 + 100


def test_text_has_no_more_tokens_than_bytes() -> None:
    """In any vocabulary; so a body's length bounds its tokens."""
    assert count("abc", Family("many", "", text=9.0)) - NOTHING == 3


@pytest.mark.parametrize("model", ["claude-sonnet-4-5", "claude-opus-4-7", "gpt-5", "echo"])
def test_a_ceiling_is_never_reached(model: str) -> None:
    """Whatever the text: calls, tools, settings and marks in plenty stay under the bytes of their JSON."""
    marks = "".join(f"{mark}\n" for mark in "{[(<>)]}!?" * 50)
    use = {"type": "tool_use", "id": "i", "name": "T", "input": {str(number): number for number in range(50)}}
    result = {"type": "tool_result", "tool_use_id": "i", "content": marks}
    messages = [{"role": "user", "content": marks}]
    for _ in range(50):
        messages += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    tools = [{"name": f"t{number}", "input_schema": {}} for number in range(50)]
    fields = {"thinking": {"type": "enabled"}, "tool_choice": {"type": "any"}, "tools": tools}
    asked = request("", messages=messages, **fields)
    body = json.dumps(asked.raw, separators=(",", ":"))
    counter = Counter()
    counter.load()
    assert count_tokens(asked, counter.size, family_of(model)).tokens <= ceiling(len(body)) < len(body) + 3000
    assert is_text(asked)


def test_no_more_is_counted_than_a_limit_takes() -> None:
    """Nothing where the bytes fit already, then message by message until what is left may have as many as bytes."""
    messages = [{"role": "user", "content": f"{number}word " * 1000} for number in range(20)]
    asked = request("", messages=messages)
    tokens_of = estimates_of(asked, Estimator(Counter(Vocabulary().encode))).of(model("gpt-5"))
    for part in (0.0, 0.25, 0.5, 0.9):
        vocabulary = Vocabulary()
        estimates = estimates_of(asked, Estimator(Counter(vocabulary.encode)))
        limit = ceiling(len(json.dumps(asked.raw))) - int(part * 20 * 5000)
        assert limit > tokens_of
        assert estimates.surely_fit(model("gpt-5"), limit)
        assert part * 16 <= len(vocabulary.encoded) <= part * 21 + 1


@pytest.mark.parametrize("name", ["claude-opus-4-7", "gpt-5"])
@pytest.mark.parametrize("number", ["1e5", "0.1", "7"])
def test_what_surely_fits_fits(name: str, number: str) -> None:
    """Also where a call's numbers are written longer than they came, and marks are more tokens than elsewhere."""
    use = f'{{"type": "tool_use", "id": "i", "name": "T", "input": {{"a": [{",".join([number] * 3000)}]}}}}'
    said = [{"role": "user", "content": text} for text in ("{[(<>)]}!?" * 500, "some words " * 1000)]
    raw = '{"model": "m", "max_tokens": 1, "messages": [%s, {"role": "assistant", "content": [%s]}]}'
    body = raw % (json.dumps(said)[1:-1], use)
    counter = Counter()
    counter.load()
    estimates = Estimator(counter).of(MessagesRequest.from_dict(json.loads(body)), len(body))
    exact = estimates.of(model(name))
    fitting = [limit for limit in range(0, 40_000, 500) if estimates.surely_fit(model(name), limit)]
    assert 0 < exact <= min(fitting) < ceiling(len(body))


IMAGE = {"type": "image", "source": {"type": "url", "url": "u"}}


@pytest.mark.parametrize(
    "asked",
    [
        request([IMAGE]),
        request([{"type": "tool_result", "tool_use_id": "i", "content": [IMAGE]}]),
        request([{"type": "document", "source": {"type": "file", "file_id": "f"}}]),
        request("", tools=[{"type": "web_search_20250305", "name": "web_search"}]),
    ],
)
def test_there_is_not_always_a_ceiling(asked: MessagesRequest) -> None:
    """An image of a hundred bytes may have thousands of tokens."""
    assert not is_text(asked)


@pytest.mark.parametrize("depth", [100, 900, 5000])
def test_deep_blocks_never_raise(depth: int) -> None:
    """As deep as a body can be parsed, which newer Pythons do deeper than they recurse."""
    try:
        nested: Any = json.loads("[" * depth + "]" * depth)
    except RecursionError:
        return
    assert count([{"type": "of_tomorrow", "content": nested}]) >= NOTHING
    assert count([{"type": "tool_use", "id": "i", "name": "T", "input": {"a": nested}}]) >= NOTHING
