"""What providers are sent: compact JSON, each part of it encoded once."""

from __future__ import annotations

from typing import Any

import pytest

from ccproxy.encoded import Encoded, dump, encode
from ccproxy.openai import ChatMessage

PARTS = {"a": [1, {"b": "\u00e9\u6f22\U0001f600"}], "n": None, "f": 1e22, "e": [], "l": "\ud800 alone"}


@pytest.mark.parametrize("wrap", [dict, Encoded])
def test_a_body_is_encoded_as_a_whole_would_be(wrap: Any) -> None:
    """Whatever of it was encoded before; again, too."""
    body = {"model": "m", "messages": [wrap(PARTS), wrap({}), PARTS], "tools": (), **PARTS}
    whole = dump(body).encode("utf-8", "replace")
    assert encode(body) == whole
    assert encode(body) == whole
    assert b"? alone" in whole


def test_a_changed_copy_is_encoded_as_it_is() -> None:
    """Repairs make copies of messages."""
    message = ChatMessage("user", "Hi").to_dict()
    assert encode({"messages": [message]}) == b'{"messages":[{"role":"user","content":"Hi"}]}'
    assert encode({"messages": [{**message, "content": "Ho"}]}) == b'{"messages":[{"role":"user","content":"Ho"}]}'
