"""What applications do with the ``anthropic`` SDK, whichever version is imported, as functions that tell what they saw.

Run as a program with the proxy's address: plays every scenario and prints ``{name: facts}`` as JSON. The scripted
provider knows a scenario by the text of its first message, which is the scenario's name.
"""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from typing import Any, Callable, Dict, List

import anthropic

Json = Dict[str, Any]
MODEL = "claude-sonnet-4-5"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
PICTURE = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
WEATHER = {
    "name": "weather",
    "description": "The weather in a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
STATUSES = (400, 401, 402, 403, 404, 413, 429, 500, 529)
SCENARIOS: Dict[str, Callable[[str], Any]] = {}


def scenario(function: Callable[[str], Any]) -> Callable[[str], Any]:
    """Register a scenario under its name, with spaces."""
    SCENARIOS[function.__name__.replace("_", " ")] = function
    return function


def client(url: str, retries: int = 0) -> anthropic.Anthropic:
    """Return a client as an application makes it."""
    return anthropic.Anthropic(base_url=url, api_key="a-key", max_retries=retries, timeout=30)


def ask(prompt: str, **fields: Any) -> Json:
    """Return the arguments of a request."""
    return {"model": MODEL, "max_tokens": 1024, "messages": [{"role": "user", "content": prompt}], **fields}


def message_facts(message: Any) -> Json:
    """Return a message as JSON."""
    facts: Json = json.loads(message.to_json())
    facts["request_id"] = getattr(message, "_request_id", None)
    return facts


def error_facts(error: anthropic.APIStatusError) -> Json:
    """Return what an application can learn from an error."""
    return {
        "class": type(error).__name__,
        "status": error.status_code,
        "body": error.body,
        "request_id": error.request_id,
        "text": str(error),
        "headers": dict(error.response.headers),
    }


def error_of(call: Callable[[], Any]) -> Json:
    """Return the facts of the error that a call must raise."""
    try:
        call()
    except anthropic.APIStatusError as error:
        return error_facts(error)
    raise AssertionError("no error was raised")


# --- messages ---------------------------------------------------------------------------------------------------


def events_of(stream: Any) -> List[Json]:
    """Return all events of a raw stream."""
    return [json.loads(event.to_json()) for event in stream]


def followed(stream: Any) -> Json:
    """Read a helper's stream to its end and return what its conveniences gave."""
    kinds = [event.type for event in stream]
    message = message_facts(stream.get_final_message())
    return {"kinds": kinds, "message": message, "request_id": stream.request_id}


@scenario
def everything(url: str) -> Json:
    """Thinking, text and two parallel calls, in each of the six ways to ask."""
    arguments = ask("everything", system="Be brief.", tools=[WEATHER], stop_sequences=["STOP"])
    arguments["extra_body"] = {"temperature": 0.5}  # a field of its own only in old versions
    ours = client(url)
    facts: Json = {"whole": message_facts(ours.messages.create(**arguments))}
    facts["raw"] = events_of(ours.messages.create(stream=True, **arguments))
    with ours.messages.stream(**arguments) as stream:
        facts["helper"] = followed(stream)
    with ours.messages.stream(**arguments) as stream:
        facts["text"] = "".join(stream.text_stream)
    facts.update(asyncio.run(_everything_async(url, arguments)))
    return facts


async def _everything_async(url: str, arguments: Json) -> Json:
    async with anthropic.AsyncAnthropic(base_url=url, api_key="a-key", max_retries=0) as ours:
        facts: Json = {"async whole": message_facts(await ours.messages.create(**arguments))}
        raw = await ours.messages.create(stream=True, **arguments)
        facts["async raw"] = [json.loads(event.to_json()) async for event in raw]
        async with ours.messages.stream(**arguments) as stream:
            facts["async text"] = "".join([text async for text in stream.text_stream])
            facts["async helper"] = {"message": message_facts(await stream.get_final_message())}
        many = [ours.messages.create(**arguments) for _ in range(10)]
        facts["async many"] = [message_facts(message) for message in await asyncio.gather(*many)]
        return facts


@scenario
def forced_tool(url: str) -> Json:
    """A tool that must be called."""
    choice = {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}
    return message_facts(client(url).messages.create(**ask("forced tool", tools=[WEATHER], tool_choice=choice)))


@scenario
def tool_results(url: str) -> Json:
    """Two parallel calls; their results, one with an image and one an error, go back with the SDK's own content."""
    ours = client(url)
    first = ours.messages.create(**ask("tool results", tools=[WEATHER]))
    calls = [block for block in first.content if block.type == "tool_use"]
    picture = {"type": "tool_result", "tool_use_id": calls[0].id, "content": [{"type": "text", "text": "sunny"}, PNG]}
    failed = {"type": "tool_result", "tool_use_id": calls[1].id, "content": "no such city", "is_error": True}
    turns = [
        {"role": "user", "content": "tool results"},
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [picture, failed]},
    ]
    second = ours.messages.create(**ask("", messages=turns, tools=[WEATHER]))
    return {"ids": [call.id for call in calls], "answer": message_facts(second)}


