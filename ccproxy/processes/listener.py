"""The socket that clients connect to: one, which all processes that serve may share."""

from __future__ import annotations

import os
import resource
import socket
from contextlib import suppress
from typing import MutableMapping, Optional

from ..errors import ConfigError

INHERITED = "CCPROXY_WORKER"
"""The variable that makes ``serve`` a worker: the descriptors of listener and channel."""

_FIRST_INHERITED = 3
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


def inherited(environment: MutableMapping[str, str]) -> Optional[socket.socket]:
    """Return the socket that systemd listens on for us (socket activation, sd_listen_fds(3)), or None.

    Its variables are taken out of the environment: they are not for the processes that we start.

    Raises:
        ConfigError: it is not one TCP socket that listens.
    """
    pid, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()):
        return None
    if count != "1":
        raise ConfigError(f"socket activation: expected one socket, not {count or 'none'}")
    try:
        listener = socket.socket(fileno=_FIRST_INHERITED)
        is_fitting = (
            listener.family in (socket.AF_INET, socket.AF_INET6)
            and listener.type == socket.SOCK_STREAM
            and listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        )
    except OSError:  # no socket at all
        is_fitting = False
    if not is_fitting:
        raise ConfigError("socket activation: expected a TCP socket that listens (ListenStream=127.0.0.1:8082)")
    listener.set_inheritable(False)
    listener.setblocking(False)
    return listener


def raise_descriptor_limit() -> None:
    """Let the process open as many descriptors as its hard limit allows; many systems begin with 256 or 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS has a lower limit of its own
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
