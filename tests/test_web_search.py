"""The web search of the provider, asked for and answered as if it were Anthropic's own."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

import anthropic
import pytest

from answer_schema import event_faults
from answer_schema import faults as message_faults
from ccproxy.anthropic import MessagesRequest
from ccproxy.errors import InvalidRequest
from ccproxy.message import Event
from ccproxy.openai import Chunk
from ccproxy.routing import decide
from ccproxy.stub import Reasoning, Text, ToolCall
from ccproxy.translate.direct import without_envelopes
from ccproxy.translate.search_request import with_search
from chunks import completion, delta, stream_of, wire
from grammar import check_error, check_grammar, fold, parse_sse
from responses_provider import Cited, ResponsesProvider, Searched, Step
from responses_rules import faults
from sent import body, user
from support import Answer, ask, make_config, running_proxy

Json = Dict[str, Any]

SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
READ = {"name": "Read", "input_schema": {"type": "object", "properties": {}}}
A, B = ("https://a.test/x", "A page"), ("https://b.test/", "B page")
PROMPT = "Perform a web search for the query: python timeouts"
RESPONSES = {"model_name": "gpt-5.6", "api": "responses"}


# --- what the provider is asked ----------------------------------------------------------------------------------


def test_openai_is_given_its_own_tool() -> None:
    """With the client's limits, and asked to tell its sources."""
    tool = {**SEARCH, "allowed_domains": ["a.test"], "user_location": {"type": "approximate", "country": "DE"}}
    sent = body(user(PROMPT), "openai", model=RESPONSES, tools=[tool, READ], tool_choice={"type": "auto"})
    assert faults(sent) == []
    [function, search] = sent["tools"]
    assert function["name"] == "Read"
    assert search == {
        "type": "web_search",
        "filters": {"allowed_domains": ["a.test"]},
        "user_location": {"type": "approximate", "country": "DE"},
    }
    assert sent["include"] == ["reasoning.encrypted_content", "web_search_call.action.sources"]
    assert sent["max_tool_calls"] == 8


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "tool", "name": "web_search"}, {"type": "web_search"}),
        ({"type": "tool", "name": "Read"}, {"type": "function", "name": "Read"}),
        ({"type": "any"}, "required"),
    ],
)
def test_a_search_that_is_forced(choice: Json, expected: Any) -> None:
    """Is forced at the provider too; a choice of no tool asks for no search."""
    sent = body(user(PROMPT), "openai", model=RESPONSES, tools=[SEARCH, READ], tool_choice=choice)
    assert sent["tool_choice"] == expected
    none = body(user(PROMPT), "openai", model=RESPONSES, tools=[SEARCH, READ], tool_choice={"type": "none"})
    assert [tool["type"] for tool in none["tools"]] == ["function"]


def test_the_least_thinking_with_a_search() -> None:
    """OpenAI refuses a search beside minimal effort."""
    row = {"model_name": "gpt-5", "api": "responses"}
    sent = body(user(PROMPT), "openai", model=row, tools=[SEARCH], thinking={"type": "disabled"})
    assert sent["reasoning"] == {"effort": "low"}


def test_xai_is_given_its_own_tool() -> None:
    """Its filters know excluded domains."""
    tool = {**SEARCH, "blocked_domains": ["b.test"]}
    sent = body(user(PROMPT), "xai", model={"model_name": "grok-4.3", "api": "responses"}, tools=[tool])
    assert sent["tools"] == [{"type": "web_search", "filters": {"excluded_domains": ["b.test"]}}]
    assert "max_tool_calls" not in sent


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_openrouter_is_given_its_plugin(api: str) -> None:
    """On both APIs, beside whatever functions there are."""
    tool = {**SEARCH, "allowed_domains": ["a.test"]}
    sent = body(user(PROMPT), "openrouter", model={"api": api}, tools=[tool, READ])
    assert sent["plugins"] == [{"id": "web", "include_domains": ["a.test"]}]
    assert len(sent["tools"]) == 1


