"""Recorded provider exchanges, and what a client must get for each: read here without any of ccproxy's code.

`load` reads the folder, `read` turns one recorded answer into a `Reading`: the visible text, the reasoning, the tool
calls, the stop reason and the usage that the rules of the two wire formats give, or the error. Where the rules leave
a choice, the reading lists every answer they allow.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, FrozenSet, Iterator, List, Mapping, Optional, Sequence, Tuple

from recorded_failures import Failure, in_answer, in_stream, of_status

Json = Dict[str, Any]

VARIABLE = "CCPROXY_TRAFFIC"
CUT_BY_LENGTH = ("length", "max_tokens", "MAX_TOKENS", "model_length", "model_context_window_exceeded")
GAVE_UP = ("insufficient_system_resource", "network_error", "error", "abort")
MALFORMED = re.compile("MALFORMED|UNEXPECTED_TOOL_CALL|MISSING_THOUGHT_SIGNATURE")
"""What Gemini says of an answer it could not finish; without any content there is nothing to hand on."""
REFUSED = (
    "content_filter",
    "SAFETY",
    "RECITATION",
    "PROHIBITED_CONTENT",
    "BLOCKLIST",
    "SPII",
    "LANGUAGE",
    "sensitive",
    "guardrail_intervened",
)


# --- recordings -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recording:
    """One recorded exchange; `api` is `chat` (completions) or `responses`."""

    id: str
    provider: str
    model: str
    fidelity: str
    request: Json
    status: int
    headers: Dict[str, str]
    body: bytes
    is_stream: bool
    lengths: Optional[List[int]]
    api: str = "chat"

    @property
    def is_error(self) -> bool:
        """The provider refused with an HTTP status."""
        return self.status >= 400


def folder() -> Path:
    """The folder of recordings: `CCPROXY_TRAFFIC`, else `../shared/traffic` beside the checkout."""
    default = Path(__file__).resolve().parents[2] / "shared" / "traffic"
    return Path(os.environ.get(VARIABLE) or default)


APIS = {"chat.completions": "chat", "openai.responses": "responses"}


def load() -> List[Recording]:
    """Return every recorded exchange of these APIs that has an answer; [] when there is no folder."""
    found = []
    for path in sorted(folder().glob("*/*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["kind"] in APIS and data["response"]:
            found.append(recording(data))
    return found


def recording(data: Json) -> Recording:
    """Return one recording from its file."""
    response = data["response"]
    if "sse" in response:
        body = response["sse"].encode("utf-8")
    elif response.get("body") is None:
        body = (response.get("text") or "").encode("utf-8")
    else:
        body = json.dumps(response["body"], ensure_ascii=False).encode("utf-8")
    request = data["request"]["body"]
    return Recording(
        id=data["id"],
        provider=data["provider"],
        model=data["model"] or "unknown",
        fidelity=data["fidelity"],
        request=request if isinstance(request, dict) else {},
        status=response["status"],
        headers={name.lower(): str(value) for name, value in (response["headers"] or {}).items()},
        body=body,
        is_stream="sse" in response,
        lengths=response.get("chunk_lengths"),
        api=APIS.get(data["kind"], "chat"),
    )


# --- what a client must get -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """A tool call; `inputs` are the inputs a client may be given, none when the arguments were cut or are broken."""

    name: str
    id: str
    inputs: Tuple[Json, ...]


@dataclass(frozen=True)
class Reading:
    """One recorded answer as a client must see it."""

    text: str = ""
    reasoning: str = ""
    calls: Tuple[Call, ...] = ()
    order: Tuple[str, ...] = ()
    """Block types in order, neighbours of one type counted once (tools each)."""
    stop_reasons: FrozenSet[str] = frozenset()
    usage: Optional[Dict[str, int]] = None
    """None when the provider sent no usage: then the counts are estimates."""
    failure: Optional[Failure] = None
    has_begun: bool = False
    """Some content came before the failure."""
    is_tagged: bool = False
    """Reasoning came in tags inside the content: blank space around the tags belongs to nobody."""


def read(source: Recording) -> Reading:
    """Return what a client must get for a recorded answer."""
    if source.is_error:
        return Reading(failure=of_status(source.provider, source.status, source.body))
    if source.is_stream:
        return read_stream(source.provider, source.body)
    return read_answer(source.provider, source.body)


def read_answer(provider: str, body: bytes) -> Reading:
    """Read a whole completion: the same rules as for one chunk that holds everything."""
    try:
        data = json.loads(body)
    except ValueError:
        return Reading(failure=in_answer(provider, body))
    if data.get("error") or not data.get("choices"):
        return Reading(failure=in_answer(provider, body))
    answer = Answer(provider)
    answer.add(data, keys=("message", "delta"))
    return answer.reading(ended=True)


def read_stream(provider: str, body: bytes) -> Reading:
    """Read a stream up to `[DONE]`, an error or its end."""
    answer, done = Answer(provider), False
    for text in server_sent_data(body):
        if text.strip() == "[DONE]":
            done = True
            break
        try:
            chunk = json.loads(text)
        except ValueError:
            continue  # a line that is not JSON is passed over
        if isinstance(chunk, dict) and chunk.get("error"):
            return answer.broken(in_stream(provider, chunk))
        if isinstance(chunk, dict):
            answer.add(chunk, keys=("delta", "message"))
    return answer.reading(ended=done)


def server_sent_data(body: bytes) -> Iterator[str]:
    """Yield the data of each event, by the WHATWG rules; an event that only lacks its blank line counts too."""
    text = body.decode("utf-8", "replace")
    data: List[str] = []
    for line in [*re.split(r"\r\n|\n|\r", text[1:] if text.startswith("\ufeff") else text), ""]:
        name, colon, value = line.partition(":")
        if line == "" and data:
            yield "\n".join(data)
            data = []
        elif name == "data":
            data.append(value[1:] if value.startswith(" ") else value)
        elif name == "error" and colon:  # old llama.cpp and GPUStack: the field itself is called error
            yield '{"error":' + (value.strip() or "{}") + "}"


# --- the fold ---------------------------------------------------------------------------------------------------


@dataclass
class OpenCall:
    """A tool call while its pieces arrive."""

    id: str = ""
    name: str = ""
    arguments: str = ""
    is_custom: bool = False


@dataclass
class Answer:
    """Everything the choice with index 0 said, in order."""

    provider: str
    runs: List[Tuple[str, List[str]]] = field(default_factory=list)
    calls: List[OpenCall] = field(default_factory=list)
    by_index: Dict[int, OpenCall] = field(default_factory=dict)
    finish: Optional[str] = None
    native_finish: Optional[str] = None
    refused: bool = False
    usage: Optional[Json] = None

    def add(self, chunk: Json, keys: Sequence[str]) -> None:
        """Take one chunk, or a whole completion; `keys` says where its message is, best first."""
        choices = [choice for choice in chunk.get("choices") or [] if choice.get("index") in (0, None)]
        self.add_usage(chunk, choices)
        for choice in choices:
            self.add_delta(next((choice[key] for key in keys if isinstance(choice.get(key), dict)), {}))
            self.finish = self.finish if choice.get("finish_reason") is None else choice["finish_reason"]
            self.native_finish = choice.get("native_finish_reason") or self.native_finish

    def add_usage(self, chunk: Json, choices: Sequence[Json]) -> None:
        """The last usage counts: top level, in the choice (Moonshot) or in `x_groq`."""
        for place in (chunk, *choices, chunk.get("x_groq") or {}):
            if place.get("usage"):
                self.usage = place["usage"]
                return

    def add_delta(self, delta: Json) -> None:
        """Reasoning, then text, then calls: so a chunk that holds several is read."""
        self.add_run("thinking", reasoning_of(delta))
        content = delta.get("content")
        for kind, text in content_parts(content):
            self.add_run(kind, text)
        refusal = delta.get("refusal")
        if isinstance(refusal, str) and refusal:
            self.refused = True
            self.add_run("text", refusal)
        for entry in delta.get("tool_calls") or []:
            self.add_call(entry)
        legacy = delta.get("function_call")
        if isinstance(legacy, dict):
            self.add_call({"index": 0, "function": legacy})

    def add_run(self, kind: str, text: str) -> None:
        """Add text of one kind; it continues the last run if that is of its kind."""
        if text and self.runs and self.runs[-1][0] == kind:
            self.runs[-1][1].append(text)
        elif text:
            self.runs.append((kind, [text]))

    def add_call(self, entry: Json) -> None:
        """Add one entry of `tool_calls` to the call it belongs to."""
        function = entry.get("function") or {}
        custom = {} if function.get("name") or function.get("arguments") else entry.get("custom") or {}
        name = function.get("name") or custom.get("name") or ""
        call = self.call_of(entry.get("index"), entry.get("id") or "", name)
        call.id, call.name = call.id or entry.get("id") or "", call.name or name
        call.is_custom = call.is_custom or bool(custom)
        arguments = custom.get("input") if custom else function.get("arguments")
        if arguments is not None:
            call.arguments += arguments if isinstance(arguments, str) else json.dumps(arguments)

    def call_of(self, index: Optional[int], id: str, name: str) -> OpenCall:
        """Return the call an entry belongs to: by index, unless id and name are new; else by id; else the last."""
        known = self.by_index.get(index) if index is not None else None
        if known is not None and not (id and name and known.id and id != known.id):
            return known
        if index is None:
            same = [call for call in self.calls if id and call.id == id]
            if same or (self.calls and not id and not name):
                return same[0] if same else self.calls[-1]
        call = OpenCall()
        self.calls.append(call)
        self.runs.append((f"call {len(self.calls) - 1}", []))
        if index is not None:
            self.by_index[index] = call
        return call

    # --- the end

    def reading(self, ended: bool) -> Reading:
        """Return the reading of an answer that came to its end, `ended` by [DONE] or as a whole body."""
        has_said = bool(self.kept_runs())
        if self.finish in GAVE_UP or (MALFORMED.search(self.finish or "") and not has_said):
            return self.broken(Failure.gave_up())
        if self.finish is None and not (ended and has_said) and not (ended and self.usage):
            return self.broken(Failure.cut_off())
        return self.so_far(self.stop_reasons())

    def broken(self, failure: Failure) -> Reading:
        """Return the reading of a stream that ended in an error."""
        return self.so_far(frozenset(), failure)

    def so_far(self, stop_reasons: FrozenSet[str], failure: Optional[Failure] = None) -> Reading:
        """Return what has been said, under these stop reasons."""
        runs = self.kept_runs()
        tagged = split_tags(runs, tag_of(self.provider))
        runs = runs if tagged is None else tagged
        is_cut = self.finish in CUT_BY_LENGTH or failure is not None
        return Reading(
            text="".join(text for kind, text in runs if kind == "text"),
            reasoning="".join(text for kind, text in runs if kind == "thinking"),
            calls=tuple(self.final_calls(is_cut)),
            order=order_of(runs),
            stop_reasons=stop_reasons,
            usage=counts(self.usage, self.provider),
            failure=failure,
            has_begun=bool(runs),
            is_tagged=tagged is not None,
        )

    def kept_runs(self) -> List[Tuple[str, str]]:
        """The runs without blank text, which no client may be given, and without calls that were never named."""
        runs = [(kind, "".join(texts)) for kind, texts in self.runs]
        named = [f"call {number}" for number, call in enumerate(self.calls) if call.name]
        return [(kind, text) for kind, text in runs if kind == "thinking" or kind in named or text.strip()]

    def final_calls(self, is_cut: bool) -> Iterator[Call]:
        """The named calls; of an answer that was cut, the last one's input is not known."""
        for number, call in enumerate(self.calls):
            if call.name:
                is_last = number == len(self.calls) - 1
                yield Call(call.name, call.id, inputs_of(call, is_cut and is_last))

    def stop_reasons(self) -> FrozenSet[str]:
        """The stop reasons the rules allow; calls outrank everything but a cut by length."""
        finish = self.finish or ""
        if finish == "model_context_window_exceeded":
            return frozenset({finish})
        if finish in CUT_BY_LENGTH:
            return frozenset({"max_tokens"})
        if any(call.name for call in self.calls):
            return frozenset({"tool_use"})
        if self.refused or finish in REFUSED or finish.startswith("content_filter"):
            return frozenset({"refusal"})
        if self.native_finish == "stop_sequence":
            return frozenset({"stop_sequence", "end_turn"})
        return frozenset({"end_turn"})


