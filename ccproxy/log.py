"""The log: one handler on stderr, control characters escaped, keys masked. Called by ``cli`` only."""

from __future__ import annotations

import logging
import re
import sys
from typing import Callable, Iterable

from .translate.failure import mask

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class SafeFormatter(logging.Formatter):
    """The one place all records pass: no key, no forged line, no terminal sequence leaves it."""

    def __init__(self, secrets: Callable[[], Iterable[str]]) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%dT%H:%M:%S%z")
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback keeps its line ends."""
        record.message = mask(record.getMessage(), tuple(self._secrets())).replace("\n", "\\n").replace("\t", "\\t")
        record.asctime = self.formatTime(record, self.datefmt)
        line = self.formatMessage(record)
        if record.exc_info:
            line += "\n" + mask(self.formatException(record.exc_info), tuple(self._secrets()))
        return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", line)


def configure(level: str, secrets: Callable[[], Iterable[str]]) -> None:
    """Send ccproxy's log to stderr; ``secrets`` tells what to mask, at the time of each record."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(SafeFormatter(secrets))
    logger = logging.getLogger("ccproxy")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # every damaged PDF would print a line of its own
