"""A provider's failure to the error the client understands: status, type, wording, whether to try again."""

from __future__ import annotations

import json
from typing import Any, Dict, Optional

import pytest

from ccproxy.masking import mask
from ccproxy.translate.failure import Target, error_in_stream, translate_failure

TARGET = Target("groq", "llama", window=8192, input_tokens=9000)


def failure(status: int, body: Any, target: Target = TARGET, **headers: str) -> Any:
    """The error for a provider's answer; a body that is no bytes is sent as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    return translate_failure(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw, target)


def message(text: str, **more: Any) -> Dict[str, Any]:
    return {"error": {"message": text, **more}}


NO_CREDIT = "You exceeded your current quota, please check your plan and billing details."
ROWS = [
    # keys
    (401, message("Incorrect API key provided: sk-abc.", code="invalid_api_key"), 401, "authentication_error"),
    (401, {"detail": "Invalid API Key"}, 401, "authentication_error"),
    (
        400,
        [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}],
        401,
        "authentication_error",
    ),
    (401, message("Authentication Fails", code="invalid_request_error"), 401, "authentication_error"),
    # money
    (402, message("Payment required"), 402, "billing_error"),
    (402, message("Insufficient Balance", type="unknown_error"), 402, "billing_error"),
    (429, message(NO_CREDIT, type="insufficient_quota", code="insufficient_quota"), 402, "billing_error"),
    (429, message("余额不足或无可用资源包,请充值。", code="1113"), 402, "billing_error"),  # GLM
    (400, message("Access denied, account is in good standing.", code="Arrearage"), 402, "billing_error"),  # DashScope
    (403, message("The account has an overdue balance.", code="AccountOverdueError"), 402, "billing_error"),
    # permission, moderation
    (403, message("Country not supported"), 403, "permission_error"),
    (
        403,
        message(
            'Your input was flagged for "violence"', code=403, metadata={"reasons": ["violence"], "flagged_input": "x"}
        ),
        400,
        "invalid_request_error",
    ),
    (400, message("Rejected.", code="content_policy_violation"), 400, "invalid_request_error"),
    (400, message("filtered", code="content_filter"), 400, "invalid_request_error"),
    (
        400,
        message("Input data may contain inappropriate content.", code="data_inspection_failed"),
        400,
        "invalid_request_error",
    ),
    (403, {"code": "denied", "error": "Content violates usage guidelines."}, 400, "invalid_request_error"),
    (400, message("系统检测到输入内容可能包含不安全或敏感内容", code="1301"), 400, "invalid_request_error"),
    # models
    (404, message("Not found"), 404, "not_found_error"),
    (400, message("The model `x` does not exist", code="model_not_found"), 404, "not_found_error"),
    (404, message("No endpoints found for x/y.", code=404), 404, "not_found_error"),
    # the request
    (400, message("Invalid value: 'x'"), 400, "invalid_request_error"),
    (405, message("Method not allowed"), 400, "invalid_request_error"),
    (415, message("Unsupported media type"), 400, "invalid_request_error"),
    (422, message("Unprocessable"), 400, "invalid_request_error"),
    (413, b"<html><title>413 Request Entity Too Large</title></html>", 413, "request_too_large"),
    (
        413,
        message("Request too large for model in organization on tokens per minute (TPM): Limit 6000"),
        429,
        "rate_limit_error",
    ),
    # load and time
    (429, message("Rate limit reached"), 429, "rate_limit_error"),
    (408, message("Request timeout"), 504, "timeout_error"),
    (504, b"", 504, "timeout_error"),
    (524, b"<html><title>A timeout occurred</title></html>", 504, "timeout_error"),
    (500, message("Internal error"), 500, "api_error"),
    (500, b"<html>oops</html>", 500, "api_error"),
    (501, message("odd"), 500, "api_error"),
    (500, message("tools param requires --jinja flag", type="server_error"), 500, "api_error"),
    (502, b"Bad Gateway", 529, "overloaded_error"),
    (503, message("Service Unavailable"), 529, "overloaded_error"),
    (529, message("Overloaded"), 529, "overloaded_error"),
    (498, message("Flex tier capacity exceeded"), 529, "overloaded_error"),
    (429, message("busy", type="engine_overloaded_error"), 529, "overloaded_error"),
    # a sampling accident, to be tried again
    (400, message("Failed to call a function.", code="tool_use_failed", failed_generation="<f>"), 500, "api_error"),
]


@pytest.mark.parametrize(("status", "body", "answer", "type"), ROWS)
def test_the_status_and_type(status: int, body: Any, answer: int, type: str) -> None:
    """Content decides before the status: providers send many statuses for the same fault."""
    error = failure(status, body)
    assert (error.status, error.type) == (answer, type)


SHAPES = [
    (message("Words."), "Words."),
    ({"error": "Words."}, "Words."),
    ({"code": "x", "error": "Words."}, "Words."),  # xAI
    ({"object": "error", "message": "Words.", "type": "BadRequestError"}, "Words."),  # old vLLM, Mistral
    ({"detail": "Words."}, "Words."),
    ({"detail": [{"msg": "Words.", "loc": ["body"]}, {"msg": "More."}]}, "Words.; More."),
    ({"errors": [{"message": "Words."}]}, "Words."),
    ([{"error": {"code": 400, "message": "Words.", "status": "INVALID"}}], "Words."),  # Gemini
    (
        message("Provider returned error", metadata={"raw": '{"error":{"message":"Words."}}', "provider_name": "X"}),
        "X: Words.",
    ),
    (message("Provider returned error", metadata={"raw": "Words."}), "Words."),
    (b"Words.", "Words."),
    (b"<html><head><title>502 Bad Gateway</title></head></html>", "an HTML page: 502 Bad Gateway"),
    ({"type": "error", "error": {"type": "invalid_request_error", "message": "Words."}}, "Words."),
]


@pytest.mark.parametrize(("body", "words"), SHAPES)
def test_the_message_in_any_shape(body: Any, words: str) -> None:
    """The provider's own words, after its name and the model's."""
    assert failure(400, body).message == f"groq (llama): {words}"


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{}", b'{"error":null}', b"\xff\xfe", b"[" * 100_000, b'{"error":{"message":5}}'],
    ids=lambda body: repr(body[:9]),
)
def test_a_body_without_words_is_an_error_too(body: bytes) -> None:
    """Nothing a provider sends raises; there is always a message."""
    error = failure(500, body)
    assert error.status == 500
    assert error.message


def test_a_long_message_is_cut() -> None:
    """A page of HTML or a dump does not go to the client whole."""
    assert len(failure(400, message("x" * 50_000)).message) < 2100


def test_a_rejected_key_is_the_proxys() -> None:
    """Claude Code would show a login problem of its own; the words say whose key it is."""
    text = failure(401, message("Wrong key")).message
    assert all(word in text for word in ("groq", "key", "ccproxy"))


@pytest.mark.parametrize(
    ("status", "body", "value"),
    [
        (401, message("no"), "false"),
        (402, message("no"), "false"),
        (403, message("no"), "false"),
        (429, message("no", code="insufficient_quota"), "false"),
        (429, message("slow down"), None),
        (500, message("oops"), None),
        (500, message("tools param requires --jinja flag"), "false"),
        (500, message("image input is not supported - hint: you may need to provide the mmproj"), "false"),
        (500, message("image input is not supported by this server"), "false"),
    ],
)
def test_useless_retries_are_forbidden(status: int, body: Any, value: Optional[str]) -> None:
    """They cost Claude Code three minutes each."""
    assert failure(status, body).headers.get("x-should-retry") == value


def test_retry_after_is_passed_on() -> None:
    """The wait the provider asks for; nothing that is no plain header."""
    assert failure(429, message("slow"), retry_after="12").headers["retry-after"] == "12"
    assert "retry-after" not in failure(429, message("slow"), retry_after="1\r\nx: y").headers


@pytest.mark.parametrize(
    ("status", "body", "transient"),
    [
        (429, "slow", True),
        (500, "x", True),
        (500, "tools param requires --jinja flag", False),
        (529, "x", True),
        (504, "x", True),
        (400, "bad", False),
        (401, "x", False),
        (402, "x", False),
    ],
)
def test_what_may_succeed_later(status: int, body: str, transient: bool) -> None:
    """Load passes; a key, a debt and a wrong request do not."""
    assert failure(status, message(body)).is_transient is transient


@pytest.mark.parametrize("status", range(300, 600))
def test_which_statuses_are_tried_again(status: int) -> None:
    """408, 409, 429 and all of 5xx; of the others only Groq's 498, which says that it is full."""
    assert failure(status, message("words")).is_transient is (status in (408, 409, 429, 498) or status >= 500)