def reasoning_of(delta: Mapping[str, Any]) -> str:
    """The reasoning of a delta: of several copies exactly one."""
    for key in ("reasoning_content", "reasoning", "reasoning_text"):
        if isinstance(delta.get(key), str) and delta[key]:
            return str(delta[key])
    details = delta.get("reasoning_details")
    texts = [item.get("text") or item.get("summary") or "" for item in details or [] if isinstance(item, dict)]
    return "".join(texts)


def content_parts(content: Any) -> Iterator[Tuple[str, str]]:
    """Yield (kind, text) of a content: a string, an object (as JSON), or Mistral's list of parts."""
    if isinstance(content, str):
        yield "text", content
    elif isinstance(content, dict):
        yield "text", json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    elif isinstance(content, list):
        for part in content:
            if part.get("type") == "thinking":
                inner = part.get("thinking")
                texts = [inner] if isinstance(inner, str) else [item.get("text") or "" for item in inner or []]
                yield "thinking", "".join(texts)
            else:
                yield "text", part.get("text") or ""


def tag_of(provider: str) -> Optional[str]:
    """The tag in which a provider may put reasoning at the start of the content."""
    if provider in ("openai", "azure-openai"):
        return None
    return "thought" if provider == "gemini" else "think"


def split_tags(runs: List[Tuple[str, str]], tag: Optional[str]) -> Optional[List[Tuple[str, str]]]:
    """Return the runs with the tagged start of the first text as thinking; None when it has no tag."""
    opening, closing = f"<{tag}>", f"</{tag}>"
    first = next((number for number, (kind, _) in enumerate(runs) if kind == "text"), None)
    if tag is None or first is None or not runs[first][1].lstrip().startswith(opening):
        return None
    inside, _, rest = runs[first][1].lstrip()[len(opening) :].partition(closing)
    halves = [("thinking", inside)] if inside else []
    halves += [("text", rest)] if rest.strip() else []
    return runs[:first] + halves + runs[first + 1 :]


