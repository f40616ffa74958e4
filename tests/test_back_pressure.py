"""A client that reads slowly slows its provider down: the proxy keeps little of an answer that nobody takes."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from faults import FaultyProvider, Wire, head
from fixed_provider import proxy_for
from processes import eventually
from raw_http import RawConnection, request
from support import user

MOST_KEPT = 1 << 20
"""Bytes of one stream that are in the proxy, beyond what the system keeps for its sockets."""
WORDS = b"0123456789" * 100
# One event each; what it is translated to is no shorter.
EVENTS = {
    "translated": b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % WORDS,
    "passed through": (
        b"event: content_block_delta\n"
        b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%s"}}\n\n' % WORDS
    ),
}


class Flood:
    """A provider's verb: the same bytes as fast as they are taken, until the proxy leaves; ``sent`` counts them."""

    def __init__(self, data: bytes, most: int = 256 << 20) -> None:
        self.sent = 0
        self._data, self._most = data * 20, most

    def __call__(self, wire: Wire) -> None:
        """Send."""
        wire.connection.settimeout(0.1)
        while self.sent < self._most:
            try:
                self.sent += wire.connection.send(self._data[self.sent % len(self._data) :])
            except socket.timeout:
                pass  # nobody takes it now
            except OSError:
                wire.gone()

    def is_held_up(self) -> bool:
        """Whether nothing was taken for a while."""
        before = self.sent
        time.sleep(1.0)
        return self.sent == before > 0


def queued(*urls: str) -> int:
    """The bytes that the system keeps for connections to these addresses, at both ends and in both directions."""
    ports = {urlsplit(url).port for url in urls}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = [row for row in rows if ports & {int(end.split(":")[1], 16) for end in row[1:3]} and row[3] != "0A"]
    return sum(int(size, 16) for row in ours for size in row[4].split(":"))


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads the queues of sockets from /proc")
@pytest.mark.parametrize("kind", EVENTS)
def test_a_client_that_does_not_read_slows_its_provider_down(kind: str) -> None:
    """What it does not take stays with the provider, but for what sockets hold, and 1 MiB."""
    flood = Flood(EVENTS[kind])
    with (
        FaultyProvider([head(200, "close"), flood]) as provider,
        proxy_for(provider.url, direct=kind == "passed through") as proxy,
        RawConnection(proxy.url) as client,
    ):
        client.send(request("POST", "/v1/messages", user(stream=True)))
        assert client.head().status == 200
        eventually(flood.is_held_up, "the provider is held up")
        assert flood.sent - queued(provider.url, proxy.url) <= MOST_KEPT
