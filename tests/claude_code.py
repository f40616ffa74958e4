"""Runs the real Claude Code client, installed from npm, against a scripted provider through a real ccproxy process.

Provider, proxy and client of one run live in a child process (this file run as a module) that has a network
namespace of its own with nothing but loopback, so that no run can depend on, or reach, any other network.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import queue
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Sequence, TextIO, Tuple, Union

import ccproxy
from ccproxy.stub import Json, Script, StubProvider, content_text
from responses_provider import ResponsesProvider

PACKAGE = "@anthropic-ai/claude-code"
MODEL = "scripted-model"
NPM_TIMEOUT = 300.0
CLIENT_TIMEOUT = 120.0
PROXY_TIMEOUT = 30.0
CLOSED_PROXY, LOOPBACK = "http://127.0.0.1:1", "127.0.0.1"
SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 0x1, 0x40

Scenario = Callable[[Path], Union[Script, ResponsesProvider]]


# --- the client: versions and installation -------------------------------------------------------------------


def newest_version() -> str:
    """Return the version that npm installs today."""
    return _npm("view", PACKAGE, "version").strip().splitlines()[-1]


def install(version: str) -> List[str]:
    """Return the command of Claude Code ``version``, installed into the user's cache folder on first use."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ccproxy-tests"
    target = root / f"claude-code-{version}"
    if not target.is_dir():
        root.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".claude-code-{version}-", dir=root))
        try:
            options = ["--ignore-scripts", "--include=optional", "--engine-strict=false", "--no-audit", "--no-fund"]
            _npm("install", "--prefix", str(unfinished), *options, f"{PACKAGE}@{version}")
            _client_command(unfinished)
            _move_into_place(unfinished, target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return _client_command(target)


def _move_into_place(unfinished: Path, target: Path) -> None:
    try:
        unfinished.rename(target)
    except OSError:  # another run was faster: its installation is as good
        if not target.is_dir():
            raise


def _client_command(folder: Path) -> List[str]:
    """Return what starts the client: the platform package's own binary, or ``cli.js`` in versions before 2.1.113."""
    packages = folder / "node_modules" / "@anthropic-ai"
    binaries = sorted(packages.glob("claude-code-*/claude"))
    if binaries:
        return [str(binaries[0])]
    if not (packages / "claude-code" / "cli.js").is_file():
        raise RuntimeError(f"npm installed {PACKAGE} without a client for this platform: {sorted(packages.glob('*'))}")
    return ["node", str(packages / "claude-code" / "cli.js")]


def _npm(*arguments: str) -> str:
    command = ["npm", "--loglevel=error", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, timeout=NPM_TIMEOUT, stdin=subprocess.DEVNULL)
    stdout, stderr = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with {done.returncode}: {stderr.strip()}")
    return stdout


# --- a run, seen from outside --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """How one run of the client ended. ``exit_code`` is None after a time-out; ``requests`` are the provider's."""

    exit_code: Optional[int]
    stdout: str
    stderr: str
    requests: List[Json]
    proxy_log: str

    def report(self) -> str:
        """Return everything there is to know about a run that did not go as it should."""
        requests = "\n".join(f"stream={seen.get('stream')}\n{outline(seen['messages'])}" for seen in self.requests)
        parts = {"stdout": self.stdout, "stderr": self.stderr, "provider saw": requests, "proxy": self.proxy_log}
        return f"exit code {self.exit_code}\n" + "\n".join(f"--- {name}\n{text}" for name, text in parts.items())


def outline(messages: Sequence[Json]) -> str:
    """Return a conversation in one short line a message."""
    lines = (json.dumps({**message, "content": content_text(message.get("content"))[-80:]}) for message in messages)
    return "\n".join(f"    {line[:400]}" for line in lines)


@cache
def namespace_command() -> Tuple[str, ...]:
    """Return the command prefix that gives a child a network of its own; empty where the system forbids it."""
    for prefix in (("unshare", "-n"), ("unshare", "-rn")):
        if shutil.which(prefix[0]):
            probe = subprocess.run(
                [*prefix, *_module_command("probe")],
                check=False,
                capture_output=True,
                env=_module_environment(),
                timeout=PROXY_TIMEOUT,
            )
            if probe.returncode == 0:
                return prefix
    return ()


def run_client(command: Sequence[str], scenario: Scenario, folder: Path, *arguments: str) -> Run:
    """Run the client with ``arguments`` in ``folder/project`` while ``scenario(folder/project)`` is the provider.

    ``scenario`` is a function at the top level of a module: the child process imports it by its name. Whatever
    happens in the run, the proxy has no reason for a traceback.
    """
    orders = {"client": [*command, *arguments], "scenario": [scenario.__module__, scenario.__name__]}
    run = _run_in_child("run", orders, folder)
    assert "Traceback" not in run.proxy_log, run.report()
    return run


def run_code(command: Sequence[str], folder: Path, *arguments: str, settings: str = "") -> Run:
    """Run ``ccproxy code`` with ``arguments`` in ``folder/project``; the client is the ``claude`` in its PATH.

    ``settings`` are the lines of the project's ``.env``; without any the demo answers.
    """
    orders = {"client": list(command), "arguments": list(arguments), "settings": settings}
    return _run_in_child("code", orders, folder)


def _run_in_child(task: str, orders: Json, folder: Path) -> Run:
    for name in ("project", "home", "tmp", "proxy"):
        (folder / name).mkdir()
    orders = {**orders, "folder": str(folder), "namespace": bool(namespace_command())}
    child = subprocess.Popen(
        [*namespace_command(), *_module_command(task)],
        env=_module_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )
    try:
        stdout, stderr = child.communicate(json.dumps(orders), timeout=CLIENT_TIMEOUT + 2 * PROXY_TIMEOUT)
    finally:
        _kill_group(child)
    assert child.returncode == 0, f"the run itself failed with {child.returncode}:\n{stderr}"
    return Run(**json.loads(stdout))


def _kill_group(leader: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGKILL)
    leader.wait()


def _module_command(task: str) -> List[str]:
    return [sys.executable, "-m", __name__, task]


def _module_environment() -> Dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}