def order_of(runs: Sequence[Tuple[str, str]]) -> Tuple[str, ...]:
    """The block types of the runs, neighbours of one type counted once."""
    order: List[str] = []
    for kind, _ in runs:
        name = "tool_use" if kind.startswith("call") else kind
        if name == "tool_use" or not order or order[-1] != name:
            order.append(name)
    return tuple(order)


def inputs_of(call: OpenCall, is_cut: bool) -> Tuple[Json, ...]:
    """The inputs a client may be given for these arguments; () when they are cut or broken."""
    if call.is_custom:  # free text, not JSON: it must arrive under some name
        return ({"input": call.arguments}, {"_raw_arguments": call.arguments})
    if not call.arguments.strip() or call.arguments.strip() == "null":
        return () if is_cut else ({},)
    try:
        value = json.loads(call.arguments)
        if isinstance(value, str):
            value = json.loads(value)
    except ValueError:
        return ()
    return (value if isinstance(value, dict) else {"_raw_arguments": call.arguments},)


# --- usage ------------------------------------------------------------------------------------------------------


def counts(usage: Optional[Json], provider: str) -> Optional[Dict[str, int]]:
    """Return Anthropic's counts: input, cache reads and cache writes add up to `prompt_tokens`."""
    if not usage or usage.get("prompt_tokens") is None or usage.get("completion_tokens") is None:
        return None
    prompt, completion = usage["prompt_tokens"], usage["completion_tokens"]
    details, out = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    read = first_of(
        details.get("cached_tokens"),
        usage.get("prompt_cache_hit_tokens"),
        usage.get("cached_tokens"),
        usage.get("num_cached_tokens"),
        usage.get("cache_read_input_tokens"),
    )
    written = first_of(
        details.get("cache_write_tokens"),
        details.get("cache_creation_tokens"),
        usage.get("cache_creation_input_tokens"),
    )
    thinking = first_of(out.get("reasoning_tokens"), usage.get("reasoning_tokens"))
    beyond = (usage.get("total_tokens") or 0) - prompt - completion
    is_beside = 0 < beyond == read + written  # the cached tokens are not counted with the prompt
    if read + written > prompt and not is_beside:
        read, written = min(read, prompt), min(written, prompt - min(read, prompt))
    if (thinking and beyond == thinking) or (provider == "gemini" and beyond > 0):
        completion, thinking = completion + beyond, thinking or beyond
    return {
        "input_tokens": prompt - read - written if read + written <= prompt else prompt,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
        "output_tokens": completion,
        "thinking_tokens": min(thinking, completion),
    }


def first_of(*values: Optional[int]) -> int:
    """The first value that is not null; 0 when all are."""
    return next((value for value in values if value is not None), 0)
