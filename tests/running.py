"""A running proxy, seen from outside: the address it was said to have, and whether it answers there."""

from __future__ import annotations

import http.client
import re
from urllib.parse import urlsplit


def address_in(text: str) -> str:
    """The address in a message like "ccproxy is running on http://... (pid ...)"."""
    found = re.search(r"running on (http://\S+) \(pid", text)
    assert found is not None, text
    return found.group(1)


def health(url: str) -> int:
    """The status of ``/health``."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status
    finally:
        connection.close()
