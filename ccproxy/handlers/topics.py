"""The lines of ``streaming.log``, ``thinking.log``, ``tools.log`` and ``simple.log``: one for each request concerned.

Counts and names, no text of prompts or answers.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, List, Mapping

from ..accounting.ledgerfile import Row
from ..anthropic import MessagesRequest, ToolResultBlock
from ..frozen import frozen
from ..translate.effort import OFF, UNSET, thinking_intent

streaming = logging.getLogger("ccproxy.streaming")
thinking = logging.getLogger("ccproxy.thinking")
tools = logging.getLogger("ccproxy.tools")
simple = logging.getLogger("ccproxy.simple")
_MAX_NAMES, _MAX_NAME = 20, 64


@frozen
class Asked:
    """What a request asked for, in a few words: the request itself is not kept while its answer comes."""

    is_stream: bool = False
    thinking: str = UNSET
    tools: int = 0
    choice: str = "auto"
    results: int = 0
    """Tool results in the last message."""
    failed_results: int = 0

    @classmethod
    def of(cls, request: MessagesRequest) -> Asked:
        """Read it off a request."""
        results = [block for block in request.messages[-1].content if isinstance(block, ToolResultBlock)]
        return cls(
            is_stream=request.stream,
            thinking=thinking_intent(request),
            tools=len(request.tools),
            choice=request.tool_choice.type if request.tool_choice else "auto",
            results=len(results),
            failed_results=sum(block.is_error for block in results),
        )


NOTHING = Asked()


@dataclass
class Got:
    """What the answer had, counted by block."""

    events: int = 0
    thinking_blocks: int = 0
    calls: List[str] = field(default_factory=list)
    """Names of the tools that were called."""
    mended_calls: int = 0
    """Calls whose arguments came as something else than a JSON object."""

    def see(self, block: Mapping[str, Any]) -> None:
        """Count a content block that begins."""
        if block["type"] == "thinking":
            self.thinking_blocks += 1
        elif block["type"] == "tool_use":
            self.calls.append(str(block["name"])[:_MAX_NAME])


def write(row: Row, asked: Asked, got: Got, *, first: str, detail: str) -> None:
    """Write the lines of a request that ended.

    Args:
        first: the time to the first content, as the general log tells it.
        detail: the stop reason, or the failure in words.
    """
    who = f"{row.request_id} {row.model or '-'}"
    if asked.is_stream:
        streaming.info("%s events=%d first=%s total=%.3fs %s", who, got.events, first, row.duration, detail)
    if asked.thinking not in (OFF, UNSET) or got.thinking_blocks or row.thinking_tokens:
        blocks, tokens = got.thinking_blocks, row.thinking_tokens
        thinking.info("%s asked=%s blocks=%d tokens=%d %s", who, asked.thinking, blocks, tokens, detail)
    if asked.tools or asked.results or got.calls:
        tools.info(
            "%s offered=%d choice=%s results=%d failed=%d calls=%s mended=%d %s",
            who,
            asked.tools,
            asked.choice,
            asked.results,
            asked.failed_results,
            _listed(got.calls),
            got.mended_calls,
            detail,
        )
    if row.rule == "test_conversion":
        simple.info("%s test_conversion first=%s total=%.3fs %s", who, first, row.duration, detail)


def _listed(names: List[str]) -> str:
    """Return each name with how often it is there, bounded; ``-`` for none."""
    counted = Counter(names).most_common(_MAX_NAMES)
    return ",".join(name if number == 1 else f"{name}*{number}" for name, number in counted) or "-"
