"""Parts of a conversation that know what was made of them: each turn sends all of the turns before it again."""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping, TypeVar

T = TypeVar("T")


class Item(Dict[str, Any]):
    """A message or a tool as a client sent it. In the same words it is this very object again: nobody changes it."""

    __slots__ = ("made", "text")

    def __init__(self, value: Mapping[str, Any], text: str) -> None:
        super().__init__(value)
        self.text = text
        self.made: Dict[Any, Any] = {}
        """By function: what it was read as."""


def once(item: Any, read: Callable[[Any, str], T], path: str) -> T:
    """Return what ``read`` makes of an item; one that was read before is not read again.

    Args:
        path: names the item in errors, which are not remembered.
    """
    if type(item) is not Item:
        return read(item, path)
    if read not in item.made:
        item.made[read] = read(item, path)
    return item.made[read]  # type: ignore[no-any-return]
