"""How far each run of a sweep is, read from its folder: a sweep has no state of its own."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from esper.resume_rules import MAY_CHANGE
from esper.settings import recorded
from esper.sweep.plan import Job, SweepError

_TAIL_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Progress:
    """`fraction` of the steps are done. Only what is `new` or `begun` is still to be run."""

    status: Literal["new", "begun", "completed", "diverged"]
    fraction: float


def progress_of(job: Job) -> Progress:
    """Where the run of `job` is, by the last line of its record."""
    try:
        last = _last_event(job.run_dir / "events.jsonl")
    except OSError:
        return Progress(status="new", fraction=0.0)
    fraction = min(1.0, last.get("env_steps", 0) / job.config.ppo.total_timesteps)
    if last.get("event") == "run_finished" and last.get("status") in ("completed", "diverged"):
        return Progress(status=last["status"], fraction=1.0 if last["status"] == "completed" else fraction)
    return Progress(status="begun", fraction=fraction)


def check_same(job: Job) -> None:
    """Refuse to take for `job` a run that was made with other settings.

    Raises:
        SweepError: naming the run and every difference.
    """
    path = job.run_dir / "config.json"
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise SweepError(f"{path}: cannot be read: {error}") from None
    # As they will stand in config.json, where tuples are lists.
    mine: dict[str, Any] = json.loads(json.dumps(recorded(job.config)))
    names = [name for name in mine if name not in MAY_CHANGE - {"total_timesteps"}]
    wrong = [f"{name} {there.get(name)}, now {mine[name]}" for name in names if there.get(name) != mine[name]]
    if wrong:
        raise SweepError(
            f"{job.run_dir} is there already, with other settings: {'; '.join(wrong)}. Give the sweep another folder "
            "with --output"
        )


def _last_event(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        for line in reversed(file.read().splitlines()):
            try:
                event = json.loads(line)
            except ValueError:
                # A line that is being written, or that was cut off when the run was killed.
                continue
            if isinstance(event, dict):
                return event
    return {}
