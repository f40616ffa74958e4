"""Every answer fits Anthropic's own OpenAPI document and the types of its SDK: messages, events, errors, lists."""

from __future__ import annotations

import json
from typing import Any, Dict, Iterator, List, Tuple

import pytest
from pydantic import TypeAdapter

from accumulator_cases import CASES, JSON, Case
from answer_schema import document_faults, event_faults, faults, sdk_faults
from ccproxy.message import Event, Usage, fold, message_object
from ccproxy.provider.dialects import DIALECTS as DIALECT
from ccproxy.stub import StubProvider, demo_script
from ccproxy.translate.failure import Target, translate_failure
from chunks import READERS, REQUEST_ID, read, stream_of, wire
from grammar import parse_sse
from recordings import Recording
from support import ask, running_proxy, user
from test_recordings import DIALECTS, RECORDINGS, each

Json = Dict[str, Any]
TOKEN = "sesame"
KEY = {"x-api-key": TOKEN}
LIST = ("data", "first_id", "has_more", "last_id")
"""The keys of a list that Anthropic has; OpenAI's clients want one more."""


def checked(events: List[Event]) -> List[str]:
    """The faults of a stream, and of the message that it makes."""
    on_the_wire = wire(events)
    found = event_faults(on_the_wire)
    name, data = on_the_wire[-1]
    if name == "error":
        return found + identified(data)
    return found + faults("Message", fold(events))


def identified(error: Json) -> List[str]:
    """The fault of an error without its request's id: the document lets it be null, clients report it."""
    return [] if error.get("request_id") == REQUEST_ID else [f"no request id: {error}"]


def failure_faults(status: int, headers: Dict[str, str], body: bytes) -> List[str]:
    """The faults of what a client is told for a provider's HTTP error."""
    error = translate_failure(status, headers, body, Target("a provider", "a model"))
    body = error.to_dict(REQUEST_ID)
    return faults("ErrorResponse", body) + identified(body)


def answer_faults(body: bytes, is_stream: bool, dialect: str, api: str = "chat") -> List[str]:
    """The faults of what a client gets for a provider's answer, by the way that the proxy takes it."""
    if is_stream:
        chunks, is_done = read([body], api)
        return checked(stream_of(chunks, done=is_done, dialect=DIALECT[dialect]))
    try:
        value = json.loads(body)
    except ValueError:
        return failure_faults(502, {}, body)
    return checked(stream_of(READERS[api]().whole(value), dialect=DIALECT[dialect]))


@each(RECORDINGS)
def test_a_recorded_answer(source: Recording) -> None:
    """What a real provider said becomes events, a message or an error that Anthropic's documents describe."""
    if source.is_error:
        assert failure_faults(source.status, source.headers, source.body) == []
    else:
        dialect = DIALECTS.get(source.provider, "generic")
        assert answer_faults(source.body, source.is_stream, dialect, source.api) == []


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_a_scripted_answer(case: Case) -> None:
    """So does everything that a provider may leave out."""
    assert answer_faults(b"".join(case.pieces), case.headers is not JSON, case.dialect) == []


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The address of a proxy that asks for a token and takes no large bodies."""
    with StubProvider(demo_script) as stub:
        entry = {"model_id": "stub", "api_base": stub.url, "dialect": "generic"}
        env = {"ROUTER_DEFAULT": "stub", "CCPROXY_AUTH_TOKEN": TOKEN, "MAX_REQUEST_BYTES": "2000"}
        with running_proxy(env, [entry]) as proxy:
            yield proxy.url


REFUSED: Dict[str, Tuple[int, str, str, Any]] = {
    "no JSON": (400, "POST", "/v1/messages", b"{"),
    "no model": (400, "POST", "/v1/messages", {"max_tokens": 1, "messages": []}),
    "a thread": (400, "POST", "/v1/messages", user(thread={"type": "create"})),
    "no such path": (404, "POST", "/v1/nowhere", user()),
    "no such model": (404, "GET", "/v1/models/nothing", None),
    "no such method": (405, "DELETE", "/v1/messages", None),
    "too large": (413, "POST", "/v1/messages", user("x" * 3000)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_our_own_errors(url: str, case: str) -> None:
    """What the proxy refuses by itself is an error like all others, with the request's id."""
    status, method, path, body = REFUSED[case]
    answer = ask(url, path, body, method=method, headers=KEY)
    assert answer.status == status
    assert faults("ErrorResponse", answer.json) == []
    assert answer.json["request_id"] == answer.headers["request-id"]


