"""Packages from npm that tests use, installed into the user's cache folder on first use."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

INSTALL_TIMEOUT = 300.0


def npm(*arguments: str) -> str:
    """Run npm, return what it printed."""
    command = ["npm", "--loglevel=error", *arguments]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=INSTALL_TIMEOUT, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def package(name: str, version: str = "") -> Path:
    """Return the folder into which a version of a package is installed; unless told, the newest."""
    version = version or npm("view", name, "version").strip().splitlines()[-1]
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ccproxy-tests"
    target = root / f"{name.strip('@').replace('/', '-')}-{version}"
    if not target.is_dir():
        root.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".npm-", dir=root))
        try:
            options = ["--ignore-scripts", "--no-audit", "--no-fund"]
            npm("install", "--prefix", str(unfinished), *options, f"{name}@{version}")
            unfinished.rename(target)
        except OSError:  # another run was faster: its installation is as good
            if not target.is_dir():
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return target
