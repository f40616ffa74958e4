"""``ccproxy code`` and ``ccproxy env``: what Claude Code is told, and how it is started.

A shell script stands for Claude Code here; test_claude_code.py starts the real one.
"""

from __future__ import annotations

import os
import pty
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Sequence

import pytest

from ccproxy import cli
from ccproxy.claude_code import client_environment, client_variables
from ccproxy.processes.background import RunFolder
from ccproxy.routing import plain_route
from processes import PATIENCE, environment, eventually, running, serve_command
from running import health
from support import make_config

URL = "http://127.0.0.1:8082"
BIG = {"model_id": "big", "api_base": "http://127.0.0.1:1/v1", "max_input_tokens": "1m", "max_tokens": "64k"}
SMALL = {"model_id": "small", "api_base": "http://127.0.0.1:1/v1", "max_input_tokens": "32k", "max_tokens": 4096}
MODELS = (BIG, SMALL)


def told(settings: Mapping[str, str], models: Sequence[Any] = MODELS) -> Dict[str, str]:
    """What Claude Code is told."""
    return client_variables(make_config(settings, models), URL)


# --- the variables ---------------------------------------------------------------------------------------------


def test_address_and_token() -> None:
    """The proxy's address, and its token; where there is none the client still wants one."""
    assert told({})["ANTHROPIC_BASE_URL"] == URL
    assert told({})["ANTHROPIC_AUTH_TOKEN"] == "ccproxy"
    assert told({"CCPROXY_AUTH_TOKEN": "open sesame"})["ANTHROPIC_AUTH_TOKEN"] == "open sesame"


