"""``ccproxy systemd``: a hardened unit for this installation, to be saved where systemd looks for it."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import List

from ..config.load import CREDENTIAL_NAME
from ..config.schema import Config
from .options import add_configuration, load

EXAMPLES = (
    "ccproxy systemd | sudo tee /etc/systemd/system/ccproxy.service",
    "ccproxy systemd --credential DEEPSEEK_API_KEY --workers 4",
    "ccproxy systemd --socket | sudo tee /etc/systemd/system/ccproxy.socket",
    "ccproxy systemd --user > ~/.config/systemd/user/ccproxy.service",
)

_SOCKET = """\
[Unit]
Description=Claude Code with any model (socket)

[Socket]
ListenStream={host}:{port}
Backlog=1024
NoDelay=yes

[Install]
WantedBy=sockets.target
"""

_SERVICE = """\
[Unit]
Description=Claude Code with any model
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=60
StartLimitBurst=5

[Service]
Type=notify
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
KillMode=mixed
# More than DRAIN_TIMEOUT, so that running requests are not killed.
TimeoutStopSec={stop}
WatchdogSec=60
Restart=on-failure
RestartSec=2
# A mistake in the configuration is not mended by starting again.
RestartPreventExitStatus=2

# .env and models.yaml; changes of them are taken while it runs.
ConfigurationDirectory=ccproxy
WorkingDirectory=%E/ccproxy
StateDirectory=ccproxy
StateDirectoryMode=0700
LogsDirectory=ccproxy
LogsDirectoryMode=0700
UMask=0077
LimitNOFILE=65536
# Each connection has a thread, and for a moment one that looks a provider's name up.
TasksMax={tasks}
MemoryMax=2G
{credentials}
NoNewPrivileges=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
{system}
[Install]
WantedBy={target}
"""

# What a manager of one user may not do, or need not: it has that user's rights anyway.
_SYSTEM = """\

DynamicUser=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
{home}
PrivateTmp=yes
PrivateMounts=yes
PrivateDevices=yes
DevicePolicy=closed
PrivateUsers=yes
ProtectProc=invisible
ProcSubset=pid
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RemoveIPC=yes
KeyringMode=private
"""

_PACKAGE = str(__package__).rpartition(".")[0]
_HOMES = ("/home", "/root", "/run/user")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--user", action="store_true", help="for the manager of one user instead of the system's")
    parser.add_argument(
        "--socket", action="store_true", help="the unit of the socket, for a start with the first client"
    )
    parser.add_argument("--workers", metavar="N", help="processes that serve")
    parser.add_argument(
        "--credential",
        action="append",
        default=[],
        type=_variable,
        metavar="NAME",
        help="load the variable NAME from a file of its own",
    )
    add_configuration(parser)


def _variable(text: str) -> str:
    if not re.fullmatch(CREDENTIAL_NAME, text):
        raise argparse.ArgumentTypeError(f"expected the name of a variable, such as DEEPSEEK_API_KEY, not {text!r}")
    return text


def run(options: argparse.Namespace) -> int:
    """Print the unit."""
    config = load(options).config
    print(socket_unit(config) if options.socket else service_unit(options, config), end="")
    return 0


def socket_unit(config: Config) -> str:
    """Return the unit of the socket on which systemd listens for the service."""
    host = f"[{config.host}]" if ":" in config.host else {"localhost": "127.0.0.1"}.get(config.host, config.host)
    return _SOCKET.format(host=host, port=config.port)


def service_unit(options: argparse.Namespace, config: Config) -> str:
    """Return the unit of the service."""
    command = [sys.executable, "-m", _PACKAGE, "serve"]
    if options.workers is not None:
        command += ["--workers", str(config.workers)]
    folder = "%E/ccproxy/credentials"
    credentials = [f"LoadCredential={name}:{folder}/{name}" for name in options.credential]
    remark = f"# Keys are better kept out of .env: --credential NAME loads one from {folder}/NAME."
    return _SERVICE.format(
        command=" ".join(_quoted(part) for part in command),
        stop=int(config.drain_timeout) + 30,
        tasks=config.workers * (2 * config.max_connections + 256),
        credentials="\n".join(["", *(credentials or [remark]), ""]),
        system="" if options.user else _SYSTEM.format(home="\n".join(_home())),
        target="default.target" if options.user else "multi-user.target",
    )


def _home() -> List[str]:
    """Return how homes are hidden; an installation inside one is shown, and nothing else of it."""
    parts = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.modules[_PACKAGE].__path__[0])}
    shown = sorted(str(part) for part in parts if str(part).startswith(_HOMES))
    return ["ProtectHome=tmpfs", f"BindReadOnlyPaths={' '.join(map(_quoted, shown))}"] if shown else ["ProtectHome=yes"]


def _quoted(text: str) -> str:
    """Return a word of a command line, or a path, as systemd reads it: %, $ and blanks mean something to it."""
    text = text.replace("%", "%%").replace("$", "$$")
    return f'"{text}"' if " " in text else text
