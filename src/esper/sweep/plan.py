"""The plan of a sweep: every run with its settings, checked before the first one starts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esper.runs.config import RunConfig
from esper.runs.layers import Layer, Origin, SettingsError, read_toml, resolve
from esper.runs.presets import with_preset
from esper.settings.options import ConfigError, nearest

MAX_SEEDS = 10_000
_MAX_NAME_BYTES = 200
# What the sweep sets for each run, and how it is told.
_OWN = {"seed": "each run has its own: seeds, or --seeds", "run_dir": "each run has its own: folder, or --output"}
_OF_ENVIRONMENTS = {"env": "an arm is compared within an environment: environments, or --envs"}
_KEYS = ("folder", "seeds", "preset", "settings", "environments", "arms")


class SweepError(ValueError):
    """A sweep cannot be run; the message says what is wrong, and what is allowed."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """`settings` are for all runs of this environment, `arms` are further settings of an arm in it."""

    name: str
    seeds: tuple[int, ...]
    settings: Mapping[str, Any]
    arms: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Arms x environments x seeds; `settings` are for all runs. `source` is its file."""

    source: str
    folder: Path
    preset: str
    settings: Mapping[str, Any]
    arms: Mapping[str, Mapping[str, Any]]
    environments: Sequence[Environment]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of a sweep."""

    environment: str
    arm: str
    config: RunConfig

    @property
    def run_dir(self) -> Path:
        assert self.config.run_dir is not None
        return Path(self.config.run_dir)

    @property
    def name(self) -> str:
        return f"{self.environment}/{self.arm}/{self.run_dir.name}"


def read_sweep(path: Path) -> dict[str, Any]:
    """The tables in the TOML file `path`.

    Raises:
        SweepError: for a file that cannot be read, or an unknown table.
    """
    try:
        tables = read_toml(path)
    except ValueError as error:
        raise SweepError(f"{path}: {error}") from None
    for key in tables:
        if key not in _KEYS:
            hint = nearest(key, _KEYS)
            raise SweepError(f"{path}: {key} is unknown; a sweep has {', '.join(_KEYS)}{hint}")
    try:
        for key in ("environments", "arms"):
            for name in _table(tables, key):
                _table(tables[key], name)
    except SweepError as error:
        raise SweepError(f"{path}: {error}") from None
    return tables


def make_sweep(tables: Mapping[str, Any], source: str) -> Sweep:
    """The sweep of `tables`, as in a sweep file.

    Raises:
        SweepError: naming what is wrong.
    """
    try:
        seeds, settings = parse_seeds(tables.get("seeds", 1)), _table(tables, "settings")
        arms = {_name(name): _table(_table(tables, "arms"), name) for name in _table(tables, "arms")}
        given = _table(tables, "environments")
        # Without a table of environments, the settings name the only one.
        names = list(given) or [str(settings.get("env", RunConfig().environment.env))]
        environments = [_environment(name, _table(given, name), seeds) for name in names]
        folder, preset = tables.get("folder"), tables.get("preset", "auto")
        if not isinstance(folder, str) or not folder or "\0" in folder:
            raise SweepError("folder: must be given, as text: the folder of the sweep's runs")
        if given and "env" in settings:
            raise SweepError(f"settings.env = {settings['env']}: the environments are those of environments")
        if not isinstance(preset, str):
            raise SweepError(f"preset = {preset}: must be auto, none or the name of one")
        check_apart("environment", [environment.name for environment in environments])
        for environment in environments:
            for arm in environment.arms:
                if arm not in arms:
                    hint = nearest(arm, arms)
                    raise SweepError(f"environments.{environment.name}.arms.{arm}: there is no such arm{hint}")
    except SweepError as error:
        raise SweepError(f"{source}: {error}") from None
    return Sweep(
        source=source,
        folder=Path(folder),
        preset=preset,
        settings=settings,
        arms=arms or {"default": {}},
        environments=environments,
    )


def environment_folder(env: str) -> str:
    """The name of an environment's folder."""
    return env.replace("/", "-").replace(":", "-")


def _environment(name: str, table: Mapping[str, Any], seeds: tuple[int, ...]) -> Environment:
    own = {key: value for key, value in table.items() if key not in ("seeds", "arms")}
    return Environment(
        name=_name(environment_folder(name)),
        seeds=parse_seeds(table["seeds"]) if "seeds" in table else seeds,
        settings={"env": name, **own},
        arms={arm: _table(_table(table, "arms"), arm) for arm in _table(table, "arms")},
    )


