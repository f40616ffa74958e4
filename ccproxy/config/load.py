"""Finds and reads ``.env`` and ``models.yaml``, and builds the configuration from them and the environment."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Set, Tuple

from ..accounting.budget import SETTING_OF, limits
from ..accounting.pricing import TELL_COSTS, prices_of
from ..errors import ConfigError
from ..frozen import frozen
from ..routing import configured_models
from .credentials import shown
from .envfile import parse_env
from .modelsfile import parse_models
from .providers import PROVIDERS
from .schema import SETTINGS, Config, Model, build_config
from .values import SENDABLE, is_sendable

log = logging.getLogger(__name__)

ENVIRONMENT = "environment"
"""The place of what the process was given, for it or for others."""
CREDENTIAL_NAME = r"[A-Z][A-Z0-9_]*"
"""The files among systemd's credentials that are variables."""


@frozen
class Loaded:
    """A configuration, and the files it came from."""

    config: Config
    env_file: Optional[Path]
    models_file: Optional[Path]

    def log_warnings(self) -> None:
        """Log what its owner should know about it."""
        for warning in self.config.warnings:
            log.warning("%s", warning)


def load_config(
    environment: Mapping[str, str],
    *,
    env_file: Optional[str] = None,
    overrides: Optional[Mapping[str, Tuple[Any, str]]] = None,
    folders: Optional[List[Path]] = None,
    seen: Optional[Set[Path]] = None,
) -> Loaded:
    """Read the files and return the configuration.

    Precedence: ``overrides`` (setting to value and option name), ``environment``, credentials of systemd, ``.env``,
    default. Files are looked for in ``folders``: by default the working directory, then ``~/.config/ccproxy``.

    Args:
        seen: is given each path that was looked at, whether or not there is a file.

    Raises:
        ConfigError: naming file, line and key.
    """
    files = _Files(folders if folders is not None else [Path(), Path(os.path.expanduser("~/.config/ccproxy"))], seen)
    env_path = files.named(_expanded(env_file, "--env-file"), "--env-file") if env_file else files.first(".env")
    from_file = parse_env(_read(env_path), str(env_path)) if env_path else {}
    raw: Dict[str, Tuple[Any, str]] = dict(from_file)
    raw.update(_credentials(environment.get("CREDENTIALS_DIRECTORY", "")))
    raw.update({name: (value, ENVIRONMENT) for name, value in environment.items()})
    raw.update(overrides or {})
    settings = {name: raw[name] for name in SETTINGS if _is_set(raw.get(name))}
    for name in _PATHS & settings.keys():
        path, place = settings[name]
        settings[name] = (_expanded(path, f"{place}: {name}"), place)
    models_path = _models_path(settings, files)
    models = parse_models(_read(models_path), str(models_path)) if models_path else {}
    variables = {name: str(value) for name, (value, _) in raw.items()}
    config = build_config(settings, models, variables)
    faults = _faults_of_others(raw, config)
    left_out = [f"{fault}; it is left out" for fault in faults.values()]
    config = replace(config, variables={name: value for name, value in variables.items() if name not in faults})
    return Loaded(replace(config, warnings=(*left_out, *_warnings(config))), env_path, models_path)


def state_folder(config: Config, environment: Mapping[str, str]) -> Path:
    """Return where usage is recorded: STATE_DIR, else what systemd gives, else the XDG folder for state.

    Raises:
        ConfigError: nothing tells.
    """
    if config.state_dir:
        return Path(config.state_dir)
    given = environment.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    xdg = environment.get("XDG_STATE_HOME", "")
    return Path(xdg if xdg.startswith("/") else _expanded("~/.local/state", "STATE_DIR: not set")) / "ccproxy"


_PATHS = {"CUSTOM_MODELS_FILE", "LOG_FILE_PATH", "STATE_DIR"}


def _expanded(path: str, place: str) -> str:
    """Return a path with the home folder that its ``~`` stands for."""
    expanded = os.path.expanduser(path.strip())
    if expanded.startswith("~"):
        raise ConfigError(f"{place}: {path}: no home folder is known for {path.partition('/')[0]}")
    return expanded


def _is_set(value: Optional[Tuple[Any, str]]) -> bool:
    return value is not None and str(value[0]).strip() != ""


