"""A provider that answers with recorded bytes over a raw socket, and a client that reads an answer raw.

`ReplayProvider` listens on a free loopback port. Every path prefix (`key`) has its own `Answer`: status, headers, and
the body in pieces, framed as asked:

    chunked   one HTTP chunk and one send per piece, so that the reader meets exactly these pieces
    close     the bare pieces, one send each; the end of the connection ends the body
    length    the bare pieces behind a Content-Length
    torn      as chunked, but the connection breaks where the last chunk should say that the body is whole

An answer can be held before a piece until the test sets an event: what arrived before that is what was streamed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Dict, List, Mapping, Optional, Sequence, Tuple
from urllib.parse import urlsplit

Head = Tuple[str, str, Dict[str, str]]

PATIENCE = 30.0
"""Seconds after which a test that waits has failed."""


@dataclass(frozen=True)
class Answer:
    """What the provider says to each POST under one key."""

    status: int
    headers: Mapping[str, str]
    pieces: Sequence[bytes]
    framing: str = "chunked"
    hold: Mapping[int, threading.Event] = field(default_factory=dict)
    """Piece number -> the event that must be set before that piece is sent (the number past the last: the end)."""


@dataclass(frozen=True)
class Received:
    """One request as the provider got it."""

    path: str
    headers: Dict[str, str]
    body: Dict[str, Any]
    raw: bytes = b""


def cut(body: bytes, lengths: Optional[Sequence[int]] = None) -> List[bytes]:
    """Return the body in pieces of these lengths (the rest as one more piece), or whole."""
    pieces, start = [], 0
    for length in lengths or []:
        pieces.append(body[start : start + length])
        start += length
    return [piece for piece in [*pieces, body[start:]] if piece]


def bytewise(body: bytes) -> List[bytes]:
    """Return the body one byte at a time."""
    return [body[i : i + 1] for i in range(len(body))]


class ReplayProvider:
    """A server of recorded answers; use it as a context manager."""

    def __init__(self) -> None:
        self.answers: Dict[str, Answer] = {}
        self.received: List[Received] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._open: List[socket.socket] = []
        self._closing = False
        self._thread = threading.Thread(target=self._accept, name="replay-accept", daemon=True)

    def __enter__(self) -> ReplayProvider:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closing = True
        # A blocked accept() does not notice that its socket was closed; a last connection wakes it.
        socket.create_connection(self._listener.getsockname()).close()
        self._thread.join(PATIENCE)
        self._listener.close()
        for connection in self._open:
            shut(connection)

    @property
    def url(self) -> str:
        """Where it listens, without a path."""
        return "http://127.0.0.1:%d" % self._listener.getsockname()[1]

    def base(self, key: str) -> str:
        """The `api_base` of the model that `key` answers for."""
        return "%s/%s/v1" % (self.url, key)

    def answer_to(self, key: str, body: Dict[str, Any]) -> Answer:
        """The answer to a request under `key`; a subclass may look at the body."""
        return self.answers.get(key, NOT_SCRIPTED)

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._closing:
                connection.close()
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(PATIENCE)
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), name="replay-serve", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        """Answer the requests of one connection until one side closes it."""
        reader = connection.makefile("rb")
        try:
            while self._answer_one(connection, reader):
                pass
        except OSError:
            pass  # the proxy hung up, or the test is over: both are its right
        finally:
            reader.close()
            shut(connection)

    def _answer_one(self, connection: socket.socket, reader: BinaryIO) -> bool:
        """Read one request and answer it; False when the connection is to be closed."""
        head = read_head(reader)
        if head is None:
            return False
        _, path, headers = head
        body = reader.read(int(headers.get("content-length", "0")))
        received = Received(path, headers, json.loads(body) if body else {}, body)
        self.received.append(received)
        answer = self.answer_to(path.strip("/").split("/")[0], received.body)
        send_answer(connection, answer)
        return answer.framing in ("chunked", "length")


NOT_SCRIPTED = Answer(404, {"content-type": "application/json"}, [b'{"error":{"message":"not scripted"}}'], "length")


def read_head(reader: BinaryIO) -> Optional[Head]:
    """Return (method, path, headers) of the next request, or None at the end of the connection."""
    line = reader.readline().decode("latin-1").strip()
    if not line:
        return None
    method, path, _ = line.split(" ", 2)
    headers: Dict[str, str] = {}
    for raw in iter(reader.readline, b"\r\n"):
        if not raw:
            return None
        name, _, value = raw.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    return method, path, headers


def send_answer(connection: socket.socket, answer: Answer) -> None:
    """Send status, headers and the pieces, waiting where the answer is held."""
    framing = {
        "chunked": ("transfer-encoding", "chunked"),
        "torn": ("transfer-encoding", "chunked"),
        "close": ("connection", "close"),
        "length": ("content-length", str(sum(len(piece) for piece in answer.pieces))),
    }[answer.framing]
    reason = http.client.responses.get(answer.status, "Unknown")
    lines = ["HTTP/1.1 %d %s" % (answer.status, reason), "%s: %s" % framing]
    lines += ["%s: %s" % (name, value) for name, value in answer.headers.items() if name.lower() not in FRAMING]
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    chunked = answer.framing in ("chunked", "torn")
    for number, piece in enumerate(answer.pieces):
        wait(answer, number)
        connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
    wait(answer, len(answer.pieces))
    if answer.framing == "chunked":
        connection.sendall(b"0\r\n\r\n")


FRAMING = ("transfer-encoding", "connection", "content-length", "content-encoding", "keep-alive")
"""Recorded headers that spoke of the recorded framing, not of this one."""


def wait(answer: Answer, number: int) -> None:
    """Wait for the event that holds this piece, if one does."""
    gate = answer.hold.get(number)
    if gate is not None and not gate.wait(PATIENCE):
        raise OSError("the test never released piece %d" % number)


def shut(connection: socket.socket) -> None:
    """Close a connection for both sides; it may be closed already."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


# --- the client -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reply:
    """What the client got: `complete` is False when the body broke off before its framing said so."""

    status: int
    headers: Dict[str, str]
    body: bytes
    complete: bool

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def post(url: str, body: Mapping[str, Any]) -> Reply:
    """POST a Messages request to a proxy and read all the bytes of the answer, however it ends."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)
    try:
        headers = {"content-type": "application/json", "anthropic-version": "2023-06-01"}
        connection.request("POST", "/v1/messages", json.dumps(body), headers)
        response = connection.getresponse()
        received, complete = read_all(response)
        lower = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, lower, received, complete)
    finally:
        connection.close()


def read_all(response: http.client.HTTPResponse) -> Tuple[bytes, bool]:
    """Return the body as far as it came, and whether it came to its proper end."""
    received = b""
    while True:
        try:
            piece = response.read1(65536)
        except http.client.IncompleteRead as error:
            return received + error.partial, False
        except OSError:
            return received, False
        if not piece:
            return received, True
        received += piece
