"""``.env`` text to its variables, each with the line it stands on."""

from __future__ import annotations

import io
from typing import Dict, Tuple

from dotenv.parser import parse_stream

from ..errors import ConfigError


def parse_env(text: str, filename: str) -> Dict[str, Tuple[str, str]]:
    """Return name to (value, ``file:line``); later lines win, ``${...}`` is not expanded: keys may contain it.

    Raises:
        ConfigError: naming the line that is no assignment.
    """
    variables: Dict[str, Tuple[str, str]] = {}
    for binding in parse_stream(io.StringIO(text.lstrip("\ufeff"))):
        text_before = binding.original.string[: -len(binding.original.string.lstrip()) or None]
        place = f"{filename}:{binding.original.line + text_before.count(chr(10))}"
        if binding.error:
            raise ConfigError(f"{place}: expected NAME=value")
        if binding.key:
            variables[binding.key] = (binding.value or "", place)
    return variables
