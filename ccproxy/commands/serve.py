"""``ccproxy serve``: the server in the foreground, until a signal ends it."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import signal
import sys
import threading
import time
from typing import Any

from .. import log
from ..app import App
from ..code_watch import serve_reloading
from ..config.load import state_folder
from ..config.schema import Config
from ..errors import ConfigError
from ..ledger import Ledger
from ..server import Server, raise_descriptor_limit
from .options import add_configuration, load

EXAMPLES = (
    "ccproxy serve",
    "ccproxy --port 9000 --log-level DEBUG",
    "PORT=0 ccproxy serve --models work.yaml",
)

logger = logging.getLogger(__name__)

PARENT_INTERVAL = 0.5


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--host", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", help="port to listen on (8082); 0 takes any free one")
    parser.add_argument("--log-level", help="DEBUG, INFO, WARNING or ERROR")
    parser.add_argument("--reload", action="store_true", help="start again whenever the code of ccproxy changes")
    parser.add_argument("--parent", type=int, metavar="PID", help="end when the process PID, which started it, ends")
    add_configuration(parser)


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; running requests are given time to end."""
    if options.reload:
        return serve_reloading([argument for argument in options.arguments if argument != "--reload"])
    loaded = load(options)
    config = loaded.config
    _check_address(config)
    raise_descriptor_limit()
    app = App(config, Ledger(state_folder(config, os.environ)))
    log.configure(config, lambda: app.config.secrets, os.environ)
    try:
        server = Server(app, config.host, config.port)
    except OSError as error:
        raise ConfigError(f"cannot listen on {config.host} port {config.port}: {error.strerror or error}") from None
    signalled = _watch_signals()
    if options.parent is not None:
        threading.Thread(target=_end_with, args=(options.parent,), name="parent", daemon=True).start()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="accept", daemon=True).start()
    print(f"ccproxy listening on {server.url}", file=sys.stderr, flush=True)
    for warning in loaded.warnings:
        logger.warning("%s", warning)
    app.counter.load_in_background()
    while not signalled.wait(0.2):
        pass  # a signal that another thread receives does not interrupt a wait without end
    logger.info("stopping: running requests have %g s to end", config.drain_timeout)
    if not server.stop(config.drain_timeout):
        logger.warning("requests were still running after %g s and were cut", config.drain_timeout)
    app.close()
    return 0


def _check_address(config: Config) -> None:
    """Refuse to show the owner's keys to a network without a token."""
    if config.ccproxy_auth_token or config.host == "localhost":
        return
    try:
        is_loopback = ipaddress.ip_address(config.host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ConfigError(f"HOST {config.host} is not a loopback address: set CCPROXY_AUTH_TOKEN to listen there")


def _watch_signals() -> threading.Event:
    """Return the event that SIGTERM or SIGINT sets; a second signal ends the process at once."""
    signalled = threading.Event()

    def on_signal(number: int, frame: Any) -> None:
        if signalled.is_set():
            os._exit(128 + number)
        signalled.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    return signalled


def _end_with(parent: int) -> None:
    """Stop, as by a signal, once the process that started this one is gone: its children get another parent then."""
    while os.getppid() == parent:
        time.sleep(PARENT_INTERVAL)
    os.kill(os.getpid(), signal.SIGTERM)
