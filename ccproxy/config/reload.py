"""``ConfigStore``: the configuration in force, and what is found when its files change.

Files are told apart by what ``stat`` says, twice a second. What changed is read once it has stayed the same for one
round, so a file that is being written, or replaced by way of another name, is not read half. A new configuration is
read, checked and taken as a whole; while what is on disk is not valid, the old one stays in force.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Callable, FrozenSet, Optional, Set, Tuple

from ..errors import ConfigError
from .load import Loaded
from .schema import Config

log = logging.getLogger(__name__)

INTERVAL = 0.5
"""Seconds between two looks at the files."""

Load = Callable[[Set[Path]], Loaded]
"""Reads the configuration, and adds every file it looked for, found or not."""
_State = Tuple[Tuple[Path, Optional[Tuple[int, ...]]], ...]


class ConfigStore:
    """What one process knows of the configuration; for one thread.

    Raises:
        ConfigError: the first configuration is not valid.
    """

    def __init__(self, load: Load) -> None:
        self._load = load
        self._files: Set[Path] = set()
        self.loaded = load(self._files)
        self.secrets: FrozenSet[str] = self.config.secrets
        """The secrets of all configurations so far: requests in flight still use the old ones."""
        self.problem = ""
        """What is wrong with the files; empty when they are what is in force."""
        self._read = self._last = _state(self._files)
        self._look_at = 0.0
        self._is_asked = False

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.loaded.config

    @property
    def is_asked(self) -> bool:
        """Whether the next poll reads the files in any case."""
        return self._is_asked

    def ask(self) -> None:
        """Read the files with the next poll, changed or not."""
        self._is_asked = True

    def poll(self, now: float) -> Optional[Loaded]:
        """Return a valid configuration that is to be taken, or refused, by the caller.

        Args:
            now: seconds on a clock that only runs forward.
        """
        if now < self._look_at and not self._is_asked:
            return None
        self._look_at = now + INTERVAL
        found = _state(self._files)
        is_at_rest = found == self._last
        if not is_at_rest:  # else the old value stays where it is: a new one each second may keep a MiB of freed memory
            self._last = found
        is_asked, self._is_asked = self._is_asked, False
        if not is_asked and (found == self._read or not is_at_rest):
            return None
        self._read = found
        files: Set[Path] = set()
        try:
            loaded = self._load(files)
            self._check_removed(loaded)
        except ConfigError as error:
            self._watch(self._files | files)
            self.refuse(str(error), again=is_asked)
            return None
        self._watch(files)
        return loaded if is_asked or self.problem or loaded != self.loaded else None

    def accept(self, loaded: Loaded) -> None:
        """Take a configuration; it is in force from now on."""
        self.loaded, self.problem = loaded, ""
        self.secrets |= loaded.config.secrets

    def refuse(self, problem: str, *, again: bool = False) -> None:
        """Keep the configuration in force, and say why: once, unless ``again``."""
        if again or problem != self.problem:
            log.error("the configuration was not changed: %s", problem)
        self.problem = problem

    def follow(self) -> None:
        """Take what another process found valid; when it has changed since, that process will tell."""
        with suppress(ConfigError):
            self.accept(self._load(set()))

    def _watch(self, files: Set[Path]) -> None:
        """Watch other files from now on; the states of those that were watched before stay as they were read."""
        known = dict(self._read)
        self._files = files
        self._read = self._last = tuple((path, known.get(path, state)) for path, state in _state(files))

    def _check_removed(self, loaded: Loaded) -> None:
        """A file that was in use and is gone was rather moved than given up: its settings must not vanish."""
        before = self.loaded
        is_renamed = loaded.config.custom_models_file != before.config.custom_models_file
        files = [(before.env_file, loaded.env_file)]
        if not is_renamed:
            files.append((before.models_file, loaded.models_file))
        for old, new in files:
            if old is not None and old != new and not os.path.exists(old):
                raise ConfigError(f"{old}: no such file any more")


def _state(files: Set[Path]) -> _State:
    return tuple((path, _stat(path)) for path in sorted(files))


def _stat(path: Path) -> Optional[Tuple[int, ...]]:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
