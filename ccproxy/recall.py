"""The last conversations by their text: of a body that repeats them, only what is new is parsed.

Comparing the text of a message that is known takes a microsecond for each 20 KB, parsing it a hundred times as long;
and what was read, counted and translated of it is known with it. Of a turn of an agent that is nearly everything.

Bodies are searched as Latin-1, a character for each byte: JSON's own signs are ASCII, and of two such texts equality is
one comparison of memory, where texts in UTF-8 would first be decoded, and characters of different widths compared one
by one (0.5 and 0.9 of 2.0 ms for 800 KB).
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from typing import Any, Dict, List, Optional, Tuple

from .remembered import Item

MOST_CHARACTERS = 8_000_000
"""Of all texts. With what is made of them they take some 50 MB; a conversation of 150 KB is a fiftieth of that."""
LEAST_BODY = 8192
"""A shorter body is parsed sooner than looked up."""
LISTS = ("messages", "system", "tools")
# Characters by which items are looked up: most messages differ within them, by a tool id or their first words. Of a
# short item they reach into what follows it: before something else it is not found, and kept once more.
_START = 160
_MOST_ALIKE = 64  # with one beginning
_ENTRY = 500  # characters that an item takes besides its text

_OPEN = re.compile(r"[ \t\n\r]*\{")
_NAME = re.compile(r'[ \t\n\r]*"([ !#-\[\]-~]*)"[ \t\n\r]*:[ \t\n\r]*')
_NEXT = re.compile(r"[ \t\n\r]*([,}\]])[ \t\n\r]*")
_FIRST = re.compile(r"\[[ \t\n\r]*")


class Recall:
    """Remembers messages, tools and system blocks of the last bodies, up to so many characters in all."""

    def __init__(self, most_characters: int = MOST_CHARACTERS) -> None:
        self._most = most_characters
        self._items_lock = threading.Lock()  # guards all below
        self._alike: Dict[str, List[Item]] = {}
        self._items: OrderedDict[int, Tuple[Item, str]] = OrderedDict()  # by identity; with the text it is found by
        self._characters = 0

    def read(self, body: bytes, decoder: json.JSONDecoder) -> Optional[Dict[str, Any]]:
        """Return the JSON object of a body, what is known of its lists as it was read before.

        None says nothing: the body is short, or something is odd about it, and ``decoder`` shall tell.
        """
        if len(body) < LEAST_BODY:
            return None
        try:
            return self._object(body.decode("latin-1"), decoder)
        except ValueError:
            return None

    def _object(self, text: str, decoder: json.JSONDecoder) -> Dict[str, Any]:
        body: Dict[str, Any] = {}
        position, mark = _match(_OPEN, text, 0), ","
        while mark == ",":
            member = _NAME.match(text, position)
            if member is None or member[1] in body:
                raise ValueError
            name, start = member[1], member.end()
            is_list = name in LISTS and text.startswith("[", start)
            body[name], position = self._list(text, start, decoder) if is_list else _value(text, start, decoder)
            mark, position = _after(text, position)
        if mark != "}" or position != len(text):
            raise ValueError
        return body

    def _list(self, text: str, start: int, decoder: json.JSONDecoder) -> Tuple[List[Any], int]:
        """Return a list that begins at ``start``, and where it ends."""
        items: List[Any] = []
        position, mark = _match(_FIRST, text, start), ","
        if text.startswith("]", position):
            return items, position + 1
        while mark == ",":
            item: Any = self._known(text, position)
            if item is not None:
                end = position + len(item.text)
            else:
                item, end = _value(text, position, decoder)
                if isinstance(item, dict):
                    item = Item(item, text[position:end])
                    self._keep(item, text[position : position + _START])
            if items and isinstance(items[-1], Item):
                items[-1].follower = id(item)
            items.append(item)
            mark, position = _after(text, self._follow(text, end, items))
        if mark != "]":
            raise ValueError
        return items, position

    def _follow(self, text: str, end: int, items: List[Any]) -> int:
        """Add what came after the last item before, as long as it comes again; return where it ends.

        Of the 100 items of a body of 150 KB that takes 0.1 ms less than looking each of them up.
        """
        kept, count = self._items, len(items)
        while isinstance(items[-1], Item) and text.startswith(",", end):
            known = kept.get(items[-1].follower)
            if known is None or not text.startswith(known[0].text, end + 1):
                break
            items.append(known[0])
            end += 1 + len(known[0].text)
        if len(items) > count:
            with self._items_lock:
                for item in items[count:]:
                    if id(item) in kept:  # no other thread forgot it
                        kept.move_to_end(id(item))
        return end

    def _known(self, text: str, position: int) -> Optional[Item]:
        with self._items_lock:
            for item in reversed(self._alike.get(text[position : position + _START], ())):
                if text.startswith(item.text, position):
                    self._items.move_to_end(id(item))
                    return item
        return None

    def _keep(self, item: Item, start: str) -> None:
        if len(item.text) > self._most // 4:
            return
        with self._items_lock:
            alike = self._alike.setdefault(start, [])
            alike.append(item)
            self._items[id(item)] = (item, start)
            self._characters += len(item.text) + _ENTRY
            if len(alike) > _MOST_ALIKE:
                self._forget(id(alike[0]))
            while self._characters > self._most:
                self._forget(next(iter(self._items)))

    def _forget(self, key: int) -> None:
        item, start = self._items.pop(key)
        self._characters -= len(item.text) + _ENTRY
        self._alike[start] = [other for other in self._alike[start] if other is not item]
        if not self._alike[start]:
            del self._alike[start]


def _value(text: str, start: int, decoder: json.JSONDecoder) -> Tuple[Any, int]:
    """Return the value that begins at ``start``, and where it ends."""
    value, end = decoder.raw_decode(text, start)
    own = text[start:end]
    return (value if own.isascii() else decoder.decode(own.encode("latin-1").decode("utf-8"))), end


def _match(pattern: re.Pattern[str], text: str, position: int) -> int:
    """Return where a pattern ends that has to be at a position."""
    found = pattern.match(text, position)
    if found is None:
        raise ValueError
    return found.end()


def _after(text: str, position: int) -> Tuple[str, int]:
    """Return the mark after a value, and where what follows it begins."""
    found = _NEXT.match(text, position)
    if found is None:
        raise ValueError
    return found[1], found.end()
