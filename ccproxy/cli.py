"""The command line: finds the command; turns ``CcproxyError`` into one stderr line and an exit code."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from importlib import import_module
from typing import List, NamedTuple, Optional, Tuple

from . import __version__
from .errors import CcproxyError


class Command(NamedTuple):
    """One row: a command is the module of its name in ``commands``, imported when it is asked for.

    No dataclass, whose library takes --help and --version 12 ms.
    """

    name: str
    help: str
    passes_on: bool = False
    """Whether options it does not know are for the program that it starts."""


COMMANDS = {
    row.name: row
    for row in (
        Command("serve", "serve in the foreground (the default)"),
        Command("check", "validate the configuration; --live asks the models what they can"),
        Command("route", "say which model a request would go to, and why; nothing is sent"),
        Command("models", "list the models it can reach: keys, limits, prices"),
        Command("code", "start Claude Code with any model; other options go to `claude`", passes_on=True),
        Command("env", "print the lines that connect Claude Code, for a shell"),
        Command("stats", "show usage and cost"),
        Command("perf", "measure a model directly and through the proxy"),
        Command("replay", "send a captured request again, and show where the answer differs"),
        Command("start", "serve in the background; takes the options of serve as well", passes_on=True),
        Command("stop", "stop the server in the background"),
        Command("systemd", "print a hardened systemd unit"),
        Command("completion", "print what lets a shell complete commands, options and models"),
    )
}


def main(argv: Optional[List[str]] = None) -> int:
    """Run one command and return its exit code; without one, ``serve``."""
    _open_standard_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help", "--version")):
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
    except OSError as error:
        # What is left of our output must not fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # whoever read it has seen enough
            return 0
        print(f"ccproxy: {error}", file=sys.stderr)  # a full disk, say
        return 1


def _open_standard_streams() -> None:
    """Let none be closed: Python has None for it then, and the system gives its number to a file or a client."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - to the end


def _run(arguments: List[str]) -> int:
    command = COMMANDS.get(arguments[0])
    if command is None and not arguments[0].startswith("-"):
        raise CcproxyError(_unknown(arguments[0]))
    if command is None:
        _overview().parse_args(arguments)
        return 0
    gc.disable()  # what is imported stays: looking through it for garbage takes a start 10 ms
    module = import_module(f".commands.{command.name}", __package__)
    gc.enable()
    parser = parser_of(command)
    own, passed = _split(arguments[1:]) if command.passes_on else (arguments[1:], [])
    options, more = parser.parse_known_args(own)
    if more and not command.passes_on:
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    options.arguments, options.more = own, more + passed
    return int(module.run(options))


def _unknown(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, COMMANDS, n=1)
    advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
    return f"no command {name!r}; {advice}"


def _split(arguments: List[str]) -> Tuple[List[str], List[str]]:
    """Return what stands before ``--`` and what stands after it."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:end], arguments[end + 1 :]


def parser_of(command: Command) -> argparse.ArgumentParser:
    """Return the parser of a command, with the examples of its module in its help."""
    module = import_module(f".commands.{command.name}", __package__)
    parser = argparse.ArgumentParser(
        prog=f"ccproxy {command.name}",
        description=_sentence(command.help),
        epilog="\n  ".join(["examples:", *module.EXAMPLES]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_options(parser)
    return parser


def _overview() -> argparse.ArgumentParser:
    lines = [f"  {row.name:<12}{row.help}" for row in COMMANDS.values()]
    parser = argparse.ArgumentParser(
        prog="ccproxy",
        usage="ccproxy [COMMAND] [OPTIONS]",
        description="Claude Code with any model.",
        epilog="\n".join(["commands:", *lines, "", "`ccproxy COMMAND --help` tells the options of each."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"ccproxy {__version__}")
    return parser


def _sentence(help: str) -> str:
    return help[0].upper() + help[1:] + "."
