"""``ccproxy stop``: end the server in the background."""

from __future__ import annotations

import argparse

from ..processes.background import stop
from .options import add_run_folder, seconds

EXAMPLES = (
    "ccproxy stop",
    "ccproxy stop --run-dir ~/.ccproxy --timeout 5",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_run_folder(parser)
    parser.add_argument("--timeout", type=seconds, default=40, help="seconds to wait before killing it (%(default)g)")


def run(options: argparse.Namespace) -> int:
    """Stop the server and wait until it is gone."""
    return stop(options.run_dir, options.timeout)
