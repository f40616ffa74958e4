"""``ccproxy serve``: the server in the foreground, until a signal ends it."""

from __future__ import annotations

import argparse
import os
import threading

from ..config.reload import ConfigStore
from ..log import tell_dead_thread
from ..processes.lifecycle import Life
from ..processes.listener import INHERITED, raise_descriptor_limit
from ..processes.memory import share_arena
from .options import add_configuration, load

EXAMPLES = (
    "ccproxy serve",
    "ccproxy --port 9000 --log-level DEBUG",
    "PORT=0 ccproxy serve --models work.yaml",
)


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
        from ..processes.code_watch import serve_reloading

        return serve_reloading([argument for argument in options.arguments if argument != "--reload"])
    raise_descriptor_limit()
    share_arena()
    threading.excepthook = tell_dead_thread
    store = ConfigStore(lambda seen: load(options, seen))
    inherited = os.environ.pop(INHERITED, "")
    if inherited:
        from ..processes.workers import serve_inherited

        return serve_inherited(store, inherited)
    return Life(store, options.arguments, options.parent).run()
