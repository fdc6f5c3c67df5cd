"""Runs that differ in their seeds, one after the other in this process: begun, resumed, or complete already.

They share what is slow to load, and each keeps the threads of a run alone. Callbacks, sinks and environments may be any
Python objects, which processes could not share.
"""

from __future__ import annotations

import contextlib
import dataclasses
import operator
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from esper.runs.begun import last_event, other_settings, progress_of
from esper.runs.callbacks import CallbackLike
from esper.runs.checkpoint.folder import checkpoints_in
from esper.runs.config import RunConfig
from esper.runs.folder import CHECKPOINTS, path_of_run
from esper.runs.layers import Layer
from esper.runs.run import RunResult, resume_run, run
from esper.settings.options import ConfigError, flatten
from esper.simic.vectorized import TrainResult
from esper.telemetry.events import Event, Sink

MAX_SEEDS = 10_000


def seeds_of(given: int | Sequence[int]) -> list[int]:
    """`given`, or 1 to `given` where it is a count.

    Raises:
        ConfigError: when it is neither a count nor integers, or a seed is below 0 or given twice.
    """
    wrong = ConfigError("seeds", given, f"must be a count from 1 to {MAX_SEEDS:,} (8: seeds 1 to 8) or a list of seeds")
    if isinstance(given, bool | str):
        raise wrong
    try:
        seeds = [operator.index(seed) for seed in given] if isinstance(given, Sequence) else None
        count = len(seeds) if seeds is not None else operator.index(given)  # type: ignore[arg-type]
    except TypeError:
        raise wrong from None
    if not 0 < count <= MAX_SEEDS:
        raise wrong
    seeds = list(range(1, count + 1)) if seeds is None else seeds
    if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
        raise ConfigError("seeds", given, f"has {twice[0]} twice")
    if min(seeds) < 0:
        raise ConfigError("seeds", given, "must be at least 0 each")
    return seeds


def configs_of(config: RunConfig, seeds: Sequence[int]) -> list[RunConfig]:
    """`config` with each of `seeds`, in a folder `seed-N` each of its own.

    Raises:
        ConfigError: when an environment is to be shared, or a folder has a run of other settings.
    """
    environment = config.environment
    environment.check_more_can_be_made("seeds", list(seeds))
    folder = path_of_run(config.run_dir, environment.env, "seeds")
    configs = [dataclasses.replace(config, seed=seed, run_dir=str(folder / f"seed-{seed}")) for seed in seeds]
    for each in configs:
        try:
            wrong = other_settings(each, folder)
        except ValueError as error:
            raise ConfigError("run_dir", str(folder), str(error)) from None
        if wrong:
            raise ConfigError("run_dir", str(each.run_dir), f"has a run with other settings: {'; '.join(wrong)}")
    return configs


def run_each(
    configs: Sequence[RunConfig],
    *,
    callbacks: Sequence[CallbackLike] = (),
    sinks: Sequence[Sink] = (),
    console: Callable[[RunConfig], Sequence[Sink]] = lambda config: (),
) -> Iterator[tuple[RunConfig, RunResult]]:
    """Run what is not complete of `configs`; a signal ends it after the run that received it.

    `sinks` get the events of all runs, and are closed at the end; `console` makes those of one run.

    Raises:
        ConfigError, StoreError, ResumeError, RunError: as `run` and `resume_run`, from the first run that fails.
    """
    with contextlib.ExitStack() as stack:
        for sink in sinks:
            stack.callback(sink.close)
        shared = [_kept_open(sink) for sink in sinks]
        for config in configs:
            result = _complete(config) or _run(config, callbacks, [*console(config), *shared])
            yield config, result
            if result.train.status == "interrupted" and result.cause != "max_minutes":
                return


def _run(config: RunConfig, callbacks: Sequence[CallbackLike], sinks: Sequence[Sink]) -> RunResult:
    """Begin the run of `config`, or resume it from its last checkpoint."""
    run_dir = Path(str(config.run_dir))
    if not checkpoints_in(run_dir / CHECKPOINTS):
        return run(config, sinks, callbacks=callbacks)
    layers = [Layer(source="train", values=flatten(config))]
    given = config.environment.given
    # Its files name no module that `config` does not: they have the same settings.
    return resume_run(run_dir, layers, trust=True, given=given, callbacks=callbacks, sinks=lambda config: sinks)[1]


def _complete(config: RunConfig) -> RunResult | None:
    """How the run of `config` ended, if it needs no more."""
    if progress_of(config).status not in ("completed", "diverged"):
        return None
    run_dir = Path(str(config.run_dir))
    end = last_event(run_dir)
    cause: str | None = end.get("cause")
    train = TrainResult(
        env_steps=end["env_steps"],
        updates=end["updates"],
        undone=end["updates_undone"],
        episodes=end["episodes"],
        status=end["status"],
        fault=cause if end["status"] == "diverged" else None,
    )
    return RunResult(run_dir=run_dir, train=train, cause=cause, seconds=end["seconds"])


class _KeptOpen:
    """Passes the events of a run on to a sink that outlives it."""

    def __init__(self, sink: Sink) -> None:
        self.emit: Callable[[Event], None] = sink.emit

    def close(self) -> None: ...


def _kept_open(sink: Sink) -> Sink:
    # A sink that fails is named by its type.
    kind: type[_KeptOpen] = type(type(sink).__name__, (_KeptOpen,), {})
    return kind(sink)
