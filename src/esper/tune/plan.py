"""What a search does: its settings, its space, its trials, and the runs of each."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from esper.runs.config import RunConfig
from esper.runs.layers import MAX_FILE_BYTES, Layer, Settings, read_toml, resolve
from esper.runs.presets import with_preset
from esper.settings.layers import common_names
from esper.settings.options import ConfigError, flatten, nearest, settings_of
from esper.settings.values import Bounds, coerce, format_value
from esper.storage import files
from esper.sweep.plan import Job, SweepError, environment_folder, parse_seeds
from esper.tune.space import DEFAULT_SPACE, Choices, Range, Space, TuneError, make_space

Sampler = Literal["tpe", "random"]
Pruner = Literal["median", "none"]

# Evaluations of a run: enough to prune by, and few enough to cost little.
EVALUATIONS = 10
_KEYS = ("space", "settings", "preset", "trials", "seeds", "final_seeds", "sampler", "pruner", "sampler_seed")
_PLAN = "tune.json"


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """A search of `space` in `folder`.

    Each of `trials` is trained with each of `seeds`; what is found, and what it began from, with `final_seeds` too,
    which no trial saw.
    """

    folder: Path
    preset: str
    layers: tuple[Layer, ...]
    space: Space
    trials: int
    seeds: tuple[int, ...]
    final_seeds: tuple[int, ...]
    sampler: Sampler
    pruner: Pruner
    sampler_seed: int

    def settings(self, values: Mapping[str, Any]) -> Settings:
        """The settings with `values` of the space.

        Raises:
            SettingsError: for values that do not go together.
        """
        own = Layer(source="tune", values=values)
        return resolve(with_preset(self.preset, [*self.layers, own]))

    def jobs(self, name: str, values: Mapping[str, Any], seeds: tuple[int, ...]) -> list[Job]:
        """The runs with `values`, one for each seed, in the folder `name`.

        Raises:
            SettingsError: for values that do not go together.
        """
        config = self.settings(values).config
        every = config.eval_every or max(1, config.ppo.total_updates // EVALUATIONS)
        environment = environment_folder(config.environment.env)
        configs = [
            dataclasses.replace(config, seed=seed, run_dir=str(self.folder / name / f"seed-{seed}"), eval_every=every)
            for seed in seeds
        ]
        return [Job(environment=environment, arm=name, config=each) for each in configs]

    def before(self) -> dict[str, Any]:
        """The values of what is searched in the settings before the search."""
        flat = flatten(self.settings({}).config)
        # What stands for several settings has the value of the first.
        first = {name: names[0] for name, names in common_names(settings_of(RunConfig)).items()}
        found = {name: flat[name if name in flat else first[name]] for name in self.space}
        # A schedule without warmup has none, which is a fraction of 0.
        return found | {name: 0.0 for name, value in found.items() if value is None and self.space[name].contain(0.0)}

    def start(self) -> dict[str, Any]:
        """The same, where the space has them all; else nothing."""
        found = self.before()
        return found if all(self.space[name].contain(value) for name, value in found.items()) else {}


def make_folders(jobs: Sequence[Job]) -> None:
    """Make the folders that the runs of `jobs` go to."""
    for job in jobs:
        files.make_named_folder(job.run_dir.parent)


def read_tables(path: Path) -> dict[str, Any]:
    """The tables of a search in the TOML file `path`.

    Raises:
        TuneError: for a file that cannot be read, or an unknown table.
    """
    try:
        tables = read_toml(path)
    except ValueError as error:
        raise TuneError(f"{path}: {error}") from None
    for key in tables:
        if key not in _KEYS:
            raise TuneError(f"{path}: {key} is unknown; a search has {', '.join(_KEYS)}{nearest(key, _KEYS)}")
    return tables


def make_tuning(tables: Mapping[str, Any], folder: Path, defaults: Layer, flags: Layer, source: str) -> Tuning:
    """The search that `tables` describe. `flags` are the strongest settings, `defaults` the weakest.

    Raises:
        TuneError, SettingsError: naming what is wrong.
    """
    settings = tables.get("settings", {})
    if not isinstance(settings, Mapping):
        raise TuneError(f"{source}: settings = {settings}: must be a table of settings")
    space = make_space(tables.get("space", DEFAULT_SPACE), source)
    layers = (defaults, Layer(source=f"{source} settings", values=settings), flags)
    for layer in layers[1:]:
        for name in layer.values:
            if name in ("seed", "run_dir"):
                raise TuneError(f"{layer.source}: {name}: each run of a search has its own; give --seeds or --output")
            if name in space:
                # What is given is not searched.
                space = {other: values for other, values in space.items() if other != name}
    if not space:
        raise TuneError(f"{source}: space: every setting of it is given a value, so nothing is left to search")
    try:
        seeds = parse_seeds(tables.get("seeds", 2))
        final_seeds = parse_seeds(tables.get("final_seeds", "1001-1005"), "final_seeds")
    except SweepError as error:
        raise TuneError(f"{source}: {error}") from None
    if both := set(seeds) & set(final_seeds):
        raise TuneError(f"{source}: final_seeds: {min(both)} is of the search too; the final score needs others")
    tuning = Tuning(
        folder=folder,
        preset=_one_of(tables, "preset", "auto", None, source),
        layers=layers,
        space=space,
        trials=_count(tables, "trials", 30, source),
        seeds=seeds,
        final_seeds=final_seeds,
        sampler=_one_of(tables, "sampler", "tpe", get_args(Sampler), source),
        pruner=_one_of(tables, "pruner", "median", get_args(Pruner), source),
        sampler_seed=_count(tables, "sampler_seed", 0, source, minimum=0),
    )
    tuning.settings({})
    _check_values(space, source)
    for name, parameter in space.items():
        if isinstance(parameter, Range):
            tuning.settings({name: parameter.low})
            tuning.settings({name: parameter.high})
    return tuning


def _check_values(space: Space, source: str) -> None:
    """Refuse a value that its setting cannot have, whatever the others are."""
    settings = settings_of(RunConfig)
    several = common_names(settings)
    for name, parameter in space.items():
        setting = settings[name if name in settings else several[name][0]]
        bounds = {each.name: each.metadata.get("bounds") for each in dataclasses.fields(setting.section)}[
            setting.path[-1]
        ]
        for value in parameter.values if isinstance(parameter, Choices) else (parameter.low, parameter.high):
            try:
                meant = coerce(name, value, setting.type)
            except ConfigError as error:
                raise TuneError(f"{source}: space.{name}: {format_value(value)} {error.allowed}") from None
            if bounds is not None and meant is not None and not _within(bounds, meant):
                raise TuneError(f"{source}: space.{name}: {format_value(value)} {bounds}")


def _within(bounds: Bounds, value: Any) -> bool:
    return all(bounds.contain(number) for number in (value if isinstance(value, tuple) else (value,)))


def check_same(tuning: Tuning) -> None:
    """Record the search in its folder, or refuse one of other settings that is there.

    The number of trials and the seeds of the final score may change.

    Raises:
        TuneError: naming the differences.
    """
    mine = {
        "space": {name: dataclasses.asdict(parameter) for name, parameter in tuning.space.items()},
        "settings": {layer.source.split()[-1]: dict(layer.values) for layer in tuning.layers[1:]},
        "preset": tuning.preset,
        "seeds": list(tuning.seeds),
    }
    mine = json.loads(json.dumps(mine, default=str))
    path = tuning.folder / _PLAN
    if not files.is_there(path):
        files.write(path, json.dumps(mine, indent=1).encode() + b"\n")
        return
    try:
        there = files.parse_json(files.read(path, MAX_FILE_BYTES, root=tuning.folder))
    except (OSError, ValueError) as error:
        raise TuneError(f"{path}: cannot be read: {files.why(error)}") from None
    wrong = [name for name in mine if not isinstance(there, dict) or there.get(name) != mine[name]]
    if wrong:
        raise TuneError(
            f"{tuning.folder} has a search already, with other {', '.join(wrong)} (in {path.name}); "
            "give this one another folder with --output"
        )


def _one_of(tables: Mapping[str, Any], name: str, default: str, allowed: tuple[str, ...] | None, source: str) -> Any:
    given = tables.get(name, default)
    if not isinstance(given, str) or (allowed is not None and given not in allowed):
        names = "text" if allowed is None else f"one of {', '.join(allowed)}{nearest(str(given), allowed)}"
        raise TuneError(f"{source}: {name} = {given}: must be {names}")
    return given


def _count(tables: Mapping[str, Any], name: str, default: int, source: str, minimum: int = 1) -> int:
    given = tables.get(name, default)
    if type(given) is not int or given < minimum:
        raise TuneError(f"{source}: {name} = {given}: must be a whole number, {minimum} or more")
    return given
