"""Packages from npm that tests use, installed into the user's cache folder on first use."""

from __future__ import annotations

import subprocess
from pathlib import Path

from installed import installed

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
    options = ["--ignore-scripts", "--no-audit", "--no-fund"]
    return installed(
        f"{name.strip('@').replace('/', '-')}-{version}",
        lambda folder: npm("install", "--prefix", str(folder), *options, f"{name}@{version}"),
    )
