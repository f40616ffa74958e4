"""What many tests need: a running proxy, and requests as clients send them."""

from __future__ import annotations

import http.client
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple
from urllib.parse import urlsplit

import yaml

from ccproxy.accounting.ledger import Ledger
from ccproxy.app import App
from ccproxy.config.modelsfile import parse_models
from ccproxy.config.schema import SETTINGS, Config, build_config
from ccproxy.server import Server
from ccproxy.stub import Script, StubProvider, demo_script

Json = Dict[str, Any]


def make_config(env: Optional[Mapping[str, str]] = None, models: Sequence[Mapping[str, Any]] = ()) -> Config:
    """Return the configuration that an environment and the entries of a models file make."""
    variables = {"MAX_RETRIES": "0", **(env or {})}  # tests of retries ask for them
    settings = {name: (value, "environment") for name, value in variables.items() if name in SETTINGS}
    text = yaml.safe_dump([dict(model) for model in models])
    return build_config(settings, parse_models(text, "models.yaml"), variables)


@dataclass
class Proxy:
    """A proxy that listens."""

    url: str
    app: App
    server: Server


@contextmanager
def running_proxy(
    env: Optional[Mapping[str, str]] = None,
    models: Sequence[Mapping[str, Any]] = (),
    ledger: Optional[Ledger] = None,
) -> Iterator[Proxy]:
    """Serve on a free port, in this process, with real sockets; requests are recorded in a ledger, if one is given."""
    with serving(make_config(env, models), ledger) as proxy:
        yield proxy


@contextmanager
def serving(config: Config, ledger: Optional[Ledger] = None) -> Iterator[Proxy]:
    """Serve a configuration on a free port, in this process, with real sockets."""
    app = App(config, ledger)
    app.counter.load()
    server = Server(app, "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, args=(0.005,), daemon=True).start()
    try:
        yield Proxy(server.url, app, server)
    finally:
        server.stop(1.0)
        app.close()


@contextmanager
def proxy_with(
    script: Script = demo_script, env: Optional[Mapping[str, str]] = None, **model: Any
) -> Iterator[Tuple[Proxy, StubProvider]]:
    """Serve one model, ``stub``, that plays a script; ``env`` adds settings, ``model`` keys of its entry."""
    with StubProvider(script) as stub:
        entry = {"model_id": "stub", "api_base": stub.url, "dialect": "generic", **model}
        with running_proxy({"ROUTER_DEFAULT": "stub", **(env or {})}, [entry]) as proxy:
            yield proxy, stub


@dataclass
class Answer:
    """One HTTP answer, read whole."""

    status: int
    headers: Dict[str, str]
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def ask(
    url: str, path: str, body: Any = None, *, method: str = "", headers: Optional[Mapping[str, str]] = None
) -> Answer:
    """Send one request and read its answer; ``body`` is bytes or a JSON value."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, data, dict(headers or {}))
        response = connection.getresponse()
        content = response.read()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, content)
    finally:
        connection.close()


def user(text: str = "Hello", **fields: Any) -> Json:
    """Return the body of a request with one user message."""
    return {"model": "claude-sonnet-4-5", "max_tokens": 1024, "messages": [{"role": "user", "content": text}], **fields}


def events_of(body: bytes) -> List[Json]:
    """Return the data of each event of a stream's bytes."""
    frames = body.decode().split("\n\n")
    return [json.loads(line[6:]) for frame in frames for line in frame.split("\n") if line.startswith("data: ")]
