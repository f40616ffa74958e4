"""Imports point down only, pure files touch nothing outside, and importing the package does nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Dict, FrozenSet, Iterator, List, Tuple

import pytest

import ccproxy

PACKAGE = Path(ccproxy.__file__).parent

# Lowest first. The package itself holds the version alone, which everybody may read.
LAYERS: Dict[str, Tuple[str, ...]] = {
    "package": ("__init__", "*.__init__"),
    "words": (
        "access",
        "frozen",
        "masking",
        "anthropic",
        "message",
        "encoded",
        "openai",
        "chunk_reader",
        "passage",
        "remembered",
        "responses",
        "citations",
        "sse",
        "web",
        "http1",
        "errors",
        "partial_json",
    ),
    "rules": (
        "translate.*",
        "provider.dialects",
        "provider.retry",
        "provider.quoted",
        "routing",
        "claude_code",
        "capture",
        "counting.tokens",
        "counting.counter",
        "counting.tool_types",
        "counting.calibration",
        "counting.token_families",
        "counting.image_size",
        "accounting.pricing",
        "accounting.budget",
        "accounting.prices",
        "config.schema",
        "config.values",
        "config.credentials",
        "config.envfile",
        "config.modelsfile",
        "config.providers",
        "perf.sample",
        "perf.summary",
        "perf.shown",
        "perf.page",
    ),
    "edges": (
        "provider.client",
        "provider.response",
        "provider.fallback",
        "provider.cancel",
        "provider.connections",
        "provider.dial",
        "provider.reads",
        "provider.answer",
        "provider.kept",
        "provider.plain_body",
        "provider.faults",
        "provider.cooldown",  # remembers under a lock
        "provider.keys",  # remembers under a lock
        "last_routes",  # remembers under a lock
        "provider.probe",
        "watch",
        "provider.repair",  # remembers under a lock
        "config.load",
        "config.reload",
        "accounting.ledger",
        "accounting.ledgerfile",
        "accounting.journal",
        "feed",
        "metrics",  # remembers under a lock
        "accounting.totals",
        "accounting.usage",
        "accounting.spending",
        "recall",  # remembers under a lock
        "counting.learned",
        "counting.estimates",
        "log",
        "logfile",
        "stub",
        "processes.background",
        "processes.code_watch",
        "processes.notify",
    ),
    "wiring": ("app", "handlers.*"),
    "entries": (
        "cli",
        "capabilities",
        "in_process",
        "commands.*",
        "processes.listener",
        "processes.memory",
        "server",
        "incoming",
        "outgoing",
        "open_streams",
        "processes.serving",
        "processes.workers",
        "processes.lifecycle",
        "wsgi",
        "perf.*",
        "__main__",
    ),
}
PURE = ("package", "words", "rules")

# Network, files, clock, log, threads, chance, the process and its environment; and everything that is no standard
# library at all.
OUTSIDE = frozenset(
    [
        "socket",
        "ssl",
        "select",
        "selectors",
        "http",
        "ftplib",
        "smtplib",
        "urllib.request",
        "socketserver",
        "asyncio",
        "os",
        "pathlib",
        "shutil",
        "tempfile",
        "glob",
        "fileinput",
        "mmap",
        "sqlite3",
        "time",
        "datetime",
        "sched",
        "logging",
        "warnings",
        "threading",
        "multiprocessing",
        "concurrent",
        "subprocess",
        "_thread",
        "queue",
        "random",
        "secrets",
        "uuid",
        "signal",
        "sys",
        "getpass",
        "platform",
        "requests",
        "urllib3",
        "sseclient",
        "yaml",
        "dotenv",
        "tiktoken",
        "certifi",
    ]
)
EXCEPTIONS: Dict[str, FrozenSet[str]] = {
    "config.modelsfile": frozenset({"yaml"}),  # parses text it is given
    "config.envfile": frozenset({"dotenv"}),  # dotenv.parser parses text it is given
    "sse": frozenset({"sseclient"}),  # parses bytes it is given
    # The vocabulary is loaded in the background: a start must not wait for it, nor fail without it.
    "counting.counter": frozenset({"tiktoken", "threading", "logging"}),
    "http1": frozenset({"http.HTTPStatus", "time.gmtime", "time.strftime"}),  # a table of names; what a date is called
}


def modules() -> Dict[str, ast.Module]:
    """Every module of the package by its dotted name below it."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
    }


MODULES = modules()
each_module = pytest.mark.parametrize("name", sorted(MODULES))


def layer_of(name: str) -> str:
    """The layer a module belongs to; the first that names it."""
    return next(layer for layer, patterns in LAYERS.items() if any(fnmatch(name, pattern) for pattern in patterns))


def imports(name: str) -> Iterator[Tuple[int, str]]:
    """(level, dotted name) of every import in a module, also those inside functions."""
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.level, f"{node.module or ''}.{alias.name}".strip(".")) for alias in node.names)


