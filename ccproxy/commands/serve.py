"""``ccproxy serve``: the server in the foreground, until a signal ends it."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
from typing import Any, Protocol

from .. import log
from ..code_watch import serve_reloading
from ..config.schema import Config
from ..counter import Counter
from ..errors import ConfigError
from ..listener import listen, url_of
from ..server import raise_descriptor_limit
from ..serving import TICK, Here, work
from ..workers import CrashLoop, Workers
from .options import add_configuration, load

EXAMPLES = (
    "ccproxy serve",
    "ccproxy --port 9000 --log-level DEBUG",
    "PORT=0 ccproxy serve --models work.yaml",
)

logger = logging.getLogger(__name__)


class Serving(Protocol):
    """What answers the requests: this process, or several others."""

    def start(self) -> None:
        """Begin to accept connections."""

    def look(self) -> None:
        """Do what is due."""

    def stop(self) -> None:
        """Give running requests time to end, and let go of everything."""

    def kill(self) -> None:
        """End at once what would go on without this process."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--host", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", help="port to listen on (8082); 0 takes any free one")
    parser.add_argument("--workers", metavar="N", help="processes that serve (1)")
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
    log.configure(config, lambda: config.secrets, os.environ)
    listener = _listen(config)
    serving = _serving(config, listener)
    signalled = _watch_signals(serving)
    print(f"ccproxy listening on {url_of(listener)}", file=sys.stderr, flush=True)
    for warning in loaded.warnings:
        logger.warning("%s", warning)
    serving.start()
    code = 0
    try:
        while not signalled.wait(TICK):  # a signal that another thread receives does not interrupt a longer wait
            serving.look()
            if options.parent not in (None, os.getppid()):  # its children get another parent when it ends
                break
    except CrashLoop as error:
        logger.critical("%s", error)
        code = 1
    logger.info("stopping: running requests have %g s to end", config.drain_timeout)
    serving.stop()
    return code


def _listen(config: Config) -> socket.socket:
    try:
        return listen(config.host, config.port)
    except OSError as error:
        raise ConfigError(f"cannot listen on {config.host} port {config.port}: {error.strerror or error}") from None


def _serving(config: Config, listener: socket.socket) -> Serving:
    if config.workers == 1:
        return Here(config, listener)
    counter = Counter()
    counter.load()  # what is loaded before a fork is there once
    return Workers(
        config.workers, listener, config.drain_timeout, lambda channel: work(config, listener, counter, channel)
    )


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


def _watch_signals(serving: Serving) -> threading.Event:
    """Return the event that SIGTERM or SIGINT sets; a second signal ends the process at once."""
    signalled = threading.Event()

    def on_signal(number: int, frame: Any) -> None:
        if signalled.is_set():
            serving.kill()
            os._exit(128 + number)
        signalled.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    return signalled