@scenario
def images(url: str) -> Json:
    """An image in the request and one at an address."""
    content = [{"type": "text", "text": "images"}, PNG, PICTURE]
    return message_facts(client(url).messages.create(**ask("", messages=[{"role": "user", "content": content}])))


@scenario
def stop_sequence(url: str) -> Json:
    """A stop sequence that the provider does not know of."""
    return message_facts(client(url).messages.create(**ask("stop sequence", stop_sequences=["STOP"])))


@scenario
def counting(url: str) -> Json:
    """count_tokens, and the count with which a stream of the same request starts."""
    arguments = ask("counting", tools=[WEATHER], system=[{"type": "text", "text": "Be brief."}])
    ours = client(url)
    start = next(iter(ours.messages.create(stream=True, **arguments)))
    del arguments["max_tokens"]
    counted = ours.messages.count_tokens(**arguments).input_tokens
    return {"counted": counted, "started with": start.message.usage.input_tokens}


@scenario
def addresses(url: str) -> List[str]:
    """The proxy's address as people write it."""
    bases = [url, url + "/", url + "/v1", url + "/v1/"]
    answers = [client(base).messages.create(**ask("addresses")) for base in bases]
    return [answer.content[0].text for answer in answers]


# --- models -----------------------------------------------------------------------------------------------------


@scenario
def models(url: str) -> Json:
    """Listing page by page, forwards and backwards, and one by one."""
    ours = client(url)
    pages = {str(limit): [model.id for model in ours.models.list(limit=limit)] for limit in (1, 2, 3, 20)}
    last = pages["20"][-1]
    backwards = [model.id for model in ours.models.list(limit=2, before_id=last)]
    one = ours.models.retrieve(pages["20"][0])
    missing = error_of(lambda: ours.models.retrieve("no-such-model"))
    return {"pages": pages, "backwards": backwards, "one": json.loads(one.to_json()), "missing": missing}


# --- errors -----------------------------------------------------------------------------------------------------


@scenario
def errors(url: str) -> Json:
    """Every status, whole and streamed, by a client that does not try again."""
    ours = client(url)
    facts: Json = {}
    for status in STATUSES:
        arguments = ask(f"error {status}")
        facts[str(status)] = error_of(lambda arguments=arguments: ours.messages.create(**arguments))  # type: ignore[misc]
        streamed = dict(arguments, stream=True)
        facts[f"{status} streamed"] = error_of(lambda streamed=streamed: ours.messages.create(**streamed))  # type: ignore[misc]
    facts["path"] = error_of(lambda: ours.post("/v1/nowhere", body={}, cast_to=object))
    facts["request"] = error_of(lambda: ours.messages.create(**ask("request", max_tokens=-1)))
    return facts


@scenario
def useless_retries(url: str) -> Json:
    """Failures that no repetition mends, met by a client that would try again twice."""
    prompts = ("useless 401", "useless 402", "useless 403", "useless 429")
    return {prompt: error_of(lambda prompt=prompt: client(url, 2).messages.create(**ask(prompt))) for prompt in prompts}  # type: ignore[misc]


@scenario
def useful_retry(url: str) -> Json:
    """A failure that passes: the SDK tries again by itself."""
    return message_facts(client(url, 2).messages.create(**ask("useful retry")))


@scenario
def broken_stream(url: str) -> Json:
    """A provider that dies in mid-stream, read by each kind of stream."""
    ours = client(url, 2)
    facts: Json = {"raw": broken(lambda: ours.messages.create(**ask("broken stream", stream=True)))}

    def helper() -> Any:
        with ours.messages.stream(**ask("broken stream")) as stream:
            yield from stream

    facts["helper"] = broken(helper)
    return facts


def broken(open_stream: Callable[[], Any]) -> Json:
    """Read a stream that must raise; return what came before, and the error."""
    kinds = []
    try:
        for event in open_stream():
            kinds.append(event.type)
    except anthropic.APIError as error:
        return {"kinds": kinds, "class": type(error).__name__, "body": error.body}
    return {"kinds": kinds, "class": None}


def play(url: str) -> Json:
    """Play every scenario; one that fails tells how."""
    facts: Json = {"version": anthropic.__version__}
    for name, function in SCENARIOS.items():
        try:
            facts[name] = function(url)
        except Exception:  # noqa: BLE001 - whatever the SDK raises is what the test shows
            facts[name] = {"failed": traceback.format_exc()}
    return facts


if __name__ == "__main__":
    json.dump(play(sys.argv[1]), sys.stdout)
