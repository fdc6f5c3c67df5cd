"""Arms of a comparison: runs of one environment that differ in their seeds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from esper.analysis.runs import Columns, columns_of, read_events


class ArmError(ValueError):
    """Runs that cannot be compared: which, and why."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run that came to its end."""

    path: Path
    env: str
    seed: int
    updates: Columns


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Runs of one environment, by seed; `left_out` are those in the folder that tell nothing, and why."""

    name: str
    env: str
    runs: dict[int, Run]
    left_out: list[str]


def load_arm(path: Path) -> Arm:
    """The run in `path`, or all runs below it.

    Raises:
        ArmError: where there is no usable run, or they are of different environments, or share a seed.
    """
    found = sorted(events.parent for events in path.rglob("events.jsonl"))
    if not found:
        raise ArmError(f"{path}: there is no run (a folder with events.jsonl) in it")
    runs, left_out = [], []
    for folder in found:
        try:
            runs.append(_load(folder))
        except ArmError as error:
            left_out.append(str(error))
    if not runs:
        raise ArmError(f"{path}: none of its {len(found)} runs is usable: {'; '.join(left_out[:5])}")
    environments = sorted({run.env for run in runs})
    if len(environments) > 1:
        raise ArmError(f"{path}: has runs of {', '.join(environments)}; an arm is of one environment")
    by_seed: dict[int, Run] = {}
    for run in runs:
        if run.seed in by_seed:
            raise ArmError(f"{path}: {by_seed[run.seed].path} and {run.path} both have seed {run.seed}")
        by_seed[run.seed] = run
    return Arm(name=path.name, env=environments[0], runs=by_seed, left_out=left_out)


def _load(folder: Path) -> Run:
    try:
        events = list(read_events(folder))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArmError(f"{folder}: cannot be read: {error}") from None
    if not events or events[0].get("event") != "run_started":
        raise ArmError(f"{folder}: its record has no beginning")
    last = events[-1]
    if last.get("event") != "run_finished" or last.get("status") != "completed":
        raise ArmError(f"{folder}: is not complete ({last.get('status', 'it runs, or was killed')})")
    started = events[0]
    return Run(path=folder, env=started["config"]["env"], seed=started["seed"], updates=columns_of(events))