class _Files:
    """Finds files, and notes where it looked."""

    def __init__(self, folders: List[Path], seen: Optional[Set[Path]]) -> None:
        self._folders = folders
        self._seen = seen if seen is not None else set()

    def first(self, name: str) -> Optional[Path]:
        """Return the file of that name in the first folder that has one."""
        for folder in self._folders:
            self._seen.add(folder / name)
            if os.path.isfile(folder / name):  # False, not an error, in a folder that may not be looked into
                return folder / name
        return None

    def named(self, name: str, place: str) -> Path:
        """Return a file that must be there, for ``place`` says so."""
        path = Path(name)
        self._seen.add(path)
        if not os.path.isfile(path):
            raise ConfigError(f"{place}: {'not a file' if os.path.exists(path) else 'no such file'}: {path}")
        return path


def _models_path(settings: Mapping[str, Tuple[Any, str]], files: _Files) -> Optional[Path]:
    if "CUSTOM_MODELS_FILE" not in settings:
        return files.first("models.yaml")
    name, place = settings["CUSTOM_MODELS_FILE"]
    found = None if os.path.isabs(name) else files.first(name)
    return files.named(str(found or name), f"{place}: CUSTOM_MODELS_FILE")


def _credentials(folder: str) -> Dict[str, Tuple[Any, str]]:
    """Return what systemd's ``LoadCredential=NAME:...`` gave: files that are named like variables."""
    paths = sorted(Path(folder).iterdir()) if folder and Path(folder).is_dir() else []
    return {path.name: (_read(path).strip(), str(path)) for path in paths if re.fullmatch(CREDENTIAL_NAME, path.name)}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None


def _faults_of_others(raw: Mapping[str, Tuple[Any, str]], config: Config) -> Dict[str, str]:
    """Return what is wrong with variables of other programs, by variable: no reason to refuse a start.

    Raises:
        ConfigError: what is wrong with one of ours.
    """
    faults = {**_bad_addresses(raw), **_bad_keys({name: raw[name] for name in sorted(config.key_names & raw.keys())})}
    used = _used(config)
    for name, fault in faults.items():
        if name in used or raw[name][1] != ENVIRONMENT:
            raise ConfigError(fault)
    return faults


def _bad_addresses(raw: Mapping[str, Tuple[Any, str]]) -> Dict[str, str]:
    """Return what is wrong with addresses of local providers, by variable."""
    faults: Dict[str, str] = {}
    for name in (f"{row.name.upper()}_API_BASE" for row in PROVIDERS.values() if row.is_local):
        address, place = raw.get(name, ("", ""))
        if address and not re.match(r"https?://[^\s/]", str(address).strip()):
            seen = shown(name, address)
            faults[name] = f"{place}: {name}: expected an address that begins with http:// or https://, not {seen}"
    return faults


def _bad_keys(keys: Mapping[str, Tuple[Any, str]]) -> Dict[str, str]:
    """Return what is wrong with keys, by variable."""
    return {
        name: f"{place}: {name}: expected keys of {SENDABLE}, not what is there"
        for name, (key, place) in keys.items()
        if not all(is_sendable(word.strip()) for word in str(key).split(","))
    }


def _used(config: Config) -> Set[str]:
    """Return the variables that a model named in the configuration takes its key or address from."""
    models = configured_models(config)
    names = {f"{model.model_id.partition('/')[0].upper()}_API_BASE" for model in models}
    names.update(model.api_key_name for model in models)
    return names if config.router_default else names | {"ANTHROPIC_API_KEY"}


def _warnings(config: Config) -> List[str]:
    named = [*config.models.values(), *filter(None, map(config.find, chain.from_iterable(config.routers.values())))]
    keyless = [model for model in named if not config.is_ready(model)]
    warnings = [f"{model.model_id}: no key: {model.api_key_name} is not set" for model in keyless]
    return list(dict.fromkeys([*warnings, *_unpriced(named, config)]))


def _unpriced(models: List[Model], config: Config) -> List[str]:
    """Warn of models that a budget cannot see."""
    set_here = ", ".join(SETTING_OF[period] for period in limits(config))
    if not set_here:
        return []
    return [
        f"{model.model_id}: its price is not known, so {set_here} cannot count it; 0 says that it is free"
        for model in models
        if None in (prices_of(model, config).input, prices_of(model, config).output)
        and model.dialect.name not in TELL_COSTS
    ]
