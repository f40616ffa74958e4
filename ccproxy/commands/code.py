"""``ccproxy code``: start Claude Code with the right environment, and a proxy when none runs."""

from __future__ import annotations

import argparse
import errno
import json
import os
import shutil
import signal
import sys
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Dict, List, NoReturn, Optional
from urllib.parse import urlsplit

from ..claude_code import client_environment, client_variables
from ..config.load import state_folder
from ..config.schema import Config
from ..errors import CcproxyError
from ..processes.background import get, running_at, start_for
from .env import configured_url
from .options import add_configuration, add_run_folder, configuration_arguments, load

EXAMPLES = (
    "ccproxy code",
    "ccproxy code --continue",
    "ccproxy code --model openai/gpt-5",
    'ccproxy code -p "What does this project do?"',
    "ccproxy code --env-file work.env -- --help",
)
PROGRAM = "claude"
NOT_INSTALLED = f"{PROGRAM}: no such program in PATH; to install Claude Code: npm install -g @anthropic-ai/claude-code"
_START_TIMEOUT = 30.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_run_folder(parser)
    add_configuration(parser)


def run(options: argparse.Namespace) -> int:
    """Become Claude Code: same terminal, same process, so signals and exit code are its own.

    A proxy that answers at HOST and PORT, or one that ``ccproxy start`` started, is used. Else one is started on a free
    port for this session alone, and ends with it.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise CcproxyError(NOT_INSTALLED)
    loaded = load(options)
    for warning in loaded.config.warnings:
        print(f"ccproxy: {warning}", file=sys.stderr)
    url = _find_proxy(loaded.config, options.run_dir) or _start_proxy(loaded.config, options)
    variables = client_variables(loaded.config, url)
    environment = client_environment(os.environ, variables, urlsplit(url).hostname or "")
    sys.stderr.flush()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and what is ignored stays so in the new program
    _become(program, options.more, environment)


def _become(program: str, arguments: List[str], environment: Dict[str, str]) -> NoReturn:
    """Run a program in our place; a script without ``#!`` by the shell, as a shell does (POSIX, ``execvp``).

    npm leaves such a script, which says what is missing, where it was told to run no install scripts.
    """
    try:
        os.execve(program, [PROGRAM, *arguments], environment)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise CcproxyError(f"{program}: cannot be started: {error.strerror}") from None
        os.execve("/bin/sh", ["sh", program, *arguments], environment)


def _find_proxy(config: Config, run_folder: Path) -> Optional[str]:
    """Return the address of a running proxy that takes our token."""
    url = running_at(run_folder) or (configured_url(config) if config.port else None)
    if url is None:
        return None
    answer = get(url, "/api/hello", config.ccproxy_auth_token)
    if answer is None:
        return None
    if answer.status == HTTPStatus.UNAUTHORIZED and b"CCPROXY_AUTH_TOKEN" in answer.body:
        raise CcproxyError(f"the proxy on {url} wants another CCPROXY_AUTH_TOKEN than this configuration has")
    with suppress(ValueError, AttributeError):
        return url if json.loads(answer.body).get("name") == "ccproxy" else None
    return None


def _start_proxy(config: Config, options: argparse.Namespace) -> str:
    """Start a proxy for the process that we are, also once it is Claude Code; return its address."""
    sessions = state_folder(config, os.environ) / "sessions"
    _forget_ended(sessions)
    folder = sessions / str(os.getpid())
    arguments = ["--host", "127.0.0.1", "--port", "0", "--workers", "1", *configuration_arguments(options)]
    url = start_for(os.getpid(), folder, arguments, _START_TIMEOUT)
    print(f"ccproxy: a proxy for this session runs on {url}; its log is {folder}/ccproxy.log", file=sys.stderr)
    return url


def _forget_ended(sessions: Path) -> None:
    """Remove the folders of sessions that ended."""
    for folder in sessions.glob("[0-9]*"):
        try:
            os.kill(int(folder.name), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (PermissionError, ValueError, OverflowError):
            continue
