"""HTTP/1.1 messages, strictly: request heads and chunk sizes from their bytes, response heads to bytes.

RFC 9112, without its leniencies: whatever two implementations could read in two ways is refused, so that nothing can
be smuggled past a proxy in front.
"""

from __future__ import annotations

import re
from functools import lru_cache
from http import HTTPStatus
from time import gmtime, strftime
from typing import Dict, Iterable, List, Mapping, Optional, Tuple
from urllib.parse import urlsplit

from .errors import ApiError, InvalidRequest
from .frozen import frozen

MAX_LINE = 8192
MAX_HEAD = 32768
MAX_FIELDS = 100
MAX_CHUNK_LINE = 256
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT"})

_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(;[^\r\n]*)?\r\n")
_LENGTH = re.compile(r"[0-9]{1,18}")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.~-]*)(:[0-9]{1,5})?")


@frozen
class Head:
    """A request's line and header fields; names are in lower case."""

    method: str
    target: str
    is_http_1_0: bool
    headers: Mapping[str, str]

    @property
    def keeps_alive(self) -> bool:
        """Whether another request may follow; HTTP/1.0 connections end with their answer."""
        words = [word.strip().lower() for word in self.headers.get("connection", "").split(",")]
        return not self.is_http_1_0 and "close" not in words


def parse_head(lines: List[bytes]) -> Head:
    """Read a head, given its lines as they came, the blank one left out.

    Raises:
        ApiError: with the status that tells what is wrong.
    """
    return parse_lines([_line(line) for line in lines])


def parse_lines(lines: List[str]) -> Head:
    """Read a head from the text of its lines, a character for each byte, without the CRLF that each ended with;
    otherwise like ``parse_head``."""
    match = _REQUEST_LINE.fullmatch(lines[0])
    if match is None:
        raise InvalidRequest("the request line is not METHOD TARGET HTTP/1.1")
    method, target, major, minor = match.groups()
    if major != "1" or minor not in "01":
        raise ApiError(f"HTTP/{major}.{minor} is not spoken here, only 1.1", status=505)
    if len(lines) - 1 > MAX_FIELDS:
        raise ApiError(f"more than {MAX_FIELDS} header fields", status=431)
    headers = _fields(lines[1:])
    is_http_1_0 = minor == "0"
    if method not in METHODS:
        raise ApiError(f"{method} is not a method known here", status=501)
    _check_host(headers, target, is_http_1_0)
    return Head(method, target, is_http_1_0, headers)


def _line(raw: bytes) -> str:
    if not raw.endswith(b"\r\n"):
        raise InvalidRequest("a line of the head does not end with CRLF")
    return raw[:-2].decode("latin-1")


_ONCE = frozenset({"host", "content-length", "transfer-encoding", "authorization", "x-api-key", "content-encoding"})


def _fields(lines: List[str]) -> Dict[str, str]:
    headers: Dict[str, str] = {}
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise InvalidRequest("a header line is not NAME: VALUE")
        name, value = match.groups()
        name, value = name.lower(), value.rstrip(" \t")
        if name not in headers:
            headers[name] = value
        elif name in _ONCE:
            raise InvalidRequest(f"{name}: is there twice")
        else:
            headers[name] += f", {value}"
    return headers


def _check_host(headers: Mapping[str, str], target: str, is_http_1_0: bool) -> None:
    host = headers.get("host")
    if host is None and not is_http_1_0:
        raise InvalidRequest("host: missing")
    if host is not None and not _HOST.fullmatch(host):
        raise InvalidRequest("host: malformed")
    if target.startswith("/") or target == "*":
        return
    try:
        authority = urlsplit(target).netloc
    except ValueError:
        authority = ""
    if not target.lower().startswith("http://") or not authority or authority != host:
        raise InvalidRequest("this is no forward proxy: the target must be a path here")


def content_length(headers: Mapping[str, str]) -> Optional[int]:
    """Return the length of the body, or None when it comes in chunks.

    Raises:
        ApiError: the framing is not certain.
    """
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    if coding is not None:
        if length is not None:
            raise InvalidRequest("content-length and transfer-encoding exclude each other")
        if coding.lower() != "chunked":
            raise ApiError("transfer-encoding: only chunked is understood", status=501)
        return None
    if length is None:
        return 0
    if not _LENGTH.fullmatch(length):
        raise InvalidRequest("content-length: not a number")
    return int(length)


def chunk_size(line: bytes) -> int:
    """Read the line before a chunk; extensions are ignored.

    Raises:
        InvalidRequest: it is no chunk size.
    """
    match = _CHUNK_SIZE.fullmatch(line)
    if match is None:
        raise InvalidRequest("chunked body: a chunk size cannot be read")
    return int(match[1], 16)


