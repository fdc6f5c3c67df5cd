"""Weights & Biases. The only module that imports wandb, an extra."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from esper.storage import files
from esper.telemetry.events import ON_THE_AXIS, Event, RunResumed, RunStarted
from esper.telemetry.jsonl import read_batches
from esper.telemetry.records import to_record

# Without checkpoints, which are complete some updates after their env_steps: wandb needs increasing steps.
_WITH_NUMBERS = ("update_completed", "round_completed", "analytics_snapshot", "evaluation_completed")
_LEFT_OUT = ON_THE_AXIS | {"time"}


class WandbSink:
    """A run of `project`, named as the run's folder; numbers have their names in the record, over `env_steps`.

    wandb's own settings, as WANDB_MODE=offline, decide whether anything is sent. A run that resumes in its folder
    resumes here, too, and logs what wandb does not have: a kill takes what its process kept back, and an offline run
    begins a file anew, which replaces the others of its run when it is sent.
    """

    def __init__(self, project: str, run_dir: Path) -> None:
        self._project, self._folder = project, run_dir.resolve()
        self._run: Any = None
        files.make_folder(self._folder / "wandb")

    def emit(self, event: Event) -> None:
        if isinstance(event, RunStarted | RunResumed):
            self._begin()
        if isinstance(event, RunResumed):
            # Which ends with this event.
            for records in read_batches(self._folder / "events.jsonl"):
                for record in records:
                    self._take(record)
        else:
            self._take(to_record(event))

    # wandb has no way to; a resume logs what is lost.
    def flush(self) -> None: ...

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()

    def _begin(self) -> None:
        if self._run is None:
            self._run = wandb.init(
                project=self._project,
                dir=self._folder,
                name=self._folder.name,
                # The same folder is the same run.
                id=hashlib.sha256(str(self._folder).encode()).hexdigest()[:16],
                resume="allow",
                settings=wandb.Settings(silent=True, console="off"),
            )

    def _take(self, record: Mapping[str, Any]) -> None:
        match record["event"]:
            case "run_started":
                self._run.config.update(record["config"], allow_val_change=True)
            case "run_resumed":
                changed = {name: values[-1] for name, values in record["changed"].items()}
                self._run.config.update(changed, allow_val_change=True)
            case "anomaly_detected":
                self._run.summary[f"anomaly/{record['kind']}"] = record["update"]
            case "learning_stalled":
                self._run.summary["diagnosis"] = record["says"]
            case "run_finished":
                self._run.summary["status"] = record["status"]
            case "video_recorded":
                path = self._folder / record["video"]
                if files.is_there(path):
                    self._log({"video": wandb.Video(str(path))}, record["env_steps"])
            case kind if kind in _WITH_NUMBERS:
                self._log(
                    {n: value for n, value in record.items() if isinstance(value, int | float) and n not in _LEFT_OUT},
                    record["env_steps"],
                )

    def _log(self, values: dict[str, Any], step: int) -> None:
        # It has the steps before, and would warn of each.
        if step >= self._run.starting_step:
            self._run.log(values, step=step)