def make_jobs(sweep: Sweep, defaults: Mapping[str, Any], flags: Layer) -> list[Job]:
    """All runs, by environment, then seed, then arm, so that the arms of an unfinished sweep have the same seeds.

    Later settings override earlier ones: preset of the environment, `defaults`, sweep, environment, arm, arm in this
    environment, `flags`.

    Raises:
        SettingsError: for settings that cannot be used, with their table.
    """
    jobs = []
    for environment in sweep.environments:
        layers = {arm: _layers(sweep, environment, arm, defaults, flags) for arm in sweep.arms}
        for seed in environment.seeds:
            for arm in sweep.arms:
                run_dir = sweep.folder / environment.name / arm / f"seed-{seed}"
                own = Layer(source="sweep", values={"seed": seed, "run_dir": str(run_dir)})
                config = resolve([*layers[arm], own]).config
                jobs.append(Job(environment=environment.name, arm=arm, config=config))
    return jobs


def _layers(sweep: Sweep, environment: Environment, arm: str, defaults: Mapping[str, Any], flags: Layer) -> list[Layer]:
    """The settings of all runs of `arm` in `environment`, the strongest last."""
    place = f"{sweep.source} environments.{environment.name}"
    layers = [
        Layer(source="sweep", values=defaults),
        Layer(source=f"{sweep.source} settings", values=sweep.settings),
        Layer(source=place, values=environment.settings),
        Layer(source=f"{sweep.source} arms.{arm}", values=sweep.arms[arm]),
        Layer(source=f"{place}.arms.{arm}", values=environment.arms.get(arm, {})),
        flags,
    ]
    for layer in layers:
        _check_own(layer, _OWN | (_OF_ENVIRONMENTS if layer in layers[3:5] else {}))
    return with_preset(sweep.preset, layers)


def _check_own(layer: Layer, owned: Mapping[str, str]) -> None:
    """Refuse settings of `layer` that the sweep sets."""
    for name in owned:
        if name in layer.values:
            value = layer.values[name]
            raise SettingsError(ConfigError(name, value, owned[name]), Origin(source=layer.source, name=name))


def parse_seeds(given: object, name: str = "seeds") -> tuple[int, ...]:
    """Seeds as a count (`10`: 1 to 10), a range (`"11-20"`), a list (`[1, 5]`, `"1,5"`), or ranges in a list.

    `name` is that of the setting, for messages.

    Raises:
        SweepError: for anything else, and for a duplicate seed.
    """
    wrong = SweepError(f"{name} = {given}: must be a count (10: seeds 1 to 10), a range (11-20) or a list (1,5,11-13)")
    if isinstance(given, list) and all(type(seed) is int and seed >= 0 for seed in given):
        seeds = list(given)
    elif type(given) is int or (isinstance(given, str) and given.isdecimal()):
        seeds = list(range(1, min(int(given), MAX_SEEDS + 1) + 1))
    elif isinstance(given, str):
        seeds = []
        for part in given.split(","):
            ends = re.fullmatch(r"\s*(\d{1,18})(?:-(\d{1,18}))?\s*", part)
            if ends is None or int(ends[2] or ends[1]) - int(ends[1]) > MAX_SEEDS:
                raise wrong
            seeds += range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    else:
        raise wrong
    if not 0 < len(seeds) <= MAX_SEEDS:
        raise wrong
    check_apart("seed", seeds)
    return tuple(seeds)


def _table(tables: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = tables.get(name, {})
    if not isinstance(table, dict):
        raise SweepError(f"{name} = {table}: must be a table of settings")
    return table


def _name(name: str) -> str:
    """`name`, if it can be the name of a folder."""
    if not re.fullmatch(r"[\w+=.-]+", name) or name.startswith("."):
        raise SweepError(f"{name!r}: a name has letters, digits and any of -_+=. and does not begin with a dot")
    if (size := len(name.encode())) > _MAX_NAME_BYTES:
        raise SweepError(f"{name!r:.40}: a folder has its name, of at most {_MAX_NAME_BYTES} bytes, not {size}")
    return name


def check_apart(what: str, names: Sequence[object]) -> None:
    """Refuse duplicate `names`.

    Raises:
        SweepError: naming it.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise SweepError(f"{what} {twice[0]} is given twice")
