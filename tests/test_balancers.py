"""Two instances behind HAProxy and nginx, configured as the README says: conversations hop, a drain cuts nothing."""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Tuple

import pytest

from ccproxy.stub import Json, Reasoning, Step, StubProvider, ToolCall
from grammar import check_grammar, parse_sse
from processes import Process, configuration, eventually, running, serve_command
from raw_http import RawConnection, is_refused, request
from replay import ReplayProvider
from support import ask, user
from test_server import play, read_until, rest_of

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
TURNS = 6


def snippet(name: str) -> str:
    """A block of the README."""
    found = re.search(rf"```{name}\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found[1]


def free_port() -> int:
    """A port that was free just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def haproxy(folder: Path, text: str) -> List[str]:
    """The command that runs HAProxy with a configuration."""
    file = folder / "haproxy.cfg"
    file.write_text(text)
    return ["haproxy", "-db", "-f", str(file)]


def nginx(folder: Path, text: str) -> List[str]:
    """The command that runs nginx with the inside of a configuration's http block."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    user_line = "user root;\n" if os.geteuid() == 0 else ""
    file = folder / "nginx.conf"
    file.write_text(
        f"{user_line}daemon off;\npid {folder}/nginx.pid;\nerror_log stderr;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{paths}{text}}}\n"
    )
    return ["nginx", "-p", str(folder), "-e", "stderr", "-c", str(file)]


BALANCERS: Dict[str, Callable[[Path, str], List[str]]] = {"haproxy": haproxy, "nginx": nginx}


def thinks_and_calls(body: Json) -> List[Step]:
    """A provider whose every turn has reasoning and a tool call."""
    turn = sum(message["role"] == "assistant" for message in body["messages"])
    return [Reasoning(f"thought {turn}"), ToolCall("look", {"turn": turn})]


@pytest.fixture(params=BALANCERS)
def name(request: pytest.FixtureRequest) -> str:
    """A balancer; without it there is nothing to test, but in CI that is a failure."""
    program = str(request.param)
    if shutil.which(program) is None:
        if os.environ.get("CI"):
            pytest.fail(f"{program} is not installed")
        pytest.skip(f"{program} is not installed")
    return program


@contextmanager
def balanced(name: str, folder: Path, api_base: str) -> Iterator[Tuple[str, List[Process]]]:
    """Run two instances and a balancer; yield the balancer's address, and the instances."""
    with ExitStack() as stack:
        instances = []
        for number in (1, 2):
            own = folder / str(number)
            own.mkdir()
            variables = configuration(own, api_base, STATE_DIR=str(own / "state"), DRAIN_TIMEOUT="30")
            text = (own / "models.yaml").read_text().replace("generic", "deepseek")
            (own / "models.yaml").write_text(text)
            instances.append(stack.enter_context(running(serve_command("--port", "0"), own, variables)))
        text = snippet(name)
        for number, instance in enumerate(instances, 1):
            instance.url = instance.address()
            text = text.replace(f"10.0.0.{number}:8082", instance.url[len("http://") :])
        yield stack.enter_context(listening(name, folder, text)), instances


@contextmanager
def listening(name: str, folder: Path, text: str) -> Iterator[str]:
    """Run a balancer on a free port; yield its address. Another program may take the port in the meantime."""
    for _ in range(5):
        address = f"127.0.0.1:{free_port()}"
        placed = text.replace("bind :8080", f"bind {address}").replace("listen 8080", f"listen {address}")
        with running(BALANCERS[name](folder, placed), folder, {}) as process:
            eventually(partial(is_decided, process, f"http://{address}"), f"{name} serves")
            if not has_no_port(process):
                yield f"http://{address}"
                return
    pytest.fail(f"{name} found no port")


def has_no_port(process: Process) -> bool:
    """Whether it ended, or said why it will."""
    return process.popen.poll() is not None or any("in use" in line for line in process.lines)


def is_decided(process: Process, url: str) -> bool:
    """Whether it serves, or never will."""
    return has_no_port(process) or serves(url)


def serves(url: str) -> bool:
    """Whether requests are answered there, at once: somebody else's port may be silent."""
    try:
        with RawConnection(url) as client:
            client.socket.settimeout(1.0)
            client.send(request("GET", "/health"))
            return client.answer().status == 200
    except (OSError, ValueError):
        return False


def requests_of(folder: Path, number: int) -> int:
    """How many messages an instance answered."""
    log = folder / str(number) / "state" / "server.log"
    return log.read_text().count("total=") if log.exists() else 0


def test_a_conversation_hops(name: str, tmp_path: Path) -> None:
    """Reasoning and tool calls of every turn reach the provider, whichever instance takes the next one."""
    with StubProvider(thinks_and_calls) as stub, balanced(name, tmp_path, stub.url) as (front, _):
        tools = [{"name": "look", "input_schema": {"type": "object"}}]
        thinking = {"type": "enabled", "budget_tokens": 2000}
        body = user("begin", tools=tools, thinking=thinking, max_tokens=4000)
        for _ in range(TURNS):
            answer = ask(front, "/v1/messages", body)
            assert answer.status == 200, answer.body
            content = answer.json["content"]
            assert [block["type"] for block in content] == ["thinking", "tool_use"]
            result = {"type": "tool_result", "tool_use_id": content[1]["id"], "content": "seen"}
            body["messages"] += [{"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
        sent = [message for message in stub.requests[-1].body["messages"] if message["role"] == "assistant"]
        eventually(lambda: sum(requests_of(tmp_path, number) for number in (1, 2)) == TURNS, "all are logged")
        assert min(requests_of(tmp_path, number) for number in (1, 2)) > 0
    assert [message["reasoning_content"] for message in sent] == [f"thought {turn}" for turn in range(TURNS - 1)]
    assert [message["tool_calls"][0]["function"]["name"] for message in sent] == ["look"] * (TURNS - 1)


def test_a_drain_cuts_no_stream(name: str, tmp_path: Path) -> None:
    """Streams of an instance that is told to stop come to their end, and everything new is answered by the other."""
    gate = threading.Event()
    with ReplayProvider() as provider, balanced(name, tmp_path, provider.base("raw")) as (front, instances):
        play(provider, "chunked", [gate])
        with ExitStack() as clients:
            streams = [clients.enter_context(RawConnection(front)) for _ in range(4)]
            for client in streams:
                client.send(request("POST", "/v1/messages", user(stream=True)))
                assert client.head().status == 200
            bodies = [read_until(client, '"one "') for client in streams]
            instances[0].popen.terminate()
            eventually(lambda: is_refused(instances[0].url), "it accepts no more")
            assert [ask(front, "/v1/models").status for _ in range(10)] == [200] * 10
            assert instances[0].popen.poll() is None
            gate.set()
            for body, client in zip(bodies, streams):
                rest, is_complete = rest_of(client)
                assert is_complete
                check_grammar(parse_sse(body + rest))
        assert instances[0].wait() == 0
        assert [ask(front, "/v1/models").status for _ in range(10)] == [200] * 10
