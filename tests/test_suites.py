"""The suites in `suites`: found by unittest, and by name in the Makefile."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent


def test_unittest_finds_the_suites() -> None:
    """`python -m unittest` finds every suite; here it runs one test."""
    command = [sys.executable, "-m", "unittest", "-v", "-k", "OtherEndpoints.test_health"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"test_health \(tests\.suites\.test_basic\.OtherEndpoints", done.stderr)
    assert "Ran 1 test" in done.stderr


def test_every_suite_has_its_target() -> None:
    """What `make` offers by name is there, and a suite that is asked for with a model takes one."""
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    [names] = re.findall(r"^SUITES := (.*)$", makefile, re.MULTILINE)
    for name in names.split():
        assert (CHECKOUT / "tests" / "suites" / f"{name.replace('-', '_')}.py").is_file(), name
        assert re.search(rf"^{name}:  ## ", makefile, re.MULTILINE), name
