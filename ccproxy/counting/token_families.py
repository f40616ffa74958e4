"""How many tokens a family of models makes of a request, as one table of frozen rows.

Text is counted with OpenAI's cl100k vocabulary, the one that can be had offline; a family says what its own makes of
that. *Documented* figures are Anthropic's; *fitted* ones are least absolute errors over the counts of recorded
requests, found on half of the recording projects and tried on the other half.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Tuple


@dataclass(frozen=True, eq=False)
class Family:
    """What one family of models counts. All figures are tokens. Each equals itself alone."""

    name: str
    pattern: str
    """Found in the model's name, in lower case and with dashes for dots."""
    text: float = 1.0
    """For each cl100k token."""
    symbol: float = 0.0
    """More for each ASCII punctuation mark or line break: cl100k joins them, Claude's vocabularies do less."""
    request: float = 3.0
    """Once; for Claude the opening of the answer, which is not added when the client began the answer itself."""
    turn: float = 4.0
    """For each turn; messages of one role in a row are one."""
    tools: int = 0
    """The hidden prompt that comes with tools when ``tool_choice`` is auto or none."""
    forced_tools: int = 0
    """The same for any and tool."""
    deferred_tools: int = 0
    """Once when there are tools that are loaded later; they themselves cost nothing."""
    tool: float = 8.0
    """For each tool, besides its name, description and schema."""
    has_typed_tools: bool = False
    """Whether tools are shown as TypeScript, not as JSON."""
    call: float = 20.0
    """For each tool call with its result, besides their texts."""
    argument: float = 0.0
    """More for each argument of a call: Claude reads an element each."""
    thinking: int = 0
    """For ``thinking: enabled``."""
    output_format: int = 0
    """For structured output, besides its schema."""
    document: int = 0
    """For each text document, besides its text."""
    citations: int = 0
    """Once when a document may be cited."""
    image_edge: int = 1568
    """Pixels: an image with a longer edge is scaled down."""
    image: int = 1568
    """The most for one image."""
    keeps_thinking: bool = False
    """Whether the thinking of earlier turns is counted; else only that of the turn that is going on."""


# All fitted on 620 requests, but for the images, which are documented. Strict tools add nothing.
_OLDER = Family(
    "Claude up to 4.6",
    r"claude",
    text=1.0,
    symbol=0.29,
    request=3.4,
    turn=3.4,
    tool=6.5,
    call=45,
    argument=10,
    thinking=28,
    output_format=125,
    document=47,
    citations=545,
)
# Fitted on 66 requests: text, symbol, call, argument, output_format and deferred_tools. Documented: about 30 % more
# tokens for the same text, and the images.
_NEWER = replace(
    _OLDER,
    name="Claude 4.7 and later",
    text=1.23,
    symbol=0.38,
    call=25,
    argument=20,
    thinking=0,
    output_format=178,
    deferred_tools=110,
    image_edge=2576,
    image=4784,
    keeps_thinking=True,
)

# The first pattern that is found wins. The hidden prompts of tools are documented; those of any and tool are fitted
# from Sonnet 4.5 on, and for Sonnet 4 and 4.1 both are (documented are 346 and 313).
FAMILIES: Tuple[Family, ...] = (
    replace(_NEWER, pattern=r"claude.*opus-5", request=0.0, tools=290, forced_tools=419),  # 4 less than Fable 5: fitted
    replace(_NEWER, pattern=r"claude.*sonnet-5", tools=354, forced_tools=483),
    replace(_NEWER, pattern=r"claude.*opus-4-7", tools=675, forced_tools=804),
    replace(_OLDER, pattern=r"claude.*-4-6|claude.*opus-4-5", tools=497, forced_tools=589, keeps_thinking=True),
    replace(_OLDER, pattern=r"claude.*-4-5", tools=497, forced_tools=589),
    replace(_OLDER, pattern=r"claude-3-opus", tools=530, forced_tools=281),
    replace(_OLDER, pattern=r"claude-3(-5)?-haiku", tools=264, forced_tools=340),
    replace(_OLDER, pattern=r"claude-3-5-sonnet", tools=294, forced_tools=261),
    replace(_OLDER, pattern=r"claude-(2|3|instant|opus-4(?!-[7-9])|sonnet-4)", tools=313, forced_tools=313),
    replace(_NEWER, pattern=r"claude", tools=290, forced_tools=419),
    # Factors by their makers' and users' comparisons; what the templates of open models add is the median over
    # recorded answers. Harmony begins each prompt with a system message.
    Family("gpt-oss", r"gpt-oss", request=65, tools=25, forced_tools=25, tool=2, has_typed_tools=True),
    Family("OpenAI", r"gpt|(^|/)o[1-9]|chatgpt|codex", tools=10, forced_tools=10, tool=2, has_typed_tools=True),
    Family("DeepSeek, Kimi, GLM, Qwen", r"deepseek|kimi|moonshot|glm|qwen|qwq", text=1.02, tools=120, forced_tools=120),
    Family("Gemini", r"gemini|gemma", text=1.1, tool=0, has_typed_tools=True),
    Family("Llama", r"llama", text=1.05, request=31, tools=120, forced_tools=120),
    Family("Mistral", r"mi[sx]tral|codestral|devstral|magistral", text=1.15),
    Family("other", r"", text=1.05, tools=120, forced_tools=120),
)


@lru_cache(maxsize=1024)
def family_of(model_name: str) -> Family:
    """Return the family of a model by the name that its provider is sent."""
    name = model_name.lower().replace(".", "-")
    return next(family for family in FAMILIES if re.search(family.pattern, name))
