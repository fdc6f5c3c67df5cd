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
from esper.settings.layers import with_common_names
from esper.settings.options import ConfigError, Merging, complete, flatten, settings_of
from esper.settings.values import format_value, names_in, spelled
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


def changed_and_default(values: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """The settings that differ from their defaults, and the others that have a value, as a flag takes them.

    `values` are as in config.json. Rates and the like that are the same for several components are there once, under
    their common name.
    """
    settings, defaults = settings_of(RunConfig), as_recorded(RunConfig())
    merged, merged_defaults = (with_common_names(each, settings) for each in ({**defaults, **values}, defaults))
    # A field of a schedule is None where another one says the same.
    fields = {name for name, setting in settings.items() if issubclass(setting.section, Merging)}
    changed, others = dict[str, str](), dict[str, str]()
    for name, value in merged.items():
        default = merged_defaults[name] if name in merged_defaults else defaults.get(name)
        if value != default and not (value is None and (name in fields or name not in settings)):
            changed[name] = format_value(_tuples(value))
        elif value is not None:
            others[name] = format_value(_tuples(value))
    return changed, others


def changed_settings(values: Mapping[str, Any]) -> dict[str, str]:
    """The first of `changed_and_default`."""
    return changed_and_default(values)[0]


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


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
