"""How providers depart from plain chat completions, as one table of frozen rows.

Facts only: each field says what one provider takes or sends, and the translators look it up. ``GENERIC`` holds the
careful defaults for addresses nobody has described. ``RESPONSES`` holds the same rows as they are where a provider
speaks OpenAI's Responses API.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from typing import Dict, Optional, Tuple

from ..frozen import frozen


@frozen
class Dialect:
    """One provider's departures."""

    name: str
    # request
    max_tokens_field: str = "max_tokens"
    min_output_tokens: int = 1
    max_stop_sequences: int = 4
    takes_stream_options: bool = True
    takes_tool_stream: bool = False  # it sends the arguments of a call at their end alone unless it is asked
    streams_always: bool = False  # models may think in streams alone
    takes_parallel_tool_calls: bool = False
    takes_top_k: bool = False
    tool_choice_any: str = "required"
    tool_choice_takes_name: bool = True
    takes_tool_choice_none: bool = True
    unthinking_when_forced: str = r"(?!)"  # models that refuse a forced tool choice while they think
    max_tools: Optional[int] = None
    tool_id_pattern: str = r"[\x21-\x7e]{1,64}"
    system_in_conversation: str = "user"  # "inline": kept as a system message in place
    takes_images: bool = True
    takes_image_urls: bool = True
    takes_pdf: bool = False
    takes_pdf_urls: bool = False
    takes_media_in_results: bool = False  # images and files may stand in a tool result
    null_content: bool = True  # content: null beside tool calls; else an empty string
    needs_turn_after_tool: bool = False  # an assistant message must stand between tool and user
    fixed_sampling: str = r"(?!)"  # models that refuse temperature and top_p
    fixed_stop: str = r"(?!)"  # models that refuse stop: matched here alone
    keeps_cache_control: str = r"(?!)"  # models for which cache_control on text parts means something
    marks_results: bool = False  # a text part with cache_control may stand in a tool message
    json_output: str = "instruction"  # "schema": json_schema; "object": JSON mode and the schema in the prompt
    takes_strict: bool = False
    takes_user_hash: bool = False  # prompt_cache_key and safety_identifier
    max_tool_description: Optional[int] = None
    continue_fields: Tuple[Tuple[str, bool], ...] = ()  # request fields that continue the last assistant message
    prefill_flag: Optional[str] = None  # the field of the last assistant message that asks to continue it
    takes_own_reasoning: bool = True  # what it sent comes back as it was
    reasoning_field: str = ""  # the field in which any reasoning text goes back, also a foreign model's
    needs_reasoning: str = ""  # which messages of a tool turn are refused without it: "calls", or "all" of them
    needs_signature: bool = False  # tool calls without a thought signature are refused
    encrypts_reasoning: str = r""  # models that can be asked for reasoning items that they can read again
    web_search: str = ""  # "openai": a tool that tells its sources; "tool": one that does not; "plugin": OpenRouter's
    names_phases: str = r"(?!)"  # models that tell commentary from final answers, and want to be told
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
    fixed_sampling=r"^(o\d|gpt-5(?!.*chat)|gpt-6)",
    fixed_stop=r"^(o\d|gpt-5(?!.*chat)|gpt-6)",
    json_output="schema",
    takes_strict=True,
    takes_user_hash=True,
    takes_own_reasoning=False,
    encrypts_reasoning=r"^(o[134]|codex|gpt-5(?!.*chat)|gpt-6)",
    names_phases=r"^gpt-(5\.3-codex|5\.[4-9]|6)",
    think_tag=None,
)
_LOCAL = Dialect("local", reasoning_field="reasoning_content", takes_top_k=True, json_output="schema")