# --- the same run, inside the child --------------------------------------------------------------------------


def bring_loopback_up() -> None:
    """Raise ``lo``, which is down in a new network namespace (and iproute2 may be missing)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP | IFF_RUNNING))


def play(client: List[str], scenario: List[str], folder: str, namespace: bool) -> Run:
    """Run provider, proxy and client to the client's end, and return what each of them saw."""
    if namespace:
        bring_loopback_up()
    root = Path(folder)
    module, name = scenario
    script = getattr(importlib.import_module(module), name)(root / "project")
    log: List[str] = []
    chosen = script if isinstance(script, ResponsesProvider) else StubProvider(script)
    entry = script.entry if isinstance(script, ResponsesProvider) else {}
    with chosen as provider, _proxy(provider.url, root / "proxy", log, entry) as url:
        environment = {**client_environment(url, root), **({} if namespace else closed_proxy(client))}
        exit_code, stdout, stderr = _run_to_end(client, root / "project", environment)
    return Run(exit_code, stdout, stderr, [received.body for received in provider.requests], "".join(log))


def play_code(client: List[str], arguments: List[str], settings: str, folder: str, namespace: bool) -> Run:
    """Run ``ccproxy code``, which starts a proxy and the client."""
    if namespace:
        bring_loopback_up()
    root = Path(folder)
    if settings:
        (root / "project" / ".env").write_text(settings, encoding="utf-8")
    program = root / "bin" / "claude"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.join(client)} "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    environment = {**client_environment("", root), **({} if namespace else closed_proxy(client))}
    environment["PATH"] = os.pathsep.join([str(program.parent), environment["PATH"]])
    environment["PYTHONPATH"] = str(Path(ccproxy.__path__[0]).parent)
    del environment["ANTHROPIC_API_KEY"]  # with it the proxy would pass everything through to Anthropic
    command = [sys.executable, "-m", "ccproxy", "code", *arguments]
    exit_code, stdout, stderr = _run_to_end(command, root / "project", environment)
    logs = (root / "home").glob(".local/state/ccproxy/sessions/*/ccproxy.log")
    return Run(exit_code, stdout, stderr, [], "".join(log.read_text(encoding="utf-8") for log in logs))