# --- context overflow ----------------------------------------------------------------------------------------

REQUESTED = (
    "Requested token count exceeds the model's maximum context length of %d tokens. "
    "You requested a total of %d tokens: %d tokens from the input messages and %d tokens for the completion."
)
ENDPOINT = (
    "This endpoint's maximum context length is 200000 tokens. However, you requested about 2500021 tokens "
    "(2500013 of text input, 8 in the output)."
)
LONG = "This model's maximum context length is 8192 tokens. However, "
OVERFLOWS = [
    # text, prompt, limit
    (LONG + "you requested 10000 tokens (9000 in the messages, 1000 in the completion).", 9000, 8192),
    (LONG + "your messages resulted in 9000 tokens. Please reduce the length.", 9000, 8192),
    (
        ENDPOINT,
        2500013,
        200000,
    ),
    (
        REQUESTED % (4096, 6000, 5000, 1000),
        5000,
        4096,
    ),
    ("The input (9000 tokens) is longer than the model's context length (8192 tokens).", 9000, 8192),
    ("request (2009 tokens) exceeds the available context size (512 tokens), try increasing it", 2009, 512),
    ("The input token count (1100000) exceeds the maximum number of tokens allowed (1048576).", 1100000, 1048576),
    ("Current length is 9000 while limit is 8192", 9000, 8192),
    (
        "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
        40000,
        32768,
    ),
    ("Invalid request: Your request exceeded model token limit: 262144 (requested: 269030)", 269030, 262144),
    ("This model's maximum prompt length is 131072 but the request contains 140000 tokens.", 140000, 131072),
    ("prompt token count of 70000 exceeds the limit of 64000", 70000, 64000),
    ("The number of tokens to keep is greater than the context length (n_keep: 13055>= n_ctx: 4096)", 13055, 4096),
    ("prompt is too long: 274468 tokens > 200000 maximum", 274468, 200000),
    # the limit alone: our estimate, at least one more than the limit
    ("<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 983616]", 983617, 983616),
    ("Input tokens exceed the configured limit of 272000 tokens.", 272001, 272000),
    ("Your request exceeded model token limit: 262144", 262145, 262144),
    # no number: our estimate and the configured window
    ("prompt too long; exceeded max context length by 1119046 tokens", 9000, 8192),
    ("The total length of all messages is too long.", 9000, 8192),
    ("Input is too long for requested model.", 9000, 8192),
    ("Your input exceeds the context window of this model.", 9000, 8192),
    ("invalid params, context window exceeds limit", 9000, 8192),
    ("Prompt exceeds max length", 9000, 8192),
]


