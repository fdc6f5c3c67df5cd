"""Settings from several places: defaults, a preset, a config file, flags. The later one wins, name by name."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias

from esper.runs.config import RunConfig
from esper.schedules import ScheduleConfig
from esper.settings.options import ConfigError, complete, flatten, nearest, settings_of, unflatten
from esper.settings.values import parse
from esper.simic.config import SCHEDULES
from esper.storage import files

COMMON_LR = "lr"
RECORD = "config.json"  # where a run records its settings
MAX_FILE_BYTES = 2**20
COMPONENT_LRS = ("policy_lr", "value_lr")
_PATTERN = frozenset("*?[")
_NONE = (None, "none")
_POINTS = tuple(f"{prefix}_points" for prefix in SCHEDULES)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Settings from one place, by flat name. `lr` and `lr_*` stand for both components."""

    source: str
    values: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a value came from: the layer, and the name it had there."""

    source: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all layers give together, and the origin of every value that is no default."""

    config: RunConfig
    origins: Mapping[str, Origin]


class SettingsError(Exception):
    """A `ConfigError` with the place the value came from."""

    def __init__(self, error: ConfigError, origin: Origin | None) -> None:
        super().__init__(str(error))
        self.error, self.origin = error, origin


def common_names() -> dict[str, str]:
    """The names that set both components, each with the policy's name for the same: `lr_decay`, `policy_lr_decay`.

    Delay has no common name: holding both components at 0 would only waste rollouts.
    """
    prefix = COMPONENT_LRS[0]
    return {
        COMMON_LR + name.removeprefix(prefix): name
        for name in settings_of(RunConfig)
        if name.startswith(prefix) and name != f"{prefix}_delay"
    }


