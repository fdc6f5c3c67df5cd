"""Arms of a comparison: runs with the same settings and different seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esper.analysis.measures import COLUMNS
from esper.analysis.runs import OWN, ROWS, Columns, read_events
from esper.settings.options import Setting, complete
from esper.storage import files
from esper.telemetry.declared import unreadable_schema
from esper.telemetry.jsonl import why_no_event

# The maximum number of differences that are named.
_NAMED = 5


class ArmError(ValueError):
    """Runs cannot be compared; the message says which, and why."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A completed run.

    `settings` are those that the runs of an arm have in common. `updates` has the `COLUMNS` and the run's `OWN`, NaN
    where a number was not computed; it lacks the `skipped` updates that the run undid.
    """

    path: Path
    env: str
    seed: int
    settings: Mapping[str, Any]
    updates: Columns
    skipped: int
    stalled: str | None  # its diagnosis, if it has one


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Runs with the same settings, by seed; `left_out` names unusable runs in the folder, with the reasons."""

    path: Path
    env: str
    settings: Mapping[str, Any]
    runs: dict[int, Run]
    left_out: list[str]

    @property
    def name(self) -> str:
        return self.path.absolute().name


def have(arms: Iterable[Arm], *names: str) -> bool:
    """Whether a run of `arms` has a number in one of the columns `names`."""
    runs = (run.updates for arm in arms for run in arm.runs.values())
    return any(np.isfinite(updates[name]).any() for updates in runs for name in names if name in updates)


def load_arm(path: Path, known: Mapping[str, Setting]) -> Arm:
    """The run in `path`, or all runs below it; `known` are the default settings, by name.

    Raises:
        ArmError: when there is no usable run, or two share a seed or differ in a setting that matters.
    """
    found = sorted(files.find(path, "events.jsonl"))
    if not found:
        raise ArmError(f"{path}: it contains no run (a folder with events.jsonl)")
    runs, left_out = [], []
    for folder in found:
        try:
            runs.append(_load(folder, known))
        except ArmError as error:
            left_out.append(str(error))
    if not runs:
        raise ArmError(f"{path}: none of its {len(found)} runs is usable: {'; '.join(left_out[:_NAMED])}")
    by_seed: dict[int, Run] = {}
    for run in runs:
        if run.seed in by_seed:
            raise ArmError(f"{path}: {by_seed[run.seed].path} and {run.path} both have seed {run.seed}")
        by_seed[run.seed] = run
    _check_one_setting(path, runs)
    return Arm(path=path, env=runs[0].env, settings=runs[0].settings, runs=by_seed, left_out=left_out)


def _check_one_setting(path: Path, runs: Sequence[Run]) -> None:
    environments = sorted({run.env for run in runs})
    if len(environments) > 1:
        raise ArmError(f"{path}: has runs of {', '.join(environments)}; an arm is of one environment")
    first, *others = runs
    for run in others:
        both = f"{path}: {first.path} and {run.path}"
        if names := differing(first.settings, run.settings):
            values = [f"{name} ({first.settings.get(name)}, {run.settings.get(name)})" for name in names[:_NAMED]]
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            raise ArmError(f"{both} differ in {', '.join(values)}{more}; an arm is one setting over seeds")
        mine, its = (len(each.updates["update"]) + each.skipped for each in (first, run))
        if mine != its:
            raise ArmError(f"{both} are of {mine:,} and {its:,} updates; an arm's runs are of one length")


def differing(*settings: Mapping[str, Any]) -> list[str]:
    """The names whose values are not the same in all `settings`."""
    names = dict.fromkeys(name for each in settings for name in each)
    return [name for name in names if any(each.get(name) != settings[0].get(name) for each in settings)]


