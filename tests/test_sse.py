"""Server-sent events: each event's exact bytes, and a provider's stream in every shape of line and read."""

from __future__ import annotations

import json
from typing import Any, List, Optional, Tuple

import pytest
import sseclient
from hypothesis import given
from hypothesis import strategies as st

from ccproxy.errors import ProviderError
from ccproxy.message import (
    BlockStart,
    BlockStop,
    ErrorEvent,
    InputJsonDelta,
    MessageDelta,
    MessageStart,
    MessageStop,
    Ping,
    SignatureDelta,
    TextDelta,
    ThinkingDelta,
    Usage,
    message_object,
    text_block,
)
from ccproxy.sse import Reader, encode
from grammar import parse_sse

FRAMES: List[Tuple[Any, bytes]] = [
    (
        MessageStart("msg_1", "m", Usage(7)),
        (
            b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","type":"message",'
            b'"role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"stop_details":null,'
            b'"usage":{"input_tokens":7,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":0,'
            b'"output_tokens_details":{"thinking_tokens":0},"service_tier":"standard"}}}\n\n'
        ),
    ),
    (
        BlockStart(0, text_block()),
        (
            b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
            b'"content_block":{"type":"text","text":""}}\n\n'
        ),
    ),
    (
        TextDelta(0, 'a"\n'),
        (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
            b'"delta":{"type":"text_delta","text":"a\\"\\n"}}\n\n'
        ),
    ),
    (
        ThinkingDelta(1, "Hm"),
        (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":1,'
            b'"delta":{"type":"thinking_delta","thinking":"Hm"}}\n\n'
        ),
    ),
    (
        SignatureDelta(1, "s"),
        (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":1,'
            b'"delta":{"type":"signature_delta","signature":"s"}}\n\n'
        ),
    ),
    (
        InputJsonDelta(2, '{"a":'),
        (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":2,'
            b'"delta":{"type":"input_json_delta","partial_json":"{\\"a\\":"}}\n\n'
        ),
    ),
    (BlockStop(2), b'event: content_block_stop\ndata: {"type":"content_block_stop","index":2}\n\n'),
    (
        MessageDelta("end_turn", None, Usage(20, 2, 100, 3, 1)),
        (
            b'event: message_delta\ndata: {"type":"message_delta",'
            b'"delta":{"stop_reason":"end_turn","stop_sequence":null},'
            b'"usage":{"input_tokens":20,"cache_creation_input_tokens":3,"cache_read_input_tokens":100,"output_tokens":2,'
            b'"output_tokens_details":{"thinking_tokens":1}}}\n\n'
        ),
    ),
    (
        MessageDelta("refusal", None, Usage(), {"type": "refusal", "category": None, "explanation": "no"}),
        (
            b'event: message_delta\ndata: {"type":"message_delta",'
            b'"delta":{"stop_reason":"refusal","stop_sequence":null,'
            b'"stop_details":{"type":"refusal","category":null,"explanation":"no"}},'
            b'"usage":{"input_tokens":0,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":0,'
            b'"output_tokens_details":{"thinking_tokens":0}}}\n\n'
        ),
    ),
    (MessageStop(), b'event: message_stop\ndata: {"type":"message_stop"}\n\n'),
    (Ping(), b'event: ping\ndata: {"type":"ping"}\n\n'),
    (
        ErrorEvent({"type": "error", "error": {"type": "api_error", "message": "x"}, "request_id": "req_1"}),
        b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"x"},"request_id":"req_1"}\n\n',
    ),
]


@given(
    model=st.text(),
    counts=st.lists(st.integers(0, 10**6), min_size=5, max_size=6),
    sequence=st.none() | st.text(),
    details=st.none() | st.just({"type": "refusal"}),
)
def test_what_is_around_an_answer(model: str, counts: List[int], sequence: Optional[str], details: Any) -> None:
    """A frame that is made by template says what the values do."""
    usage = Usage(*counts)
    start, end = MessageStart("msg_1", model, usage), MessageDelta("end_turn", sequence, usage, details)
    (_, started), (_, ended) = parse_sse(encode([start, end]))
    assert started == {"type": "message_start", "message": message_object("msg_1", model, usage)}
    assert list(started["message"]["usage"].items()) == list(usage.to_dict().items())
    told = {"stop_reason": "end_turn", "stop_sequence": sequence, **({"stop_details": details} if details else {})}
    assert ended == {"type": "message_delta", "delta": told, "usage": ended["usage"]}
    assert {**ended["usage"], "service_tier": "standard"} == usage.to_dict()


@pytest.mark.parametrize(("event", "frame"), FRAMES, ids=[type(event).__name__ for event, _ in FRAMES])
def test_each_event_is_one_frame(event: Any, frame: bytes) -> None:
    """An event line, one line of JSON whose type is the event's name, a blank line: SDKs drop anything less."""
    assert encode([event]) == frame


def test_events_are_written_together() -> None:
    """One read's events are one write."""
    assert encode([event for event, _ in FRAMES]) == b"".join(frame for _, frame in FRAMES)
    assert encode([]) == b""


@given(st.text())
def test_any_text_survives(text: str) -> None:
    """Line ends, quotes and every other character arrive as they were."""
    for event, key in ((TextDelta(0, text), "text"), (InputJsonDelta(0, text), "partial_json")):
        assert parse_sse(encode([event]))[0][1]["delta"][key] == text


