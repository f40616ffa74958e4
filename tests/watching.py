"""A client that watches requests as they happen, event by event."""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from raw_http import RawConnection, request

Json = Dict[str, Any]


class Watching:
    """An open stream of ``/dashboard/events``; a context manager."""

    def __init__(self, url: str, query: str = "", headers: Optional[Mapping[str, str]] = None) -> None:
        self.connection = RawConnection(url)
        self.connection.send(request("GET", "/dashboard/events" + query, headers=headers))
        self.head = self.connection.head()
        self.comments: List[str] = []
        self._text = ""
        self._events: List[Tuple[str, Any]] = []

    def __enter__(self) -> Watching:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.connection.__exit__()

    def read(self) -> bool:
        """Read a piece of the stream; return whether there was one."""
        piece = self.connection.chunk()
        *frames, self._text = (self._text + piece.decode()).split("\n\n")
        for frame in frames:
            lines = dict(line.split(": ", 1) for line in frame.split("\n"))
            if "event" in lines:
                self._events.append((lines["event"], json.loads(lines["data"])))
            else:
                self.comments.append(frame)
        return bool(piece)

    def next(self) -> Optional[Tuple[str, Any]]:
        """The next event and its data; None at the end."""
        while not self._events:
            if not self.read():
                return None
        return self._events.pop(0)

    def until(self, name: str, holds: Callable[[Any], object] = lambda data: True) -> Any:
        """The data of the next event of that name about which something holds."""
        while True:
            found = self.next()
            assert found is not None, f"the stream ended before {name}"
            if found[0] == name and holds(found[1]):
                return found[1]
