"""``BlockWriter``: the content blocks of one answer as events, numbered 0, 1, 2, ... and at most one of them open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, List, Optional
from weakref import WeakMethod

from ..encoded import Json
from ..message import BlockStart, BlockStop, Event, InputJsonDelta, TextDelta
from .toolcalls import Call


@dataclass
class OpenBlock:
    """The one block that may take deltas."""

    kind: str  # its type
    index: int
    call: Optional[Call] = None


class BlockWriter:
    """Gathers events until they are taken."""

    def __init__(self, complete: Callable[[OpenBlock], None]) -> None:
        """``complete``, a method of who owns this, writes what a block still needs before it is closed."""
        self.open: Optional[OpenBlock] = None
        self.count = 0
        self.characters = 0
        """How much was written, for an estimate of tokens."""
        self.out: List[Event] = []
        self._complete = WeakMethod(complete)  # else both would wait for the collector

    def take(self) -> List[Event]:
        """Return the events since the last time."""
        out, self.out = self.out, []
        return out

    def switch(self, start: Json, call: Optional[Call] = None) -> OpenBlock:
        """Close the open block and open the next one."""
        self.close()
        self.open = OpenBlock(start["type"], self.count, call)
        self.count += 1
        self.out.append(BlockStart(self.open.index, start))
        return self.open

    def close(self) -> None:
        """Close the open block, if there is one."""
        if self.open is None:
            return
        complete = self._complete()
        if complete is not None:
            complete(self.open)
        self.out.append(BlockStop(self.open.index))
        self.open = None

    def is_open(self, kind: str) -> bool:
        """Whether a block of this type is open."""
        return self.open is not None and self.open.kind == kind

    def text(self, index: int, text: str) -> None:
        """Write visible text."""
        self.characters += len(text)
        self.out.append(TextDelta(index, text))

    def json(self, index: int, text: str) -> None:
        """Write a piece of a tool's input."""
        self.characters += len(text)
        self.out.append(InputJsonDelta(index, text))

    @property
    def call(self) -> Optional[Call]:
        """The call that is open."""
        return self.open.call if self.open is not None else None

    @property
    def is_writing_call(self) -> bool:
        """Whether the open block is a call in the middle of its arguments."""
        call = self.call
        return call is not None and bool(call.arguments.strip()) and not call.is_complete

    @property
    def may_open_call(self) -> bool:
        """Whether no call is open, or a whole one: one without arguments so far may still get them."""
        call = self.call
        return call is None or call.is_complete
