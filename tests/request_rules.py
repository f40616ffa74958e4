"""The rules of chat-completions requests, checked strictly and without any of ccproxy's code.

`faults` says where a request body breaks a rule: one of OpenAI's format (`openai_format`), one that no schema states,
or one of the dialect, which adds to the format and takes from it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any, Dict, FrozenSet, Iterator, List, Mapping, Optional, Sequence

from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)

from openai_format import sdk_faults, spec_faults

Json = Dict[str, Any]

REASONING = frozenset({"reasoning_content", "reasoning", "reasoning_text", "reasoning_details", "reasoning_opaque"})
ENVELOPE = "ccp1_"
ATTRIBUTION = "x-anthropic-billing-header:"
SKIP = "skip_thought_signature_validator"
# Request fields of Anthropic alone; `thinking` is also the word of some dialects.
ANTHROPIC_FIELDS = frozenset(
    {
        "system",
        "max_tokens_to_sample",
        "stop_sequences",
        "thinking",
        "output_config",
        "output_format",
        "metadata",
        "context_management",
        "safeguards",
        "service_tier",
        "speed",
        "container",
        "inference_geo",
        "diagnostics",
        "betas",
        "mcp_servers",
        "anthropic_version",
        "anthropic_beta",
        "cache_control",
        "fallbacks",
    }
)
ANTHROPIC_PARTS = frozenset(
    {"tool_use", "tool_result", "image", "document", "redacted_thinking", "server_tool_use", "search_result"}
)


def words(text: str) -> FrozenSet[str]:
    """The words of a text."""
    return frozenset(text.split())


@dataclass(frozen=True)
class Rules:
    """What one dialect takes: the fields beyond OpenAI's, the values that differ, and what it refuses."""

    limit: str = "max_tokens"
    request: FrozenSet[str] = frozenset()
    message: FrozenSet[str] = frozenset()
    call: FrozenSet[str] = frozenset()
    part: FrozenSet[str] = frozenset()
    marks_results: bool = False
    refused: FrozenSet[str] = frozenset()
    """Fields of OpenAI's that this dialect has not."""
    efforts: FrozenSet[str] = words("none minimal low medium high xhigh max")
    tool_id: str = r"[\x21-\x7e]{1,64}"
    tool_name: str = r"[a-zA-Z0-9_-]{1,64}"
    tools: Optional[int] = None
    stops: int = 4
    description: Optional[int] = None
    choices: FrozenSet[str] = words("auto none required")
    takes_named_choice: bool = True
    forces_while_thinking: bool = True
    formats: FrozenSet[str] = words("json_schema json_object")
    images: str = r"data:image/[a-z+.-]+;base64,|https?://"
    files: bool = False
    nulls: bool = True
    user_after_tool: bool = True
    needs_reasoning: str = ""
    needs_signature: bool = False


_OPENAI = Rules("max_completion_tokens", tool_id=r"[\x21-\x7e]{1,40}", tools=128, files=True)
_OWN = frozenset(REASONING)
_TEMPLATE = words("chat_template_kwargs top_k")

RULES: Mapping[str, Rules] = {
    "generic": Rules(message=_OWN, refused=words("parallel_tool_calls"), formats=frozenset()),
    "openai": _OPENAI,
    "azure": replace(_OPENAI, description=1024, refused=words("prompt_cache_key safety_identifier")),
    "gemini": Rules(
        request=words("extra_body"),
        message=_OWN | words("extra_content"),
        call=words("extra_content"),
        refused=words("parallel_tool_calls"),
        tool_name=r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}",
        needs_signature=True,
    ),
    "deepseek": Rules(
        request=words("thinking"),
        message=words("reasoning_content"),
        refused=words("parallel_tool_calls"),
        efforts=words("low high max"),
        tools=128,
        stops=16,
        forces_while_thinking=False,
        formats=words("json_object"),
        images="(?!)",
        needs_reasoning="all",
    ),
    "openrouter": Rules(
        request=words("reasoning top_k plugins"),
        message=_OWN,
        part=words("cache_control"),
        marks_results=True,
        files=True,
    ),
    "moonshot": Rules(
        request=words("thinking"),
        message=words("reasoning_content partial"),
        efforts=words("low high max"),
        choices=words("auto none required"),
        forces_while_thinking=False,
        formats=words("json_object"),
        needs_reasoning="calls",
    ),
    "zai": Rules(
        request=words("thinking tool_stream"),
        message=words("reasoning_content"),
        part=words("cache_control"),
        efforts=words("low high max"),
        choices=words("auto"),
        takes_named_choice=False,
        formats=words("json_object"),
    ),
    "qwen": Rules(
        request=words("enable_thinking thinking_budget"),
        message=words("reasoning_content"),
        part=words("cache_control"),
        marks_results=True,
        forces_while_thinking=False,
        formats=words("json_object"),
    ),
    "doubao": Rules(
        request=words("thinking"),
        message=words("reasoning_content"),
        efforts=words("minimal low medium high"),
        formats=words("json_object"),
    ),
    "xai": Rules(message=_OWN, tools=128),
    "groq": Rules(
        "max_completion_tokens",
        request=words("reasoning_format"),
        efforts=words("none default low medium high"),
        tools=128,
        formats=frozenset(),
        nulls=False,
    ),
    "mistral": Rules(
        message=words("prefix"),
        refused=words("stream_options"),
        efforts=words("none high"),
        tool_id=r"[a-zA-Z0-9]{9}",
        choices=words("auto none any"),
        user_after_tool=False,
    ),
    "vllm": Rules(
        request=_TEMPLATE | words("continue_final_message add_generation_prompt"), message=words("reasoning")
    ),
    "llamacpp": Rules(request=_TEMPLATE | words("thinking_budget_tokens"), message=words("reasoning_content")),
    "ollama": Rules(
        message=words("reasoning"), efforts=words("none low medium high max"), images="data:image/[a-z+.-]+;base64,"
    ),
    "lmstudio": Rules(message=_OWN, takes_named_choice=False),
}


