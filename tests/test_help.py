"""``--help`` of every command: what it does, its options, and examples that its own parser understands."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from ccproxy import cli

each_command = pytest.mark.parametrize("name", sorted(cli.COMMANDS))


@each_command
def test_help_shows_examples(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Asking for help is no failure; it fits into 80 columns and ends with something to paste."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: ccproxy {name} ")
    assert max(map(len, said.splitlines())) <= 80
    for example in import_module(f"ccproxy.commands.{name}").EXAMPLES:
        assert f"  {example}\n" in said


@each_command
def test_examples_are_understood(name: str) -> None:
    """Every command line in them that is this command's own parses."""
    command = cli.COMMANDS[name]
    lines = [
        shlex.split(line)
        for example in import_module(f"ccproxy.commands.{name}").EXAMPLES
        for line in re.findall(r"""\bccproxy ((?:"[^"]*"|'[^']*'|[^|&>;")])*)""", example)
    ]
    own = [words[1:] if words[0] == name else words for words in lines if words[0] not in {*cli.COMMANDS} - {name}]
    assert own
    for words in own:
        _, unknown = cli.parser_of(command).parse_known_args(words)
        assert command.passes_on or not unknown, words


@each_command
def test_a_value_that_is_none(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Is refused in words, not with the name of a function."""
    parser = cli.parser_of(cli.COMMANDS[name])
    for action in parser._actions:
        if action.type not in (None, Path):
            with pytest.raises(SystemExit):
                parser.parse_args([action.option_strings[0], "nonsense"])
            assert re.search(r"expected .*'nonsense'|invalid (int|float) value: 'nonsense'", capsys.readouterr().err)


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """``ccproxy --help`` is where one begins."""
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    for row in cli.COMMANDS.values():
        assert re.search(rf"^  {row.name} +{re.escape(row.help)}$", said, re.MULTILINE)


@pytest.mark.parametrize(("name", "advice"), [("chek", "did you mean check?"), ("xyz", "there are serve, check")])
def test_an_unknown_command(name: str, advice: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that says what there is."""
    assert cli.main([name]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert advice in said.err