def own_imports(name: str) -> List[str]:
    """The modules of the package that a module imports."""
    found = []
    for level, target in imports(name):
        if level:
            parts = [*name.split(".")[:-level], *target.split(".")]
            candidates = [".".join(parts), ".".join(parts[:-1]), ".".join([*parts[:-1], "__init__"]).strip(".")]
            found.append(next(candidate for candidate in candidates if candidate in MODULES))
    return found


@each_module
def test_every_module_has_a_layer(name: str) -> None:
    """A new module is written into the table of layers."""
    assert any(fnmatch(name, pattern) for patterns in LAYERS.values() for pattern in patterns)


@each_module
def test_imports_point_down(name: str) -> None:
    """A module imports from its own layer or from a lower one."""
    order = list(LAYERS)
    upwards = [target for target in own_imports(name) if order.index(layer_of(target)) > order.index(layer_of(name))]
    assert upwards == []


@each_module
def test_imports_inside_the_package_are_relative(name: str) -> None:
    """So the package works under any name, vendored into another one."""
    assert [target for level, target in imports(name) if not level and target.split(".")[0] == "ccproxy"] == []


@pytest.mark.parametrize("name", sorted(name for name in MODULES if layer_of(name) in PURE))
def test_pure_modules_reach_nothing_outside(name: str) -> None:
    """Words and rules take values and return values: no network, file, clock, log, thread or chance."""
    reached = {
        target
        for level, target in imports(name)
        if not level and any(f"{target}.".startswith(f"{outside}.") for outside in OUTSIDE)
    }
    allowed = EXCEPTIONS.get(name, frozenset())
    assert {target for target in reached if not any(f"{target}.".startswith(f"{name}.") for name in allowed)} == set()


@pytest.mark.parametrize("name", sorted(name for name in MODULES if layer_of(name) in PURE))
def test_pure_modules_open_and_print_nothing(name: str) -> None:
    """The builtins that reach outside are not called."""
    calls = {
        node.func.id for node in ast.walk(MODULES[name]) if isinstance(node, ast.Call) and hasattr(node.func, "id")
    }
    assert calls & {"open", "print", "input", "exec", "eval", "__import__"} == set()


@each_module
def test_data_is_never_code(name: str) -> None:
    """Nothing that is read is run, unpickled or given to a shell, and no call leaves certificates unchecked."""
    calls = [node for node in ast.walk(MODULES[name]) if isinstance(node, ast.Call)]
    assert {ast.unparse(call.func) for call in calls} & {"eval", "exec", "os.system", "os.popen", "yaml.load"} == set()
    assert {target.split(".")[0] for level, target in imports(name) if not level} & {"pickle", "marshal"} == set()
    given = {(keyword.arg, ast.unparse(keyword.value)) for call in calls for keyword in call.keywords}
    assert given & {("shell", "True"), ("verify", "False")} == set()


@pytest.mark.parametrize("name", sorted(name for name in MODULES if name.endswith(".__init__")))
def test_folders_hold_a_docstring_only(name: str) -> None:
    """Importing one module of a folder imports no other one."""
    assert ast.get_docstring(MODULES[name])
    assert len(MODULES[name].body) == 1


@each_module
def test_every_module_says_what_it_is(name: str) -> None:
    """A module begins with its docstring."""
    assert ast.get_docstring(MODULES[name])


WATCH = """
import os, sys, threading, importlib
import requests, sseclient, yaml, dotenv.parser, http.server, argparse, subprocess, logging  # not ours to judge
seen = []

class Spy(dict):
    def note(self):
        if str(sys._getframe(2).f_globals.get("__name__")).startswith("ccproxy"):
            seen.append("reads the environment")
    def __getitem__(self, key):
        self.note()
        return dict.__getitem__(self, key)
    def get(self, *arguments):
        self.note()
        return dict.get(self, *arguments)
    def __contains__(self, key):
        self.note()
        return dict.__contains__(self, key)
    def copy(self):
        self.note()
        return dict.copy(self)

def hook(event, arguments):
    if event == "open" and not str(arguments[0]).endswith((".py", ".pyc", ".so", ".pyi")):
        seen.append("opens %s" % (arguments[0],))
    elif event.startswith(("socket.", "subprocess.", "urllib.", "os.mkdir", "os.fork", "_thread.start")):
        seen.append(event)

os.environ = Spy(os.environ)
sys.addaudithook(hook)
for name in sys.argv[1:]:
    importlib.import_module(name)
    if threading.active_count() != 1:
        seen.append("starts a thread")
    if logging.getLogger("ccproxy").handlers or logging.getLogger().handlers:
        seen.append("configures the log")
    for what in seen:
        print(name, what)
    seen.clear()
"""


def test_importing_does_nothing() -> None:
    """An import opens no file, reads no environment, starts no thread and configures no log."""
    names = [".".join(["ccproxy", *name.split(".")]).replace(".__init__", "") for name in sorted(MODULES)]
    command = [sys.executable, "-c", WATCH, *names]
    result = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, timeout=120, check=False)
    assert (result.stdout, result.stderr, result.returncode) == ("", "", 0)
