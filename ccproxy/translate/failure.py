"""A provider's failure to the error the client understands: status, type, wording, and whether to try again.

Content decides before the status: providers send 400, 413, 422, 429, 500 and even 200 for the same fault.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Dict, Mapping, Optional, Tuple

from ..errors import NO_RETRY, ProviderError
from ..frozen import frozen
from ..masking import mask

MAX_MESSAGE = 2000
LEAST_OUTPUT = 1024
"""Tokens of output that are worth an answer, and as many that a provider may have counted wrong."""
_ANY_CASE = re.IGNORECASE | re.DOTALL
_MOST_DIGITS = 15


@frozen
class Rule:
    """A fault recognised by its text; ``status`` is what the client gets."""

    pattern: str
    status: int
    is_final: bool = False  # trying again is useless: quota, key, content


# The first match wins. Sources: wire formats of the providers named in each line.
_RULES: Tuple[Rule, ...] = (
    Rule(r"insufficient_quota|insufficient[ _]balance|arrearage|accountoverdue|credit balance is too low", 402, True),
    Rule(r"\"code\": ?\"?1113\"?\D", 402, True),  # GLM
    Rule(r"invalid[ _]api[ _]key|incorrect api key|api key not valid|no auth credentials|unauthorized", 401, True),
    Rule(r"content_policy_violation|content_filter|data_inspection_failed|flagged by moderation", 400, True),
    Rule(r"violates usage guidelines", 400, True),  # xAI
    Rule(r"\"metadata\": ?\{[^{}]*\"reasons\"|\"code\": ?\"?1301\"?\D", 400, True),  # OpenRouter, GLM
    Rule(r"request too large.*tokens per minute", 429, True),  # Groq says 413
    Rule(r"tool_use_failed", 500),  # Groq says 400: a sampling accident
    Rule(r"model_not_found|no endpoints found|model .{0,120}does not exist|model .{0,120}not found", 404, True),
    Rule(r"engine_overloaded|overloaded|over[ _]capacity", 529),
    Rule(r"requires --jinja|image input is not supported (?:- hint|by this server)", 500, True),  # llama.cpp
)
# Where the text tells nothing.
_STATUSES: Dict[int, int] = {
    **{status: status for status in (402, 403, 404, 409, 413, 429, 500, 504, 529)},
    **dict.fromkeys((408, 524), 504),
    **dict.fromkeys((498, 502, 503), 529),  # 498: Groq's flex tier is full; Groq asks for retries with jitter
}
_FINAL = frozenset({400, 401, 402, 403, 404, 413})

# Context overflow: the prompt (P), the output asked for (C) and the limit (L), as far as a text has them. The first
# match wins, so the wordings with more numbers come first. Compiled with the first failure: a start needs none of them.
_OVERFLOWS = (
    r"maximum context length is (?P<L>\d+) tokens.*?\((?P<P>\d+) in the messages, (?P<C>\d+) in the completion",
    r"maximum context length is (?P<L>\d+) tokens.*?\((?P<P>\d+) of text input.*?(?P<C>\d+) in the output",
    r"maximum context length of (?P<L>\d+) tokens.*?(?P<P>\d+) tokens from the input messages and (?P<C>\d+)",
    r"maximum context length is (?P<L>\d+) tokens and your request has (?P<P>\d+) input tokens \((?P<C>\d+) >",
    r"maximum context length is (?P<L>\d+) tokens.*?(?P<C>\d+) output tokens and your prompt contains (?P<P>\d+)",
    r"maximum context length is (?P<L>\d+) tokens and your request has (?P<P>\d+) input tokens",
    r"maximum context length is (?P<L>\d+) tokens.*?\((?P<P>\d+) in the messages",
    r"maximum context length is (?P<L>\d+) tokens.*?resulted in (?P<P>\d+) tokens",
    r"maximum context length is (?P<L>\d+) tokens.*?requested (?:about )?(?P<P>\d+) tokens",
    r"input \((?P<P>\d+) tokens\) is longer than the model's context length \((?P<L>\d+)",
    r"length (?P<P>\d+)\) is longer than the maximum model length of (?P<L>\d+)",
    r"request \((?P<P>\d+) tokens\) exceeds the available context size \((?P<L>\d+)",
    r"n_prompt_tokens\W+(?P<P>\d+)\W+n_ctx\W+(?P<L>\d+)",
    r"n_ctx\W+(?P<L>\d+)\W+n_prompt_tokens\W+(?P<P>\d+)",
    r"max_new_tokens. must be <= (?P<L>\d+)\. Given: (?P<P>\d+) .inputs. tokens and (?P<C>\d+)",
    r"input token count \(?(?P<P>\d+)\)? exceeds the maximum number of tokens allowed \(?(?P<L>\d+)",
    r"current length is (?P<P>\d+) while limit is (?P<L>\d+)",
    r"prompt contains (?P<P>\d+) tokens.*?(?P<L>\d+) maximum context length",
    r"token limit: (?P<L>\d+)(?: \(requested: (?P<P>\d+))?",
    r"maximum prompt length is (?P<L>\d+)(?:.*?contains (?P<P>\d+) tokens)?",
    r"prompt token count of (?P<P>\d+) exceeds the limit of (?P<L>\d+)",
    r"n_keep: (?P<P>\d+) ?>= ?n_ctx: (?P<L>\d+)",
    r"prompt is too long: (?P<P>\d+) tokens > (?P<L>\d+)",
    r"range of input length should be \[1, ?(?P<L>\d+)\]",
    r"exceed the configured limit of (?P<L>\d+)",
    r"maximum context length (?:is|of) (?P<L>\d+)",
    r"exceed_context_size_error|context_length_exceeded|too_many_prompt_tokens|larger than the max context size",
    r"exceeds the context window|context window exceeds|exceeded max context length",
    r"input is too long for requested model|prompt exceeds max length|total length of all messages is too long",
)
_OUTPUT_LIMIT = "could not finish the message because max_tokens or model output limit"


@frozen
class Target:
    """Who was asked: for messages, numbers and what must be masked in them."""

    provider: str
    model_name: str
    window: Optional[int] = None
    input_tokens: int = 0
    secrets: Tuple[str, ...] = ()


def translate_failure(status: int, headers: Mapping[str, str], body: bytes, target: Target) -> ProviderError:
    """Return the error for an HTTP answer that is none; ``headers`` in lower case."""
    text, detail = _message_and_text(body)
    overflow = _overflow(text, target)
    if overflow is not None:
        return overflow
    if _OUTPUT_LIMIT in text.lower():
        error = ProviderError(mask(detail, target.secrets), status=400, is_transient=False)
        error.is_output_limit = True
        return error
    rule = next((rule for rule in _RULES if re.search(rule.pattern, text, _ANY_CASE)), None)
    if status == 401 or (rule and rule.status == 401):
        answer, is_final = 401, True
        detail = f"the provider refused the key configured in ccproxy: {detail}"
    elif rule:
        answer, is_final = rule.status, rule.is_final
    else:
        answer = _STATUSES.get(status, 500 if status >= 500 else 400 if status >= 400 else 502)
        is_final = answer in _FINAL or status < 400
    passed = {name: headers[name] for name in ("retry-after", "retry-after-ms") if _is_plain(headers.get(name))}
    if not passed and answer in (429, 529):
        passed = _retry_after_in(text, headers)
    message = mask(f"{target.provider} ({target.model_name}): {detail}", target.secrets)
    # Useless retries cost Claude Code three minutes each; 400 and 404 it does not repeat.
    headers_out = {**passed, **(NO_RETRY if answer in (401, 402, 403) or (rule and rule.is_final) else {})}
    error = ProviderError(message, status=answer, is_transient=not is_final, headers=headers_out)
    afforded = re.search(r"can only afford (\d{1,9})\b", text)  # OpenRouter: what the credits pay for
    error.room = _worth_an_answer(int(afforded[1])) if afforded else 0
    return error


# Gemini's RetryInfo, and OpenRouter's copy of the inner provider's headers. No number is too large to be counted with.
_RETRY_DELAY = re.compile(r"retryDelay\W+(\d{1,9}(?:\.\d+)?)s|\"retry-after\"\W+(\d{1,9})\b", re.IGNORECASE)
# OpenAI's and Groq's "try again in 1m2.5s", Gemini's "retry in 4.2s", Azure's "retry after 26 seconds".
_TRY_AGAIN = re.compile(
    r"\b(?:try again|retry) (?:in|after) (?:((?:[\d.]+(?:ms|[hms]))+)|(\d{1,9}) second)", re.IGNORECASE
)
_RESET_NAMES = ("x-ratelimit-reset-requests", "x-ratelimit-reset-tokens")
_DURATION = re.compile(r"(?:(\d{1,9})h)?(?:(\d{1,9})m(?!s))?(?:(\d{1,9}(?:\.\d+)?)s)?(?:(\d{1,9}(?:\.\d+)?)ms)?")


def _retry_after_in(text: str, headers: Mapping[str, str]) -> Dict[str, str]:
    """Return ``retry-after`` as far as the body, its words, or OpenAI's reset durations (``1m2.5s``) tell it."""
    match = _RETRY_DELAY.search(text)
    if match:
        return {"retry-after": str(math.ceil(float(match[1] or match[2])))}
    exhausted = [name for name in _RESET_NAMES if headers.get(name.replace("reset", "remaining")) == "0"]
    words = _TRY_AGAIN.search(text)
    told = [words[1] or f"{words[2]}s"] if words else [headers.get(name, "") for name in exhausted]
    longest = max((wait for wait in map(_seconds, told) if wait is not None), default=None)
    return {"retry-after": str(math.ceil(longest))} if longest else {}