def test_no_token(url: str) -> None:
    """Nor is the error of a request without the token another one."""
    answer = ask(url, "/v1/messages", user())
    assert answer.status == 401
    assert faults("ErrorResponse", answer.json) == []


def test_the_details_of_an_error(url: str) -> None:
    """`error.details`, which the SDK types apart from the error, is of the type that its `error_code` names."""
    shared = pytest.importorskip("anthropic.types.shared.error_details", reason="an SDK before `error.details`")
    details = ask(url, "/v1/messages", user(thread={"type": "create"}), headers=KEY).json["error"]["details"]
    parsed = TypeAdapter(shared.ErrorDetails).validate_python(details, strict=True)
    assert type(parsed).__name__ == "ThreadUnsupportedRequestErrorDetails"
    assert not parsed.model_extra


def test_the_other_answers(url: str) -> None:
    """Lists of models, one model and token counts are Anthropic's objects too."""
    listed = ask(url, "/v1/models", headers=KEY).json
    assert document_faults("ListResponse_ModelInfo_", {key: listed[key] for key in LIST}) == []
    assert listed["data"]
    for entry in [*listed["data"], ask(url, "/v1/models/stub", headers=KEY).json]:
        assert faults("ModelInfo", entry) == []
    count = {name: value for name, value in user().items() if name != "max_tokens"}
    counted = ask(url, "/v1/messages/count_tokens", count, headers=KEY).json
    assert faults("CountMessageTokensResponse", counted) == []


def test_answers_over_sockets(url: str) -> None:
    """The bytes that leave the proxy are the objects that were checked: a message, its stream, a cache warm-up."""
    assert faults("Message", ask(url, "/v1/messages", user(), headers=KEY).json) == []
    events = parse_sse(ask(url, "/v1/messages", user(stream=True), headers=KEY).body)
    assert event_faults(events) == []
    assert faults("Message", ask(url, "/v1/messages", user(max_tokens=0), headers=KEY).json) == []


# --- the checker itself -----------------------------------------------------------------------------------------

MESSAGE: Json = message_object("msg_1", "m", Usage(1, 2), [{"type": "text", "text": "Hi"}])


@pytest.mark.parametrize(
    "change",
    [
        {"role": "user"},
        {"stop_reason": "finished"},
        {"content": "Hi"},
        {"content": [{"type": "text"}]},
        {"content": [{"type": "tool_use", "id": "no id!", "name": "a", "input": {}}]},
        {"content": [{"type": "picture"}]},
        {"usage": {"input_tokens": -1, "output_tokens": 1, "service_tier": "standard"}},
        {"usage": {"input_tokens": 1}},
        {"surprise": 1},
        {"stop_details": {"type": "accident"}},
    ],
    ids=str,
)
def test_the_checker_finds(change: Json) -> None:
    """A message that is right has no fault; each of these changes is one."""
    assert faults("Message", MESSAGE) == []
    assert document_faults("Message", {**MESSAGE, **change}) != []


def test_late_fields() -> None:
    """What came late to the format is checked, not passed over: both descriptions refuse another type."""
    details = {"output_tokens_details": {"thinking_tokens": "many"}}
    assert document_faults("Message", {**MESSAGE, "usage": {**MESSAGE["usage"], **details}}) != []
    assert document_faults("Message", {**MESSAGE, "stop_details": {"type": "refusal", "category": 1}}) != []
    error = {"type": "error", "error": {"type": "api_error", "message": "no"}}
    assert document_faults("ErrorResponse", {**error, "request_id": "req_1"}) == []
    assert document_faults("ErrorResponse", {**error, "request_id": 1}) != []
    assert document_faults("ErrorResponse", {**error, "request_id": "req_1", "surprise": 1}) != []
    assert sdk_faults("Message", {**MESSAGE, "surprise": 1}) != []
