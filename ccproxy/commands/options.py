"""Options that several commands share, and the configuration they name."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Set, Tuple

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..config.load import Loaded
    from ..config.schema import Config, Model

# Option of the command line: the setting it overrides.
_SETTINGS = {
    "host": "HOST",
    "port": "PORT",
    "models": "CUSTOM_MODELS_FILE",
    "workers": "WORKERS",
    "log_level": "LOG_LEVEL",
}


def add_configuration(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the configuration files."""
    parser.add_argument("--env-file", help="instead of .env")
    parser.add_argument("--models", help="instead of models.yaml")


def configuration_arguments(options: argparse.Namespace) -> List[str]:
    """Return the same options for another ``serve``."""
    files = {"--env-file": options.env_file, "--models": options.models}
    return [part for option, value in files.items() if value for part in (option, value)]


def add_run_folder(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the folder of a server in the background."""
    parser.add_argument(
        "--run-dir", type=Path, default=Path(".run"), help="folder of the pid file and the log (%(default)s)"
    )


def seconds(text: str) -> float:
    """Read the value of an option that is a time to wait."""
    with suppress(ValueError):
        if 0 < float(text) <= 3600:
            return float(text)
    raise argparse.ArgumentTypeError(f"expected more than 0 and at most 3600 seconds, not {text!r}")


def find_model(name: str, config: Config, place: str = "") -> Model:
    """Return a model that the command line names, at ``place`` such as ``--model:``."""
    model = config.find(name)
    if model is None:
        found = f"{place} unknown model {name!r}; `ccproxy models` lists those of the configuration"
        raise ConfigError(found.strip())
    return model


def read_file(name: str) -> bytes:
    """Return what a file of the command line holds; ``-`` is standard input."""
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {error.strerror or error}") from None


def load(options: argparse.Namespace, seen: Optional[Set[Path]] = None) -> Loaded:
    """Return the configuration of a command line, its environment and its files; ``seen`` is given their paths."""
    from ..config.load import load_config  # 70 ms, half of `ccproxy start` and `ccproxy stop`, which load nothing

    overrides: Dict[str, Tuple[Any, str]] = {}
    for option, setting in _SETTINGS.items():
        value = getattr(options, option, None)
        if value is not None:
            overrides[setting] = (value, "--" + option.replace("_", "-"))
    return load_config(os.environ, env_file=options.env_file, overrides=overrides, seen=seen)