def faults(body: Json, dialect: str) -> List[str]:
    """Return every rule that a request to a provider of this dialect breaks."""
    rules = RULES[dialect]
    plain = without_own(body, rules)
    return [
        *sdk_faults(plain, CompletionCreateParamsNonStreaming, CompletionCreateParamsStreaming),
        *(f"OpenAPI: {fault}" for fault in spec_faults(plain)),
        *field_faults(body, rules),
        *order_faults(body["messages"], rules),
        *call_faults(body["messages"], rules),
        *content_faults(body["messages"], rules),
        *tool_faults(body, rules, dialect),
        *leaks(body, rules),
    ]


# --- OpenAI's format -----------------------------------------------------------------------------------------------


def without_own(body: Json, rules: Rules) -> Json:
    """Return the body without what this dialect adds to OpenAI's format; other values that differ become OpenAI's."""
    plain = {name: value for name, value in body.items() if name not in rules.request}
    plain["messages"] = [_plain_message(message, rules) for message in body["messages"]]
    if plain.get("tool_choice") == "any" in rules.choices:
        plain["tool_choice"] = "required"
    if plain.get("reasoning_effort") in rules.efforts:
        del plain["reasoning_effort"]
    if isinstance(plain.get("stop"), list) and len(plain["stop"]) <= rules.stops:
        plain["stop"] = plain["stop"][:4]
    return plain


def _plain_message(message: Json, rules: Rules) -> Json:
    plain = {name: value for name, value in message.items() if name not in rules.message}
    if isinstance(plain.get("content"), list):
        thought = "thinking" if "prefix" in rules.message else ""  # Mistral's reasoning is a part of the content
        parts = [part for part in plain["content"] if not thought or part.get("type") != thought]
        plain["content"] = [{key: part[key] for key in part if key not in rules.part} for part in parts] or ""
    if "tool_calls" in plain:
        calls = plain["tool_calls"]
        plain["tool_calls"] = [{key: call[key] for key in call if key not in rules.call} for call in calls]
    return plain


# --- fields and leaks -------------------------------------------------------------------------------------------


def field_faults(body: Json, rules: Rules) -> Iterator[str]:
    """Length, stops, effort and format are in the dialect's words."""
    limits = [name for name in ("max_tokens", "max_completion_tokens") if name in body]
    if limits != [rules.limit] or body[rules.limit] < 1:
        yield f"the output limit is {rules.limit} alone: {limits}"
    yield from (f"this dialect has no {name}" for name in sorted(rules.refused & set(body)))
    if "stream_options" in body and not body.get("stream"):
        yield "stream_options without stream"
    if not 1 <= len(body.get("stop", "1")) <= rules.stops:
        yield f"1 to {rules.stops} stop sequences: {body['stop']}"
    if body.get("reasoning_effort", next(iter(rules.efforts))) not in rules.efforts:
        yield f"reasoning_effort {body['reasoning_effort']!r} is none of {sorted(rules.efforts)}"
    shape = body.get("response_format", {}).get("type")
    if shape and shape not in rules.formats:
        yield f"response_format {shape}"
    if shape == "json_object" and "json" not in json.dumps(body["messages"]).lower():
        yield "JSON mode needs the word json in the prompt"
    if not rules.nulls and any(value is None for message in body["messages"] for value in message.values()):
        yield "explicit nulls in a message"


