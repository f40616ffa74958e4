"""The command line: argparse; turns ``CcproxyError`` into one stderr line and an exit code."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import signal
import sys
import threading
from typing import Any, Dict, List, Optional, Tuple

from . import __version__, background, log, stats
from .app import App
from .config.load import Loaded, load_config, state_folder
from .config.schema import Config
from .errors import CcproxyError, ConfigError
from .ledger import Ledger
from .server import Server

logger = logging.getLogger(__name__)

# Option of the command line: the setting it overrides.
_OPTIONS = {"host": "HOST", "port": "PORT", "models": "CUSTOM_MODELS_FILE", "log_level": "LOG_LEVEL"}
COMMANDS = ("serve", "check", "stats", "start", "stop")


def main(argv: Optional[List[str]] = None) -> int:
    """Run one command and return its exit code; without one, ``serve``."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or (arguments[0] not in COMMANDS and arguments[0] not in ("-h", "--help", "--version")):
        arguments.insert(0, "serve")
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except CcproxyError as error:
        print(f"ccproxy: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough; what is left must not fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(arguments: List[str]) -> int:
    if arguments[0] in background.COMMANDS:
        return background.COMMANDS[arguments[0]](arguments[1:])
    options = _parser().parse_args(arguments)
    return int(options.run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ccproxy", description="Claude Code with any model.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"ccproxy {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND")
    serve = commands.add_parser("serve", help="serve in the foreground (the default)")
    serve.add_argument("--host", help="address to listen on (127.0.0.1)")
    serve.add_argument("--port", help="port to listen on (8082); 0 takes any free one")
    serve.add_argument("--log-level", help="DEBUG, INFO, WARNING or ERROR")
    serve.set_defaults(run=_serve)
    check = commands.add_parser("check", help="validate the configuration")
    check.set_defaults(run=_check)
    usage = commands.add_parser("stats", help="show usage and cost")
    stats.add_options(usage)
    usage.set_defaults(run=lambda options: stats.run(options, _load(options)))
    for command in (serve, check, usage):
        command.add_argument("--env-file", help="instead of .env")
        command.add_argument("--models", help="instead of models.yaml")
    commands.add_parser("start", help="serve in the background; takes the options of serve", add_help=False)
    commands.add_parser("stop", help="stop the server in the background", add_help=False)
    return parser


def _load(options: argparse.Namespace) -> Loaded:
    overrides: Dict[str, Tuple[Any, str]] = {}
    for option, setting in _OPTIONS.items():
        value = getattr(options, option, None)
        if value is not None:
            overrides[setting] = (value, "--" + option.replace("_", "-"))
    return load_config(os.environ, env_file=options.env_file, overrides=overrides)


def _check(options: argparse.Namespace) -> int:
    """Say what the configuration holds; 0 when nothing in it is wrong."""
    loaded = _load(options)
    print(f"settings  {loaded.env_file or 'no .env'}")
    print(f"models    {loaded.models_file or 'no models.yaml'}: {len(loaded.config.models)}")
    for warning in loaded.warnings:
        print(f"warning   {warning}")
    return 0


def _serve(options: argparse.Namespace) -> int:
    loaded = _load(options)
    config = loaded.config
    _check_address(config)
    app = App(config, Ledger(state_folder(config, os.environ)))
    log.configure(config.log_level, lambda: app.config.secrets)
    try:
        server = Server(app, config.host, config.port)
    except OSError as error:
        raise ConfigError(f"cannot listen on {config.host} port {config.port}: {error.strerror or error}") from None
    signalled = _watch_signals()
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
