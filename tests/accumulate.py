"""What the ``anthropic`` SDK, whichever version is imported, accumulates: run with an address and the models' names.
With `--tools MODEL` it plays the SDK's tool runner instead.

Prints ``{model: facts}`` as JSON. Each model is asked once with the streaming helper, followed event by event, and
once without a stream. ``trace`` is what the helper's incremental events told, in the order of their coming.
"""

from __future__ import annotations

import json
import sys
import traceback
from importlib.util import find_spec
from typing import Any, Callable, Dict, List, Optional

import anthropic

Json = Dict[str, Any]
TOOL = {"description": "A tool", "input_schema": {"type": "object"}}
TOOLS = [{"name": name, **TOOL} for name in ("Read", "Grep")]


def as_json(value: Any) -> Json:
    """Return one of the SDK's objects as JSON."""
    found: Json = json.loads(value.to_json())
    return found


def step(event: Any) -> Optional[List[Any]]:
    """Return what one of the helper's events tells, or None for a raw one."""
    if event.type == "content_block_start":
        return ["start", event.content_block.type]
    if event.type in ("text", "thinking"):
        return [event.type, getattr(event, event.type), event.snapshot]
    if event.type == "input_json":
        return ["input_json", event.partial_json, event.snapshot]
    if event.type == "signature":
        return ["signature", event.signature]
    if event.type == "content_block_stop":
        return ["block", as_json(event.content_block)]
    return ["message", as_json(event.message)] if event.type == "message_stop" else None


def failure(error: anthropic.APIError) -> Json:
    """Return what an application learns of a failure."""
    return {"class": type(error).__name__, "status": getattr(error, "status_code", None), "body": error.body}


def streamed(client: anthropic.Anthropic, arguments: Json) -> Json:
    """Follow a stream to its end."""
    trace: List[Any] = []
    facts: Json = {"trace": trace, "message": None, "error": None, "snapshot": None}
    try:
        with client.messages.stream(**arguments) as stream:
            try:
                for event in stream:
                    told = step(event)
                    trace += [told] if told else []
                facts["message"] = as_json(stream.get_final_message())
            finally:
                if trace:
                    facts["snapshot"] = as_json(stream.current_message_snapshot)
    except anthropic.APIError as error:
        facts["error"] = failure(error)
    return facts


def whole(client: anthropic.Anthropic, arguments: Json) -> Json:
    """Ask without a stream."""
    try:
        return {"message": as_json(client.messages.create(**arguments)), "error": None}
    except anthropic.APIError as error:
        return {"message": None, "error": failure(error)}


def guarded(ask: Callable[[], Json]) -> Json:
    """Return the facts, or the exception that no application expects."""
    try:
        return ask()
    except Exception:  # noqa: BLE001 - whatever the SDK raises is what the test shows
        return {"failed": traceback.format_exc()}


def run_tools(url: str, model: str, stream: bool) -> Json:
    """Let the SDK's tool runner call a tool until the model has its answer."""
    asked: List[Json] = []
    calls: List[str] = []

    def record(request: Any) -> None:
        asked.append(json.loads(request.read()))

    @anthropic.beta_tool
    def weather(city: str) -> str:
        """The weather in a city."""
        calls.append(city)
        return f"sunny in {city}"

    hooks = {"request": [record]}
    client = anthropic.Anthropic(
        base_url=url,
        api_key="a-key",
        max_retries=0,
        timeout=30,
        http_client=anthropic.DefaultHttpxClient(event_hooks=hooks),  # type: ignore[arg-type]
    )
    messages: Any = [{"role": "user", "content": "Go on."}]
    kinds, final = [], {}
    runner: Any = client.beta.messages.tool_runner(
        model=model, max_tokens=1024, messages=messages, tools=[weather], stream=stream
    )
    for turn in runner:
        message = turn.get_final_message() if stream else turn
        kinds.append(message.stop_reason)
        final = as_json(message)
    return {"calls": calls, "kinds": kinds, "asked": asked, "final": final}


def play_tools(url: str, model: str) -> Json:
    """Run the tools in both ways."""
    threads = find_spec("anthropic.lib.threads") is not None
    facts: Json = {"version": anthropic.__version__, "threads": threads}
    for name, stream in (("whole", False), ("streamed", True)):
        facts[name] = guarded(lambda stream=stream: run_tools(url, model, stream))  # type: ignore[misc]
    return facts


def play(url: str, models: List[str]) -> Json:
    """Ask every model in both ways."""
    client = anthropic.Anthropic(base_url=url, api_key="a-key", max_retries=0, timeout=30)
    facts: Json = {"version": anthropic.__version__}
    for model in models:
        arguments: Json = {"model": model, "max_tokens": 1024, "tools": TOOLS}
        arguments["messages"] = [{"role": "user", "content": "Go on."}]
        facts[model] = {
            "streamed": guarded(lambda arguments=arguments: streamed(client, arguments)),  # type: ignore[misc]
            "whole": guarded(lambda arguments=arguments: whole(client, arguments)),  # type: ignore[misc]
        }
    return facts


if __name__ == "__main__":
    address, *names = sys.argv[1:]
    json.dump(play_tools(address, names[1]) if names[0] == "--tools" else play(address, names), sys.stdout)
