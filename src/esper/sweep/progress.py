"""The progress of each run of a sweep, read from its folder: a sweep has no other state."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from esper.runs.config import RunConfig
from esper.runs.folder import check_new_folder
from esper.runs.layers import MAX_FILE_BYTES, as_recorded
from esper.settings.options import ConfigError, complete, settings_of
from esper.storage import files
from esper.sweep.plan import Job, SweepError

_TAIL_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Progress:
    """`fraction` of the steps are done. Only runs that are `new` or `begun` are still to be run."""

    status: Literal["new", "begun", "completed", "diverged"]
    fraction: float


def progress_of(job: Job) -> Progress:
    """The progress of `job`, from the last line of its record."""
    try:
        last = _last_event(job.run_dir / "events.jsonl")
    except OSError:
        return Progress(status="new", fraction=0.0)
    steps, status = last.get("env_steps"), last.get("status")
    done = min(max(steps, 0), job.config.ppo.total_timesteps) if type(steps) is int else 0
    fraction = done / job.config.ppo.total_timesteps
    if last.get("event") == "run_finished" and status == "completed":
        return Progress(status="completed", fraction=1.0)
    if last.get("event") == "run_finished" and status == "diverged":
        return Progress(status="diverged", fraction=fraction)
    return Progress(status="begun", fraction=fraction)


def check_same(job: Job) -> None:
    """Refuse an existing run in the folder of `job` that has other settings, or is behind a link; other files there.

    Raises:
        SweepError: naming the run and every difference; for a folder that cannot be written.
    """
    path, sweep = job.run_dir / "config.json", job.run_dir.parents[2]
    try:
        there = files.parse_json(files.read(path, MAX_FILE_BYTES, root=sweep))
    except FileNotFoundError:
        try:
            check_new_folder(job.config)
        except ConfigError as error:
            raise SweepError(f"{job.run_dir}: {error.allowed}") from None
        return
    except (OSError, ValueError) as error:
        raise SweepError(f"{path}: cannot be read: {files.why(error)}") from None
    if not isinstance(there, dict):
        raise SweepError(f"{path}: must hold the settings of a run")
    settings = settings_of(RunConfig)
    # Settings of later versions had their defaults, unless these changed what is learned.
    there = {**as_recorded(RunConfig()), **complete(there, settings)}
    mine = as_recorded(job.config)
    names = [name for name in mine if not settings[name].decides_nothing]
    wrong = [f"{name} {there.get(name)}, now {mine[name]}" for name in names if there.get(name) != mine[name]]
    if wrong:
        raise SweepError(
            f"{job.run_dir} exists already, with other settings: {'; '.join(wrong)}. Give the sweep another folder "
            "with --output"
        )


def _last_event(path: Path) -> dict[str, Any]:
    with files.open_to_read(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        for line in reversed(file.read().splitlines()):
            try:
                event = files.parse_json(line)
            except ValueError:
                # A line that is being written, or is incomplete as the run was killed.
                continue
            if isinstance(event, dict):
                return event
    return {}
