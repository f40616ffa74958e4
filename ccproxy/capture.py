"""Captured exchanges: read from a recording or from ``bodies.log``, and answers as lines that can be compared.

A recording is a JSON object with ``request`` (``url``, ``body``) and ``response`` (``status``, and ``body``, ``sse`` or
``text``), of the Messages API, chat completions or responses. ``bodies.log`` has a JSON object in each line: ``id`` of
the request, ``what`` (method and path, or the status of the answer) and ``body`` as text.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any, Dict, Iterable, List, Optional, Tuple, Union

from .chunk_reader import ChunkReader
from .encoded import Json, dump
from .errors import ApiError, ConfigError
from .frozen import frozen
from .message import Event
from .openai import Chunk, object_in, objects_in
from .responses import ResponsesReader
from .sse import Reader, encode
from .translate.failure import translate_failure
from .translate.reply import ReplyContext
from .translate.stream import StreamTranslator

MESSAGES, CHAT, RESPONSES = "messages", "chat completions", "responses"
_PATHS = {MESSAGES: r"/messages$", CHAT: r"/chat/completions$", RESPONSES: r"/responses$"}


@frozen
class Capture:
    """One exchange: what was asked, in which API, and what was answered."""

    api: str
    request: Json
    status: int
    answer: str
    """The body: a JSON document or server-sent events."""


def read_capture(text: str, name: str, request_id: Optional[str] = None) -> Capture:
    """Return the exchange of a file: the recorded one, or of a ``bodies.log`` the last, or the one with an id.

    Raises:
        ConfigError: naming the file and what is missing in it.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict) and "request" in value:
        return _recording(value, name)
    entries = [entry for entry in map(_logged, text.splitlines()) if entry is not None]
    if not entries:
        raise ConfigError(f"{name}: neither a recording (an object with request and response) nor a bodies.log")
    return _logged_exchange(entries, name, request_id)


def _recording(value: Json, name: str) -> Capture:
    request, response = value["request"], value.get("response")
    if not isinstance(request, dict) or not isinstance(response, dict):
        raise ConfigError(f"{name}: request and response: expected an object each")
    path = re.split(r"[?#]", str(request.get("url", "")))[0]
    api = next((api for api, pattern in _PATHS.items() if re.search(pattern, path)), None)
    if api is None:
        raise ConfigError(
            f"{name}: request.url: expected one that ends with /messages, /chat/completions or /responses, not {path!r}"
        )
    if not isinstance(request.get("body"), dict):
        raise ConfigError(f"{name}: request.body: expected the object that was sent")
    answer = response.get("sse") or response.get("text")
    if answer is None:
        answer = json.dumps(response.get("body"))
    status = response.get("status") or 200
    if not isinstance(status, int):
        raise ConfigError(f"{name}: response.status: expected a number, not {status!r}")
    return Capture(api, request["body"], status, str(answer))


def _logged(line: str) -> Optional[Json]:
    """Return the entry of a line of bodies.log; a time and a level may stand before it."""
    try:
        entry = json.loads(line[line.index("{") :])
        return entry if all(isinstance(entry.get(name), str) for name in ("id", "what", "body")) else None
    except (ValueError, RecursionError):
        return None


def _logged_exchange(entries: List[Json], name: str, request_id: Optional[str]) -> Capture:
    asked = [entry for entry in entries if re.match(r"POST \S*/messages$", entry["what"])]
    answers = {entry["id"]: entry for entry in entries if entry["what"].isdigit()}
    done = [entry for entry in asked if entry["id"] in answers and request_id in (None, entry["id"])]
    if not done:
        wanted = f"request {request_id}" if request_id else "POST /v1/messages"
        raise ConfigError(f"{name}: no {wanted} with its answer in it")
    asked_last, answer = done[-1], answers[done[-1]["id"]]
    try:
        body = json.loads(asked_last["body"])
    except (ValueError, RecursionError):
        size = asked_last.get("bytes")
        raise ConfigError(f"{name}: {asked_last['id']}: its body of {size} bytes is not there whole") from None
    return Capture(MESSAGES, body, int(answer["what"]), str(answer["body"]))


# --- answers as lines --------------------------------------------------------------------------------------------


def as_messages(capture: Capture, reply: ReplyContext) -> str:
    """Return the answer in the Messages API's form: those of the other APIs as they are translated today.

    Raises:
        CcproxyError: it is none of that API.
    """
    if capture.api == MESSAGES:
        return capture.answer
    if capture.status != 200:
        return json.dumps(
            translate_failure(capture.status, {}, capture.answer.encode(errors="replace"), reply.target).to_dict("")
        )
    is_stream = not capture.answer.lstrip().startswith("{")
    reader = ResponsesReader() if capture.api == RESPONSES else ChunkReader()
    try:
        chunks = _chunks(capture.answer, reader) if is_stream else reader.whole(json.loads(capture.answer))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the captured answer cannot be read: {error}") from None
    return translated(chunks, reply, is_done=not is_stream or reader.is_done or "[DONE]" in capture.answer)


