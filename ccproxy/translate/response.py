"""How an answer ends: finish reasons to stop reasons, and a provider's usage to Anthropic's counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, Optional

from ..encoded import Json
from ..frozen import frozen
from ..message import MessageDelta, Usage, count_of
from ..openai import object_in
from ..provider.dialects import Dialect
from .reply import ReplyContext

END_TURN, MAX_TOKENS, TOOL_USE, REFUSAL = "end_turn", "max_tokens", "tool_use", "refusal"
WINDOW_FULL = "model_context_window_exceeded"
CUT_BY_LENGTH = (MAX_TOKENS, WINDOW_FULL)
STOP_REASONS: Dict[str, str] = {
    "length": MAX_TOKENS,
    "max_tokens": MAX_TOKENS,
    "MAX_TOKENS": MAX_TOKENS,
    "model_length": MAX_TOKENS,
    "model_context_window_exceeded": WINDOW_FULL,
    "content_filter": REFUSAL,
    "SAFETY": REFUSAL,
    "RECITATION": REFUSAL,
    "PROHIBITED_CONTENT": REFUSAL,
    "BLOCKLIST": REFUSAL,
    "SPII": REFUSAL,
    "LANGUAGE": REFUSAL,
    "sensitive": REFUSAL,
    "guardrail_intervened": REFUSAL,
}
# The provider gave up: DeepSeek, GLM, OpenRouter and Mistral, vLLM.
FAILED = frozenset({"insufficient_system_resource", "network_error", "error", "abort"})


_MALFORMED = ("MALFORMED", "UNEXPECTED_TOOL_CALL", "MISSING_THOUGHT_SIGNATURE")


def is_malformed(finish_reason: Optional[str]) -> bool:
    """Whether Gemini could not make sense of its own tool call; there is usually no content then."""
    return any(word in (finish_reason or "") for word in _MALFORMED)


def stop_reason(finish_reason: Optional[str], has_tool_use: bool) -> str:
    """Return Anthropic's stop reason.

    A finished tool call decides, whatever the provider says: "stop" beside calls is common (Gemini, forced tool
    choice at OpenAI). Only a cut by length outranks it.
    """
    reason = STOP_REASONS.get(finish_reason or "", END_TURN)
    if (finish_reason or "").startswith("content_filter"):
        reason = REFUSAL
    if has_tool_use and reason not in CUT_BY_LENGTH:
        return TOOL_USE
    return reason


def has_prompt_tokens(usage: Optional[Json]) -> bool:
    """Whether a provider counted the prompt."""
    return usage is not None and count_of(usage.get("prompt_tokens")) > 0


def translate_usage(usage: Json, dialect: Dialect) -> Usage:
    """Return Anthropic's counts; input, cache read and cache write add up to ``prompt_tokens``."""
    prompt, completion = count_of(usage.get("prompt_tokens")), count_of(usage.get("completion_tokens"))
    total = count_of(usage.get("total_tokens"))
    prompt_details, completion_details = (
        object_in(usage, "prompt_tokens_details"),
        object_in(usage, "completion_tokens_details"),
    )
    thinking = _first(completion_details.get("reasoning_tokens"), usage.get("reasoning_tokens"))
    read = _first(
        prompt_details.get("cached_tokens"),
        usage.get("prompt_cache_hit_tokens"),  # DeepSeek
        usage.get("cached_tokens"),  # Moonshot
        usage.get("num_cached_tokens"),  # Mistral
        usage.get("cache_read_input_tokens"),
    )
    written = _first(
        prompt_details.get("cache_write_tokens"),
        prompt_details.get("cache_creation_tokens"),
        usage.get("cache_creation_input_tokens"),
    )
    if read + written > prompt and total != prompt + completion + read + written:
        # Grok on Azure: what the host puts before the prompt is counted as cached alone.
        read = min(read, prompt)
        written = min(written, prompt - read)
    output = completion
    if thinking and total == prompt + completion + thinking:  # xAI leaves the reasoning out of completion_tokens
        output = total - prompt
    elif dialect.total_includes_thinking and total > prompt + completion:
        output = total - prompt
        thinking = thinking or output - completion
    return Usage(
        input_tokens=prompt - read - written if read + written <= prompt else prompt,
        output_tokens=output,
        cache_read_input_tokens=read,
        cache_creation_input_tokens=written,
        thinking_tokens=min(thinking, output),
    )


def _first(*values: Any) -> int:
    for value in values:
        if value is not None:
            return count_of(value)
    return 0


@frozen
class Ending:
    """All that an answer said about its end."""

    finish_reason: Optional[str]
    stop_sequence: Optional[str]
    refusal: str
    has_tool_use: bool
    usage: Optional[Json]
    """The provider's own counts, where it sent any."""
    output_characters: int
    web_searches: int = 0


def message_delta(ending: Ending, context: ReplyContext) -> MessageDelta:
    """Return the event that tells why an answer ended, and what it cost in tokens."""
    usage = _final_usage(ending, context)
    if ending.web_searches:
        usage = replace(usage, web_searches=ending.web_searches)
    if ending.stop_sequence is not None and not ending.has_tool_use:
        return MessageDelta("stop_sequence", ending.stop_sequence, usage)
    reason = stop_reason(ending.finish_reason, ending.has_tool_use)
    if ending.refusal and reason == END_TURN:
        reason = REFUSAL
    if reason == MAX_TOKENS and ending.usage is not None and _is_window_full(usage, context):
        reason = WINDOW_FULL
    details: Optional[Json] = None
    if reason == REFUSAL:
        details = {"type": "refusal", "category": None, "explanation": ending.refusal or None}
    return MessageDelta(reason, None, usage, details)


def _is_window_full(usage: Usage, context: ReplyContext) -> bool:
    """Whether the window ended the answer, not ``max_tokens``."""
    if not context.max_tokens or not context.window:
        return False
    return usage.output_tokens < context.max_tokens and usage.prompt_tokens + usage.output_tokens >= context.window


def _final_usage(ending: Ending, context: ReplyContext) -> Usage:
    """Return the provider's counts; an absent or zero one is estimated, for clients compact by these numbers."""
    if ending.usage is None:
        return Usage(context.input_tokens, -(-ending.output_characters // 4))
    usage = translate_usage(ending.usage, context.dialect)
    return usage if usage.prompt_tokens else replace(usage, input_tokens=context.input_tokens)