@pytest.mark.parametrize(
    ("reference", "api"), [("openai/gpt-4.1", "responses"), ("xai/grok-4", "responses"), ("openrouter/x", "chat")]
)
def test_the_api_that_can_search(reference: str, api: str) -> None:
    """Models of OpenAI and xAI, whatever API they are otherwise asked over, search over the Responses API."""
    model = make_config().find(reference)
    assert model is not None
    request = MessagesRequest.from_dict({"model": "x", "max_tokens": 1, "messages": user(PROMPT), "tools": [SEARCH]})
    assert with_search(model, request).api == api
    assert with_search(model, request) is with_search(model, request)  # turns are compared with it
    assert (
        with_search(model, MessagesRequest.from_dict({"model": "x", "max_tokens": 1, "messages": user("Hi")})) == model
    )


@pytest.mark.parametrize("dialect", ["openai", "deepseek", "generic", "gemini"])
def test_a_provider_that_cannot_search(dialect: str) -> None:
    """Is not asked: the error says what helps. Beside other tools the search is left out, as any server tool."""
    with pytest.raises(InvalidRequest, match="ROUTER_WEB_SEARCH may name a model of OpenAI"):
        body(user(PROMPT), dialect, tools=[SEARCH])
    assert "web_search" not in str(body(user("Hi"), dialect, tools=[SEARCH, READ]))


def test_of_a_route_those_that_can_search_answer() -> None:
    """Others are passed over, unless nobody can."""
    rows = [
        {"model_id": "plain", "api_base": "http://x", "dialect": "deepseek"},
        {"model_id": "searches", "api_base": "http://y", "dialect": "openrouter"},
    ]
    config = make_config({"ROUTER_DEFAULT": "plain,searches"}, rows)
    for tools, expected in (([SEARCH], ["searches"]), ([READ], ["plain", "searches"])):
        request = MessagesRequest.from_dict(
            {"model": "claude-x", "max_tokens": 1, "messages": user("Hi"), "tools": tools}
        )
        assert [model.model_id for model in decide(request, config, lambda _: 1).models] == expected


# --- what the client gets -----------------------------------------------------------------------------------------


@contextmanager
def proxy_before(*steps: Step, **entry: Any) -> Iterator[Tuple[Callable[..., Answer], ResponsesProvider]]:
    """Serve a model that plays these steps; yields a function that asks it for a search."""
    with ResponsesProvider(lambda _: steps, **entry) as provider:
        row = {"model_id": "m", "api_base": provider.url, **provider.entry}
        with running_proxy({"ROUTER_WEB_SEARCH": "m", "MAX_RETRIES": "0"}, [row]) as proxy:
            request = {"model": "claude-x", "max_tokens": 500, "messages": user(PROMPT), "tools": [SEARCH]}
            yield lambda **fields: ask(proxy.url, "/v1/messages", {**request, **fields}), provider


def message_of(answer: Answer, stream: bool) -> Json:
    """The message of an answer, which fits Anthropic's documents."""
    assert answer.status == 200, answer.body
    if not stream:
        assert message_faults("Message", answer.json) == []
        return answer.json
    events = parse_sse(answer.body)
    check_grammar(events)
    assert event_faults(events) == []
    return fold(events)


def blocks_of(message: Json) -> List[Any]:
    """The blocks in short: searches as their query, results as addresses and titles, texts with what they cite."""
    found: List[Any] = []
    for block in message["content"]:
        if block["type"] == "server_tool_use":
            found.append(("search", block["input"]["query"]))
        elif block["type"] == "web_search_tool_result":
            content = block["content"]
            results = (
                [(one["url"], one["title"]) for one in content] if isinstance(content, list) else content["error_code"]
            )
            found.append(("found", results))
        elif block["type"] == "text":
            found.append(("text", block["text"], [one["url"] for one in block.get("citations") or []]))
        else:
            found.append(block["type"])
    return found


