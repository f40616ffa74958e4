"""Pooled connections: they tell the request they work for which socket they use, so that a cancel can end it, and
waste no system call."""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from typing import Any, Dict, Optional

import urllib3
from requests.adapters import HTTPAdapter
from urllib3.util.wait import wait_for_read

from ..http1 import Unchunker, joined
from .cancel import Cancel, current
from .dial import dial
from .plain_body import plain_head


class PromptResponse(http.client.HTTPResponse):
    """An answer that gives of a chunked body all chunks at hand with one read, where http.client gives one."""

    headers: http.client.HTTPMessage
    _method: Optional[str]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unchunker = Unchunker()
        self._recv: Any = None
        self._tls: Optional[ssl.SSLSocket] = None
        self.fields: Dict[str, str] = {}
        """The header fields by their names in lower case."""

    def begin(self) -> None:
        """Read the head; a plain one in a tenth of the time that http.client's e-mail parser takes."""
        if self._method == "HEAD" or not self._begin_plainly():
            super().begin()
            while 100 < self.status < 200 and self.status != 101:  # http.client passes over 100 alone
                self.headers = None  # type: ignore[assignment]  # to begin anew
                super().begin()
            self.fields = joined(self.headers.raw_items())

    def _begin_plainly(self) -> bool:
        """Read the head, if it is here whole and plain; otherwise leave all of it to be read."""
        reader: Any = self.fp
        head = plain_head(reader.peek())
        if head is None:
            return False
        reader.read(head.size)
        self.fields = head.headers
        self.version, self.code, self.status, self.reason = 11, 200, 200, head.reason
        self.headers = self.msg = http.client.HTTPMessage()
        for name, value in head.fields:
            self.headers.set_raw(name, value)
        self.chunked, self.chunk_left, self.will_close = head.length is None, None, False
        self.length = head.length
        return True

    def read1(self, n: int = -1) -> bytes:
        """Return what is there, at least a byte; nothing at the end. Not to be mixed with ``read``.

        Raises:
            ValueError: the chunks cannot be read.
            http.client.IncompleteRead: the rest is missing.
        """
        if (not self.chunked and self.length is None) or self.fp is None:
            return super().read1(n)
        return self.read_chunks(n) if self.chunked else self._of_length(n)

    def _of_length(self, n: int) -> bytes:
        """Read of a body whose length is known; before 3.13 http.client does not count here."""
        left = self.length or 0
        body: bytes = self.fp.read1(left if n < 0 else min(n, left))
        self.length = left - len(body)
        if not self.length:
            self._close_conn()  # type: ignore[attr-defined]
        elif not body and n:
            raise http.client.IncompleteRead(b"", self.length)
        return body

    def read_chunks(self, n: int) -> bytes:
        """Return what is there of a body in chunks; see ``read1``."""
        body, unchunker = b"", self._unchunker
        while not (body or unchunker.is_done):
            data = self._recv(n) if self._recv is not None else self._first(n)
            if not data:
                raise http.client.IncompleteRead(b"")
            body = unchunker.feed(data)
        if unchunker.is_done:
            self._close_conn()  # type: ignore[attr-defined]
        return body

    @property
    def open_socket(self) -> Optional[socket.socket]:
        """The socket, once ``read1`` reads the chunks of a body from it alone, if it stays open after the last one."""
        sock = getattr(self._recv, "__self__", None)
        is_open = not self.will_close and not self._unchunker.is_done
        return sock if isinstance(sock, socket.socket) and is_open else None

    def is_dry(self) -> bool:
        """Return whether the socket will tell when the next ``read1`` has bytes: no end, no rest of TLS is here."""
        return not (self._unchunker.is_done or (self._tls is not None and self._tls.pending()))

    def _first(self, n: int) -> bytes:
        """Read what came with the head; from then on the socket is read itself, and no buffer of 8 KB is kept."""
        reader: Any = self.fp
        data: bytes = reader.read1(max(n, io.DEFAULT_BUFFER_SIZE))
        self.fp = raw = reader.detach()
        self._recv = raw._sock.recv
        self._tls = raw._sock if isinstance(raw._sock, ssl.SSLSocket) else None
        return data


