"""A provider that gives every request one fixed reply, and a proxy in front of it."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

from grammar import check_error, check_grammar, fold, parse_sse
from support import Answer, Proxy, ask, running_proxy, user

MESSAGE = {"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}
WHOLE = json.dumps({"id": "c", "object": "chat.completion", "choices": [MESSAGE]}).encode()
EVENTS = b"".join(
    b"data: %s\n\n" % json.dumps({"id": "c", "choices": [{"index": 0, **choice}]}).encode()
    for choice in ({"delta": {"content": "Hel"}}, {"delta": {"content": "lo"}}, {"delta": {}, "finish_reason": "stop"})
)
STREAM = EVENTS + b"data: [DONE]\n\n"
JSON, SSE, HTML = "application/json", "text/event-stream", "text/html; charset=utf-8"


class FixedProvider:
    """A provider that gives each request the same reply, and remembers who asked on which connection."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.asked: List[Tuple[int, str, Dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                """Answer; a length the reply does not name is the body's own."""
                self.rfile.read(int(self.headers["content-length"]))
                lower = {name.lower(): value for name, value in self.headers.items()}
                outer.asked.append((self.client_address[1], self.path, lower))
                self.send_response(status)
                framing = (
                    {} if {"content-length", "transfer-encoding"} & set(headers) else {"content-length": len(body)}
                )
                for name, value in {**headers, **framing}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = self.close_connection or int(headers.get("content-length", 0)) > len(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Silence."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = "http://127.0.0.1:%d/v1" % self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.005,), daemon=True).start()

    @property
    def connections(self) -> int:
        """How many connections the requests came on."""
        return len({port for port, _, _ in self.asked})

    def __enter__(self) -> FixedProvider:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def proxy_for(url: str, settings: Optional[Mapping[str, str]] = None, **model: Any) -> Iterator[Proxy]:
    """A proxy with the model ``m`` at ``url``."""
    entry = {"model_id": "m", "api_base": url, "dialect": "generic", **model}
    with running_proxy({"ROUTER_DEFAULT": "m", "MAX_RETRIES": "0", **(settings or {})}, [entry]) as proxy:
        yield proxy


def answer_of(url: str, stream: bool = False, **settings: str) -> Answer:
    """What the client gets when the provider at ``url`` is asked once."""
    with proxy_for(url, settings) as proxy:
        return ask(proxy.url, "/v1/messages", user(stream=stream))


def text_of(answer: Answer) -> str:
    """The text of a message, whole or streamed, that must be good."""
    assert answer.status == 200, answer.body
    if answer.headers["content-type"] == JSON:
        return str(answer.json["content"][0]["text"])
    events = parse_sse(answer.body)
    check_grammar(events)
    return str(fold(events)["content"][0]["text"])


def check_failed(answer: Answer, *statuses: int) -> str:
    """An error in Anthropic's shape with one of the statuses; returns its message."""
    assert answer.status in statuses, (answer.status, answer.body)
    check_error(answer.json)
    return str(answer.json["error"]["message"])
