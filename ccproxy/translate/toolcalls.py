"""Puts the fragments of streamed tool calls together, whatever a provider uses to tell parallel calls apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import List, Optional

from .. import partial_json
from ..encoded import Json, dump
from ..errors import ProviderError
from ..openai import ToolCallDelta
from .text import HalfJoiner


@dataclass
class Call:
    """One tool call of the answer. ``sent`` counts the characters of ``arguments`` the client already has."""

    index: Optional[int]
    provider_id: str
    name: str
    arguments: str = ""
    state: Json = field(default_factory=dict)
    client_id: str = ""
    sent: int = 0
    is_closed: bool = False
    pieces: int = 0
    _halves: HalfJoiner = field(default_factory=HalfJoiner)

    @property
    def is_complete(self) -> bool:
        """Whether the arguments so far are a whole JSON object."""
        return partial_json.parse_object(self.arguments) is not None

    @property
    def is_live(self) -> bool:
        """Whether the arguments can be passed on as they come: they begin like the object they must be.

        Everything else is repaired at the end: ``null``, an object in a string, text, and an object that comes in
        one piece and cannot be parsed.
        """
        if not self.arguments.lstrip().startswith("{"):
            return False
        return self.sent > 0 or self.pieces > 1 or self.is_complete or not self.arguments.rstrip().endswith("}")

    def add_arguments(self, text: str) -> None:
        """Take in a fragment."""
        text = self._halves.feed(text)
        self.pieces += bool(text)
        self.arguments += text

    def end(self) -> None:
        """Take the arguments for whole."""
        self.arguments += self._halves.finish()

    def missing(self, *, may_be_cut: bool) -> str:
        """Return what must follow the sent arguments to make them strict JSON, as far as these still allow.

        Raises:
            ProviderError: nothing would.
        """
        if not self.sent:
            return dump(partial_json.repair(self.arguments))
        if self.is_complete or may_be_cut:
            return ""
        suffix = partial_json.closing(self.arguments)
        if suffix is None:
            raise ProviderError(f"the provider sent arguments for tool {self.name!r} that are not JSON")
        return suffix


class ToolCalls:
    """The calls of one answer in order of first appearance."""

    def __init__(self) -> None:
        self.all: List[Call] = []

    def waiting(self, *, is_single: bool, current: Optional[Call]) -> List[Call]:
        """Return the calls that can be opened: all but the current one, or the first alone."""
        candidates = self.all[:1] if is_single else self.all
        return [call for call in candidates if call.name and not call.is_closed and call is not current]

    @property
    def closed(self) -> int:
        """How many calls the client has whole."""
        return sum(call.is_closed for call in self.all)

    @property
    def mended(self) -> int:
        """How many of them came with arguments that are no JSON object; none at all are an empty one."""
        return sum(call.is_closed and bool(call.arguments.strip()) and not call.is_complete for call in self.all)

    def add(self, delta: ToolCallDelta) -> Call:
        """Return the call a fragment belongs to, with the fragment added."""
        call = self._find(delta)
        if call is None:
            call = Call(delta.index, delta.id, delta.name)
            self.all.append(call)
        call.provider_id = call.provider_id or delta.id
        call.name = call.name or delta.name
        call.state = delta.state or call.state
        if not (call.is_closed and not delta.arguments.strip()):
            call.add_arguments(delta.arguments)
        return call

    def _find(self, delta: ToolCallDelta) -> Optional[Call]:
        if delta.index is not None:
            call = next((call for call in reversed(self.all) if call.index == delta.index), None)
            if call and delta.id and call.provider_id and delta.id != call.provider_id and delta.name:
                return None  # providers that number every call 0
            return call
        if delta.id:
            return next((call for call in self.all if call.provider_id == delta.id), None)
        return None if delta.name or not self.all else self.all[-1]
