"""MLflow. The only module that imports mlflow, an extra."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from esper.settings.values import format_value
from esper.storage import files
from esper.telemetry.events import (
    ON_THE_AXIS,
    AnalyticsSnapshot,
    AnomalyDetected,
    EvaluationCompleted,
    Event,
    LearningStalled,
    RunFinished,
    RunResumed,
    RunStarted,
    UpdateCompleted,
)
from esper.telemetry.records import to_record
from esper.telemetry.rounds import RoundCompleted

_FOLDER, _LAST_STEP = "esper.folder", "esper.last_step"
_DATABASE = "mlflow.db"
_STATUS = {"completed": "FINISHED", "interrupted": "KILLED", "diverged": "FAILED", "failed": "FAILED"}
_SECONDS_BETWEEN_WRITES = 10.0
# What MLflow takes at once.
_MOST_METRICS, _MOST_PARAMS = 1000, 100

T = TypeVar("T")


class MlflowSink:
    """A run of `experiment`, named as the run's folder; numbers have their names in the record, over `env_steps`.

    MLflow's own settings, as MLFLOW_TRACKING_URI, decide where it is; without one it is a database in the folder. A
    run that resumes in its folder resumes here, too, and does not write again what the run that was killed has written.
    """

    def __init__(self, experiment: str, run_dir: Path) -> None:
        self._experiment, self._folder = experiment, run_dir.resolve()
        self._client: Any = None
        self._run_id = ""
        # One for each name and step: a snapshot repeats what its update has.
        self._waiting: dict[tuple[str, int], Metric] = {}
        self._written = time.monotonic()
        # The steps whose numbers another process has written already.
        self._there = range(0)

    def emit(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._begin(again=False)
                params = [Param(name, format_value(value)) for name, value in event.config.items()]
                for some in _batches(params, _MOST_PARAMS):
                    self._client.log_batch(self._run_id, params=some)
            case RunResumed():
                self._begin(again=True)
                if event.exact_resume and not event.changed:
                    self._there = range(event.env_steps + 1, self._last_step() + 1)
                self._tag({f"changed/{name}": values[-1] for name, values in event.changed.items()})
            case AnomalyDetected():
                self._tag({f"anomaly/{event.kind}": event.update})
            case LearningStalled():
                self._tag({"diagnosis": event.says})
            case RunFinished():
                self._write()
                self._tag({"status": event.status, **({"cause": event.cause} if event.cause else {})})
                self._client.set_terminated(self._run_id, status=_STATUS[event.status])
            case UpdateCompleted() | RoundCompleted() | AnalyticsSnapshot() | EvaluationCompleted():
                self._keep(to_record(event))

    def flush(self) -> None:
        self._write()

    def close(self) -> None:
        self._write()

    def _keep(self, record: Mapping[str, Any]) -> None:
        """Keep the numbers of `record` until it is worth writing them: a transaction costs as much as an update."""
        step, now = record["env_steps"], round(time.time() * 1000)
        if step in self._there:
            return
        # Only whole steps are written: an evaluation comes later than its update.
        is_new = bool(self._waiting) and step != next(reversed(self._waiting))[1]
        if is_new and time.monotonic() - self._written > _SECONDS_BETWEEN_WRITES:
            self._write()
        for name, value in record.items():
            if isinstance(value, int | float) and name not in ON_THE_AXIS:
                self._waiting[name, step] = Metric(name, float(value), now, step)

    def _write(self) -> None:
        metrics, self._waiting = list(self._waiting.values()), {}
        for some in _batches(metrics, _MOST_METRICS):
            self._client.log_batch(self._run_id, metrics=some)
        if metrics:
            self._tag({_LAST_STEP: metrics[-1].step})
        self._written = time.monotonic()

    def _tag(self, tags: Mapping[str, Any]) -> None:
        self._client.log_batch(self._run_id, tags=[RunTag(name, format_value(value)) for name, value in tags.items()])

    def _last_step(self) -> int:
        """The last step whose numbers are written; 0 if there is none."""
        last = self._client.get_run(self._run_id).data.tags.get(_LAST_STEP, "")
        return int(last) if last.isdecimal() else 0

    def _begin(self, *, again: bool) -> None:
        # Its messages would be between the console's lines.
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        artifacts = None
        if mlflow.is_tracking_uri_set():
            self._client = mlflow.MlflowClient()
        else:
            home = self._folder / "mlflow"
            if "?" in str(home):
                raise ValueError(f"{home}: MLflow takes no ? in a path; name a database by MLFLOW_TRACKING_URI")
            files.make_folder(home)
            files.check_files(home, {_DATABASE: None})
            artifacts = (home / "artifacts").as_uri()
            self._client = mlflow.MlflowClient(f"sqlite:///{home / _DATABASE}")
        experiment = self._experiment_id(artifacts)
        # The same folder is the same run.
        folder = hashlib.sha256(str(self._folder).encode()).hexdigest()
        found = self._client.search_runs([experiment], f"tags.`{_FOLDER}` = '{folder}'", max_results=1) if again else ()
        if found:
            self._run_id = found[0].info.run_id
            self._client.update_run(self._run_id, status="RUNNING")
        else:
            run = self._client.create_run(experiment, tags={_FOLDER: folder}, run_name=self._folder.name)
            self._run_id = run.info.run_id

    def _experiment_id(self, artifacts: str | None) -> str:
        try:
            return str(self._client.create_experiment(self._experiment, artifacts))
        except MlflowException as error:
            # Other runs have it already.
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return str(self._client.get_experiment_by_name(self._experiment).experiment_id)


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
