"""Many clients and a paced provider in one event loop, and what a server process takes up meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Tuple
from urllib.parse import urlsplit

from raw_http import request
from support import user

SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class Levels:
    """What a process takes up: threads, descriptors, resident memory in MiB."""

    threads: int
    descriptors: int
    memory: float

    @classmethod
    def of(cls, pid: int) -> Levels:
        """Read them from /proc."""
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        memory = int(fields["VmRSS"].split()[0]) / 1024
        return cls(int(fields["Threads"]), len(os.listdir(f"/proc/{pid}/fd")), memory)

    def is_within(self, other: Levels) -> bool:
        """Whether none of them is above another level's."""
        return all(mine <= its for mine, its in zip(vars(self).values(), vars(other).values()))


class PacedProvider:
    """Streams so many words, one per interval, to whoever asks."""

    def __init__(self, words: int, interval: float) -> None:
        self._words, self._interval = words, interval
        self.asked = 0

    async def __aenter__(self) -> PacedProvider:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=2048)
        self.url = "http://127.0.0.1:%d/v1" % self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                fields = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:-2])
                await reader.readexactly(int(fields["content-length"]))
                self.asked += 1
                writer.write(SSE)
                for number in range(self._words):
                    self._send(writer, {"content": f"w{number} "})
                    await writer.drain()
                    await asyncio.sleep(self._interval)
                self._send(writer, {}, "stop")
                writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client left, or the test ended
        finally:
            writer.close()

    @staticmethod
    def _send(writer: asyncio.StreamWriter, delta: Dict[str, Any], finish: Any = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        data = b"data: %s\n\n" % json.dumps({"id": "c", "choices": [choice]}).encode()
        writer.write(b"%x\r\n%s\r\n" % (len(data), data))


async def connect(url: str) -> Tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection to a server."""
    address = urlsplit(url)
    return await asyncio.open_connection(address.hostname, address.port)


async def stream(url: str, prompt: str) -> bytes:
    """Ask for a stream on a connection of its own, and read it to its end, however that comes."""
    reader, writer = await connect(url)
    try:
        writer.write(request("POST", "/v1/messages", user(prompt, stream=True), {"Connection": "close"}))
        return await reader.read()
    except ConnectionError as error:
        return str(error).encode()
    finally:
        writer.close()


def is_whole(answer: bytes, words: int) -> bool:
    """Whether a raw answer holds all the words, in order, and its proper end."""
    texts = [f'"text":"w{number} "'.encode() for number in range(words)]
    places = [answer.find(text) for text in texts]
    return (
        answer.startswith(b"HTTP/1.1 200")
        and -1 not in places
        and places == sorted(places)
        and answer.endswith(b"\r\n0\r\n\r\n")
        and b"message_stop" in answer
    )


async def health_times(url: str, until: asyncio.Event, interval: float = 0.05) -> List[float]:
    """Ask /health again and again; return how long each answer took, in seconds."""
    took: List[float] = []
    while not until.is_set():
        started = time.monotonic()
        reader, writer = await connect(url)
        writer.write(request("GET", "/health", headers={"Connection": "close"}))
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
        took.append(time.monotonic() - started)
        await asyncio.sleep(interval)
    return took
