"""The socket that clients connect to: one, which all processes that serve may share."""

from __future__ import annotations

import socket

_BACKLOG = 1024  # a burst of clients must not be refused while threads start


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; no look-up of the host's own name makes a start wait for DNS.

    Raises:
        OSError: the address is in use, or not ours.
    """
    if ":" not in host:
        listener = socket.create_server((host, port), backlog=_BACKLOG)
    else:
        listener = socket.create_server(
            (host, port),
            family=socket.AF_INET6,
            backlog=_BACKLOG,
            dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
        )
    listener.setblocking(False)  # of several processes that wake up for a connection, one gets it
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the address clients use."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