def _load(folder: Path, known: Mapping[str, Setting]) -> Run:
    try:
        events, columns = _read(folder)
    except (OSError, ValueError) as error:
        raise ArmError(f"{folder}: cannot be read: {files.why(error)}") from None
    if not events:
        raise ArmError(f"{folder}: {why_no_event(folder / 'events.jsonl')}")
    if events[0]["event"] != "run_started":
        raise ArmError(f"{folder}: its record has no run_started")
    last = events[-1]
    if last["event"] != "run_finished" or last.get("status") != "completed":
        raise ArmError(f"{folder}: is not complete ({last.get('status', 'it runs, or was killed')})")
    try:
        return _run(folder, events, columns, known)
    except ArmError as error:
        raise ArmError(f"{folder}: {error}") from None


def _read(folder: Path) -> tuple[list[dict[str, Any]], dict[str, list[Any]]]:
    """The events of a run without its updates, and the columns of these."""
    events = []
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for event in read_events(folder):
        if event["event"] not in ROWS:
            events.append(event)
            continue
        for name in event:
            if name.startswith(OWN) and name not in columns:
                columns[name] = [np.nan] * len(columns["update"])
        for name, values in columns.items():
            values.append(event.get(name, np.nan))
    return events, columns


def _run(
    folder: Path,
    events: Sequence[Mapping[str, Any]],
    columns: Mapping[str, Sequence[Any]],
    known: Mapping[str, Setting],
) -> Run:
    started, *others = (event for event in events if event["event"] in ("run_started", "run_resumed"))
    for event in (started, *others):
        if reason := unreadable_schema(event):
            raise ArmError(reason)
    if any(event["event"] == "run_started" for event in others):
        raise ArmError("its record is of several runs")
    return Run(
        path=folder,
        env=_field(_field(started, "config", dict), "env", str),
        seed=_field(started, "seed", int),
        settings=_settings(started, others, known),
        updates=_updates(columns),
        skipped=sum(event["event"] == "update_skipped" for event in events),
        stalled=next((str(event.get("says")) for event in events if event["event"] == "learning_stalled"), None),
    )


def _field(record: Mapping[str, Any], name: str, kind: type) -> Any:
    value = record.get(name)
    if type(value) is not kind:
        raise ArmError(f"its {name} is {value!r:.40}")
    return value


def _settings(
    started: Mapping[str, Any], resumed: Sequence[Mapping[str, Any]], known: Mapping[str, Setting]
) -> dict[str, Any]:
    """What determines the run: its config, whether schedules were on, and what changed at resumes."""
    config = _field(started, "config", dict)
    if "controller" in config:
        # What is left out are settings of a learner, which it does not have.
        return {name: value for name, value in config.items() if not _may_differ(known.get(name))}
    settings = {**complete(config, known), "lr_schedule_switch": started.get("lr_schedule_switch")}
    for event in resumed:
        for name, change in _field(event, "changed", dict).items():
            settings[name] = f"{settings.get(name)}, from update {event.get('update')} {change}"
    return {name: value for name, value in settings.items() if not _may_differ(known.get(name))}


def _may_differ(setting: Setting | None) -> bool:
    """Whether runs of an arm may differ in it: it affects neither what is learned nor for how long."""
    return setting is not None and (setting.name == "seed" or setting.decides_nothing)


def _updates(columns: Mapping[str, Sequence[Any]]) -> Columns:
    if not columns["update"]:
        raise ArmError("has no completed update")
    updates = {name: _column(name, values) for name, values in columns.items()}
    if not np.array_equal(updates["update"], np.arange(len(updates["update"]))):
        raise ArmError("its updates do not count up from 0: it is only part of a run")
    if not (np.diff(updates["env_steps"], prepend=0) > 0).all():
        raise ArmError("its env_steps do not increase")
    return updates


def _column(name: str, values: Sequence[Any]) -> NDArray[np.float64]:
    # float would accept "1" and true, too.
    if not {int, float}.issuperset(map(type, values)):
        wrong = next(value for value in values if type(value) not in (int, float))
        raise ArmError(f"one of its {name} is {wrong!r:.40}")
    return np.array(values, dtype=float)