# --- reading -------------------------------------------------------------------------------------------------

READINGS = [
    (b"data: 1\n\ndata: 2\n\n", ["1", "2"]),
    (b"data: 1\r\n\r\ndata: 2\r\n\r\n", ["1", "2"]),
    (b"data: 1\r\rdata: 2\r\r", ["1", "2"]),
    (b"data: 1\n\r\ndata: 2\r\n\ndata: 3\n\n", ["1", "2", "3"]),  # line ends may be mixed
    (b"data:1\n\ndata:  2\n\n", ["1", " 2"]),  # one space after the colon, or none
    (b"\xef\xbb\xbfdata: 1\n\ndata: 2\n\n", ["1", "2"]),  # byte order mark
    (b": OPENROUTER PROCESSING\n\ndata: 1\n\n: keep-alive\n\ndata: 2\n\n", ["1", "2"]),
    (b": ping\ndata: 1\n\n", ["1"]),
    (b"data: {\ndata: }\n\n", ["{\n}"]),
    (b"\n\n\ndata: 1\n\n\n\n\ndata: 2\n\n", ["1", "2"]),
    (b"id: 5\nretry: 10\ndata: 1\n\n", ["1"]),
    (b"data: 1\n\ndata: 2", ["1", "2"]),  # no blank line at the end
    (b"data: 1\n\ndata: 2\n", ["1", "2"]),
    (b"data: 1\r\n\r\ndata: 2\r\n", ["1", "2"]),
    ("data: a\u2028b\u2029c\x85d\x0be\x0cf\x1eg\n\n".encode(), ["a\u2028b\u2029c\x85d\x0be\x0cf\x1eg"]),
    ("data: 漢字 \U0001f600\n\n".encode(), ["漢字 \U0001f600"]),
    (b"", []),
    (b"\n", []),
    (b": only a comment\n\n", []),
]


def read(*parts: bytes) -> List[str]:
    reader = Reader()
    events = [event for part in parts for event in reader.feed(part)] + list(reader.finish())
    return [event.data for event in events if event.data]


@pytest.mark.parametrize(("body", "expected"), READINGS)
def test_a_stream_read_whole(body: bytes, expected: List[str]) -> None:
    """Every line end and every line that is no data."""
    assert read(body) == expected


@pytest.mark.parametrize(("body", "expected"), READINGS)
def test_a_stream_read_byte_by_byte(body: bytes, expected: List[str]) -> None:
    """Where a read ends means nothing."""
    assert read(*(body[n : n + 1] for n in range(len(body)))) == expected


@pytest.mark.parametrize(("body", "expected"), READINGS)
def test_a_stream_read_in_two(body: bytes, expected: List[str]) -> None:
    """Wherever the first read ends."""
    for cut in range(len(body) + 1):
        assert read(body[:cut], body[cut:]) == expected


@given(
    texts=st.lists(st.text(max_size=12), min_size=1, max_size=6),
    cuts=st.lists(st.integers(0, 400), max_size=12),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_random_reads_give_the_same_events(texts: List[str], cuts: List[int], end: str) -> None:
    """Random splits, in the middle of a character or of a line end too."""
    lines = [json.dumps(text, ensure_ascii=False) for text in texts if text.isprintable()]
    body = "".join(f"data: {line}{end}{end}" for line in lines).encode()
    borders = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    assert read(*(body[a:b] for a, b in zip(borders, borders[1:]))) == lines


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_a_read_gives_its_events_at_once(end: bytes) -> None:
    """An event is delivered with the read that completes it, not with the next one."""
    reader = Reader()
    assert [event.data for event in reader.feed(b"data: 1" + end + b"data: 2")] == ["1"]
    assert [event.data for event in reader.feed(end)] == ["2"]
    assert list(reader.finish()) == []


def test_named_events_keep_their_name() -> None:
    """Groq names its error events."""
    assert [(event.event, event.data) for event in Reader().feed(b"event: error\ndata: x\n\n")] == [("error", "x")]


def test_an_endless_event_is_refused() -> None:
    """A provider cannot fill the memory with one event."""
    reader = Reader(max_event_bytes=100)
    reader.feed(b"data: " + b"x" * 90)
    with pytest.raises(ProviderError):
        reader.feed(b"x" * 90)


def test_bytes_that_are_not_utf_8_are_replaced() -> None:
    """One broken character costs neither the events around it nor the answer, on the short way and in the parser."""
    events = Reader().feed(b"data: 1\n\ndata: \xff\n\nid: 2\ndata: \xfe\n\n")
    assert [event.data for event in events] == ["1", "\ufffd", "\ufffd"]


@given(
    st.lists(
        st.sampled_from(["data: {}", "data: a b", "data:x", "data: ", "data", ": c", "event: e", "id: 1", "", "漢"])
    )
)
def test_plain_lines_read_as_sseclient_reads_them(lines: List[str]) -> None:
    """The short way round the parser gives what the parser gives."""
    body = "".join(line + "\n" for line in lines).encode()
    expected = [event.data for event in sseclient.SSEClient(iter((body,))).events()]
    assert read(body) == [data for data in expected if data]
