"""``Quoted``: a provider's answer without the keys it was asked with, which some quote; also where a read splits one.

A key has no line end and no bracket, so what is held back at the end of a read is never the end of an event or of a
document: nothing is late by it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import FrozenSet, Iterable, List, Tuple

from ..translate.failure import MIN_SECRET

MASK = b"***"


class Quoted:
    """Takes the secrets out of bytes that come in any pieces; looking at a piece without one takes a microsecond."""

    def __init__(self, secrets: Iterable[str]) -> None:
        """Those shorter than ``MIN_SECRET`` are none."""
        self._secrets, self._bytes = _encoded(tuple(secrets))
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Return the next bytes, but for a secret's beginning at their end: the next piece decides about it."""
        if self._held:
            data, self._held = self._held + data, b""
        for secret in self._secrets:
            if secret in data:
                data = data.replace(secret, MASK)
        if data and data[-1] in self._bytes:
            size = max(_overlap(data, secret) for secret in self._secrets)
            if size:
                data, self._held = data[:-size], data[-size:]
        return data

    def finish(self) -> bytes:
        """Return what was held back: it is no secret."""
        held, self._held = self._held, b""
        return held


@lru_cache(maxsize=64)
def _encoded(secrets: Tuple[str, ...]) -> Tuple[List[bytes], FrozenSet[int]]:
    """Return the secrets as bytes, the longest first, and which bytes are in them."""
    found = {secret.encode("utf-8", "replace") for secret in secrets if len(secret) >= MIN_SECRET}
    ordered = sorted(found, key=len, reverse=True)
    return ordered, frozenset(b"".join(ordered))


def _overlap(data: bytes, secret: bytes) -> int:
    """Return how many bytes at the end of ``data`` may be the beginning of a secret."""
    sizes = range(min(len(secret) - 1, len(data)), 0, -1)
    return next((size for size in sizes if data.endswith(secret[:size])), 0)
