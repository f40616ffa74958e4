"""A copy of the checkout in which make runs, with an environment that is already there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
NEEDED = ("Makefile", "setup.py", ".env.example", "models.yaml.example")


class Copy:
    """A copy of the checkout in which make runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in NEEDED:
            shutil.copy(CHECKOUT / name, folder)
        shutil.copytree(CHECKOUT / "ccproxy", folder / "ccproxy", ignore=shutil.ignore_patterns("__pycache__"))

    def make(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """What make did, typed in a terminal without any setting, and not as a part of the make that runs the tests."""
        return subprocess.run(
            ["make", f"PYTHON={sys.executable}", *arguments],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "PORT": "0", **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def use_python_of_the_tests(self) -> None:
        """A finished set-up whose Python has what the tests have, so that nothing is installed."""
        self.script(".venv/bin/python", f'exec {sys.executable} "$@"')
        self.make("--touch", "setup")
        for name in (".env", "models.yaml"):
            (self.folder / name).unlink()

    def script(self, name: str, command: str) -> str:
        """Write a shell script and return its path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{command}\n")
        path.chmod(0o755)
        return str(path)