def leaks(body: Json, rules: Rules) -> Iterator[str]:
    """Nothing of Anthropic's request, of its client or of ours reaches the provider."""
    yield from (f"Anthropic's {name}" for name in sorted((ANTHROPIC_FIELDS - rules.request) & set(body)))
    text = json.dumps(body)
    if ENVELOPE in text:
        yield f"an envelope: ...{text[max(0, text.index(ENVELOPE) - 60) :][:120]}"
    system = [message for message in body["messages"] if message["role"] == "system"]
    if any(ATTRIBUTION in line[:200] for line in _texts(system)):
        yield "the attribution line"
    for message in body["messages"]:
        parts = message["content"] if isinstance(message.get("content"), list) else []
        yield from (f"Anthropic's {part.get('type')} block" for part in parts if part.get("type") in ANTHROPIC_PARTS)


def _texts(messages: Sequence[Json]) -> Iterator[str]:
    for message in messages:
        content = message.get("content") or ""
        yield from [content] if isinstance(content, str) else [part.get("text") or "" for part in content]


# --- messages ---------------------------------------------------------------------------------------------------


def order_faults(messages: Sequence[Json], rules: Rules) -> Iterator[str]:
    """Every call is answered exactly once, directly after the message that makes it, and nothing else is answered."""
    open_calls: List[str] = []
    for number, message in enumerate(messages):
        before = messages[number - 1]["role"] if number else "system"
        if message["role"] == "tool":
            if message["tool_call_id"] not in open_calls:
                yield f"messages.{number}: answers no open call: {message['tool_call_id']!r} of {open_calls}"
            else:
                open_calls.remove(message["tool_call_id"])
            continue
        if open_calls:
            yield f"messages.{number}: calls without an answer before it: {open_calls}"
        open_calls = [call["id"] for call in message.get("tool_calls") or []]
        if before == message["role"] != "system":
            yield f"messages.{number}: two {message['role']} messages in a row"
        if message["role"] == "user" and before == "tool" and not rules.user_after_tool:
            yield f"messages.{number}: a user message directly after a tool message"
    if open_calls:
        yield f"calls without an answer at the end: {open_calls}"
    last = messages[-1] if messages else {}
    if last.get("role") == "assistant" and not ({"prefix", "partial"} & set(last) or "top_k" in rules.request):
        yield "the conversation ends with the assistant"


def call_faults(messages: Sequence[Json], rules: Rules) -> Iterator[str]:
    """Ids and names are in the dialect's alphabet, ids differ, arguments are objects, reasoning comes along."""
    last_user = max((n for n, message in enumerate(messages) if message["role"] == "user"), default=-1)
    for number, message in enumerate(messages):
        calls = message.get("tool_calls") or []
        ids = [call["id"] for call in calls]
        if len(ids) != len(set(ids)):
            yield f"messages.{number}: ids are not unique: {ids}"
        for call in calls:
            if not re.fullmatch(rules.tool_id, call["id"]):
                yield f"messages.{number}: id {call['id']!r} is not {rules.tool_id}"
            if not re.fullmatch(rules.tool_name, call["function"]["name"]):
                yield f"messages.{number}: name {call['function']['name']!r} is not {rules.tool_name}"
            if not _is_object(call["function"]["arguments"]):
                yield f"messages.{number}: arguments are no object: {call['function']['arguments']!r}"
        needs_reasoning = rules.needs_reasoning == "all" or (calls and rules.needs_reasoning)
        if message["role"] == "assistant" and needs_reasoning and not message.get("reasoning_content"):
            yield f"messages.{number}: no reasoning_content"
        if calls and rules.needs_signature and number > last_user and "extra_content" not in calls[0]:
            yield f"messages.{number}: the first call has no thought signature"


def _is_object(text: str) -> bool:
    def refuse(name: str) -> Any:
        raise ValueError(name)

    try:
        return isinstance(json.loads(text, parse_constant=refuse), dict)
    except ValueError:
        return False


def content_faults(messages: Sequence[Json], rules: Rules) -> Iterator[str]:
    """No message is empty; tool results are text; images and files go where the dialect takes them."""
    for number, message in enumerate(messages):
        content, where = message["content"], f"messages.{number} ({message['role']})"
        if isinstance(content, str) and not content.strip() and not message.get("tool_calls"):
            yield f"{where}: empty content"
        if content is None and not message.get("tool_calls"):
            yield f"{where}: null content without calls"
        if isinstance(content, list) and not content:
            yield f"{where}: no parts"
        if message["role"] == "tool" and not (isinstance(content, str) or _is_marked(content, rules)):
            yield f"{where}: a tool result that is no string"
        for part in content if isinstance(content, list) else ():
            yield from (f"{where}: {fault}" for fault in _part_faults(part, message["role"], rules))