def translated(chunks: Iterable[Chunk], reply: ReplyContext, *, is_done: bool) -> str:
    """Return the events that the chunks of an answer become."""
    translator = StreamTranslator(reply)
    events: List[Event] = []
    try:
        for chunk in chunks:
            events += translator.feed(chunk)
        events += translator.finish(is_done=is_done)
    except ApiError as error:
        events += translator.fail(error, "")
    return encode(events).decode()


def _chunks(text: str, reader: Union[ChunkReader, ResponsesReader]) -> List[Chunk]:
    return [chunk for _, value in _events(text) for chunk in reader.parse(dump(value))]


def _events(text: str) -> List[Tuple[str, Json]]:
    """Return name and data of the events; what is no object, such as ``[DONE]``, is left out."""
    reader = Reader()
    found = []
    for event in [*reader.feed(text.encode(errors="replace")), *reader.finish()]:
        with suppress(ValueError, RecursionError):
            found.append((event.event, json.loads(event.data)))
    return [(name, value) for name, value in found if isinstance(value, dict)]


def answer_lines(answer: str) -> List[str]:
    """Return an answer as lines: what a client makes of it, however it came.

    Pieces of one block are one; ids and signatures, which are new each time, are left out.
    """
    if answer.lstrip().startswith("{"):
        try:
            value = json.loads(answer)
        except (ValueError, RecursionError):
            return ["no JSON", *answer.splitlines()]
        if value.get("type") != "message":
            return _error_lines(value)
        return [
            *_block_lines(objects_in(value, "content")),
            *_end_lines(value.get("stop_reason"), object_in(value, "usage")),
        ]
    return _stream_lines(answer)


def _stream_lines(answer: str) -> List[str]:
    blocks: Dict[int, Json] = {}
    usage: Json = {}
    stop_reason, end = None, ["the stream has no end"]
    for name, value in _events(answer):
        block = blocks.setdefault(value["index"], {}) if isinstance(value.get("index"), int) else {}
        if name == "content_block_start":
            block.update(object_in(value, "content_block"))
        elif name == "content_block_delta":
            _add(block, object_in(value, "delta"))
        elif name == "error":
            end = _error_lines(value)
        elif name == "message_stop":
            end = []
        if name in ("message_start", "message_delta"):
            usage.update(object_in(object_in(value, "message") or value, "usage"))
            stop_reason = object_in(value, "delta").get("stop_reason", stop_reason)
    return [*_block_lines(list(blocks.values())), *_end_lines(stop_reason, usage), *end]


def _add(block: Json, delta: Json) -> None:
    """Add a delta to its block."""
    for name, field in (("text", "text"), ("thinking", "thinking"), ("partial_json", "input")):
        if name in delta:
            before = block.get(field)  # the input begins as an object, which is empty
            block[field] = (before if isinstance(before, str) else "") + str(delta[name])


def _block_lines(blocks: List[Json]) -> List[str]:
    lines: List[str] = []
    for block in blocks:
        kind = str(block.get("type"))
        if kind in ("text", "thinking"):
            lines += [kind, *(f"  {line}" for line in str(block.get(kind, "")).splitlines())]
        elif "input" in block:
            lines += [f"{kind} {block.get('name')}", *(f"  {line}" for line in _input_lines(block["input"]))]
        else:
            lines.append(kind)
    return lines


def _input_lines(value: Any) -> List[str]:
    """Return a tool's input, one line a member."""
    if isinstance(value, str):
        try:
            value = json.loads(value or "{}")
        except ValueError:
            return [f"(no JSON) {value}"]
    if not isinstance(value, dict):
        return [json.dumps(value, ensure_ascii=False)]
    return [f"{name}: {json.dumps(item, ensure_ascii=False, sort_keys=True)}" for name, item in sorted(value.items())]


def _end_lines(stop_reason: Optional[str], usage: Json) -> List[str]:
    counts = [f"{name[: -len('_tokens')]}={usage[name]}" for name in ("input_tokens", "output_tokens") if name in usage]
    return [f"stop {stop_reason}", f"usage {' '.join(counts)}"]


def _error_lines(value: Json) -> List[str]:
    error = value.get("error")
    fields = error if isinstance(error, dict) else {"message": error}
    return [f"error {fields.get('type', '')} {fields.get('message', '')}".replace("\n", " ")]
