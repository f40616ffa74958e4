"""``Running``: one request while it waits for a provider, as the watching thread sees it."""

from __future__ import annotations

import time
from typing import List, Optional

from ..errors import ClientGone, ProviderError
from ..provider.cancel import Cancel
from ..watch import Watch
from ..web import Early, Line


class Running:
    """Joins what may end a request early: the client's leaving, and the deadline for the whole exchange."""

    def __init__(self, watch: Watch, line: Optional[Line]) -> None:
        self.cancel = Cancel()
        self.record: object = None
        """The ``Record`` of what is known of it so far, when it is one for a model."""
        self._watch, self._line = watch, line
        self._is_watched = False
        self._deadline = float("inf")
        self._limit = 0.0

    def start(self, limit: float, early: Optional[Early]) -> None:
        """Be watched from now on.

        Args:
            limit: the seconds that the exchange may take, all attempts included.
            early: what the client is given when it has to wait.
        """
        self._limit, self._deadline = limit, time.monotonic() + limit
        if self._line is not None and early is not None:
            self._line.expect(early)
        self._is_watched = True
        self._watch.add(self)

    def all(self) -> List[Running]:
        """Return the requests of this process that are being watched."""
        return [item for item in self._watch.all() if isinstance(item, Running)]

    def begin_answer(self) -> bool:
        """Take the way to the client over from the watching thread; return whether early bytes went out."""
        return self._line.begin() if self._line is not None else False

    def stop(self) -> None:
        """Be watched no more, and let go of the record, which knows this one: what knows itself stays in memory until
        the collector finds it, the whole prompt with it."""
        if self._is_watched:
            self._is_watched = False
            self._watch.remove(self)
        self.record = self._line = None

    def fileno(self) -> int:
        """Return the client's socket, or -1 behind a door that has none to show."""
        return self._line.fileno() if self._line is not None else -1

    def tick(self, now: float) -> None:
        """Give signs of life; end what takes too long."""
        if now > self._deadline:
            message = f"the exchange took more than the {self._limit:g} s of PROVIDER_TOTAL_TIMEOUT"
            self.cancel.cancel(ProviderError(message, status=504, is_transient=False))
        elif self._line is not None and self._line.is_gone():
            self.on_gone()
        elif self._line is not None:
            self._line.tick(now)

    def on_gone(self) -> None:
        """The client left: the provider's work is for nobody."""
        self.cancel.cancel(ClientGone("the client left"))
