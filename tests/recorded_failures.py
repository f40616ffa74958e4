"""What a client must be told for a provider's recorded error: status, Anthropic error type and wording.

Content decides first, the status second: providers send 400, 413, 422, 429, 500 and even 200 for the same fault.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Dict, FrozenSet, Mapping, Optional, Sequence, Tuple

Kind = Tuple[int, str]

INVALID: Kind = (400, "invalid_request_error")
AUTHENTICATION: Kind = (401, "authentication_error")
BILLING: Kind = (402, "billing_error")
PERMISSION: Kind = (403, "permission_error")
NOT_FOUND: Kind = (404, "not_found_error")
TOO_LARGE: Kind = (413, "request_too_large")
RATE_LIMIT: Kind = (429, "rate_limit_error")
INTERNAL: Kind = (500, "api_error")
BAD_GATEWAY: Kind = (502, "api_error")
TIMEOUT: Kind = (504, "timeout_error")
OVERLOADED: Kind = (529, "overloaded_error")

BY_STATUS: Dict[int, Kind] = {
    401: AUTHENTICATION,
    402: BILLING,
    403: PERMISSION,
    404: NOT_FOUND,
    408: TIMEOUT,
    413: TOO_LARGE,
    429: RATE_LIMIT,
    498: OVERLOADED,
    502: OVERLOADED,
    503: OVERLOADED,
    504: TIMEOUT,
    524: TIMEOUT,
    529: OVERLOADED,
}

BY_CONTENT: Sequence[Tuple[str, FrozenSet[Kind]]] = (
    (r"tool_use_failed", frozenset({INTERNAL})),
    (r"invalid_api_key|api key not valid|incorrect api key", frozenset({AUTHENTICATION})),
    (r"insufficient[_ ]quota|insufficient[_ ]balance|arrearage", frozenset({BILLING})),
    # A debt, answered with 403: either reading is true.
    (r"accountoverdueerror", frozenset({BILLING, PERMISSION})),
    (r"content_policy_violation|content_filter|data_inspection_failed|violates usage guidelines", frozenset({INVALID})),
    (r"model_not_found|no endpoints found|does not exist|model not found", frozenset({NOT_FOUND})),
    (r"overloaded", frozenset({OVERLOADED})),
)

TOO_LONG = re.compile(r"^prompt is too long: (\d+) tokens > (\d+) maximum")
TOO_LONG_WITH_OUTPUT = re.compile(r"^input length and `max_tokens` exceed context limit: (\d+) \+ (\d+) > (\d+)")

NUMBERS = {"P": r"(?P<prompt>\d+)", "O": r"(?P<output>\d+)", "L": r"(?P<limit>\d+)", "N": r"\d+"}
OVERFLOW: Sequence[str] = (
    r"context length is <L> tokens.*?requested (?:about )?<N> tokens \(<P> in the messages, <O> in the completion",
    r"context length is <L> tokens.*?requested (?:about )?<N> tokens \(<P> of text input",
    r"context length is <L> tokens.*?messages resulted in <P> tokens",
    r"context length is <L> tokens.*?requested <O> output tokens and your prompt contains <P> input tokens",
    r"too large: <O>\. this model's maximum context length is <L> tokens and your request has <P> input tokens",
    r"context length of <L> tokens\. you requested .*?: <P> tokens from the input messages and <O> tokens",
    r"request \(<P> tokens\) exceeds the available context size \(<L> tokens\)",
    r"input \(<P> tokens\) is (?:larger|longer) than the (?:max|model's) context (?:size|length) \(<L> tokens\)",
    r"decoder prompt \(length <P>\) is longer than the maximum model length of <L>",
    r"must be <= <L>\. given: <P> `inputs` tokens and <O> `max_new_tokens`",
    r"n_keep: <P>>= n_ctx: <L>",
    r"exceeded model token limit: <L>(?: \(requested: <P>\))?",
    r"range of input length should be \[1, <L>\]",
    r"exceed_context_size_error|context_length_exceeded|exceeded max context length|too_many_prompt_tokens",
)
"""How providers word a context overflow; <P>, <O> and <L> are the numbers of prompt, output and limit."""


@dataclass(frozen=True)
class Failure:
    """An error as a client must see it: one of these kinds, with these words in its message."""

    kinds: FrozenSet[Kind]
    numbers: Optional[Mapping[str, int]] = None
    """For a context overflow: what the provider said of limit, prompt and output."""
    words: str = ""
    """Words of the provider that must survive in the message."""

    @property
    def types(self) -> FrozenSet[str]:
        """The error types allowed."""
        return frozenset(name for _, name in self.kinds)

    @classmethod
    def cut_off(cls) -> Failure:
        """A stream that ended before its end, or said nothing."""
        return cls(frozenset({INTERNAL, BAD_GATEWAY}))

    @classmethod
    def gave_up(cls) -> Failure:
        """A finish reason that says the provider could not go on."""
        return cls(frozenset({INTERNAL, BAD_GATEWAY, OVERLOADED}))

    def differs(self, status: Optional[int], error: Mapping[str, Any]) -> Optional[str]:
        """Say how an error (with its HTTP status, or None inside a stream) differs from this; None when it fits."""
        kind, message = error.get("type"), str(error.get("message"))
        if status is None and kind not in self.types:
            return f"error type {kind}, expected one of {sorted(self.types)}"
        if status is not None and (status, kind) not in self.kinds:
            return f"{status} {kind}, expected one of {sorted(self.kinds)}"
        if self.numbers is not None:
            return wording(message, self.numbers)
        if self.words and self.words.lower() not in message.lower():
            return f"the provider's words {self.words!r} are missing in {message!r}"
        return None


def wording(message: str, numbers: Mapping[str, int]) -> Optional[str]:
    """Say how the message of a context overflow differs from the exact wording clients look for."""
    prompt, limit, output = (numbers.get(name) for name in ("prompt", "limit", "output"))
    alone = TOO_LONG.match(message)
    both = TOO_LONG_WITH_OUTPUT.match(message)
    if prompt is not None and limit is not None and output and prompt <= limit:
        fits = both and (int(both[1]), int(both[2]), int(both[3])) == (prompt, output, limit)
    else:
        seen = alone or both
        told = [int(number) for number in seen.groups()] if seen else []
        fits = bool(told) and prompt in (None, told[0]) and limit in (None, told[-1])
    return None if fits else f"{message!r} is not the wording of a context overflow with {dict(numbers)}"


def of_status(provider: str, status: int, body: bytes) -> Failure:
    """Return the failure of an HTTP error."""
    text = body.decode("utf-8", "replace")
    found = by_content(text)
    if found is not None:
        return found
    if provider == "groq" and status == 413:
        return Failure(frozenset({RATE_LIMIT}))
    kind = BY_STATUS.get(status, INTERNAL if status >= 500 else INVALID)
    is_told = kind in (INVALID, PERMISSION, NOT_FOUND, INTERNAL, RATE_LIMIT)
    return Failure(frozenset({kind}), words=first_words(innermost_message(text)) if is_told else "")


def in_stream(provider: str, chunk: Mapping[str, Any]) -> Failure:
    """Return the failure of an error chunk: by its code when that is an HTTP status, else by its text."""
    error = chunk["error"]
    found = by_content(json.dumps(chunk, ensure_ascii=False))
    if found is not None:
        return found
    details = error if isinstance(error, dict) else {}
    codes = [details.get(key) for key in ("code", "status_code", "http_status_code", "http_code")]
    status = next((int(str(code)) for code in codes if str(code).isdigit()), None)
    if status is None:
        return Failure(frozenset({INTERNAL, BAD_GATEWAY}))
    return of_status(provider, status, json.dumps(chunk).encode())


def in_answer(provider: str, body: bytes) -> Failure:
    """Return the failure of a 200 whose body is an error, no JSON, or empty of choices."""
    try:
        data = json.loads(body)
    except ValueError:
        data = None
    if isinstance(data, dict) and data.get("error"):
        return in_stream(provider, data)
    return Failure(frozenset({INTERNAL, BAD_GATEWAY}))


def by_content(text: str) -> Optional[Failure]:
    """Return the failure that the text alone decides."""
    lower = text.lower()
    for pattern in OVERFLOW:
        seen = re.search(re.sub("<([PLON])>", lambda mark: NUMBERS[mark[1]], pattern), lower)
        if seen:
            return Failure(frozenset({INVALID}), {key: int(value) for key, value in seen.groupdict().items() if value})
    for pattern, kinds in BY_CONTENT:
        if re.search(pattern, lower):
            return Failure(kinds)
    return None


def innermost_message(text: str) -> str:
    """Return the provider's own words: of OpenRouter's wrapped errors the inner ones."""
    try:
        data = json.loads(text)
    except ValueError:
        return ""
    data = data[0] if isinstance(data, list) and data else data
    error = data.get("error", data)
    if isinstance(error, str):
        return error
    raw = (error.get("metadata") or {}).get("raw")
    if raw:
        return innermost_message(raw) or str(raw)
    return str(error.get("message") or error.get("detail") or "")


def first_words(message: str) -> str:
    """The first few plain words of a message, up to anything that may be masked or quoted anew."""
    seen = re.match(r"[A-Za-z' ]{0,40}(?=[ .,:]|$)", message)
    return seen[0].strip() if seen else ""
