"""``ccproxy env``: the lines that connect Claude Code, for a shell."""

from __future__ import annotations

import argparse
import shlex

from ..claude_code import client_variables
from ..config.schema import Config
from ..errors import ConfigError
from ..processes.background import connectable, running_at
from .options import add_configuration, add_run_folder, load

EXAMPLES = (
    'eval "$(ccproxy env)" && claude',
    "ccproxy env --shell fish | source",
    "ccproxy env >> ~/.profile",
)
_FORMATS = {"sh": "export {}={}", "fish": "set -gx {} {}"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--shell", choices=_FORMATS, default="sh", help="sh is also for bash and zsh (%(default)s)")
    add_run_folder(parser)
    add_configuration(parser)


def run(options: argparse.Namespace) -> int:
    """Print the lines; the token among them is CCPROXY_AUTH_TOKEN."""
    config = load(options).config
    url = running_at(options.run_dir) or configured_url(config)
    for name, value in client_variables(config, url).items():
        print(_FORMATS[options.shell].format(name, shlex.quote(value)))
    return 0


def configured_url(config: Config) -> str:
    """Return the address at which a proxy with this configuration answers on this machine.

    Raises:
        ConfigError: it will take any free port.
    """
    if not config.port:
        raise ConfigError("PORT is 0, any free port, and no proxy runs that could be asked which")
    return connectable(f"http://{f'[{config.host}]' if ':' in config.host else config.host}:{config.port}")