def _seconds(duration: str) -> Optional[float]:
    match = _DURATION.fullmatch(duration.strip())
    if match is None or not any(match.groups()):
        return None
    hours, minutes, seconds, milliseconds = (float(group or 0) for group in match.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


def unreadable(body: bytes, target: Target) -> ProviderError:
    """Return the error for a 200 whose body is no answer: HTML, broken JSON, or JSON about something else."""
    error = translate_failure(500, {}, body, target)
    if error.status == 500:
        error.status = 502
    return error


# Codes of the Responses API.
_CODES = ((r"rate_limit", 429), (r"^invalid_|^unsupported_|image|_policy|misalignment", 400))


def error_in_stream(error: Any, target: Target) -> ProviderError:
    """Return the error for an ``error`` member inside a stream or a 200; its status is in one of several fields."""
    fields = error if isinstance(error, dict) else {}
    codes = [str(fields.get(name)) for name in ("code", "http_status_code", "status_code", "http_code")]
    status = next((int(code) for code in codes if re.fullmatch(r"[45]\d\d", code)), 0)
    if not status:
        status = next((status for pattern, status in _CODES if re.search(pattern, codes[0])), 500)
    return translate_failure(status, {}, json.dumps({"error": error}).encode(), target)


def _is_plain(value: Optional[str]) -> bool:
    return bool(value) and re.fullmatch(r"[ -~]{1,100}", value or "") is not None


def _overflow(text: str, target: Target) -> Optional[ProviderError]:
    """Return the context overflow in the words clients act on, without prefix, with the numbers there are.

    The prompt alone is too long: Claude Code compacts. Prompt and output together are: it asks for less output.
    """
    if "string_above_max_length" in text or "string too long" in text.lower():
        return None
    match = next(filter(None, (re.search(pattern, text, _ANY_CASE) for pattern in _OVERFLOWS)), None)
    if match is None:
        return None
    found = {name: int(value[:_MOST_DIGITS]) for name, value in match.groupdict().items() if value}
    prompt, limit = found.get("P", 0), found.get("L") or target.window or 0
    if prompt and "C" in found and prompt <= limit:
        error = _overflow_with(
            f"input length and `max_tokens` exceed context limit: {prompt} + {found['C']} > {limit}, "
            "decrease input length or `max_tokens` and try again"
        )
        error.room = _worth_an_answer(limit - prompt - LEAST_OUTPUT)
        return error
    return overflow_error(prompt or target.input_tokens, limit)


def _worth_an_answer(tokens: int) -> int:
    return tokens if tokens >= LEAST_OUTPUT else 0


def overflow_error(prompt: int, limit: int) -> ProviderError:
    """Return the error for a prompt that is too long; an unknown limit is put just below the prompt."""
    limit = limit or max(1, prompt - 1)
    return _overflow_with(f"prompt is too long: {max(prompt, limit + 1)} tokens > {limit} maximum")


def _overflow_with(message: str) -> ProviderError:
    error = ProviderError(message, status=400, is_transient=False)
    error.is_overflow = True
    return error


def _message_and_text(body: bytes) -> Tuple[str, str]:
    """Return the text to recognise faults in, and the message to show."""
    text = body.decode("utf-8", "replace").strip()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text[:MAX_MESSAGE], _plain_text(text)
    if isinstance(value, list) and value:  # Gemini
        value = value[0]
    return text[: 4 * MAX_MESSAGE], str(_message(value) or text or "no error text")[:MAX_MESSAGE]


def _plain_text(text: str) -> str:
    if text.lstrip().startswith("<"):
        title = re.search(r"<title>(.*?)</title>", text, _ANY_CASE)
        return f"an HTML page: {title.group(1).strip()[:200]}" if title else "an HTML page"
    return text[:MAX_MESSAGE] or "an empty body"


def _message(value: Any) -> str:
    """Return the message in any of the shapes providers use."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "; ".join(filter(None, map(_message, value)))
    if not isinstance(value, dict):
        return ""
    metadata = value.get("metadata")
    if isinstance(metadata, dict) and metadata.get("raw"):  # OpenRouter wraps the inner error's text
        name = metadata.get("provider_name")
        return (f"{name}: " if name else "") + _raw(metadata["raw"])
    for key in ("error", "message", "msg", "detail", "errors"):
        if value.get(key):
            return _message(value[key])
    return ""


def _raw(raw: Any) -> str:
    try:
        return _message(json.loads(raw)) or str(raw)
    except (TypeError, ValueError):
        return _message(raw) or str(raw)
