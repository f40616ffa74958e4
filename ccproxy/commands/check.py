"""``ccproxy check``: say what the configuration holds, and what is wrong with it."""

from __future__ import annotations

import argparse
import os

from .. import log
from .options import add_configuration, load

EXAMPLES = (
    "ccproxy check",
    "ccproxy check --env-file work.env --models work.yaml",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_configuration(parser)


def run(options: argparse.Namespace) -> int:
    """Say what the configuration holds; 0 when nothing in it is wrong."""
    loaded = load(options)
    print(f"settings  {loaded.env_file or 'no .env'}")
    print(f"models    {loaded.models_file or 'no models.yaml'}: {len(loaded.config.models)}")
    for warning in loaded.warnings:
        print(f"warning   {warning}")
    found = f"check: {len(loaded.config.models)} models, {len(loaded.warnings)} warnings"
    log.note(found, loaded.config, os.environ)
    return 0
