"""What tests install once into the user's cache folder, though several runs may begin to at the same time."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Callable


def installed(name: str, install: Callable[[Path], object]) -> Path:
    """Return the folder of this name, which ``install`` fills on first use: whole, or not at all."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ccproxy-tests"
    target = root / name
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=root))
        try:
            install(unfinished)
            unfinished.rename(target)
        except OSError:  # another run was faster: its installation is as good
            if not target.is_dir():
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return target