@pytest.mark.parametrize(
    ("settings", "window", "output"),
    [
        ({"ROUTER_DEFAULT": "small", "ROUTER_LONG_CONTEXT": "big"}, "1000000", "4096"),
        ({"ROUTER_DEFAULT": "openai/gpt-5"}, "128000", "8192"),
        ({"ROUTER_DEFAULT": "big", "MAX_TOKENS_LIMIT": "16k"}, "1000000", "16000"),
    ],
)
def test_limits(settings: Dict[str, str], window: str, output: str) -> None:
    """The window that a conversation has, with the model for long ones, and the output that is asked for at most."""
    found = told(settings)
    assert found["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == found["CLAUDE_CODE_AUTO_COMPACT_WINDOW"] == window
    assert found["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] == output


@pytest.mark.parametrize("route", ["small", "small,big"])
def test_a_small_window(route: str) -> None:
    """Below 100,000 tokens the client refuses the setting of when to compact; it goes by the window itself."""
    found = told({"ROUTER_DEFAULT": route})
    assert (found["CLAUDE_CODE_MAX_CONTEXT_TOKENS"], found["CLAUDE_CODE_MAX_OUTPUT_TOKENS"]) == ("32000", "4096")
    assert "CLAUDE_CODE_AUTO_COMPACT_WINDOW" not in found


def test_claudes_own_models_keep_their_limits() -> None:
    """What is passed through to Anthropic is what the client knows best."""
    assert not [name for name in told({"ANTHROPIC_API_KEY": "key"}) if "TOKENS" in name or "WINDOW" in name]


def aliases(settings: Mapping[str, str], models: Sequence[Any] = MODELS) -> Dict[str, str]:
    """What Claude Code calls its classes of models."""
    found = told(settings, models)
    return {name: value for name, value in found.items() if name.endswith("_MODEL")}


def test_aliases() -> None:
    """The client shows which model answers each of its classes, by the variables of old and new versions."""
    settings = {"ROUTER_DEFAULT": "big,small", "ROUTER_BACKGROUND": "small", "ROUTER_THINK": "openai/o4"}
    assert aliases(settings) == {
        "ANTHROPIC_DEFAULT_OPUS_MODEL": "default:big",
        "ANTHROPIC_DEFAULT_SONNET_MODEL": "default:big",
        "ANTHROPIC_DEFAULT_FABLE_MODEL": "default:big",
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": "background:small",
        "ANTHROPIC_SMALL_FAST_MODEL": "background:small",
    }
    assert told(settings)["CLAUDE_CODE_DISABLE_1M_CONTEXT"] == "1"  # else the client writes [1m] behind them
    assert set(aliases({}).values()) == {"default:big", "background:big"}
    assert set(aliases({}, []).values()) == {"default:demo/echo", "background:demo/echo"}


@pytest.mark.parametrize("name", sorted(set(aliases({"ROUTER_DEFAULT": "big", "ROUTER_BACKGROUND": "small"}).values())))
def test_the_rules_go_on_to_choose(name: str) -> None:
    """An alias stands for its rule, with all its fallbacks, also when the configuration has changed since."""
    config = make_config({"ROUTER_DEFAULT": "small,big", "ROUTER_BACKGROUND": "big,small"}, MODELS)
    decision = plain_route(name, config)
    assert decision.rule == name.partition(":")[0]
    assert len(decision.models) == 2


@pytest.mark.parametrize(
    ("alias", "asked"), [("default:big", "claude-sonnet-4-5"), ("background:small[1m]", "claude-haiku-4-5")]
)
def test_anthropic_is_asked_for_a_name_of_its_own(alias: str, asked: str) -> None:
    """When the rule behind an alias was taken out of the configuration during a session, Claude goes on with it."""
    (model,) = plain_route(alias, make_config({"ANTHROPIC_API_KEY": "key"}, MODELS)).models
    assert (model.provider, model.name) == ("anthropic", asked)


def test_claudes_own_models_keep_their_names() -> None:
    """Where requests are passed through to Anthropic under the name that was asked for, that is one of Anthropic's."""
    assert aliases({"ANTHROPIC_API_KEY": "key"}) == {}
    mixed = {"ANTHROPIC_API_KEY": "key", "ROUTER_BACKGROUND": "small"}
    assert set(aliases(mixed).values()) == {"background:small"}
    assert "CLAUDE_CODE_DISABLE_1M_CONTEXT" not in told(mixed)  # it would take Claude's own window away
    assert aliases({"ROUTER_DEFAULT": "anthropic/claude-opus-5"}) == {}
    assert aliases({"ROUTER_DEFAULT": "own"}, [{**BIG, "model_id": "own", "direct": True}])  # a window of its own


def test_what_its_owner_chose_stays() -> None:
    """But for what leads past the proxy: another address, credential or cloud."""
    own = {"ANTHROPIC_MODEL": "mine", "PATH": "/bin", "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "77"}
    past = {"ANTHROPIC_BASE_URL": "x", "ANTHROPIC_API_KEY": "x", "CLAUDE_CODE_USE_VERTEX": "1"}
    assert client_environment({**own, **past}, told({}), "127.0.0.1") == {**told({}), **own}


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "all_proxy"])
def test_no_http_proxy_stands_between(name: str) -> None:
    """Where the environment names an HTTP proxy, our address is among those that need none."""
    found = client_environment({name: "http://proxy", "no_proxy": "intra.net"}, {}, "127.0.0.1")
    assert found["NO_PROXY"] == found["no_proxy"] == "intra.net,127.0.0.1"


# --- ccproxy env -------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory that is also the home; ``bin/claude`` in it tells what it was given."""
    script = tmp_path / "bin" / "claude"
    script.parent.mkdir()
    script.write_text(
        '#!/bin/sh\nprintf "[%s]" "$@"; echo\n'
        'echo "$ANTHROPIC_BASE_URL $ANTHROPIC_AUTH_TOKEN ${ANTHROPIC_API_KEY-unset} $$"\n'
        'if [ -t 0 ] && [ -t 1 ]; then echo "on a terminal"; fi\nread -r line\nexit "${line:-0}"\n'
    )
    script.chmod(0o755)
    return tmp_path


def variables(folder: Path, **more: str) -> Dict[str, str]:
    """The environment of a command in that folder."""
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    return environment(folder, {"PATH": path, "PORT": "0", **more})


def command(*arguments: str) -> List[str]:
    """The command line of ``ccproxy``."""
    return [sys.executable, "-m", "ccproxy", *arguments]


def test_a_shell_takes_the_lines(folder: Path) -> None:
    """What a shell reads from them is what they say, whatever is in the token."""
    token = 'it\'s $HOME; `x` "y"'
    lines = subprocess.check_output(
        command("env"), cwd=folder, env=variables(folder, PORT="8099", CCPROXY_AUTH_TOKEN=token), text=True
    )
    script = f'{lines}\nprintf "%s\\n" "$ANTHROPIC_AUTH_TOKEN" "$ANTHROPIC_BASE_URL"'
    assert subprocess.check_output(["sh", "-c", script], text=True) == f"{token}\nhttp://127.0.0.1:8099\n"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8099"),
        ("0.0.0.0", "http://127.0.0.1:8099"),
        ("::", "http://[::1]:8099"),
        ("::1", "http://[::1]:8099"),
        ("localhost", "http://localhost:8099"),
    ],
)
def test_the_address_can_be_connected_to(
    host: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Addresses to listen on become addresses to connect to; fish has its own way to say it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOST", host)
    monkeypatch.setenv("PORT", "8099")
    assert cli.main(["env", "--shell", "fish"]) == 0
    assert f"set -gx ANTHROPIC_BASE_URL {shlex.quote(url)}\n" in capsys.readouterr().out


def test_any_free_port_is_no_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With PORT=0 only a running proxy knows where it is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PORT", "0")
    assert cli.main(["env"]) == 2
    assert "PORT is 0" in capsys.readouterr().err


# --- ccproxy code ------------------------------------------------------------------------------------------------


def start(folder: Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
    """Start ``ccproxy code`` with pipes."""
    return subprocess.Popen(
        command("code", *arguments),
        cwd=folder,
        env=variables(folder, **more),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def session(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """``ccproxy code`` with a proxy of its own."""
    with start(folder, "-p", "two words", "--", "--help", ANTHROPIC_API_KEY="key") as child:
        yield child
        child.kill()


def lines_of(child: subprocess.Popen[str], count: int) -> List[str]:
    """The next lines that it prints."""
    assert child.stdout
    return [next(child.stdout).rstrip("\n") for _ in range(count)]


def is_gone(url: str) -> bool:
    """Whether nobody listens any more."""
    try:
        return not health(url)
    except OSError:
        return True


def test_arguments_exit_code_and_a_proxy_for_the_session(session: subprocess.Popen[str]) -> None:
    """All that is not ours is Claude Code's, in order; its exit code is ours; the proxy it was given ends with it."""
    arguments, connection = lines_of(session, 2)
    url, token, key, pid = connection.split()
    assert arguments == "[-p][two words][--help]"
    assert (token, key, int(pid)) == ("ccproxy", "unset", session.pid)
    assert health(url) == 200
    _, errors = session.communicate("7\n", timeout=PATIENCE)
    assert session.returncode == 7
    assert f"a proxy for this session runs on {url}" in errors
    eventually(lambda: is_gone(url), "the proxy ended with the session")


def test_it_ends_with_a_client_that_is_killed(session: subprocess.Popen[str]) -> None:
    """However the client ends; and a signal for us is one for it."""
    url = lines_of(session, 2)[1].split()[0]
    session.send_signal(signal.SIGKILL)
    assert session.wait(PATIENCE) == -signal.SIGKILL
    eventually(lambda: is_gone(url), "the proxy ended with the session")


def test_sessions_leave_nothing_behind(folder: Path) -> None:
    """The next session removes the folders of those that ended, and none of one that runs."""
    sessions = folder / ".local" / "state" / "ccproxy" / "sessions"
    with start(folder) as first:
        lines_of(first, 2)
        with start(folder) as second:
            lines_of(second, 2)
            second.communicate("0\n", timeout=PATIENCE)
        left = RunFolder(sessions / str(second.pid))
        eventually(left.forget, "the proxy ended with the session")
        with start(folder) as third:
            lines_of(third, 2)
            assert {path.name for path in sessions.iterdir()} == {str(first.pid), str(third.pid)}
            third.communicate("0\n", timeout=PATIENCE)
        first.communicate("0\n", timeout=PATIENCE)


def test_a_running_proxy_is_used_and_goes_on(folder: Path) -> None:
    """One that answers at HOST and PORT, with our token."""
    settings = {"CCPROXY_AUTH_TOKEN": "sesame"}
    with running(serve_command("--port", "0"), folder, settings) as process:
        url = process.address()
        port = url.rpartition(":")[2]
        with start(folder, PORT=port, **settings) as child:
            assert lines_of(child, 2)[1].split()[:2] == [url, "sesame"]
            _, errors = child.communicate("0\n", timeout=PATIENCE)
        assert errors == ""
        with start(folder, PORT=port, CCPROXY_AUTH_TOKEN="another") as child:
            assert "wants another CCPROXY_AUTH_TOKEN" in child.communicate(timeout=PATIENCE)[1]
        assert child.returncode == 2
        assert health(url) == 200


def test_what_npm_left_is_heard(folder: Path) -> None:
    """Where npm ran no install script, ``claude`` is a script without ``#!`` that says so: a shell would run it."""
    (folder / "bin" / "claude").write_text('echo "not installed" >&2\nexit 3\n')
    with start(folder) as child:
        assert "not installed\n" in child.communicate(timeout=PATIENCE)[1]
    assert child.returncode == 3


def test_a_program_that_cannot_be_started(folder: Path) -> None:
    """That is one line, and names it."""
    (folder / "bin" / "claude").write_text("#!/nowhere/at-all\n")
    with start(folder) as child:
        last = child.communicate(timeout=PATIENCE)[1].splitlines()[-1]
    assert last == f"ccproxy: {folder / 'bin' / 'claude'}: cannot be started: No such file or directory"
    assert child.returncode == 2


def test_it_has_the_terminal(folder: Path) -> None:
    """Claude Code is the terminal's foreground program."""
    parent, child = pty.openpty()
    try:
        with subprocess.Popen(
            command("code"),
            cwd=folder,
            env=variables(folder),
            stdin=child,
            stdout=child,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            shown = b""
            while b"on a terminal" not in shown:
                shown += os.read(parent, 1000)
            os.write(parent, b"3\n")
            process.communicate(timeout=PATIENCE)
            assert process.returncode == 3
    finally:
        os.close(parent)
        os.close(child)


def test_without_claude_code(folder: Path) -> None:
    """One line says how to install it; nothing is started."""
    (folder / "bin" / "claude").unlink()
    done = subprocess.run(
        command("code"),
        cwd=folder,
        env=variables(folder, PATH=str(folder / "bin")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "npm install -g @anthropic-ai/claude-code" in done.stderr
    assert not (folder / ".local").exists()


def test_a_proxy_that_cannot_start(folder: Path) -> None:
    """Its own words say why, and Claude Code is not started."""
    (folder / "state").write_text("")
    with start(folder, STATE_DIR=str(folder / "state")) as child:
        out, errors = child.communicate(timeout=PATIENCE)
    assert (child.returncode, out) == (2, "")
    assert str(folder / "state") in errors
    assert "Traceback" not in errors