def with_common_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values`, with one name for what both components have the same of; their base rates keep their own."""
    merged = dict(values)
    for common, policy in common_names().items():
        value = policy.replace(*COMPONENT_LRS, 1)
        if common != COMMON_LR and merged[policy] == merged[value]:
            merged[common] = merged.pop(policy)
            del merged[value]
    return merged


def resolve(layers: Sequence[Layer]) -> Settings:
    """Merge `layers`, the strongest last.

    Raises:
        SettingsError: for an unknown name or a value that cannot be used.
    """
    values, origins = merge(layers)
    with placed(origins):
        return Settings(config=unflatten(RunConfig, values), origins=origins)


@contextlib.contextmanager
def placed(origins: Mapping[str, Origin]) -> Iterator[None]:
    """A `ConfigError` within becomes a `SettingsError`, with the place in `origins`."""
    try:
        yield
    except ConfigError as error:
        raise SettingsError(error, origin_of(error, origins)) from None


def merge(layers: Sequence[Layer]) -> tuple[dict[str, Any], dict[str, Origin]]:
    """The values that `layers` give together, the strongest last, and where each is from.

    Raises:
        SettingsError: for an unknown name; for a base rate that the same layer's points leave no use for.
    """
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    for layer in layers:
        # A component's own settings are stronger than those given for both, wherever they stand in the layer.
        for given in _common_and_own(layer):
            before = {name: (values[name], origins[name]) for name in _POINTS if name in values}
            for name in _superseded(values, given):
                values.pop(name, None)
                origins.pop(name, None)
            for name, (given_as, value) in given.items():
                values[name] = value
                origins[name] = Origin(source=layer.source, name=given_as)
            _keep_base_rates(before, values, origins)
        common, left = Origin(source=layer.source, name=COMMON_LR), [origins.get(name) for name in COMPONENT_LRS]
        if COMMON_LR in layer.values and common not in left and None in left:
            allowed = "no component is left that uses it; give no base rate beside points"
            raise SettingsError(ConfigError(COMMON_LR, layer.values[COMMON_LR], allowed), common)
    for prefix in SCHEDULES:
        if prefix not in values and values.get(points := f"{prefix}_points") is not None:
            origins[prefix] = origins[points]
    return values, origins


def _keep_base_rates(
    points: Mapping[str, tuple[Any, Origin]], values: dict[str, Any], origins: dict[str, Origin]
) -> None:
    """Where `points` are no longer in `values`, and nothing else has the base rate: it stays that of the first point.

    Raises:
        SettingsError: for points that cannot be read.
    """
    for name, (value, origin) in points.items():
        prefix = name.removesuffix("_points")
        if values.get(name) in _NONE and prefix not in values:
            with placed({name: origin}):
                pairs = parse(name, value, settings_of(RunConfig)[name].type)
            if pairs:
                values[prefix], origins[prefix] = pairs[0][1], origin


def origin_of(error: ConfigError, origins: Mapping[str, Origin]) -> Origin | None:
    """Where the setting that `error` names was given; for one that is missing, where it would be given.

    It is missing because of its schedule's decay: what came by `lr_decay` misses an `lr_step_size`.
    """
    origin = origins.get(error.name)
    prefix = next((each for each in SCHEDULES if error.name.startswith(f"{each}_")), None)
    decay = origins.get(f"{prefix}_decay")
    if origin is not None or prefix is None or decay is None:
        return origin
    parameter = error.name.removeprefix(prefix)
    return Origin(source=decay.source, name=decay.name.removesuffix("_decay") + parameter)


_Given: TypeAlias = dict[str, tuple[str, Any]]


def _common_and_own(layer: Layer) -> tuple[_Given, _Given]:
    """The layer's values by final name, each with the name it was given by: those for both components, then the rest.

    Raises:
        SettingsError: for an unknown name.
    """
    common, known = common_names(), settings_of(RunConfig)
    shared: _Given = {}
    own: _Given = {}
    for name, value in layer.values.items():
        if name in common:
            shared.update({component + name.removeprefix(COMMON_LR): (name, value) for component in COMPONENT_LRS})
        elif name in known:
            own[name] = (name, value)
        else:
            hint = nearest(name, [*known, *common])
            error = ConfigError(name, value, f"is no setting{hint}")
            raise SettingsError(error, Origin(source=layer.source, name=name))
    return shared, own


def _superseded(values: Mapping[str, Any], stronger: _Given) -> list[str]:
    """Names in `values` that `stronger` replaces by another way of saying the same."""
    replaced = []
    for prefix in SCHEDULES:
        given = {
            name.removeprefix(f"{prefix}_"): value
            for name, (_, value) in stronger.items()
            if name.startswith(f"{prefix}_") and value not in _NONE
        }
        weaker = {
            name.removeprefix(f"{prefix}_"): value for name, value in values.items() if name.startswith(f"{prefix}_")
        }
        names = ScheduleConfig.superseded(weaker, given)
        replaced += [prefix if name == "peak" else f"{prefix}_{name}" for name in names]
    return replaced


def load_presets() -> dict[str, dict[str, Any]]:
    """The tuned settings that come with the package, by environment id or by a pattern of ids."""
    tables = tomllib.loads((resources.files("esper.runs") / "presets.toml").read_text(encoding="utf-8"))
    return {name: values for names, values in tables.items() for name in names.split()}


def preset_layer(preset: str, env: str) -> Layer | None:
    """The layer for `--preset preset`: `auto` picks by environment if there is one, `none` picks nothing.

    Raises:
        SettingsError: for a name that neither is a preset nor fits one.
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
    """The preset called `name`, or the first one whose pattern fits it."""
    presets = load_presets()
    return name if name in presets else next((key for key in presets if fnmatch.fnmatchcase(name, key)), None)


def preset_values(name: str) -> dict[str, Any]:
    """The settings of the preset for `name`; the environment is one of them unless `name` is a pattern."""
    key = find_preset(name)
    assert key is not None
    env = {} if key == name and _PATTERN.intersection(name) else {"env": name}
    return {**env, **load_presets()[key]}


def file_layer(path: Path) -> Layer:
    """The settings in a TOML or JSON file.

    Raises:
        SettingsError: for a file that cannot be read or is neither.
    """
    try:
        data = files.read_named(path, MAX_FILE_BYTES)
        values = files.parse_json(data) if path.suffix == ".json" else tomllib.loads(data.decode())
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        reason = error.strerror if isinstance(error, OSError) else f"not {kind}: {error}"
        raise SettingsError(ConfigError("config", str(path), str(reason)), None) from None
    if not isinstance(values, dict):
        raise SettingsError(ConfigError("config", str(path), "must hold one table of settings"), None)
    return Layer(source=str(path), values=complete(values, settings_of(RunConfig)) if path.name == RECORD else values)


def as_recorded(config: RunConfig) -> dict[str, Any]:
    """The settings of `config` as they will stand in config.json, where tuples are lists."""
    return json.loads(json.dumps(recorded(config)))  # type: ignore[no-any-return]


def recorded_layer(values: Mapping[str, Any], source: str) -> Layer:
    """The settings that a run has recorded, which say nothing of how it is shown, or where.

    Raises:
        SettingsError: for one that no run records; a file must not choose the folder that is written to.
    """
    settings = settings_of(RunConfig)
    for name, value in values.items():
        if name in settings and not settings[name].recorded:
            raise SettingsError(
                ConfigError(name, value, "is no setting that a run records"), Origin(source=source, name=name)
            )
    return Layer(source=source, values=complete(values, settings))


def recorded(config: RunConfig) -> dict[str, Any]:
    """The settings that `config.json` holds, which can be fed back as a config file."""
    settings = settings_of(RunConfig)
    return {name: value for name, value in flatten(config).items() if settings[name].recorded}
