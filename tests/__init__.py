"""The tests. pytest finds all of them; `python -m unittest` runs the suites, which need nothing but unittest."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path
from typing import Optional

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))  # helpers are imported by their plain names, as pytest is told in pyproject.toml


def load_tests(loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: Optional[str]) -> unittest.TestSuite:
    """Give unittest the suites: all else here is written for pytest."""
    return loader.discover(str(HERE / "suites"), pattern or "test*.py", str(HERE.parent))
