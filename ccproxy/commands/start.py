"""``ccproxy start``: serve in the background."""

from __future__ import annotations

import argparse

from ..processes.background import start
from .options import add_run_folder, seconds

EXAMPLES = (
    "ccproxy start",
    "ccproxy start --run-dir ~/.ccproxy --port 9000",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_run_folder(parser)
    parser.add_argument(
        "--timeout", type=seconds, default=30, help="seconds to wait for its first answer (%(default)g)"
    )


def run(options: argparse.Namespace) -> int:
    """Start the server, unless it runs; 0 when it answers."""
    return start(options.run_dir, options.more, options.timeout)
