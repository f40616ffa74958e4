"""Chunks that are read the short ways say what their whole text says, whatever came before them."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any, List, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccproxy.chunk_reader import ChunkReader
from ccproxy.openai import Chunk, Piece
from ccproxy.sse import Reader
from recordings import VARIABLE, folder, load

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
FRAMES = [
    ('{"id":"1","choices":[{"index":0,"delta":', ',"finish_reason":null}]}'),
    ('{"id":"1","choices":[{"index":0,"delta":', ',"finish_reason":"stop"}]}'),
    ('{"id": "1", "choices": [{"index": 0, "delta": ', ', "finish_reason": null}], "usage": null}'),
    ('{"id": "1", "choices": [{"index": 0, "delta": ', '}], "usage": {"prompt_tokens": 1}}'),
    ('{"choices":[{"index":1,"delta":', "}]}"),
    ('{"choices":[{"index":0,"message":{"delta":', "}}]}"),
    ('{"choices":[{"delta":{},"index":0,"delta":', "}]}"),
    ('{"choices":[{"index":0,"delta":', '}],"error":{"message":"x"}}'),
    ('{"x\\"delta":', ',"choices":[{"index":0,"delta":{"content":"a"}}]}'),
    ('{"choices":[{"index":0,"delta":', "}"),
]
DELTAS = st.dictionaries(st.sampled_from(["content", "reasoning_content", "role", "refusal", "audio"]), ANY_JSON)


@given(st.lists(st.tuples(st.sampled_from(FRAMES), DELTAS | st.just({"content": "a"}), st.booleans()), max_size=8))
@settings(max_examples=300)
def test_a_stream_reads_as_its_chunks(chunks: List[Tuple[Tuple[str, str], Any, bool]]) -> None:
    """Frames that come back, change or break: each chunk is what its whole text says."""
    reader = ChunkReader()
    for (head, tail), value, is_spaced in chunks:
        text = f"{head}{' ' * is_spaced}{json.dumps(value)}{tail}"
        try:
            expected = Chunk.from_dict(json.loads(text))
        except ValueError:
            with pytest.raises(ValueError):
                reader.read(text)
        else:
            assert reader.read(text) == expected


WORDS = st.text(st.sampled_from("aZ .{}:,[]'<\"\\\n/") | st.characters(), max_size=6)
MEMBERS = st.dictionaries(st.sampled_from(["id", "created", "obfuscation", "p"]), WORDS | st.integers(0, 9), max_size=2)


@given(st.lists(st.tuples(st.sampled_from(FRAMES), WORDS, st.booleans(), MEMBERS), max_size=8))
@settings(max_examples=300)
def test_texts_are_what_the_chunks_say(chunks: List[Tuple[Tuple[str, str], str, bool, Any]]) -> None:
    """Whatever came before, an event of which the text is seen at once reads as that text and nothing else."""
    reader = ChunkReader()
    for (head, tail), words, is_escaped, members in chunks:
        delta = json.dumps({"content": words}, ensure_ascii=is_escaped)
        more = "".join(f",{json.dumps(name)}:{json.dumps(value)}" for name, value in members.items())
        event = f"data: {head}{delta}{tail[:-1]}{more}{tail[-1:]}\n\n"
        check_texts(reader, event.encode("utf-8", "replace"))


@given(st.sampled_from(FRAMES), st.lists(st.tuples(st.sampled_from([0, 0, 0, 0, *FRAMES]), WORDS, st.booleans())))
@settings(max_examples=300)
def test_runs_are_what_the_chunks_say(first: Tuple[str, str], events: List[Tuple[Any, str, bool]]) -> None:
    """The texts that a read begins with, and what is left of it, say together what all of its events say."""
    reader = ChunkReader()
    data = b""
    for place, (frame, words, is_escaped) in enumerate([(0, "a", True), (0, "a", True), *events]):
        head, tail = frame or first
        text = f"{head}{json.dumps({'content': words}, ensure_ascii=is_escaped)}{tail}"
        if place < 2:
            with suppress(ValueError):
                reader.read(text)
        else:
            data += f"data: {text}\n\n".encode("utf-8", "replace")
    texts, rest = reader.run(data)
    assert data.endswith(rest)
    told = [Chunk.from_dict(json.loads(each.data)) for each in Reader().feed(data[: len(data) - len(rest)])]
    assert [Chunk(True, (Piece("text", text),)) for text in texts] == [chunk for chunk in told if chunk.pieces]
    assert all(chunk == Chunk(True, chunk.pieces) for chunk in told)


def test_a_run_ends_with_what_is_no_text() -> None:
    """Or with what is not whole; nothing is found before two chunks told how a text comes."""
    reader = ChunkReader()

    def plain(content: bytes) -> bytes:
        return frame(content).replace(b',"p":"x"', b"")

    text, end = plain(b'"a"'), plain(b'"b"')[:-1]
    role = text.replace(b'"content"', b'"role":"assistant","content"')
    assert reader.run(text) == ([], text)
    for _ in range(2):
        reader.read(text[6:-2].decode())
    assert reader.run(text * 3 + end) == (["a"] * 3, end)
    assert reader.run(text * 3 + role + text + end) == (["a"] * 3, role + text + end)
    assert reader.run(role + text) == ([], role + text)
    assert reader.run(plain(b'"\\n\\ud83d"') + plain("\u00e9\u200b".join('""').encode())) == (
        ["\n\ud83d", "\u00e9\u200b"],
        b"",
    )
    for broken in (plain(b'"a","b"'), plain(b'"a\\"'), plain(b'"a\tb"'), plain(b'"\xff"')):
        assert reader.run(text + broken) == ([], text + broken)


def check_texts(reader: ChunkReader, event: bytes) -> bool:
    """Let a reader look at an event, and read it where it saw no text; return whether it did.

    What it saw must be all that the event says.
    """
    text = seen(reader, event)
    chunks = []
    for frame in Reader().feed(event):
        with suppress(ValueError):
            chunks += [Chunk.from_dict(json.loads(frame.data)) if text else reader.read(frame.data)]
    assert not text or chunks == [Chunk(True, (Piece("text", text),))]
    return bool(text)


def seen(reader: ChunkReader, event: bytes, kind: str = "text") -> str:
    """Return the text of an event in the frame that is known; nothing, where it is in another one."""
    frame = reader.frame(kind)
    found = frame.fullmatch(event) if frame is not None else None
    with suppress(UnicodeDecodeError):
        return json.loads(f'"{found[1].decode()}"') if found is not None else ""
    return ""


@pytest.mark.skipif(not folder().is_dir(), reason=f"no recordings: {VARIABLE} names their folder")
def test_the_texts_of_recorded_streams() -> None:
    """Text is seen at once in nine events of ten of those that say nothing else, of all providers there are."""
    seen = missed = 0
    for source in load():
        reader = ChunkReader()
        for event in re.findall(rb"data:.*?\n\r?\n", source.body if source.api == "chat" else b"", re.DOTALL):
            if check_texts(reader, event):
                seen += 1
            else:
                missed += is_text(event)
    assert seen > 9 * missed


def is_text(event: bytes) -> bool:
    """Whether an event has text and nothing else to say."""
    try:
        chunk = Chunk.from_dict(json.loads(event[5:]))
    except ValueError:
        return False
    return chunk[2:] == Chunk()[2:] and [piece.kind for piece in chunk.pieces] == ["text"]


def frame(content: bytes, number: int = 1) -> bytes:
    """An event as OpenAI writes it."""
    return b'data: {"id":"%d","choices":[{"index":0,"delta":{"content":%s},"finish_reason":null}],"p":"%s"}\n\n' % (
        number,
        content,
        b"x" * number,
    )


@pytest.fixture
def reader() -> ChunkReader:
    """One that was asked for the frame before it read the first."""
    reader = ChunkReader()
    assert reader.frame("text") is None
    reader.read(frame(b'"a b"')[6:-2].decode())
    return reader


@pytest.mark.parametrize("content", [b'"one"', b'"two \\n\\""', '"\u00e9\u4f60"'.encode(), b'"\\t\\b"'])
def test_text_as_json_has_it(reader: ChunkReader, content: bytes) -> None:
    """The frame is that of other ids and paddings, too; blank lines are of any kind."""
    for event in (frame(content, 7), frame(content).replace(b"\n", b"\r\n")):
        assert seen(reader, event) == json.loads(content)


@pytest.mark.parametrize(
    "event",
    [
        frame(b'""'),
        frame(b"null"),
        frame(b'"\\ud83d"'),
        frame(b'"\\u00e9"'),
        frame(b'"a\\/b"'),
        frame(b'"a\\\\b"'),
        frame(b'"\x7f"'),
        frame(b'"\xff"'),
        frame(b'"a", "x": "b"'),
        frame(b'"a"').replace(b"null", b'"stop"'),
        frame(b'"a"').replace(b'"1"', b'["1"]'),
        b": ping\n\n",
        b"data: [DONE]\n\n",
        frame(b'"a"')[1:],
        frame(b'"a"') * 2,
        b"",
    ],
)
def test_what_is_no_plain_text(reader: ChunkReader, event: bytes) -> None:
    """Is in no frame: what is no text, or in another frame, or has characters that keys may be hidden in."""
    assert seen(reader, event) == ""


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thinking_has_a_frame_of_its_own(reader: ChunkReader, field: str) -> None:
    """As text has."""
    event = frame(b'null,"%s":"so"' % field.encode())
    assert reader.frame("thinking") is None
    assert reader.read(event[6:-2].decode()).pieces == (Piece("thinking", "so"),)
    assert seen(reader, event, "thinking") == "so"
    assert seen(reader, event, "text") == ""
    assert seen(reader, frame(b'"a"'), "text") == "a"


def test_each_kind_has_its_own_tries() -> None:
    """However often the frame of thinking was learned anew, that of the text after it is learned, too."""
    reader, thought = ChunkReader(), frame(b'null,"reasoning_content":"so"')
    for _ in range(9):
        reader.frame("thinking")
        reader.read(thought[6:-2].decode())
    assert reader.frame("text") is None
    reader.read(frame(b'"a"')[6:-2].decode())
    assert seen(reader, frame(b'"b"')) == "b"


def test_a_long_frame_is_no_pattern(reader: ChunkReader) -> None:
    """Making a pattern of a megabyte takes seconds, in which no stream goes on."""
    event = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}],"padding":"%s"}\n\n' % (b"x" * 10_000)
    reader.frame("text")
    assert reader.read(event[6:-2].decode()).pieces == (Piece("text", "a"),)
    assert seen(reader, event) == ""


def test_frames_that_never_come_back() -> None:
    """Are learned a few times, not for each chunk."""
    reader, found = ChunkReader(), set()
    for number in range(9):
        event = frame(b'"a"').replace(b"index", b'index":0,"n%d' % number)
        assert seen(reader, event) == ""
        reader.read(event[6:-2].decode())
        found.add(reader.frame("text"))
    assert len(found - {None}) == 3