class _Attached:
    """A connection that tells the current request's ``Cancel`` which socket it uses, and takes it back."""

    sock: Optional[socket.socket]
    timeout: Any
    cancel: Optional[Cancel] = None
    idle_since = 0.0
    _raw: Optional[socket.socket] = None
    _head: Optional[bytes] = None

    def attach(self) -> None:
        """Name the socket to the request this thread works for."""
        self.cancel = current()
        if self.cancel is not None:
            self.cancel.attach(self.sock)

    def detach(self) -> None:
        """Forget the request: the connection goes back to the pool, to another one."""
        self.idle_since = time.monotonic()
        self._HTTPConnection__response = None  # http.client would keep the last answer until the next one
        if self.cancel is not None:
            self.cancel.attach(None)
            self.cancel = None

    def connect(self) -> None:
        """Connect, TLS with it, by one deadline, and name the new socket."""
        try:
            super().connect()  # type: ignore[misc]
        except socket.timeout as error:  # in the handshake of TLS
            raise urllib3.exceptions.ConnectTimeoutError(self, str(error)) from error
        finally:
            self.attach()
            raw, self._raw = self._raw, None
            if raw is not None:
                raw.close()
        if self.sock is not None:
            self.sock.settimeout(self.timeout)

    def _new_conn(self) -> socket.socket:
        """Return a connected socket that has the rest of the time; a cancel can end it while TLS has taken it over."""
        connection: Any = self
        cancel, deadline = current(), time.monotonic() + self.timeout
        try:
            sock = dial(connection._dns_host, connection.port, deadline, connection.socket_options or (), cancel)
        except socket.timeout as error:
            raise urllib3.exceptions.ConnectTimeoutError(self, f"no connection within {self.timeout:g} s") from error
        except OSError as error:
            raise urllib3.exceptions.NewConnectionError(connection, str(error)) from error
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        if cancel is not None:
            self._raw = sock.dup()
            cancel.attach(self._raw)
        return sock

    def putrequest(self, *args: Any, **kwargs: Any) -> None:
        """Begin a request; on a pooled connection with the socket it has."""
        if self.sock is not None:
            self.attach()
        super().putrequest(*args, **kwargs)  # type: ignore[misc]

    def endheaders(self, *args: Any, **kwargs: Any) -> None:
        """End the head; it goes out with the body, in one write and one packet."""
        self._head = b""
        super().endheaders(*args, **kwargs)  # type: ignore[misc]

    def send(self, data: Any) -> None:
        """Send bytes; the head waits for what follows it."""
        if self._head == b"":
            self._head = data
            return
        head, self._head = self._head, None
        super().send(head + data if head else data)  # type: ignore[misc]

    def getresponse(self) -> Any:
        """Wait for the answer, with what there is to do meanwhile done; a head without a body goes out now."""
        if self._head is not None:
            self.send(b"")
        self.do_meanwhile()
        return super().getresponse()  # type: ignore[misc]

    def do_meanwhile(self) -> None:
        """Do what the request has to do while the provider works."""
        if self.cancel is not None:
            self.cancel.meanwhile()


class _HTTPConnection(_Attached, urllib3.connection.HTTPConnection):
    response_class = PromptResponse


class _HTTPSConnection(_Attached, urllib3.connection.HTTPSConnection):
    response_class = PromptResponse


class Pool:
    """A pool whose connections belong to no request while they are idle.

    urllib3 fills a pool of a thousand places with as many empty ones, 4 ms of the first request to an address. It works
    the same without them: where nothing is left, it makes a connection.
    """

    def __init__(self, *args: Any, maxsize: int = 1, **kwargs: Any) -> None:
        super().__init__(*args, maxsize=1, **kwargs)  # type: ignore[call-arg]
        self.pool.maxsize = maxsize  # type: ignore[attr-defined]

    def take_open(self) -> Any:
        """Return the connection that was used last of those that are open still; None where there is none.

        A request's way into urllib3's queue and out of it takes 20 us more.
        """
        pool: Any = self.pool  # type: ignore[attr-defined]
        while pool is not None and pool.queue:
            with pool.mutex:
                connection = pool.queue.pop() if pool.queue else None
            if connection is not None and connection.sock is not None:
                if not wait_for_read(connection.sock, 0.0):
                    return connection
                connection.close()  # by the provider, before
        return None

    def _put_conn(self, conn: Any) -> None:
        if conn is None:
            return
        conn.detach()
        pool: Any = self.pool  # type: ignore[attr-defined]
        if pool is None or len(pool.queue) >= pool.maxsize:
            super()._put_conn(conn)  # type: ignore[misc]  # which closes it
            return
        with pool.mutex:
            pool.queue.append(conn)

    def close_idle(self, keep: int, before: float) -> None:
        """Close connections that went idle before a time, but for the ``keep`` that were used last."""
        pool: Any = self.pool  # type: ignore[attr-defined]
        if pool is None:
            return  # closed
        closing = []
        with pool.mutex:  # a stack: who was used last is on top
            places = [place for place, conn in enumerate(pool.queue) if conn is not None]
            for count, place in enumerate(places):
                conn = pool.queue[place]
                if conn.idle_since < before:
                    conn.idle_since = 0.0  # as old, and no object of its own, which would pin memory of the burst
                    if count < len(places) - keep:
                        closing.append(conn)
                        pool.queue[place] = None
        for conn in closing:
            conn.close()


class _HTTPPool(Pool, urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(Pool, urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class CancellableAdapter(HTTPAdapter):
    """Connections, also those through a proxy, that a cancelled request can be ended by."""

    _POOLS = {"http": _HTTPPool, "https": _HTTPSPool}  # noqa: RUF012

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools of direct connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """Make the pools of connections through one proxy."""
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = self._POOLS
        return manager

    def close_idle(self, keep: int, before: float) -> None:
        """Close what a burst of requests left behind, in every pool."""
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118 - no dict: its keys() is a copy, made under its lock
                pool = manager.pools.get(key)
                if isinstance(pool, Pool):
                    pool.close_idle(keep, before)
