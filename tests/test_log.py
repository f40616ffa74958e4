"""Log lines: no key, no forged line, no terminal sequence."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
import threading
from pathlib import Path
from typing import Any, Dict, List

import pytest

from ccproxy.log import SafeFormatter, general_file, tell_dead_thread
from processes import eventually, running, serve_command
from raw_http import RawConnection, is_refused, request
from support import make_config


def line(message: str, *arguments: Any, exc_info: Any = None) -> str:
    """One record as it is written, without its time."""
    record = logging.LogRecord("ccproxy.x", logging.INFO, __file__, 1, message, arguments, exc_info)
    return SafeFormatter(lambda: ["s3cr3t-token"]).format(record).split(" ", 1)[1]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words", "plain words"),
        ("漢字 é \U0001f600", "漢字 é \U0001f600"),
        ("two\nlines", "two\\nlines"),
        ("a\rb", "a\\x0db"),
        ("a\tb", "a\\tb"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("next\x85 line\u2028 par\u2029", "next\\x85 line\\u2028 par\\u2029"),
        ("bell\x07 nul\x00 del\x7f csi\x9b", "bell\\x07 nul\\x00 del\\x7f csi\\x9b"),
        ("the s3cr3t-token here", "the *** here"),
        ("key sk-ant-api03-abcdefgh", "key ***"),
    ],
)
def test_a_line_is_safe_to_show(text: str, shown: str) -> None:
    """Control characters are written out, secrets are masked, everything else stays."""
    assert line("%s", text) == f"INFO    {shown}"


def test_secrets_are_masked_in_arguments_and_message_together() -> None:
    """The line is masked, not its parts."""
    assert "s3cr3t-token" not in line("s3cr3t-%s", "token")


def failed(message: str) -> Any:
    try:
        raise ValueError(message)
    except ValueError:
        return sys.exc_info()


def test_a_thread_that_dies_is_told_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its name and its traceback, masked like every record."""
    records: List[logging.LogRecord] = []
    monkeypatch.setattr(logging.getLogger("ccproxy.log"), "handle", records.append)
    thread = threading.Thread(name="watch")
    tell_dead_thread(threading.ExceptHookArgs((*failed("about s3cr3t-token"), thread)))
    told = SafeFormatter(lambda: ["s3cr3t-token"]).format(records[0])
    assert "the thread watch ended" in told
    assert "ValueError: about ***" in told


def test_a_traceback_keeps_its_lines_and_no_secret() -> None:
    """Its line ends are its own; its text is masked and written out like any other."""
    text = line("failed", exc_info=failed("s3cr3t-token \x1b[2J"))
    assert "Traceback (most recent call last):\n" in text
    assert text.endswith("ValueError: *** \\x1b[2J")


def test_the_line_tells_time_and_level() -> None:
    """With the offset of the clock."""
    record = logging.LogRecord("ccproxy.x", logging.WARNING, __file__, 1, "words", (), None)
    first, rest = SafeFormatter(list).format(record).split(" ", 1)
    assert rest == "WARNING words"
    assert first[10] == "T"
    assert first[-5] in "+-"


def test_a_long_line_is_cut_in_its_middle() -> None:
    """What a client or provider sends cannot fill the disk by a line; begin and end say most."""
    text = line("%s", "a" * 100_000 + "the end")
    assert len(text) < 5_000
    assert text.endswith("the end")
    assert "more" in text


@pytest.mark.parametrize(
    ("settings", "environment", "path"),
    [
        ({}, {"HOME": "/home/me"}, "~/.local/state/ccproxy/server.log"),
        ({"STATE_DIR": "/state"}, {}, "/state/server.log"),
        ({}, {"STATE_DIRECTORY": "/var/lib/x"}, "/var/lib/x/server.log"),
        ({}, {"STATE_DIRECTORY": "/var/lib/x", "LOGS_DIRECTORY": "/var/log/x:/other"}, "/var/log/x/server.log"),
        ({"LOG_FILE_PATH": "/logs"}, {"LOGS_DIRECTORY": "/var/log/x"}, "/logs/server.log"),
        ({"LOG_FILE_PATH": "/logs/proxy.log"}, {}, "/logs/proxy.log"),
    ],
)
def test_where_the_files_are(settings: Dict[str, str], environment: Dict[str, str], path: str) -> None:
    """A folder or the file itself; else systemd's folder for logs; else the state folder."""
    assert general_file(make_config(settings), environment) == Path(path).expanduser()


def test_a_folder_may_have_a_dot(tmp_path: Path) -> None:
    """What is a folder already is one."""
    folder = tmp_path / "my.logs"
    folder.mkdir()
    assert general_file(make_config({"LOG_FILE_PATH": str(folder)}), {}) == folder / "server.log"


# --- the console ------------------------------------------------------------------------------------------------

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} ")


def console_line(folder: Path, descriptor: int, reader: int, **variables: str) -> str:
    """What a server says on its console when a model has no key."""
    settings = {"ROUTER_DEFAULT": "openai/gpt-x", "TERM": "xterm", **variables}
    with running(serve_command("--port", "0"), folder, settings, stderr=descriptor):
        os.close(descriptor)
        said = ""
        while "OPENAI_API_KEY is not set" not in said:
            said += os.read(reader, 4096).decode()
        said = next(line for line in said.splitlines() if "OPENAI_API_KEY" in line)
    os.close(reader)
    return said


@pytest.mark.parametrize(
    ("variables", "is_coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colour_on_a_terminal(tmp_path: Path, variables: Dict[str, str], is_coloured: bool) -> None:
    """Unless NO_COLOR or the terminal says otherwise."""
    reader, terminal = os.openpty()
    said = console_line(tmp_path, terminal, reader, **variables)
    assert ("\x1b[33m" in said) is is_coloured
    assert TIME.search(said)


def test_no_colour_elsewhere(tmp_path: Path) -> None:
    """A pipe or a file gets plain lines."""
    reader, writer = os.pipe()
    said = console_line(tmp_path, writer, reader)
    assert TIME.match(said)
    assert "\x1b" not in said


def test_under_the_journal(tmp_path: Path) -> None:
    """It adds the time itself, and reads the level from a number; another stream of that name is no journal."""
    reader, writer = os.pipe()
    status = os.fstat(writer)
    said = console_line(tmp_path, writer, reader, JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}")
    assert said.startswith("<4>openai/gpt-x: no key")
    reader, writer = os.pipe()
    assert TIME.match(console_line(tmp_path, writer, reader, JOURNAL_STREAM="1:2"))


def free_port() -> int:
    """A port that was free just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_closed_console(tmp_path: Path) -> None:
    """With standard error closed its number may belong to a client's connection: nothing is written there."""
    script = 'exec 2>&-; exec "$@"'
    port = free_port()
    command = ["sh", "-c", script, "sh", *serve_command("--port", str(port), "--log-level", "DEBUG")]
    with running(command, tmp_path, {}):
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: not is_refused(url), "it listens")
        for _ in range(3):
            with RawConnection(url) as client:
                client.send(request("GET", "/nowhere"))
                assert client.answer().status == 404
                client.socket.shutdown(socket.SHUT_WR)
                assert client.is_closed()
