"""Text without keys: for the log, for messages about failures, and for what is passed on."""

from __future__ import annotations

import re
from typing import Iterable, List

MASK = "***"
MIN_SECRET = 6  # shorter "keys" are placeholders for local servers; masking them would garble every text
# Keys that providers echo: "Incorrect API key provided: sk-...".
_KEYS = re.compile(
    r"\b(?:sk|pk|rk|gsk|csk|xai|nvapi|hf)[-_][A-Za-z0-9*][A-Za-z0-9_*.-]{7,}"
    r"|\bAIza[A-Za-z0-9_*-]{10,}|(?<=Bearer )[A-Za-z0-9_*.~+/-]{8,}"
)


def maskable(secrets: Iterable[str]) -> List[str]:
    """Return the secrets that are masked, the longest first: it may begin with another one."""
    return sorted({secret for secret in secrets if len(secret) >= MIN_SECRET}, key=len, reverse=True)


def mask(text: str, secrets: Iterable[str] = ()) -> str:
    """Return ``text`` without the given secrets and without anything shaped like an API key."""
    for secret in maskable(secrets):
        text = text.replace(secret, MASK)
    return _KEYS.sub(MASK, text)
