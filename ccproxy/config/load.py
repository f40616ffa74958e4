"""Finds and reads ``.env`` and ``models.yaml``, and builds the configuration from them and the environment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ..budget import SETTING_OF, limits
from ..errors import ConfigError
from ..pricing import prices_of
from .envfile import parse_env
from .modelsfile import parse_models
from .providers import PROVIDERS
from .schema import SETTINGS, Config, build_config


@dataclass(frozen=True)
class Loaded:
    """A configuration, the files it came from, and what its owner should know about it."""

    config: Config
    env_file: Optional[Path]
    models_file: Optional[Path]
    warnings: Tuple[str, ...]


def load_config(
    environment: Mapping[str, str],
    *,
    env_file: Optional[str] = None,
    overrides: Optional[Mapping[str, Tuple[Any, str]]] = None,
    folders: Optional[List[Path]] = None,
) -> Loaded:
    """Read the files and return the configuration.

    Precedence: ``overrides`` (setting to value and option name), ``environment``, ``.env``, default. Files are looked
    for in ``folders``: by default the working directory, then ``~/.config/ccproxy``.

    Raises:
        ConfigError: naming file, line and key.
    """
    folders = folders if folders is not None else [Path(), Path.home() / ".config" / "ccproxy"]
    env_path = _named(env_file, "--env-file") if env_file else _first_file(folders, ".env")
    from_file = parse_env(_read(env_path), str(env_path)) if env_path else {}
    raw: Dict[str, Tuple[Any, str]] = dict(from_file)
    raw.update({name: (value, "environment") for name, value in environment.items()})
    raw.update(overrides or {})
    settings = {setting.name: raw[setting.name] for setting in SETTINGS if _is_set(raw.get(setting.name))}
    models_path = _models_path(settings, folders)
    models = parse_models(_read(models_path), str(models_path)) if models_path else {}
    variables = {name: str(value) for name, (value, _) in raw.items()}
    config = build_config(settings, models, variables)
    warnings = tuple(_warnings(config))
    return Loaded(replace(config, warnings=warnings), env_path, models_path, warnings)


def state_folder(config: Config, environment: Mapping[str, str]) -> Path:
    """Return where usage is recorded: STATE_DIR, else what systemd gives, else the XDG folder for state."""
    if config.state_dir:
        return Path(config.state_dir).expanduser()
    given = environment.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    xdg = environment.get("XDG_STATE_HOME", "")
    return (Path(xdg) if xdg.startswith("/") else Path.home() / ".local" / "state") / "ccproxy"


def _is_set(value: Optional[Tuple[Any, str]]) -> bool:
    return value is not None and str(value[0]).strip() != ""


def _models_path(settings: Mapping[str, Tuple[Any, str]], folders: List[Path]) -> Optional[Path]:
    if "CUSTOM_MODELS_FILE" not in settings:
        return _first_file(folders, "models.yaml")
    name, place = settings["CUSTOM_MODELS_FILE"]
    path = Path(name).expanduser()
    found = path if path.is_absolute() else _first_file(folders, str(path))
    return _named(str(found or path), f"{place}: CUSTOM_MODELS_FILE")


def _first_file(folders: List[Path], name: str) -> Optional[Path]:
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _named(name: str, place: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_file():
        raise ConfigError(f"{place}: no such file: {path}")
    return path


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None


def _warnings(config: Config) -> List[str]:
    warnings = []
    for model in config.models.values():
        if not config.is_ready(model):
            warnings.append(f"{model.model_id}: no key: {model.api_key_name} is not set")
    for name in config.router_default + config.router_background + config.router_think + config.router_long_context:
        model_found = config.find(name)
        if name.partition("/")[0] in PROVIDERS and model_found and not config.is_ready(model_found):
            warnings.append(f"{name}: no key: {model_found.api_key_name} is not set")
    return list(dict.fromkeys([*warnings, *_unpriced(config)]))


def _unpriced(config: Config) -> List[str]:
    """Warn of models that a budget cannot see."""
    set_here = ", ".join(SETTING_OF[period] for period in limits(config))
    if not set_here:
        return []
    routers = (getattr(config, setting.field_name) for setting in SETTINGS if setting.name.startswith("ROUTER_"))
    named = [config.find(name) for names in routers if isinstance(names, tuple) for name in names]
    return [
        f"{model.model_id}: its price is not known, so {set_here} cannot count it; 0 says that it is free"
        for model in [*config.models.values(), *filter(None, named)]
        if None in (prices_of(model, config).input, prices_of(model, config).output)
        and model.dialect.name != "openrouter"  # tells the cost of each answer
    ]