DIALECTS: Dict[str, Dialect] = {
    row.name: row
    for row in (
        GENERIC,
        _OPENAI,
        replace(_OPENAI, name="azure", takes_user_hash=False, max_tool_description=1024, encrypts_reasoning=r""),
        Dialect(
            "gemini",
            needs_signature=True,
            json_output="schema",
            think_tag="thought",
            total_includes_thinking=True,
        ),
        Dialect(
            "deepseek",
            unthinking_when_forced=r"",
            max_stop_sequences=16,
            max_tools=128,
            system_in_conversation="inline",
            takes_images=False,
            json_output="object",
            reasoning_field="reasoning_content",
            needs_reasoning="all",
        ),
        Dialect(
            "openrouter",
            takes_parallel_tool_calls=True,
            takes_top_k=True,
            takes_pdf=True,
            takes_pdf_urls=True,
            keeps_cache_control=r"claude|gemini|minimax|glm",
            marks_results=True,
            unthinking_when_forced=r"claude",
            web_search="plugin",
            json_output="schema",
        ),
        Dialect(
            "moonshot",
            unthinking_when_forced=r"",
            fixed_sampling=r"k2\.[5-9]|k3|thinking",
            tool_choice_any="auto",
            tool_choice_takes_name=False,
            json_output="object",
            prefill_flag="partial",
            reasoning_field="reasoning_content",
            needs_reasoning="calls",
        ),
        Dialect(
            "zai",
            takes_tool_stream=True,
            tool_choice_any="auto",
            tool_choice_takes_name=False,
            takes_tool_choice_none=False,
            keeps_cache_control=r"",
            json_output="object",
            reasoning_field="reasoning_content",
        ),
        Dialect(
            "qwen",
            streams_always=True,
            unthinking_when_forced=r"",
            takes_parallel_tool_calls=True,
            tool_choice_any="auto",
            keeps_cache_control=r"",
            marks_results=True,
            json_output="object",
            reasoning_field="reasoning_content",
        ),
        Dialect("doubao", json_output="object", reasoning_field="reasoning_content"),
        Dialect(
            "xai",
            max_tools=128,
            takes_parallel_tool_calls=True,
            fixed_stop=r"grok-([4-9]|3-mini|code)",
            json_output="schema",
        ),
        Dialect(
            "groq",
            max_tokens_field="max_completion_tokens",
            max_tools=128,
            takes_parallel_tool_calls=True,
            null_content=False,
            takes_own_reasoning=False,
        ),
        Dialect(
            "mistral",
            takes_stream_options=False,
            takes_parallel_tool_calls=True,
            tool_choice_any="any",
            tool_id_pattern=r"[a-zA-Z0-9]{9}",
            needs_turn_after_tool=True,
            json_output="schema",
            prefill_flag="prefix",
        ),
        replace(
            _LOCAL,
            name="vllm",
            reasoning_field="reasoning",
            takes_parallel_tool_calls=True,
            continue_fields=(("continue_final_message", True), ("add_generation_prompt", False)),
        ),
        replace(_LOCAL, name="llamacpp"),
        replace(_LOCAL, name="ollama", reasoning_field="reasoning", takes_top_k=False, takes_image_urls=False),
        Dialect("lmstudio", tool_choice_takes_name=False, json_output="schema"),
    )
}

# The Responses API has words of its own, no stop sequences, and reasoning items in place of reasoning fields.
RESPONSES: Dict[str, Dialect] = {
    row.name: replace(
        row,
        max_tokens_field="max_output_tokens",
        min_output_tokens=16,
        max_stop_sequences=0,
        takes_stream_options=False,
        takes_parallel_tool_calls=True,
        takes_top_k=False,
        takes_pdf_urls=False,
        takes_media_in_results=row.name in ("openai", "azure"),
        web_search={"openai": "openai", "azure": "openai", "xai": "tool"}.get(row.name, row.web_search),
        tool_choice_any="required",
        unthinking_when_forced=r"(?!)",
        needs_turn_after_tool=False,
        keeps_cache_control=r"(?!)",
        continue_fields=(),
        prefill_flag=None,
        takes_own_reasoning=True,
        needs_signature=False,
    )
    for row in DIALECTS.values()
}

# Models that call functions, or think beside them, on the Responses API alone.
_RESPONSES_ONLY = r"^gpt-5\.[4-9](?!.*chat)|^gpt-6|codex|-pro\b|deep-research|^computer-use"

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


@lru_cache(maxsize=1024)  # a request asks eight times
def recognise(api_base: str, model_name: str) -> Dialect:
    """Return the dialect of an address and model name; ``GENERIC`` when nothing is known about either."""
    for patterns, text in ((_BY_ADDRESS, api_base), (_BY_MODEL, model_name.lower())):
        for pattern, name in patterns:
            if re.search(pattern, text):
                return DIALECTS[name]
    return GENERIC


def needs_responses(api_base: str, model_name: str) -> bool:
    """Whether a model does its work on the Responses API alone; known of OpenAI's own."""
    return "//api.openai.com" in api_base and re.search(_RESPONSES_ONLY, model_name) is not None