def client_environment(url: str, root: Path) -> Dict[str, str]:
    """Return the client's whole environment: nothing of the developer's own, telemetry and updates off."""
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "SHELL": shutil.which("bash") or "/bin/sh",
        "HOME": str(root / "home"),
        "TMPDIR": str(root / "tmp"),
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": "not-a-key",
    }
    for switch in ("TELEMETRY", "ERROR_REPORTING", "AUTOUPDATER", "BUG_COMMAND", "COST_WARNINGS"):
        environment[f"DISABLE_{switch}"] = "1"
    environment["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"] = "1"
    return environment


def closed_proxy(client: Sequence[str]) -> Dict[str, str]:
    """Return the variables that, where there is no namespace, send the client's other traffic nowhere.

    1.0.35 sends even loopback requests of its main loop through ``HTTPS_PROXY``, whatever ``NO_PROXY`` says; its
    other requests obey ``ALL_PROXY`` too.
    """
    names = ["ALL_PROXY"] if client[0] == "node" else ["ALL_PROXY", "HTTPS_PROXY"]
    variables = {"NO_PROXY": LOOPBACK, **dict.fromkeys(names, CLOSED_PROXY)}
    return {**variables, **{name.lower(): value for name, value in variables.items()}}


def _run_to_end(command: List[str], folder: Path, environment: Dict[str, str]) -> Tuple[Optional[int], str, str]:
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    ) as client:
        try:
            stdout, stderr = client.communicate(timeout=CLIENT_TIMEOUT)
        except subprocess.TimeoutExpired:
            client.kill()
            stdout, stderr = client.communicate()
            return None, stdout, stderr
        return client.returncode, stdout, stderr


@contextmanager
def _proxy(api_base: str, folder: Path, log: List[str], entry: Json) -> Iterator[str]:
    """Serve every request from ``api_base`` on a free port; yield the proxy's address, collect its log lines."""
    with subprocess.Popen(
        _proxy_command(api_base, folder, entry),
        cwd=folder,
        env=_proxy_environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    ) as proxy:
        assert proxy.stderr
        addresses: queue.Queue[Optional[str]] = queue.Queue()
        reader = threading.Thread(target=_collect, args=(proxy.stderr, log, addresses), daemon=True)
        reader.start()
        try:
            yield _first_address(addresses, log)
        finally:
            proxy.terminate()
            try:
                proxy.wait(PROXY_TIMEOUT)
            except subprocess.TimeoutExpired:
                proxy.kill()
            reader.join(PROXY_TIMEOUT)


def _proxy_command(api_base: str, folder: Path, entry: Json) -> List[str]:
    env_file, models = folder / "test.env", folder / "models.yaml"
    settings = {"ROUTER_DEFAULT": MODEL, "SCRIPTED_API_KEY": "not-a-key", "MAX_RETRIES": "0"}  # the client's are seen
    env_file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()), encoding="utf-8")
    row = {"model_id": MODEL, "api_base": api_base, "api_key_name": "SCRIPTED_API_KEY", **entry}
    models.write_text(json.dumps([row]), encoding="utf-8")  # JSON is YAML
    serve = [sys.executable, "-m", "ccproxy", "serve", "--host", LOOPBACK, "--port", "0"]
    return [*serve, "--env-file", str(env_file), "--models", str(models)]


def _proxy_environment(folder: Path) -> Dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": str(Path(ccproxy.__path__[0]).parent),
        "HOME": str(folder),
        "NO_COLOR": "1",
    }


def _collect(lines: TextIO, log: List[str], addresses: queue.Queue[Optional[str]]) -> None:
    """Keep the proxy's log lines; pass on each address in them, and None at their end."""
    for line in lines:
        log.append(line)
        address = re.search(r"http://127\.0\.0\.1:\d+", line)
        if address:
            addresses.put(address.group())
    addresses.put(None)


def _first_address(addresses: queue.Queue[Optional[str]], log: List[str]) -> str:
    try:
        address = addresses.get(timeout=PROXY_TIMEOUT)
    except queue.Empty:
        address = None
    if address is None:
        raise RuntimeError(f"the proxy ended, or named no address in {PROXY_TIMEOUT} s:\n{''.join(log)}")
    return address


def main(task: str) -> None:
    """Do the child's part: ``probe`` the new namespace, or carry out the orders on standard input."""
    if task == "probe":
        bring_loopback_up()
    else:
        tasks = {"run": play, "code": play_code}
        json.dump(asdict(tasks[task](**json.load(sys.stdin))), sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
