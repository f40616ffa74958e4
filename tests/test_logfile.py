"""Log files: whole lines from several processes, rotated, for their owner only; trouble with them is no trouble."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Iterator, List

import pytest

from ccproxy.logfile import LogFile, Outage
from processes import eventually, running, serve_command
from support import ask, user

has_full_device = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")


def say(file: LogFile, text: str) -> None:
    """Log one line."""
    file.handle(logging.LogRecord("ccproxy.x", logging.INFO, __file__, 1, "%s", (text,), None))


@pytest.fixture
def file(tmp_path: Path) -> Iterator[LogFile]:
    """A file that is rotated after 100 bytes and kept twice."""
    file = LogFile(tmp_path / "logs" / "server.log", Outage(), max_bytes=100, keep=2)
    yield file
    file.close()


def test_only_the_owner_may_read(file: LogFile) -> None:
    """Folder and file are made with their owner's rights alone, and a file that is there gets them."""
    say(file, "one")
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.path.parent.stat().st_mode & 0o777 == 0o700
    file.close()
    file.path.chmod(0o644)
    say(file, "two")
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.path.read_text() == "one\ntwo\n"


def test_rotation(file: LogFile) -> None:
    """A file that would exceed its size is numbered; the oldest goes; each stays readable for its owner only."""
    for number in range(16):
        say(file, f"{number:02} {'x' * 30}")  # two lines fit, a third does not
    folder = file.path.parent
    assert sorted(path.name for path in folder.iterdir()) == ["server.log", "server.log.1", "server.log.2"]
    kept = [(folder / name).read_text().split() for name in ("server.log.2", "server.log.1", "server.log")]
    assert [line for lines in kept for line in lines][::2] == ["10", "11", "12", "13", "14", "15"]
    assert all(path.stat().st_mode & 0o777 == 0o600 and path.stat().st_size <= 100 for path in folder.iterdir())


def test_a_file_that_was_moved_away_is_opened_anew(file: LogFile) -> None:
    """As logrotate does it; nobody needs to be told."""
    say(file, "before")
    file.path.rename(file.path.with_name("elsewhere"))
    say(file, "after")
    assert file.path.read_text() == "after\n"


def test_a_line_that_comes_after_the_close_leaves_no_descriptor(file: LogFile) -> None:
    """A thread may have the handler in hand while a reload puts another one in its place: the line is written."""
    say(file, "before")
    file.close()
    say(file, "late")
    assert file.path.read_text() == "before\nlate\n"
    assert descriptors_of(file.path) == []


def descriptors_of(path: Path) -> List[int]:
    """The descriptors of this process that lead to a file."""
    found = []
    for name in os.listdir("/dev/fd"):
        with suppress(OSError):  # that of the listing
            if os.path.samestat(os.fstat(int(name)), path.stat()):
                found.append(int(name))
    return found


def test_a_file_that_was_emptied_goes_on(file: LogFile) -> None:
    """As logrotate does it with copytruncate."""
    say(file, "before")
    os.truncate(file.path, 0)
    say(file, "after")
    assert file.path.read_text() == "after\n"


WRITER = """
import logging, sys
from pathlib import Path
from ccproxy.logfile import LogFile, Outage
file = LogFile(Path(sys.argv[1]), Outage(), max_bytes=20_000, keep=400)
for number in range(500):
    text = "%s %03d %s" % (sys.argv[2], number, sys.argv[2] * (number % 200))
    file.handle(logging.LogRecord("x", logging.INFO, "", 1, text, (), None))
"""


def test_several_processes_write_whole_lines(tmp_path: Path) -> None:
    """No line is torn, lost or written twice while four processes write and rotate."""
    command = [sys.executable, "-c", WRITER, str(tmp_path / "server.log")]
    writers = [subprocess.Popen([*command, name]) for name in "abcd"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0, 0]
    lines = [line for path in tmp_path.iterdir() for line in path.read_text().splitlines()]
    expected = [f"{name} {number:03} {name * (number % 200)}" for name in "abcd" for number in range(500)]
    assert sorted(lines) == sorted(expected)
    assert len(list(tmp_path.iterdir())) > 3


def test_a_folder_that_cannot_be_written_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The warning names the file; lines are lost; nothing is raised."""
    (tmp_path / "logs").write_text("a file is no folder")
    outage = Outage()
    files = [LogFile(tmp_path / "logs" / name, outage) for name in ("server.log", "tools.log")]
    for file in files * 3:
        say(file, "lost")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(files[0].path) in caplog.messages[0]


def test_a_line_that_a_full_disk_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stays what it is: the next one, once there is space again, does not go on in it."""
    outage, write = Outage(), os.write
    with closing(LogFile(tmp_path / "server.log", outage)) as file:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
            say(file, "first")
        outage.retry_at = 0.0
        say(file, "second")
        say(file, "third")
    assert file.path.read_text() == "fir\nsecond\nthird\n"


