"""Merges the settings of a run from several sources, and reads and writes those it records."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeAlias

from esper.runs.config import RunConfig
from esper.schedules import Function
from esper.settings import layers as of_any_config
from esper.settings.layers import Layer as Layer
from esper.settings.layers import Origin as Origin
from esper.settings.layers import SettingsError as SettingsError
from esper.settings.options import ConfigError, complete, flatten, settings_of
from esper.settings.values import names_in, spelled
from esper.storage import files

RECORD = "config.json"  # where a run records its settings
MAX_FILE_BYTES = 2**20

Settings: TypeAlias = of_any_config.Settings[RunConfig]


def resolve(layers: Sequence[Layer]) -> Settings:
    """Merge `layers`, the strongest last.

    Raises:
        SettingsError: for an unknown name or a value that cannot be used.
    """
    return of_any_config.resolve(RunConfig, layers)


def placed(origins: Mapping[str, Origin]) -> AbstractContextManager[None]:
    """Turn a `ConfigError` into a `SettingsError`, with the place in `origins`."""
    return of_any_config.placed(origins, settings_of(RunConfig))


def read_toml(path: Path) -> dict[str, Any]:
    """The tables in the TOML file `path`, which the user named.

    Raises:
        ValueError: with the reason, when it cannot be read.
    """
    return _read(path, "TOML", lambda data: tomllib.loads(data.decode()))  # type: ignore[no-any-return]


def _read_json(path: Path) -> Any:
    return _read(path, "JSON", files.parse_json)


def _read(path: Path, kind: str, parse: Callable[[bytes], Any]) -> Any:
    try:
        return parse(files.read_named(path, MAX_FILE_BYTES))
    except OSError as error:
        raise ValueError(str(error.strerror)) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not {kind}: {error}") from None


def file_layer(path: Path) -> Layer:
    """The settings in a TOML or JSON file.

    Raises:
        SettingsError: for a file that cannot be read, or is neither TOML nor JSON.
    """
    try:
        values = _read_json(path) if path.suffix == ".json" else read_toml(path)
    except ValueError as error:
        raise SettingsError(ConfigError("config", str(path), str(error)), None) from None
    if not isinstance(values, dict):
        raise SettingsError(ConfigError("config", str(path), "must hold one table of settings"), None)
    return Layer(source=str(path), values=complete(values, settings_of(RunConfig)) if path.name == RECORD else values)


def as_recorded(config: RunConfig) -> dict[str, Any]:
    """The settings of `config` as in config.json, where tuples are lists."""
    return json.loads(json.dumps(recorded(config)))  # type: ignore[no-any-return]


def recorded_layer(values: Mapping[str, Any], source: str) -> Layer:
    """The settings that a run has recorded: all but those for display and output folders.

    Raises:
        SettingsError: for one that runs do not record; a file must not choose the folder that is written to.
    """
    settings = settings_of(RunConfig)
    for name, value in values.items():
        if name in settings and not settings[name].recorded:
            raise SettingsError(
                ConfigError(name, value, "is not a setting that a run records"), Origin(source=source, name=name)
            )
    return Layer(source=source, values=complete(values, settings))


def recorded(config: RunConfig) -> dict[str, Any]:
    """The settings in `config.json`, which also works as a config file."""
    settings = settings_of(RunConfig)
    return {
        name: value.name if isinstance(value, Function) else spelled(value) if settings[name].flag else names_in(value)
        for name, value in flatten(config).items()
        if settings[name].recorded
    }