@pytest.mark.parametrize(("text", "prompt", "limit"), OVERFLOWS)
@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_a_prompt_that_is_too_long(status: int, text: str, prompt: int, limit: int) -> None:
    """Anthropic's exact words, for Claude Code compacts on them: no prefix, and numbers that make sense."""
    error = failure(status, message(text))
    assert (error.status, error.message) == (400, f"prompt is too long: {prompt} tokens > {limit} maximum")
    assert not error.is_transient


@pytest.mark.parametrize(
    "body",
    [
        message("x", type="exceed_context_size_error", n_prompt_tokens=9500, n_ctx=8192),
        {"error": {"n_ctx": 8192, "n_prompt_tokens": 9500, "type": "exceed_context_size_error", "message": "x"}},
    ],
)
def test_llamacpp_gives_the_numbers_as_fields(body: Any) -> None:
    """In either order."""
    assert failure(400, body).message == "prompt is too long: 9500 tokens > 8192 maximum"


@pytest.mark.parametrize(
    "text",
    [
        LONG + "you requested 9000 tokens (5000 in the messages, 4000 in the completion). Please reduce the length.",
        REQUESTED % (8192, 9000, 5000, 4000),
    ],
)
def test_prompt_and_output_that_are_too_long(text: str) -> None:
    """Claude Code reads the three numbers and asks for less output."""
    assert failure(400, message(text)).message == (
        "input length and `max_tokens` exceed context limit: 5000 + 4000 > 8192, "
        "decrease input length or `max_tokens` and try again"
    )