CITED = Cited("Use a timeout.", [A])
CASES: Dict[str, Tuple[Sequence[Step], Json, List[Any], int]] = {
    "sources told with the search": (
        [Reasoning("Hm."), Searched("timeouts", [A[0], B[0]]), CITED],
        {},
        [
            "thinking",
            ("search", "timeouts"),
            ("found", [(A[0], A[0]), (B[0], B[0])]),
            ("text", "Use a timeout.", [A[0]]),
        ],
        1,
    ),
    "two searches": (
        [Searched("one", [A[0]]), Searched("two", [B[0]]), CITED],
        {},
        [
            ("search", "one"),
            ("found", [(A[0], A[0])]),
            ("search", "two"),
            ("found", [(B[0], B[0])]),
            ("text", "Use a timeout.", [A[0]]),
        ],
        2,
    ),
    "sources told by the citations alone": (
        [Searched("timeouts"), Cited("Use a timeout.", [A, B, A])],
        {"dialect": "xai", "model_name": "grok-4.3"},
        [("text", "Use a timeout.", [A[0], B[0], A[0]]), ("search", "timeouts"), ("found", [A, B])],
        1,
    ),
    "nothing found": (
        [Searched("timeouts"), Text("Nothing.")],
        {},
        [("text", "Nothing.", []), ("search", "timeouts"), ("found", [])],
        1,
    ),
    "a search that failed": (
        [Searched("timeouts", status="failed"), Text("Sorry.")],
        {},
        [("search", "timeouts"), ("found", "unavailable"), ("text", "Sorry.", [])],
        1,
    ),
    "no search": ([Text("I know that.")], {}, [("text", "I know that.", [])], 0),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_search(case: str, stream: bool) -> None:
    """Is told as a server tool's call and result, counted, and cited by the text."""
    steps, entry, expected, count = CASES[case]
    with proxy_before(*steps, **entry) as (ask_model, provider):
        answer = ask_model(stream=stream)
    message = message_of(answer, stream)
    assert blocks_of(message) == expected
    assert message["stop_reason"] == "end_turn"
    assert (message["usage"].get("server_tool_use") or {"web_search_requests": 0})["web_search_requests"] == count
    assert answer.headers["x-ccproxy-route"].startswith("web_search")
    [received] = provider.requests
    assert received.path == "/v1/responses"
    assert {"type": "web_search"} in received.body["tools"]


def test_the_sdk_reads_a_search() -> None:
    """Anthropic's own SDK accumulates the stream to the same message, typed."""
    steps, _, expected, count = CASES["sources told with the search"]
    with ResponsesProvider(lambda _: steps) as provider:
        row = {"model_id": "m", "api_base": provider.url, **provider.entry}
        with running_proxy({"ROUTER_DEFAULT": "m"}, [row]) as proxy:
            client = anthropic.Anthropic(base_url=proxy.url, api_key="x", max_retries=0)
            request: Any = {"model": "claude-x", "max_tokens": 500, "messages": user(PROMPT), "tools": [SEARCH]}
            with client.messages.stream(**request) as stream:
                message = stream.get_final_message()
    assert blocks_of(json.loads(message.to_json())) == expected
    assert [type(block).__name__ for block in message.content[1:3]] == [
        "ServerToolUseBlock",
        "WebSearchToolResultBlock",
    ]
    assert message.usage.server_tool_use is not None
    assert message.usage.server_tool_use.web_search_requests == count


def test_a_search_beside_calls() -> None:
    """A call is a call; reasoning that led to a search is not carried, what led to the call is."""
    steps = [Reasoning("A"), Searched("x", [A[0]]), Reasoning("B"), ToolCall("Read", {})]
    with proxy_before(*steps) as (ask_model, provider):
        message = message_of(ask_model(tools=[SEARCH, READ], model="m"), stream=False)
        kinds = ["thinking", ("search", "x"), ("found", [(A[0], A[0])]), "thinking", "tool_use"]
        assert (blocks_of(message), message["stop_reason"]) == (kinds, "tool_use")
        result = {"type": "tool_result", "tool_use_id": message["content"][-1]["id"], "content": "out"}
        history = [
            *user(PROMPT),
            {"role": "assistant", "content": message["content"]},
            {"role": "user", "content": [result]},
        ]
        assert ask_model(tools=[SEARCH, READ], model="m", messages=history).status == 200
    items = provider.requests[-1].body["input"]
    assert [item["id"] for item in items if item["type"] == "reasoning"] == ["rs_2"]
    assert faults(provider.requests[-1].body) == []


def test_a_search_nobody_asked_for() -> None:
    """Is not shown: the client would not know what it is."""
    with proxy_before(Searched("x", [A[0]]), CITED) as (ask_model, _):
        assert blocks_of(message_of(ask_model(tools=[READ], model="m"), stream=False)) == [
            ("text", "Use a timeout.", [])
        ]


def note(url: str, title: str) -> Json:
    """An annotation of chat completions."""
    return {
        "type": "url_citation",
        "url_citation": {"url": url, "title": title, "content": "words", "start_index": 0, "end_index": 0},
    }


@pytest.mark.parametrize("order", ["before", "with", "after"])
def test_openrouters_annotations(order: str) -> None:
    """The search is shown before the text where it is known then, else behind it; its words are the client's."""
    cited = {"annotations": [note(*A), note(*B)]}
    texts = {
        "before": [cited, {"content": "Use"}, {"content": " it."}],
        "with": [{"content": "Use it.", **cited}],
        "after": [{"content": "Use it."}, cited],
    }
    chunks = [Chunk.from_dict(delta(**fields)) for fields in texts[order]] + [Chunk.from_dict(delta("stop"))]
    events: List[Event] = stream_of(chunks, search="python timeouts")
    shown = [("search", "python timeouts"), ("found", [A, B])]
    text = ("text", "Use it.", [] if order == "before" else [A[0], B[0]])
    expected = [*shown, text] if order == "before" else [text, *shown]
    message = fold(wire(events))
    assert blocks_of(message) == expected
    assert message["usage"]["server_tool_use"]["web_search_requests"] == 1
    whole = Chunk.from_completion(completion(content="Use it.", **cited))
    assert blocks_of(fold(wire(stream_of([whole], search="q")))) == [
        ("text", "Use it.", [A[0], B[0]]),
        ("search", "q"),
        ("found", [A, B]),
    ]
    assert blocks_of(fold(wire(stream_of([whole])))) == [("text", "Use it.", [])]


@pytest.mark.parametrize("stream", [False, True])
def test_where_nobody_can_search(stream: bool) -> None:
    """The client gets a 400 that says what to do."""
    with running_proxy({"ROUTER_DEFAULT": "demo/echo"}) as proxy:
        request = {"model": "claude-x", "max_tokens": 5, "messages": user(PROMPT), "tools": [SEARCH], "stream": stream}
        answer = ask(proxy.url, "/v1/messages", request)
    assert answer.status == 400
    check_error(answer.json)
    assert "ROUTER_WEB_SEARCH" in answer.json["error"]["message"]


def test_what_would_be_sent() -> None:
    """A dry run shows the API that can search, whatever the model is asked over otherwise."""
    request = {"model": "openai/gpt-4.1", "max_tokens": 50, "messages": user(PROMPT), "tools": [SEARCH]}
    with running_proxy({"OPENAI_API_KEY": "sk-x"}) as proxy:
        shown = ask(proxy.url, "/v1/messages/test_conversion?dry_run=1", request).json
        plain = ask(proxy.url, "/v1/messages/test_conversion?dry_run=1", {**request, "tools": [READ]}).json
    assert shown["url"] == "https://api.openai.com/v1/responses"
    assert shown["body"]["tools"] == [{"type": "web_search"}]
    assert faults(shown["body"]) == []
    assert plain["url"] == "https://api.openai.com/v1/chat/completions"


def test_anthropic_is_not_given_it_back() -> None:
    """It would refuse a search it did not run: call, result and citations are left out."""
    with proxy_before(Searched("x", [A[0]]), CITED) as (ask_model, _):
        content = message_of(ask_model(), stream=False)["content"]
    [cleaned] = without_envelopes([{"role": "assistant", "content": content}])
    assert cleaned["content"] == [{"type": "text", "text": "Use a timeout."}]
    own = {"type": "server_tool_use", "id": "srvtoolu_01", "name": "web_search", "input": {}}
    assert without_envelopes([{"role": "assistant", "content": [own]}])[0]["content"] == [own]
