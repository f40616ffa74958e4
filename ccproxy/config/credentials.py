"""What of models.yaml is secret, though it is no key: some headers, and passwords in addresses."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Iterator, Mapping

_SECRET_NAME = re.compile(r"auth|key|token|secret|cookie|pass|credential|sign", re.IGNORECASE)
# Long words that mean the same to everybody, and may well be what an answer is about.
_PUBLIC_NAMES = ("accept", "accept-encoding", "anthropic-beta", "anthropic-version", "content-type", "user-agent")


def secret_headers(headers: Mapping[str, str]) -> Iterator[str]:
    """Yield header values that are, or look like, secrets: by their name, or long and without a space."""
    for name, value in headers.items():
        if _is_secret(name) or (len(value) >= 20 and _is_word(value) and name.lower() not in _PUBLIC_NAMES):
            yield value.split()[-1] if value.split() else ""  # without its scheme, such as Bearer


def _is_word(value: str) -> bool:
    return "://" not in value and value.split() == [value]


@lru_cache(maxsize=256)
def _is_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def without_password(address: str) -> str:
    """Return an address without the user name and password that it may hold."""
    return re.sub(r"//[^/]*@", "//", address)


def shown(name: str, value: Any) -> str:
    """Return a value of models.yaml for a message about it, without what may be secret in it."""
    if name == "extra_headers":
        return f"a {type(value).__name__}"
    return re.sub(r":[^:/@]*@", ":***@", repr(value))
