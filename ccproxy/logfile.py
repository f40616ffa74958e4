"""A log file that several processes write: whole lines, rotated by size, for its owner's eyes only.

Each line is one ``write`` to a file opened for appending, which the kernel does not mix with another one. Rotation
renames under a lock of the folder. Whoever finds another file under the name, because of that or of logrotate, opens
the new one; what it wrote to the old one until then is kept there. No trouble with a file ever reaches a request.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Optional

log = logging.getLogger(__name__)

MAX_BYTES = 10_000_000
KEEP = 5
RETRY_PAUSE = 5.0
WARN_PAUSE = 60.0


class Outage:
    """Whether the files of a folder cannot be written just now; told once, tried again after a pause."""

    def __init__(self) -> None:
        self.retry_at = 0.0
        self._warned_at = -WARN_PAUSE

    def begin(self, path: Path, error: OSError) -> None:
        """Note that a line could not be written."""
        now = time.monotonic()
        self.retry_at = now + RETRY_PAUSE
        if now >= self._warned_at + WARN_PAUSE:
            self._warned_at = now
            log.warning("%s: cannot be written, lines are lost: %s", path, error.strerror or error)


class LogFile(logging.Handler):
    """Appends the records of a logger to a file."""

    def __init__(self, path: Path, outage: Outage, max_bytes: int = MAX_BYTES, keep: int = KEEP) -> None:
        super().__init__()
        self.path = path
        self._outage, self._max_bytes, self._keep = outage, max_bytes, keep
        self._descriptor: Optional[int] = None
        self._is_torn = self._is_closed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, if that is possible."""
        if time.monotonic() < self._outage.retry_at:
            return
        try:
            self._write(f"{self.format(record)}\n".encode("utf-8", "replace"))
        except OSError as error:
            self._outage.begin(self.path, error)
        if self._is_closed:  # the thread had this handler in hand when another one took its place
            self._let_go()

    def touch(self) -> None:
        """Make the file, so that its owner finds it, and hears at once when it cannot be made."""
        self.acquire()
        try:
            self._open()
        except OSError as error:
            self._outage.begin(self.path, error)
        finally:
            self.release()

    def close(self) -> None:
        """Let go of the file."""
        self.acquire()
        try:
            self._is_closed = True
            self._let_go()
        finally:
            self.release()
        super().close()

    def _write(self, line: bytes) -> None:
        descriptor = self._open()
        if os.fstat(descriptor).st_size + len(line) > self._max_bytes:
            with suppress(OSError):  # a file that cannot be rotated grows
                self._rotate()
            descriptor = self._open()
        line = b"\n" + line if self._is_torn else line  # a full disk took only the beginning of the last one
        written = os.write(descriptor, line)
        self._is_torn = written < len(line)
        if self._is_torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _open(self) -> int:
        if self._descriptor is not None and not self._is_current():
            self._let_go()
        if self._descriptor is None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if stat.S_ISREG(os.fstat(self._descriptor).st_mode):
                with suppress(PermissionError):  # somebody else's file that we may write
                    os.fchmod(self._descriptor, 0o600)
        return self._descriptor

    def _is_current(self) -> bool:
        """Whether the open file still has its name."""
        assert self._descriptor is not None
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _let_go(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _rotate(self) -> None:
        """Number the files up; the oldest goes. While somebody else has the folder locked, it waits."""
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self._is_current():
                return  # another process was faster
            for number in range(self._keep - 1, 0, -1):
                with suppress(FileNotFoundError):
                    self._numbered(number).rename(self._numbered(number + 1))
            self.path.rename(self._numbered(1))
        finally:
            os.close(folder)

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")
