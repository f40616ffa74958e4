"""The short way to a provider: one write and one read on a connection that an earlier call left open.

Around these two, requests, urllib3 and http.client take 0.7 ms, a third of what a small request costs here in all. So a
kept connection is written to directly, the same bytes. What is not ready for that goes the libraries' way: the first
call to an address, one through a proxy, and, once the answer is here, any that is not 200 and plain.
"""

from __future__ import annotations

import os
import re
import socket
from typing import Any, Dict, Hashable, Mapping, Optional, Tuple, Union

import urllib3

from .answer import Answer, KeptAnswer, LibraryAnswer
from .connections import Pool, PromptResponse
from .plain_body import PLAIN_ENCODINGS, PlainBody

_MOST_POOLS = 64
_UNSAFE = re.compile(r"[\r\n\0]")


class KeptConnections:
    """Finds the pools of connections by what they lead to, as calls of the libraries' way made them."""

    def __init__(self) -> None:
        self._pools: Dict[Hashable, Any] = {}

    def learn(self, key: Hashable, response: Any) -> None:
        """Remember the pool of a ``urllib3.HTTPResponse``, unless it leads through a proxy.

        Args:
            key: what decides about the connection: origin, certificates.
        """
        pool = getattr(response, "_pool", None)
        if isinstance(pool, Pool) and getattr(pool, "proxy", None) is None and key not in self._pools:
            if len(self._pools) >= _MOST_POOLS:
                self._pools.clear()
            self._pools[key] = pool

    def forget(self) -> None:
        """Let go of all pools, which close with their adapter."""
        self._pools.clear()

    def ask(
        self, key: Hashable, target: str, headers: Mapping[str, str], body: bytes, timeouts: Tuple[float, float]
    ) -> Optional[Answer]:
        """POST a body on a connection that is open already; None, and nothing was sent, when there is none.

        Args:
            headers: all but ``host``.
            timeouts: the seconds in which the request has to be taken, and those that a read may take.

        Raises:
            OSError, http.client.HTTPException, urllib3.exceptions.HTTPError: what the libraries meet as well.
        """
        pool = self._pools.get(key)
        if pool is None or pool.pool is None:  # closed
            self._pools.pop(key, None)
            return None
        connection, answer = pool.take_open(), None
        if connection is None:
            return None
        try:
            head = _head(connection, target, headers)
            if head is not None:
                connection.attach()
                _send(connection.sock, head, body, *timeouts)
                connection.do_meanwhile()
                answer = _answer(pool, connection, target)
        finally:
            if answer is None:
                connection.close()
                pool._put_conn(connection)
        return answer


def _head(connection: Any, target: str, headers: Mapping[str, str]) -> Optional[bytes]:
    """Return the head of a request; None for those that the libraries shall look at, and refuse perhaps."""
    host: str = connection.host
    host = f"[{host}]" if ":" in host else host
    place = host if connection.port == connection.default_port else f"{host}:{connection.port}"
    fields = [f"{name}: {value}" for name, value in headers.items()]
    if "%" in host or _UNSAFE.search("".join(fields)):
        return None
    lines = [f"POST {target} HTTP/1.1", f"Host: {place}", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _send(sock: Any, head: bytes, body: bytes, within: float, timeout: float) -> None:
    """Send a request; ``timeout`` is the socket's from then on."""
    if sock.gettimeout() != timeout:
        sock.settimeout(timeout)
    try:
        sent = _send_at_once(sock, head, body)
        if sent < len(head) + len(body):
            sock.settimeout(within)
            sock.sendall(memoryview(head + body)[sent:])
            sock.settimeout(timeout)
    except socket.timeout as error:  # not the answer's
        raise urllib3.exceptions.ProtocolError("the request was not taken in time", error) from error
    except (BrokenPipeError, ConnectionResetError):
        pass  # it may have answered before it closed


def _send_at_once(sock: Union[socket.socket, Any], head: bytes, body: bytes) -> int:
    if type(sock) is not socket.socket:  # TLS
        return int(sock.send(head + body))
    try:
        return os.writev(sock.fileno(), (head, body))  # send() would ask poll() first, one more system call
    except BlockingIOError:
        return 0


def _answer(pool: Any, connection: Any, target: str) -> Answer:
    """Wait for the answer's head."""
    plain = PlainBody.of(connection.sock) if type(connection.sock) is socket.socket else None  # else TLS
    if plain is not None:
        return KeptAnswer(pool, connection, plain)
    response = PromptResponse(connection.sock, method="POST")
    response.begin()
    encoding = response.fields.get("content-encoding", "").lower()
    if response.status == 200 and not response.will_close and encoding in PLAIN_ENCODINGS:
        return KeptAnswer(pool, connection, response)
    if response.will_close:
        connection.close()  # the response keeps the socket
    body: Any = response
    fields: Any = response.headers.items()
    return LibraryAnswer(
        urllib3.HTTPResponse(
            body=body,
            headers=fields,
            status=response.status,
            version=response.version,
            reason=response.reason,
            preload_content=False,
            decode_content=False,
            original_response=body,
            pool=pool,
            connection=connection,
            request_method="POST",
            request_url=target,
        )
    )
