"""The tests. pytest finds all of them; `python -m unittest` runs the suites, which need nothing but unittest."""

from __future__ import annotations

import signal
import sys
import unittest
from pathlib import Path
from typing import Optional

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))  # helpers are imported by their plain names, as pytest is told in pyproject.toml

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts us in the background ignores SIGINT, which processes inherit: ours are to be interrupted.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def load_tests(loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: Optional[str]) -> unittest.TestSuite:
    """Give unittest the suites: all else here is written for pytest."""
    return loader.discover(str(HERE / "suites"), pattern or "test*.py", str(HERE.parent))
