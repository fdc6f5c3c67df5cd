"""The tuned settings that come with the package, by name, by environment, or by kind of task."""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from esper.runs.config import RunConfig
from esper.runs.kinds import KINDS, fitted, kind_of
from esper.settings.layers import Layer, Origin, SettingsError
from esper.settings.options import ConfigError, nearest, settings_of
from esper.settings.values import checked

if TYPE_CHECKING:
    from esper.envs.given import Given

_PATTERN = frozenset("*?[")
_BY_SPACES = " (by the spaces of "


def load_presets() -> dict[str, dict[str, Any]]:
    """The tuned settings that come with the package, by environment id, by a pattern of ids, or by kind of task."""
    tables = tomllib.loads((resources.files("esper.runs") / "presets.toml").read_text(encoding="utf-8"))
    return {name: values for names, values in tables.items() for name in names.split()}


def with_preset(preset: str, layers: Sequence[Layer], given: Given | None = None) -> list[Layer]:
    """`layers` above those of `--preset preset`, which they override.

    `auto` selects by environment, which is `given` or the one in `layers`; without a preset for it, by the kind of
    task. `none` selects nothing.

    Raises:
        SettingsError: for a name that is not a preset and matches none; for an unknown name in `layers`.
        ConfigError: for what is no name.
    """
    checked("preset", preset, str)
    if preset == "none":
        return list(layers)
    if preset == "auto":
        return [*_automatic(layers, given), *layers]
    key = find_preset(preset)
    if key is None:
        presets = load_presets()
        allowed = f"must be auto, none or one of {', '.join(presets)}{nearest(preset, presets)}"
        raise SettingsError(ConfigError("preset", preset, allowed), None)
    values = preset_values(preset)
    return [Layer(source=f"preset {key}", values=fitted(values, layers) if key in KINDS else values), *layers]


def _automatic(layers: Sequence[Layer], given: Given | None) -> list[Layer]:
    named = [layer.values["env"] for layer in layers if layer.values.get("env")]
    env = str(named[-1] if named else settings_of(RunConfig)["env"].default)
    name = env.removeprefix("torch/")
    if given is None and (key := find_preset(name)) is not None and key not in KINDS:
        return [Layer(source=f"preset {key}", values=preset_values(name))]
    kind = kind_of(layers, given)
    if kind is None:
        return []
    return [Layer(source=f"preset {kind}{_BY_SPACES}{env})", values=fitted(load_presets()[kind], layers))]


def general_source(origins: Mapping[str, Origin]) -> str | None:
    """The source in `origins` that is a preset which nobody named: the kind of the task selected it."""
    return next((origin.source for origin in origins.values() if _BY_SPACES in origin.source), None)


def find_preset(name: str) -> str | None:
    """The preset called `name`, or the first one whose pattern matches it."""
    presets = load_presets()
    return name if name in presets else next((key for key in presets if fnmatch.fnmatchcase(name, key)), None)


def preset_values(name: str) -> dict[str, Any]:
    """The settings of the preset for `name`; the environment is one of them unless `name` is a pattern or a kind."""
    key = find_preset(name)
    assert key is not None
    env = {} if key in KINDS or (key == name and _PATTERN.intersection(name)) else {"env": name}
    return {**env, **load_presets()[key]}
