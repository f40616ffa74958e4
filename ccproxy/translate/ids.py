"""Tool ids and tool names that both sides accept; pure functions of the request, so the proxy keeps no state."""

from __future__ import annotations

import base64
import hashlib
import re
from contextlib import suppress
from typing import Dict, Iterable, Set

from .envelope import unseal_id

_CLIENT_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}")  # Gemini wants a letter or _ first
_ENCODED = "toolu_x"
SHORT_ID = r"[a-zA-Z0-9]{9}"
"""The ids that Mistral's models take."""


def client_tool_id(provider_id: str, taken: Set[str]) -> str:
    """Return the id to show the client for a provider's tool call, and add it to ``taken``.

    Ids outside Anthropic's alphabet are carried in base64 (Kimi's ``functions.Bash:0``). An id that was used before,
    in this answer or in the conversation, gets a number: clients key results by id.
    """
    plain = provider_id
    if not _CLIENT_ID.fullmatch(plain):
        plain = _ENCODED + base64.urlsafe_b64encode(plain.encode("utf-8", "replace")).decode().rstrip("=")
    unique, number = plain, 1
    while unique in taken:
        number += 1
        unique = f"{plain}_{number}"
    taken.add(unique)
    return unique


def provider_tool_id(client_id: str, pattern: str) -> str:
    """Return the id a provider accepts for a client's tool id: its own where it was one, else a stable hash."""
    client_id, _ = unseal_id(client_id)
    original = client_id
    if client_id.startswith(_ENCODED):
        payload = client_id[len(_ENCODED) :]
        with suppress(ValueError):  # a client's own id that merely looks like ours
            original = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)).decode()
    if re.fullmatch(pattern, original):
        return original
    digest = hashlib.sha256(original.encode("utf-8", "replace")).hexdigest()
    return digest[:9] if pattern.endswith("{9}") else "call_" + digest[:24]


class ToolNames:
    """Tool names as the provider takes them, and back.

    MCP names such as ``mcp__server__long_tool`` pass the 64 characters that providers allow; they are cut and made
    unique by a hash, the same in the tool list, the tool choice and the history.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._client_names: Dict[str, str] = {self.to_provider(name): name for name in names}
        self._folded: Dict[str, str] = {name.lower(): client for name, client in self._client_names.items()}

    @staticmethod
    def to_provider(name: str) -> str:
        """Return ``name`` in the provider's alphabet and length."""
        if _NAME.fullmatch(name):
            return name
        digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:8]
        legal = re.sub(r"[^a-zA-Z0-9_-]|^[^a-zA-Z_]", "_", name)
        return f"{legal[:55]}_{digest}"

    def to_client(self, name: str) -> str:
        """Return the client's name for what the model called; unknown names pass, the client answers them."""
        return self._client_names.get(name) or self._folded.get(name.lower()) or name