@has_full_device
def test_a_full_disk_ends_some_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Lines are lost while it lasts; a retry comes after a pause, and writes again."""
    outage = Outage()
    file = LogFile(tmp_path / "server.log", outage)
    file.path.symlink_to("/dev/full")
    say(file, "lost")
    file.path.unlink()
    say(file, "lost too, in the pause")
    assert not file.path.exists()
    outage.retry_at = 0
    say(file, "written")
    file.close()
    assert file.path.read_text() == "written\n"
    assert len(caplog.records) == 1


# --- as a server uses them --------------------------------------------------------------------------------------


def test_the_files_of_a_server(tmp_path: Path) -> None:
    """Each topic has its file; a request leaves a line where it concerns it, and no word of its prompt."""
    prompt = "demo: think secret-thought\ndemo: text secret-answer\ndemo: tool Read {}"
    tools = [{"name": "Read", "input_schema": {"type": "object"}}]
    thinking = {"type": "enabled", "budget_tokens": 20_000}
    folder = tmp_path / "state"
    with running(serve_command("--port", "0"), tmp_path, {"STATE_DIR": str(folder)}) as process:
        url = process.address()
        body = user(prompt, stream=True, tools=tools, thinking=thinking, max_tokens=30_000)
        whole = user("demo: text plain")
        ids = [ask(url, "/v1/messages", body).headers["request-id"] for body in (body, whole)]
        for query in ("?dry_run=1", ""):
            ask(url, f"/v1/messages/test_conversion{query}", user(model="demo/echo"))
    text = {path.stem: path.read_text() for path in folder.glob("*.log")}
    assert set(text) == {"server", "streaming", "thinking", "tools", "simple"}
    assert all(request_id in text["server"] for request_id in ids)
    for topic, words in (
        ("streaming", ["events=", "first=0.", "total=0.", "tool_use"]),
        ("thinking", ["asked=high", "blocks=1"]),
        ("tools", ["offered=1", "choice=auto", "calls=Read", "mended=0"]),
    ):
        assert [line for line in text[topic].splitlines() if ids[0] in line and all(word in line for word in words)]
        assert ids[1] not in text[topic]
    assert text["simple"].count("test_conversion") == 2
    assert "dry_run" in text["simple"]
    assert "secret-" not in "".join(text.values())
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())


def test_bodies_only_when_they_are_asked_for(tmp_path: Path) -> None:
    """LOG_BODIES=1: what was sent and answered, one JSON line each, keys masked."""
    variables = {"LOG_FILE_PATH": str(tmp_path / "logs"), "LOG_BODIES": "1", "OPENAI_API_KEY": "canary-key-123"}
    with running(serve_command("--port", "0"), tmp_path, variables) as process:
        url = process.address()
        for stream in (True, False):
            prompt = f"demo: text {stream} with canary-key-123\nand another line"
            assert ask(url, "/v1/messages", user(prompt, stream=stream)).status == 200
    lines = (tmp_path / "logs" / "bodies.log").read_text().splitlines()
    assert len(lines) == 4
    assert "canary-key-123" not in "".join(lines)
    assert "True with ***" in lines[0]
    assert "message_stop" in lines[1]
    assert (tmp_path / "logs" / "bodies.log").stat().st_mode & 0o777 == 0o600


def test_a_body_that_is_too_long_is_logged_with_its_size(tmp_path: Path) -> None:
    """Its first megabyte stands there, and the size of all of it, streamed or not."""
    variables = {"LOG_FILE_PATH": str(tmp_path), "LOG_BODIES": "1"}
    with running(serve_command("--port", "0"), tmp_path, variables) as process:
        url = process.address()
        sizes = []
        for stream in (True, False):
            question = json.dumps(user(f"demo: text {'x' * 1_500_000}", stream=stream)).encode()
            sizes += [len(question), len(ask(url, "/v1/messages", question).body)]
    entries = [json.loads(line[line.index("{") :]) for line in (tmp_path / "bodies.log").read_text().splitlines()]
    assert [entry["bytes"] for entry in entries] == sizes
    assert min(sizes) > 1_500_000
    assert [len(entry["body"]) for entry in entries] == [1_000_003] * 4


@has_full_device
@pytest.mark.parametrize("trouble", ["full disk", "no folder"])
def test_requests_go_on_without_a_log(tmp_path: Path, trouble: str) -> None:
    """A warning on the console, and every request is answered."""
    logs = tmp_path / "logs"
    if trouble == "full disk":
        logs.mkdir()
        for name in ("server", "streaming", "tools", "thinking", "simple"):
            (logs / f"{name}.log").symlink_to("/dev/full")
    else:
        logs.write_text("a file is no folder")
    variables = {"LOG_FILE_PATH": str(logs / "server.log")}
    with running(serve_command("--port", "0"), tmp_path, variables) as process:
        url = process.address()
        statuses = [ask(url, "/v1/messages", user(stream=stream)).status for stream in (True, False) * 3]
        eventually(lambda: sum("cannot be written" in line for line in process.lines) == 1, "it is told, once")
    assert statuses == [200] * 6


def test_a_console_that_nobody_reads_holds_nothing_up(tmp_path: Path) -> None:
    """Standard error is a pipe whose reader sleeps: the lines are dropped, and every request is answered."""
    reader, writer = os.pipe()
    command = serve_command("--port", "0", "--log-level", "DEBUG")
    with running(command, tmp_path, {}, stderr=writer) as process:
        os.close(writer)
        said = b""
        while b"\n" not in said:
            said += os.read(reader, 100)
        url = said.split()[-1].decode()
        seen: List[int] = [ask(url, f"/{'x' * 4000}/{number}").status for number in range(60)]
        assert seen == [404] * 60
        assert process.popen.poll() is None
        os.close(reader)
        assert ask(url, "/health").status == 200  # nor does one that went away
