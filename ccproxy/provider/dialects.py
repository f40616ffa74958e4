"""How providers depart from plain chat completions, as one table of frozen rows.

Facts only: each field says what one provider takes or sends, and the translators look it up. ``GENERIC`` holds the
careful defaults for addresses nobody has described.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Dict, Optional, Tuple


@dataclass(frozen=True)
class Dialect:
    """One provider's departures."""

    name: str
    # request
    max_tokens_field: str = "max_tokens"
    max_stop_sequences: int = 4
    takes_stream_options: bool = True
    takes_parallel_tool_calls: bool = False
    takes_top_k: bool = False
    tool_choice_any: str = "required"
    tool_choice_takes_name: bool = True
    takes_tool_choice_none: bool = True
    max_tools: Optional[int] = None
    tool_id_pattern: str = r"[\x21-\x7e]{1,64}"
    system_in_conversation: str = "user"  # "inline": kept as a system message in place
    takes_images: bool = True
    takes_pdf: bool = False
    needs_text_content: bool = False  # text parts are joined into one string
    prefill_flag: Optional[str] = None  # the field of the last assistant message that asks to continue it
    reasoning_field: Optional[str] = None  # the field in which earlier reasoning goes back
    needs_reasoning: bool = False  # tool turns without it are refused
    # reply
    think_tag: Optional[str] = "think"  # reasoning at the start of the content, in this tag
    total_includes_thinking: bool = False  # completion_tokens leaves the thinking out, total_tokens does not


GENERIC = Dialect("generic")
_OPENAI = Dialect(
    "openai",
    max_tokens_field="max_completion_tokens",
    takes_parallel_tool_calls=True,
    max_tools=128,
    tool_id_pattern=r"[\x21-\x7e]{1,40}",
    system_in_conversation="inline",
    takes_pdf=True,
    think_tag=None,
)
_QWEN = Dialect("qwen", reasoning_field="reasoning_content", takes_parallel_tool_calls=True)
_LOCAL = Dialect("local", reasoning_field="reasoning_content", takes_top_k=True)

DIALECTS: Dict[str, Dialect] = {
    row.name: row
    for row in (
        GENERIC,
        _OPENAI,
        replace(_OPENAI, name="azure"),
        Dialect("gemini", think_tag="thought", total_includes_thinking=True),
        Dialect(
            "deepseek",
            max_stop_sequences=16,
            max_tools=128,
            system_in_conversation="inline",
            takes_images=False,
            reasoning_field="reasoning_content",
            needs_reasoning=True,
        ),
        Dialect(
            "openrouter", takes_parallel_tool_calls=True, takes_top_k=True, takes_pdf=True, reasoning_field="reasoning"
        ),
        Dialect("moonshot", prefill_flag="partial", reasoning_field="reasoning_content", needs_reasoning=True),
        Dialect("zai", tool_choice_any="auto", tool_choice_takes_name=False, reasoning_field="reasoning_content"),
        _QWEN,
        Dialect("doubao", reasoning_field="reasoning_content"),
        Dialect("xai", max_tools=128, takes_parallel_tool_calls=True),
        Dialect("groq", max_tokens_field="max_completion_tokens", max_tools=128, takes_parallel_tool_calls=True),
        Dialect(
            "mistral",
            takes_stream_options=False,
            takes_parallel_tool_calls=True,
            tool_choice_any="any",
            tool_id_pattern=r"[a-zA-Z0-9]{9}",
            prefill_flag="prefix",
        ),
        replace(_LOCAL, name="vllm", reasoning_field="reasoning", takes_parallel_tool_calls=True),
        replace(_LOCAL, name="llamacpp"),
        replace(_LOCAL, name="ollama", reasoning_field="reasoning", takes_top_k=False),
        Dialect("lmstudio", tool_choice_takes_name=False),
    )
}

# Address first, then model name; the first match wins.
_BY_ADDRESS: Tuple[Tuple[str, str], ...] = (
    (r"\.openai\.azure\.com|\.cognitiveservices\.azure\.com", "azure"),
    (r"//api\.openai\.com", "openai"),
    (r"generativelanguage\.googleapis\.com|aiplatform\.googleapis\.com", "gemini"),
    (r"//api\.deepseek\.com", "deepseek"),
    (r"//openrouter\.ai", "openrouter"),
    (r"//api\.moonshot\.(ai|cn)|//api\.kimi\.com", "moonshot"),
    (r"//api\.z\.ai|bigmodel\.cn", "zai"),
    (r"dashscope[^/]*\.aliyuncs\.com", "qwen"),
    (r"\.volces\.com|\.bytepluses\.com", "doubao"),
    (r"//api\.x\.ai", "xai"),
    (r"//api\.groq\.com", "groq"),
    (r"//api\.mistral\.ai", "mistral"),
    (r":11434\b", "ollama"),
    (r":1234\b", "lmstudio"),
)
_BY_MODEL: Tuple[Tuple[str, str], ...] = (
    (r"deepseek", "deepseek"),
    (r"kimi|moonshot", "moonshot"),
    (r"^glm-|/glm-", "zai"),
    (r"qwen|qwq", "qwen"),
    (r"doubao", "doubao"),
)


def recognise(api_base: str, model_name: str) -> Dialect:
    """Return the dialect of an address and model name; ``GENERIC`` when nothing is known about either."""
    for patterns, text in ((_BY_ADDRESS, api_base), (_BY_MODEL, model_name.lower())):
        for pattern, name in patterns:
            if re.search(pattern, text):
                return DIALECTS[name]
    return GENERIC
