"""``dial``: a new connection by one deadline, whatever its name's look-up and each of its addresses would like to take.

A look-up cannot be ended, and may take half a minute, so it is done by a thread that is left to itself when it is late.
"""

from __future__ import annotations

import queue
import re
import socket
import threading
import time
from contextlib import suppress
from typing import Any, Iterable, List, Optional, Tuple, Union

from urllib3.util.connection import allowed_gai_family

from .cancel import Cancel

_LOOK = 0.25
"""Seconds between looks at whether the request that waits for a name was cancelled."""
_NUMERIC = re.compile(r"[0-9.]+|.*:.*")


def dial(
    host: str, port: int, deadline: float, options: Iterable[Tuple[Any, ...]], cancel: Optional[Cancel]
) -> socket.socket:
    """Return a connected socket; the time that is left is divided among the addresses that are left.

    Args:
        deadline: on the monotonic clock.
        options: what each socket is set to.
        cancel: the request it is for; it knows of the socket.

    Raises:
        OSError: the last address's fault; of a name that is not known ``socket.gaierror``, of one that is late
            ``socket.timeout``.
        ApiError: why the request was cancelled.
    """
    addresses = _look_up(host, port, deadline, cancel)
    fault: OSError = OSError(f"{host} has no address")
    for left in range(len(addresses), 0, -1):
        family, kind, protocol, _, address = addresses[-left]
        sock = socket.socket(family, kind, protocol)
        try:
            for option in options:
                sock.setsockopt(*option)
            sock.settimeout(max(0.001, (deadline - time.monotonic()) / left))
            if cancel is not None:
                cancel.attach(sock)
            sock.connect(address)
        except OSError as error:
            fault = error
            sock.close()
        else:
            return sock
        if cancel is not None:
            cancel.check()
    raise fault


def _look_up(host: str, port: int, deadline: float, cancel: Optional[Cancel]) -> List[Any]:
    if _NUMERIC.fullmatch(host):
        return _addresses(host, port)
    answers: queue.SimpleQueue[Union[List[Any], Exception]] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(_addresses(host, port))
        except (OSError, UnicodeError) as fault:
            answers.put(fault)

    try:
        threading.Thread(target=look_up, name="look-up", daemon=True).start()
    except RuntimeError as fault:  # no thread is left
        raise OSError(str(fault)) from None
    while time.monotonic() < deadline:
        with suppress(queue.Empty):
            answer = answers.get(timeout=max(0.0, min(_LOOK, deadline - time.monotonic())))
            if isinstance(answer, Exception):
                raise answer
            return answer
        if cancel is not None:
            cancel.check()
    raise socket.timeout(f"{host} was not looked up in time")


def _addresses(host: str, port: int) -> List[Any]:
    return socket.getaddrinfo(host, port, allowed_gai_family(), socket.SOCK_STREAM)
