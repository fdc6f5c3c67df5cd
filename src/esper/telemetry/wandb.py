"""Weights & Biases. The only module that imports wandb, an extra."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import wandb

from esper.storage import files
from esper.telemetry.events import (
    AnalyticsSnapshot,
    AnomalyDetected,
    EvaluationCompleted,
    Event,
    LearningStalled,
    RunFinished,
    RunResumed,
    RunStarted,
    UpdateCompleted,
    VideoRecorded,
)
from esper.telemetry.records import to_record


class WandbSink:
    """A run of `project`, named as the run's folder; numbers have their names in the record, over `env_steps`.

    wandb's own settings, as WANDB_MODE=offline, decide whether anything is sent. A run that resumes in its folder
    resumes here, too.
    """

    def __init__(self, project: str, run_dir: Path) -> None:
        self._project, self._folder = project, run_dir.resolve()
        self._run: Any = None
        files.make_folder(self._folder / "wandb")

    def emit(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._begin(dict(event.config))
            case RunResumed():
                self._begin(None)
            case AnomalyDetected():
                self._run.summary[f"anomaly/{event.kind}"] = event.update
            case LearningStalled():
                self._run.summary["diagnosis"] = event.says
            case RunFinished():
                self._run.summary["status"] = event.status
            case VideoRecorded():
                video = wandb.Video(str(self._folder / event.video))
                self._run.log({"video": video}, step=event.env_steps)
            # Without checkpoints, which are complete some updates after their env_steps: wandb needs increasing steps.
            case UpdateCompleted() | AnalyticsSnapshot() | EvaluationCompleted():
                numbers = {name: value for name, value in to_record(event).items() if isinstance(value, int | float)}
                self._run.log(numbers, step=numbers.pop("env_steps"))

    # Its own process has what was logged.
    def flush(self) -> None: ...

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()

    def _begin(self, config: dict[str, Any] | None) -> None:
        if self._run is None:
            self._run = wandb.init(
                project=self._project,
                dir=self._folder,
                name=self._folder.name,
                # The same folder is the same run.
                id=hashlib.sha256(str(self._folder).encode()).hexdigest()[:16],
                resume="allow",
                config=config,
                settings=wandb.Settings(silent=True, console="off"),
            )