def _is_marked(content: Any, rules: Rules) -> bool:
    """Whether it is one text with a cache breakpoint, where the dialect takes that for a result."""
    parts = content if rules.marks_results and isinstance(content, list) and len(content) == 1 else [{}]
    return parts[0].keys() == {"type", "text", "cache_control"}


def _part_faults(part: Json, role: str, rules: Rules) -> Iterator[str]:
    kind = part["type"]
    if kind == "text" and not part["text"].strip():
        yield "an empty text part"
    if kind in ("image_url", "file") and role != "user":
        yield f"{kind} outside a user message"
    if kind == "image_url" and not re.match(rules.images, part["image_url"]["url"]):
        yield f"an image this dialect cannot take: {part['image_url']['url'][:60]}"
    if kind == "file" and not rules.files:
        yield "a file for a dialect that takes none"


# --- tools ------------------------------------------------------------------------------------------------------

# What Gemini's reader of schemas refuses.
GEMINI_REFUSED = words(
    "additionalProperties exclusiveMinimum exclusiveMaximum propertyNames patternProperties const $ref $defs oneOf"
    " allOf not if then else default examples title contentMediaType unevaluatedProperties $schema $id $comment"
)


def tool_faults(body: Json, rules: Rules, dialect: str) -> Iterator[str]:
    """Tools are few enough, named well and described by object schemas; a choice needs tools to choose from."""
    tools = body.get("tools")
    if tools is None:
        yield from (f"{name} without tools" for name in ("tool_choice", "parallel_tool_calls") if name in body)
        return
    names = [tool["function"]["name"] for tool in tools]
    if not tools or len(tools) > (rules.tools or len(tools)):
        yield f"{len(tools)} tools"
    if len(names) != len(set(names)):
        yield f"tool names are not unique: {names}"
    for tool in tools:
        function = tool["function"]
        if not re.fullmatch(rules.tool_name, function["name"]):
            yield f"tool name {function['name']!r} is not {rules.tool_name}"
        if len(function.get("description", "")) > (rules.description or 10**9):
            yield f"{function['name']}: the description is too long"
        yield from (f"{function['name']}: {fault}" for fault in _schema_faults(function["parameters"], dialect))
    yield from _choice_faults(body, rules, names)


def _choice_faults(body: Json, rules: Rules, names: Sequence[str]) -> Iterator[str]:
    choice = body.get("tool_choice", "auto")
    forced = choice not in ("auto", "none")
    if isinstance(choice, dict) and (not rules.takes_named_choice or choice["function"]["name"] not in names):
        yield f"tool_choice {choice} of {names}"
    if isinstance(choice, str) and "tool_choice" in body and choice not in rules.choices:
        yield f"tool_choice {choice!r} is none of {sorted(rules.choices)}"
    thinks = body.get("enable_thinking") or body.get("thinking", {}).get("type") == "enabled"
    if forced and thinks and not rules.forces_while_thinking:
        yield f"tool_choice {choice!r} while thinking"


def _schema_faults(schema: Json, dialect: str) -> Iterator[str]:
    if schema.get("type") != "object" or not isinstance(schema.get("properties"), dict):
        yield f"the root of a schema is an object: {str(schema)[:120]}"
    if words("anyOf oneOf allOf enum not $schema $id $comment") & set(schema):
        yield f"a keyword that no root of a schema may have: {sorted(schema)}"
    if dialect == "gemini":
        yield from _gemini_faults(schema, "parameters")


def _gemini_faults(schema: Any, path: str) -> Iterator[str]:
    if not isinstance(schema, dict):
        yield f"{path}: is no object"
        return
    yield from (f"{path}: {name} is refused" for name in sorted(GEMINI_REFUSED & set(schema)))
    properties = schema.get("properties") or {}
    if isinstance(schema.get("type"), list):
        yield f"{path}: a list of types"
    if schema.get("type") == "array" and "items" not in schema:
        yield f"{path}: an array without items"
    if schema.get("type") == "string" and schema.get("format", "enum") not in ("enum", "date-time"):
        yield f"{path}: format {schema['format']}"
    if "enum" in schema and schema.get("type") != "string":
        yield f"{path}: enum of type {schema.get('type')}"
    if not all(isinstance(item, str) and item for item in schema.get("enum", ())):
        yield f"{path}: enum {schema['enum']}"
    if not set(schema.get("required", ())) <= set(properties):
        yield f"{path}: required {schema['required']} of {sorted(properties)}"
    for name, inner in properties.items():
        yield from _gemini_faults(inner, f"{path}.{name}")
    if "items" in schema:
        yield from _gemini_faults(schema["items"], f"{path}.items")
    for number, inner in enumerate(schema.get("anyOf", ())):
        yield from _gemini_faults(inner, f"{path}.anyOf.{number}")
