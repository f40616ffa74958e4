"""``Notifier``: tells systemd how the server is (``sd_notify``): ready, reading its configuration, alive, stopping.

The protocol is sd_notify(3): datagrams of ``NAME=value`` lines to the socket that ``NOTIFY_SOCKET`` names. Without that
variable nothing is said.
"""

from __future__ import annotations

import logging
import os
import socket
from typing import Mapping

log = logging.getLogger(__name__)


class Notifier:
    """The way to systemd, for one thread."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address  # an abstract name
        self._interval = _watchdog_seconds(environment) / 3
        self._ping_at = 0.0

    def tell(self, *states: str) -> None:
        """Send states such as ``READY=1``; a systemd that does not listen is no reason to fail."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
                way.setblocking(False)
                way.sendto("\n".join(states).encode(), self._address)
        except OSError as error:
            log.warning("systemd cannot be told %s: %s", states[0], error)

    def ping(self, now: float) -> None:
        """Say that the server is alive, when it is time to; without a watchdog, never.

        Args:
            now: seconds on a clock that only runs forward.
        """
        if self._interval and now >= self._ping_at:
            self._ping_at = now + self._interval
            self.tell("WATCHDOG=1")


def _watchdog_seconds(environment: Mapping[str, str]) -> float:
    """Return after how many seconds of silence systemd ends us; 0: never. The variables may be meant for a parent."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    text = environment.get("WATCHDOG_USEC", "")
    return int(text) / 1_000_000 if text.isdecimal() else 0.0