# As lenient as other clients of HTTP: the line end of the chunk before may be missing, any line end bare.
_NEXT_CHUNK = re.compile(rb"(?:\r?\n)?[ \t]*([0-9a-fA-F]{1,15})[ \t]*(?:;[^\n]*)?\r?\n")
_TRAILERS = re.compile(rb"(?:[^\r\n]+\r?\n)*\r?\n")


class Unchunker:
    """Takes the chunk framing off a provider's body that comes in any pieces."""

    def __init__(self) -> None:
        self._held = b""
        self._left = 0
        self._is_last = False
        self.is_done = False
        """Whether the body is complete."""

    def feed(self, data: bytes) -> bytes:
        """Return the bytes of the body that ``data`` holds; what follows its end is passed over.

        Raises:
            ValueError: what should be a chunk's size is none.
        """
        if self._held:
            data = self._held + data
        elif not (self._left or self._is_last):
            digits, _, body = data.partition(b"\r\n")
            # One whole chunk, as nearly every read of a slow stream is, in a third of the time.
            if len(body) > 2 and digits.lower() == b"%x" % (len(body) - 2) and body.endswith(b"\r\n"):
                return body[:-2]
        size, left = len(data), self._left
        parts, position = ([], 0) if left or self._is_last else _whole_chunks(data)
        while position < size and not self._is_last:
            if not left:
                match = _NEXT_CHUNK.match(data, position)
                if match is None:
                    break
                position, left = match.end(), int(match[1], 16)
                if not left:
                    self._is_last = True
                    break
            part = data[position : position + left]
            parts.append(part)
            position += len(part)
            left -= len(part)
        if not (left or self._is_last) and data.startswith(b"\r\n", position):  # others are matched with what follows
            position += 2
        self._left = left
        self._held = data[position:]
        if self._is_last:
            self.is_done = _TRAILERS.match(self._held) is not None
        if self._held and not (parts or self.is_done):  # what came before is given first
            self._check()
        return b"".join(parts)

    def _check(self) -> None:
        is_no_size = not self._is_last and b"\n" in self._held.lstrip(b"\r\n")
        if is_no_size or len(self._held) > MAX_HEAD:
            raise ValueError("the body's chunks cannot be read")


def _whole_chunks(data: bytes) -> Tuple[List[bytes], int]:
    """Return the chunks that ``data`` begins with, as far as these are written plainly and without line ends of that
    kind; and where the last of them ends. It takes half of the time, and leaves out what may be no whole one.
    """
    chunks: List[bytes] = []
    position = 0
    lines = data.split(b"\r\n")
    for size, chunk in zip(lines[:-3:2], lines[1::2]):
        if not chunk or size != b"%x" % len(chunk):
            break
        chunks.append(chunk)
        position += len(size) + len(chunk) + 4
    return chunks, max(0, position - 2)  # the line end after a chunk is for the next one to check


@lru_cache(maxsize=64)
def phrase(status: int) -> str:
    """Return the reason phrase; 529 is Anthropic's own."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Overloaded" if status == 529 else "Error"


def field_value(text: str) -> str:
    """Return text as a header value: printable ASCII, bounded."""
    if len(text) <= 1000 and text.isascii() and text.isprintable():
        return text
    return re.sub(r"[^\x20-\x7e]", "?", text)[:1000]


def joined(fields: Iterable[Tuple[str, str]]) -> Dict[str, str]:
    """Return header fields by their names in lower case; those of one name are one."""
    headers: Dict[str, str] = {}
    for name, value in fields:
        name = name.lower()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def field_values(headers: Dict[str, str]) -> Dict[str, str]:
    """Return headers, each value as ``field_value`` has it: nearly always they are so already."""
    joined = "".join(headers.values())
    if len(joined) <= 1000 and joined.isascii() and joined.isprintable():
        return headers
    return {name: field_value(value) for name, value in headers.items()}


@lru_cache(maxsize=1)
def date_of(second: int) -> str:
    """Return a second since the epoch as a ``date`` header has it.

    By ``email.utils`` each would leave a word in the interpreter's cache of attributes.
    """
    moment = gmtime(second)
    return strftime(f"{_DAYS[moment.tm_wday]}, %d {_MONTHS[moment.tm_mon - 1]} %Y %H:%M:%S GMT", moment)


def encode_head(status: int, headers: Mapping[str, str]) -> bytes:
    """Return a response's status line and header section."""
    lines = [f"HTTP/1.1 {status} {phrase(status)}", *[f"{name}: {value}" for name, value in headers.items()]]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
