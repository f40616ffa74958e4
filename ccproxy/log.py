"""The log: lines for the console and for the files of a folder; control characters escaped, keys masked.

Only entries call ``configure``. ``server.log`` takes what the console shows; each topic has a logger, and a file, of
its own.
"""

from __future__ import annotations

import logging
import os
import re
import select
import sys
import threading
from pathlib import Path
from typing import Callable, Dict, Iterable, List, Mapping, Optional, TextIO

from .config.load import state_folder
from .config.schema import Config
from .logfile import LogFile, Outage
from .masking import mask

GENERAL = "server.log"
# Logger, below "ccproxy", and file: a line per stream, per request that thinks, and per request with tools;
# test_conversion, check and perf runs; with LOG_BODIES, bodies.
TOPICS = ("streaming", "thinking", "tools", "simple", "bodies")
RUN_FOLDER = "CCPROXY_RUN_FOLDER"
"""The variable that names the folder of a server in the background: its console is a file there, which is rotated."""
RUN_LOG, RUN_URL = "ccproxy.log", "ccproxy.url"
"""That file, and the one in which the server tells where it listens."""
MAX_LINE = 4000
MAX_TRACEBACK = 16_000

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_COLOURS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31m"}
# What systemd's journal reads from the beginning of a line: syslog's numbers.
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_PIECE = 4096
"""Bytes that a pipe takes at once when it takes any (POSIX: at least 512; Linux and macOS: a page)."""


class SafeFormatter(logging.Formatter):
    """The one place all records pass: no key, no forged line, no terminal sequence leaves it."""

    def __init__(self, secrets: Callable[[], Iterable[str]], max_line: int = MAX_LINE) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%dT%H:%M:%S%z")
        self._secrets = secrets
        self._max_line = max_line

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback keeps its line ends."""
        secrets = self._secrets()
        message = mask(record.getMessage(), secrets).replace("\n", "\\n").replace("\t", "\\t")
        record.message = _bounded(message, self._max_line)
        record.asctime = self.formatTime(record, self.datefmt)
        line = self.formatMessage(record)
        if record.exc_info:
            line += "\n" + _bounded(mask(self.formatException(record.exc_info), secrets), MAX_TRACEBACK)
        return _CONTROL.sub(_written_out, line)


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _bounded(text: str, limit: int) -> str:
    """Return text without its middle where it is long: the beginning says what it is, the end how it came."""
    return text if len(text) <= limit else f"{text[: limit // 2]}...{len(text) - limit} more...{text[-limit // 2 :]}"


class _Coloured(SafeFormatter):
    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        colour = _COLOURS.get(record.levelno)
        return f"{colour}{line}\x1b[0m" if colour else line


class _ForJournal(SafeFormatter):
    """Without a time, which the journal adds; the level is a number it knows."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return f"<{_PRIORITIES.get(record.levelno, 6)}>{record.message}"


class Console(logging.Handler):
    """Writes to the console, but never waits for it: lines that a full pipe would not take are dropped and counted."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._descriptor = stream.fileno()
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, if the console takes it."""
        text = f"{self.format(record)}\n"
        if self._dropped:
            text = f"({self._dropped} lines were dropped: nobody read them)\n{text}"
        data = text.encode("utf-8", "replace")
        try:
            for start in range(0, len(data), _PIECE):
                if not self._is_writable():
                    self._dropped += 1
                    return
                os.write(self._descriptor, data[start : start + _PIECE])
        except OSError:
            self._dropped += 1
            return
        self._dropped = 0

    def _is_writable(self) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(0))


def configure(config: Config, secrets: Callable[[], Iterable[str]], environment: Mapping[str, str]) -> None:
    """Send ccproxy's log to the console and to the files; again after a change of the configuration.

    Args:
        secrets: tells what to mask, at the time of each record.
    """
    outage = Outage()
    path = general_file(config, environment)
    files: Dict[str, LogFile] = {"": LogFile(path, outage)}
    for topic in TOPICS:
        if topic != "bodies" or config.log_bodies:
            files[topic] = LogFile(path.with_name(f"{topic}.log"), outage)
    console = _console(secrets, environment)
    general: List[logging.Handler] = [*([console] if console else []), files[""]]
    for name, file in files.items():
        file.setFormatter(SafeFormatter(secrets, sys.maxsize if name == "bodies" else MAX_LINE))
    for topic in TOPICS:
        _replace_handlers(f"ccproxy.{topic}", [files[topic]] if topic in files else [])
    _replace_handlers("ccproxy", general)
    _replace_handlers("urllib3", general)  # its warnings quote what providers sent
    for file in files.values():
        file.touch()
    logging.getLogger("ccproxy").setLevel(config.log_level)
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # every damaged PDF would print a line of its own


def tell_dead_thread(failure: threading.ExceptHookArgs) -> None:
    """Log what ended a thread: the interpreter would print it past the masks (``threading.excepthook``)."""
    name = failure.thread.name if failure.thread is not None else "?"
    exc_info = (failure.exc_type, failure.exc_value or failure.exc_type(), failure.exc_traceback)
    logging.getLogger(__name__).critical("the thread %s ended", name, exc_info=exc_info)


def _replace_handlers(name: str, handlers: List[logging.Handler]) -> None:
    logger = logging.getLogger(name)
    old, logger.handlers[:] = list(logger.handlers), handlers
    logger.propagate = False
    for handler in old:
        handler.close()


def note(text: str, config: Config, environment: Mapping[str, str]) -> None:
    """Add a line about a run of a command to ``simple.log``."""
    file = LogFile(general_file(config, environment).with_name("simple.log"), Outage())
    file.setFormatter(SafeFormatter(lambda: config.secrets))
    file.handle(logging.LogRecord("ccproxy.simple", logging.INFO, __file__, 0, text, None, None))
    file.close()


def general_file(config: Config, environment: Mapping[str, str]) -> Path:
    """Return the path of ``server.log``; the other files are beside it.

    LOG_FILE_PATH is a folder or the file itself; without it, systemd's folder for logs, or the state folder.
    """
    if not config.log_file_path:
        given = environment.get("LOGS_DIRECTORY", "").split(":")[0]
        return (Path(given) if given else state_folder(config, environment)) / GENERAL
    path = Path(config.log_file_path)
    return path if path.suffix and not os.path.isdir(path) else path / GENERAL


def _console(secrets: Callable[[], Iterable[str]], environment: Mapping[str, str]) -> Optional[logging.Handler]:
    if RUN_FOLDER in environment:
        file = LogFile(Path(environment[RUN_FOLDER], RUN_LOG), Outage())
        file.setFormatter(SafeFormatter(secrets))
        return file
    if sys.stderr is None:  # closed: its number may belong to a client's connection by now
        return None
    try:
        console = Console(sys.stderr)
    except (OSError, ValueError):
        return None
    kind = SafeFormatter
    if _is_journal(sys.stderr.fileno(), environment.get("JOURNAL_STREAM", "")):
        kind = _ForJournal
    elif sys.stderr.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb":
        kind = _Coloured
    console.setFormatter(kind(secrets))
    return console


def _is_journal(descriptor: int, journal: str) -> bool:
    """Whether a descriptor leads to systemd's journal: ``JOURNAL_STREAM`` names the device and inode that do."""
    status = os.fstat(descriptor)
    return journal == f"{status.st_dev}:{status.st_ino}"
