"""What the translation of an answer needs to know of its request."""

from __future__ import annotations

from dataclasses import field
from typing import Callable, FrozenSet, Optional, Tuple

from ..frozen import frozen
from ..provider.dialects import GENERIC, Dialect
from .failure import Target
from .ids import ToolNames


@frozen
class ReplyContext:
    """What the translation of an answer needs to know of its request."""

    message_id: str
    model: str
    """The model the client asked for; answers echo it."""
    estimate: Optional[int] = 0
    """Our estimate of the prompt's tokens, which the answer begins with; None: it was not made, see ``count``."""
    count: Callable[[], int] = int
    """Makes the estimate after all."""
    tool_names: ToolNames = field(default_factory=lambda: ToolNames(()))
    used_tool_ids: FrozenSet[str] = frozenset()
    stop_sequences: Tuple[str, ...] = ()
    is_single_call: bool = False
    max_tokens: Optional[int] = None
    window: Optional[int] = None
    """The model's context window in tokens, when it is known."""
    dialect: Dialect = GENERIC
    provider: str = ""
    model_name: str = ""
    """Who answers, for the state that must return there."""
    hides_thinking: bool = False
    has_fence: bool = False
    search: Optional[str] = None
    """What the client wants to have searched, in words; None: it did not ask for a search."""

    @property
    def input_tokens(self) -> int:
        """Our estimate, used unless the provider tells its own count."""
        return self.count() if self.estimate is None else self.estimate

    def stopped_at(self, told: str) -> Optional[str]:
        """Return the stop sequence asked for that a provider tells of; an empty one may be any."""
        if not told and len(self.stop_sequences) == 1:
            return self.stop_sequences[0]
        return told if told in self.stop_sequences else None

    @property
    def target(self) -> Target:
        """Who is asked, for the wording of failures."""
        return Target(self.provider or "the provider", self.model_name, self.window, self.input_tokens)
