"""The tuned settings that come with the package, by name or by environment."""

from __future__ import annotations

import fnmatch
import tomllib
from importlib import resources
from typing import Any

from esper.settings.layers import Layer, SettingsError
from esper.settings.options import ConfigError, nearest

_PATTERN = frozenset("*?[")


def load_presets() -> dict[str, dict[str, Any]]:
    """The tuned settings that come with the package, by environment id or by a pattern of ids."""
    tables = tomllib.loads((resources.files("esper.runs") / "presets.toml").read_text(encoding="utf-8"))
    return {name: values for names, values in tables.items() for name in names.split()}


def preset_layer(preset: str, env: str) -> Layer | None:
    """The layer for `--preset preset`: `auto` selects by environment if there is one, `none` selects nothing.

    Raises:
        SettingsError: for a name that is not a preset and matches none.
    """
    if preset == "none":
        return None
    name = env.removeprefix("torch/") if preset == "auto" else preset
    key = find_preset(name)
    if key is None and preset == "auto":
        return None
    if key is None:
        presets = load_presets()
        allowed = f"must be auto, none or one of {', '.join(presets)}{nearest(name, presets)}"
        raise SettingsError(ConfigError("preset", preset, allowed), None)
    return Layer(source=f"preset {key}", values=preset_values(name))


def find_preset(name: str) -> str | None:
    """The preset called `name`, or the first one whose pattern matches it."""
    presets = load_presets()
    return name if name in presets else next((key for key in presets if fnmatch.fnmatchcase(name, key)), None)


def preset_values(name: str) -> dict[str, Any]:
    """The settings of the preset for `name`; the environment is one of them unless `name` is a pattern."""
    key = find_preset(name)
    assert key is not None
    env = {} if key == name and _PATTERN.intersection(name) else {"env": name}
    return {**env, **load_presets()[key]}
