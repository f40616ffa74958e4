"""Where long conversations went last, so that they do not hop between models at a threshold."""

from __future__ import annotations

import threading
from typing import Dict, Optional, Tuple

from .anthropic import MessagesRequest, TextBlock
from .routing import LONG_CONTEXT, Decision

MAX_CONVERSATIONS = 1000
CACHE_LIFE = 3600.0
"""Seconds: the longest that providers usually keep a prompt in their caches. Later there is nothing to stay for."""


def conversation_of(session: str, request: MessagesRequest) -> int:
    """Return what stays the same over a conversation's turns: its session and its first message.

    The agents of a session have their own first messages; after a compaction it is another conversation.
    """
    first = request.messages[0].content if request.messages else ()
    return hash((session, *(block.text for block in first if isinstance(block, TextBlock))))


class LastRoutes:
    """Remembers the routes to ROUTER_LONG_CONTEXT alone: no other one outlasts its reason."""

    def __init__(self, most: int = MAX_CONVERSATIONS) -> None:
        self._most = most
        self._kept_lock = threading.Lock()
        self._kept: Dict[int, Tuple[float, Decision]] = {}

    def get(self, conversation: int, now: float) -> Optional[Decision]:
        """Return the last route of a conversation, while a cache may hold it."""
        kept = self._kept.get(conversation)
        return kept[1] if kept is not None and now - kept[0] < CACHE_LIFE else None

    def put(self, conversation: int, decision: Decision, now: float) -> None:
        """Remember a route; beyond the most conversations the one used longest ago is forgotten."""
        with self._kept_lock:
            self._kept.pop(conversation, None)
            if decision.rule == LONG_CONTEXT:
                self._kept[conversation] = (now, decision)
                if len(self._kept) > self._most:
                    del self._kept[next(iter(self._kept))]
