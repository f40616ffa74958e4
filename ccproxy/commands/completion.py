"""``ccproxy completion``: a few lines for a shell, which ask this command at each tab; so they never go stale."""

from __future__ import annotations

import argparse
import os
import re
from typing import Dict, Iterable, List, Sequence

from ..cli import COMMANDS, parser_of
from ..config.load import load_config
from ..config.providers import PROVIDERS
from ..errors import ConfigError
from ..routing import configured_models

EXAMPLES = (
    'eval "$(ccproxy completion bash)"    # in ~/.bashrc',
    'eval "$(ccproxy completion zsh)"     # in ~/.zshrc, after compinit',
    "ccproxy completion fish > ~/.config/fish/completions/ccproxy.fish",
)
_MODELS = ("model", "model_id")
_OVERVIEW = ("--help", "--version")

# Where nothing is known the shell offers files. Bash ends words at colons, which names of models may have.
SCRIPTS: Dict[str, str] = {
    "bash": r"""_ccproxy() {
    local line=${COMP_LINE:0:COMP_POINT} IFS=$'\n'
    COMPREPLY=($("$1" completion --complete "$line" 2>/dev/null))
    local current=${line##*[[:space:]]}
    [[ $current == *:* ]] && COMPREPLY=("${COMPREPLY[@]#"${current%"${current##*:}"}"}")
    return 0
}
complete -o default -F _ccproxy ccproxy""",
    "zsh": r"""#compdef ccproxy
_ccproxy() {
    local -a found
    found=("${(@f)$("${words[1]}" completion --complete "${(j: :)words[1,CURRENT]}" 2>/dev/null)}")
    if [[ -n "$found" ]]; then compadd -a found; else _files; fi
}
if [[ "${funcstack[1]}" == _ccproxy ]]; then _ccproxy "$@"; else compdef _ccproxy ccproxy; fi""",
    "fish": r"""function __ccproxy
    set -l line (commandline -cp)
    set -l found (eval (commandline -opc)[1] completion --complete (string escape -- $line) 2>/dev/null)
    if set -q found[1]
        string join \n -- $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c ccproxy -f -a '(__ccproxy)'""",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("shell", nargs="?", choices=SCRIPTS, help="the shell to print the lines for")
    way.add_argument("--complete", metavar="LINE", help="what these lines ask: how a command line may go on")


def run(options: argparse.Namespace) -> int:
    """Print the script, or the candidates."""
    if options.complete is None:
        print(SCRIPTS[options.shell])
        return 0
    words = re.split(r"\s+", options.complete.lstrip())[1:] or [""]
    for candidate in candidates(words[:-1]):
        is_wanted = words[-1].startswith("-") or not candidate.startswith("-")
        if candidate.startswith(words[-1]) and candidate.isprintable() and is_wanted:
            print(candidate)
    return 0


def candidates(before: Sequence[str]) -> Iterable[str]:
    """Return what may follow the words before, by the parsers themselves; nothing where a file may."""
    if not before:
        return [*COMMANDS, *_OVERVIEW, *_options(_actions("serve"))]
    name = before[0] if before[0] in COMMANDS else "serve"
    words, actions = before[1:] if before[0] in COMMANDS else before, _actions(name)
    options = _options(actions)
    last = options.get(words[-1]) if words else None
    if last is not None and last.nargs != 0:
        return _values(last)
    positional = next((action for action in actions if not action.option_strings), None)
    return [*(_values(positional) if positional else []), *options]


def _actions(name: str) -> List[argparse.Action]:
    """Return what a command takes; `start` takes what `serve` does."""
    names = (name, "serve") if name == "start" else (name,)
    return [action for each in names for action in parser_of(COMMANDS[each])._actions]


def _options(actions: Iterable[argparse.Action]) -> Dict[str, argparse.Action]:
    return {option: action for action in actions for option in action.option_strings if option.startswith("--")}


def _values(action: argparse.Action) -> List[str]:
    """Return the values an option or argument may have, as far as they can be told."""
    if action.choices is not None:
        return [str(choice) for choice in action.choices]
    if action.dest not in _MODELS:
        return []
    try:
        config = load_config(os.environ).config
    except ConfigError:
        return []
    return [*(model.model_id for model in configured_models(config)), *(f"{name}/" for name in PROVIDERS)]