def test_numbers_nobody_knows_still_make_sense() -> None:
    """Without window and count the limit is below the prompt, and neither is absurd."""
    bare = Target("p", "m")
    text = failure(400, message("context_length_exceeded"), bare).message
    prompt, limit = (int(word) for word in text.split() if word.isdigit())
    assert prompt > limit > 0


@pytest.mark.parametrize(
    "body",
    [
        message(
            "Invalid 'user': string too long. Expected a string with maximum length 64.", code="string_above_max_length"
        ),
        message("Rate limit reached for tokens per minute"),
        message("max_tokens is too large: 99999. This model supports at most 16384 completion tokens"),
    ],
)
def test_what_is_no_overflow(body: Any) -> None:
    """A long string or a large ``max_tokens`` must not make the client compact."""
    assert "prompt is too long" not in failure(400, body).message


# --- errors inside a 200 -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"code": 429, "message": "slow down"}, 429),
        ({"code": "429", "message": "slow down"}, 429),
        ({"code": 401, "message": "no"}, 401),
        ({"http_code": 500, "message": "oops"}, 500),
        ({"code": "tool_use_failed", "message": "Failed", "status_code": 400}, 500),
        ({"message": "oops"}, 500),
        ("oops", 500),
        (["oops"], 500),
        ({"code": 0, "message": "oops"}, 500),
        ({"code": "server_error", "message": "Overloaded"}, 529),
    ],
)
def test_an_error_inside_a_stream(error: Any, status: int) -> None:
    """By its code where that is an HTTP status, else by its text."""
    assert error_in_stream(error, TARGET).status == status


def test_an_overflow_inside_a_stream() -> None:
    """The same words as with a status."""
    text = "Input is too long for requested model."
    assert error_in_stream({"message": text}, TARGET).message == "prompt is too long: 9000 tokens > 8192 maximum"


# --- keys ----------------------------------------------------------------------------------------------------

SECRETS = ("my-secret-key", "s3cr3t")
KEYS = [
    "sk-proj-abcdefghijklmnop",
    "sk-ant-api03-abcdef-ghijkl",
    "sk-or-v1-0123456789abcdef",
    "gsk_abcdefghijklmnop",
    "xai-abcdefghijklmnop",
    "AIzaSyA1234567890abcdef",
    "csk-abcdefghijklmnop",
    "my-secret-key",
    "s3cr3t",
]


@pytest.mark.parametrize("key", KEYS)
def test_keys_never_reach_the_client(key: str) -> None:
    """Providers echo what they were sent: not even a beginning of it is passed on."""
    target = Target("p", "m", secrets=SECRETS)
    for error in (
        failure(401, message(f"Wrong key: {key}."), target),
        error_in_stream({"message": f"key={key}"}, target),
    ):
        assert key not in error.message
        assert key[:8] not in error.message
    assert mask(f"Bearer {key}, {key}", SECRETS).count("***") >= 2
