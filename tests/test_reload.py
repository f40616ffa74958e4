"""``ConfigStore``: which changes of the files are taken, and which leave the configuration in force."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Callable, Dict, Optional, Set

import pytest

from ccproxy.config.load import Loaded, load_config
from ccproxy.config.reload import INTERVAL, ConfigStore
from ccproxy.errors import ConfigError

MODEL = "- {model_id: %s, api_base: 'http://127.0.0.1:9/v1'}\n"


class Folder:
    """A folder with configuration files, and a store that watches them; time passes as told."""

    def __init__(self, folder: Path, environment: Optional[Dict[str, str]] = None) -> None:
        self.folder = folder
        self.env, self.models = folder / ".env", folder / "models.yaml"
        self._environment = environment or {}
        self._now = 0.0
        self.loads = 0
        self.env.write_text("PING_INTERVAL=1\n")
        self.models.write_text(MODEL % "first")
        self.store = ConfigStore(self._load)

    def _load(self, seen: Set[Path]) -> Loaded:
        self.loads += 1
        return load_config(self._environment, folders=[self.folder, self.folder / "home"], seen=seen)

    def look(self) -> Optional[Loaded]:
        """Let the time between two looks pass; take what is offered, and return it."""
        self._now += INTERVAL
        found = self.store.poll(self._now)
        if found is not None:
            self.store.accept(found)
        return found

    def settle(self) -> Optional[Loaded]:
        """Look until a change is at rest; return what was taken."""
        return self.look() or self.look()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """The files with one model."""
    return Folder(tmp_path)


def in_place(path: Path, text: str) -> None:
    """Write a file as ``echo >`` does."""
    path.write_text(text)


def atomically(path: Path, text: str) -> None:
    """Replace a file as careful programs do."""
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


def as_editors_do(path: Path, text: str) -> None:
    """Keep the old file under another name, and write a new one."""
    path.rename(path.with_name(f"{path.name}~"))
    path.write_text(text)


@pytest.mark.parametrize("write", [in_place, atomically, as_editors_do])
def test_every_way_of_writing_is_noticed(folder: Folder, write: Callable[[Path, str], None]) -> None:
    """Whatever program writes a file: the second look after a change offers the whole new configuration."""
    write(folder.models, MODEL % "second")
    write(folder.env, "PING_INTERVAL=2\n")
    assert folder.look() is None
    assert folder.look() is not None
    assert list(folder.store.config.models) == ["second"]
    assert folder.store.config.ping_interval == 2
    assert folder.settle() is None


def test_what_does_not_change_is_not_read(folder: Folder) -> None:
    """A look costs a ``stat`` of each file."""
    folder.settle()
    folder.settle()
    assert folder.loads == 1


def test_a_file_being_written_is_left_alone(folder: Folder) -> None:
    """While a file changes from look to look it is not read; the half of a list would be valid."""
    lines = MODEL % "one" + MODEL % "two" + MODEL % "three"
    with folder.models.open("w") as file:
        for line in lines.splitlines(keepends=True):
            file.write(line)
            file.flush()
            assert folder.look() is None
    assert folder.loads == 1
    assert folder.look() is not None
    assert list(folder.store.config.models) == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        (".env", "PING_INTERVAL=1\nPING_INTERVAL=soon\n", ".env:2: PING_INTERVAL"),
        (".env", "what is this\n", ".env:1: "),
        (".env", "ROUTER_DEFAULT=nobody\n", ".env:1: ROUTER_DEFAULT"),
        (".env", "CUSTOM_MODELS_FILE=absent.yaml\n", ".env:1: CUSTOM_MODELS_FILE"),
        ("models.yaml", MODEL % "a" + "- {model_id: b\n", "models.yaml:"),
        ("models.yaml", "- model_id: a\n  api_base: nowhere\n", "models.yaml:2: api_base"),
    ],
)
def test_an_invalid_file_changes_nothing(
    folder: Folder, caplog: pytest.LogCaptureFixture, name: str, text: str, place: str
) -> None:
    """The configuration in force stays; the log says once where the fault is; the next valid edit is taken."""
    before, (path, valid) = folder.store.loaded, (folder.folder / name, (folder.folder / name).read_text())
    with caplog.at_level(logging.ERROR, "ccproxy"):
        for _ in range(3):
            path.write_text(text)
            assert folder.settle() is None
            os.utime(path)
    assert folder.store.loaded is before
    assert place in folder.store.problem
    assert [place in record.message for record in caplog.records] == [True]
    path.write_text(valid)
    assert folder.settle() is not None
    assert folder.store.problem == ""


@pytest.mark.parametrize("name", [".env", "models.yaml"])
def test_a_removed_file_changes_nothing(folder: Folder, name: str) -> None:
    """Its settings stay in force, and the problem names it; when it is there again, it counts."""
    path, before = folder.folder / name, folder.store.loaded
    text = path.read_text()
    path.unlink()
    assert folder.settle() is None
    assert folder.store.loaded is before
    assert folder.store.problem == f"{path}: no such file any more"
    path.write_text(text)
    assert folder.settle() is not None
    assert folder.store.problem == ""


def test_a_file_may_appear_later(tmp_path: Path) -> None:
    """Files are waited for where they would be looked for; and a nearer one wins over one that was found before."""
    home = tmp_path / "home"
    home.mkdir()
    folder = Folder(tmp_path)
    folder.env.replace(home / ".env")
    folder.models.unlink()
    folder.store = ConfigStore(folder._load)
    assert folder.store.config.ping_interval == 1
    folder.env.write_text("PING_INTERVAL=3\n")
    folder.models.write_text(MODEL % "late")
    assert folder.settle() is not None
    assert folder.store.config.ping_interval == 3
    assert list(folder.store.config.models) == ["late"]


def test_another_models_file_is_watched(folder: Folder) -> None:
    """The new name in the settings is followed, also when the old file is gone; from then on, its changes count."""
    other = folder.folder / "other.yaml"
    folder.env.write_text("CUSTOM_MODELS_FILE=other.yaml\n")
    folder.models.unlink()
    folder.settle()
    assert "other.yaml" in folder.store.problem
    other.write_text(MODEL % "one")
    assert folder.settle() is not None
    other.write_text(MODEL % "two")
    assert folder.settle() is not None
    assert list(folder.store.config.models) == ["two"]


def test_the_environment_keeps_winning(tmp_path: Path) -> None:
    """A setting of the process is not changed by a file."""
    folder = Folder(tmp_path, {"PING_INTERVAL": "7"})
    folder.env.write_text("PING_INTERVAL=8\nCOMMIT_AFTER=9\n")
    folder.settle()
    assert (folder.store.config.ping_interval, folder.store.config.commit_after) == (7, 9)


def test_asking_reads_at_once(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    """Who asks is answered without waiting for a file to be at rest: also that nothing is new, also a second time."""
    folder.store.ask()
    assert folder.look() is not None
    folder.env.write_text("PORT=x\n")
    with caplog.at_level(logging.ERROR, "ccproxy"):
        for _ in range(2):
            folder.store.ask()
            folder.look()
    assert len(caplog.records) == 2


def test_a_refusal_by_the_caller_is_a_problem(folder: Folder) -> None:
    """What reads well and cannot be done, as an address in use, changes nothing either, until the next edit."""
    folder.env.write_text("PORT=9\n")
    folder.look()
    assert folder.store.poll(1e9) is not None
    folder.store.refuse("cannot listen")
    assert folder.store.config.port != 9
    assert folder.store.problem == "cannot listen"


def test_old_secrets_stay_secret(folder: Folder) -> None:
    """Requests in flight still use the keys they began with, and the log goes on masking them."""
    folder.env.write_text("OPENAI_API_KEY=old-key\n")
    folder.settle()
    folder.env.write_text("OPENAI_API_KEY=new-key\n")
    folder.settle()
    assert {"old-key", "new-key"} <= folder.store.secrets


def test_a_problem_shows_no_secret(folder: Folder) -> None:
    """It is shown by /health and the dashboard: headers, which may hold keys, are not quoted."""
    folder.models.write_text(
        "- model_id: a\n  api_base: http://127.0.0.1:9/v1\n  extra_headers: 'authorization: Bearer sk-canary'\n"
    )
    folder.settle()
    assert "models.yaml:3: extra_headers" in folder.store.problem
    assert "canary" not in folder.store.problem


def test_the_first_configuration_must_be_valid(tmp_path: Path) -> None:
    """There is nothing to go on with."""
    (tmp_path / ".env").write_text("PORT=x\n")
    with pytest.raises(ConfigError):
        ConfigStore(lambda seen: load_config({}, folders=[tmp_path], seen=seen))
