"""What TensorBoard and MLflow have of a run, held to its record."""

from __future__ import annotations

import contextlib
import os
import struct
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from tensorboardX.proto.event_pb2 import Event as FileEvent
from tensorboardX.proto.event_pb2 import SessionLog

from esper.analysis.runs import read_events
from esper.telemetry.events import ON_THE_AXIS, TIME_FIELDS

UPDATES, EVALUATIONS = "update_completed", "evaluation_completed"


@contextlib.contextmanager
def files_of_mlflow(run_dir: Path) -> Iterator[None]:
    """MLflow writes files in the run's folder, which are as old as it when it is put back; a database takes seconds."""
    variables = {
        "MLFLOW_TRACKING_URI": f"file://{run_dir}/mlflow",
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    with mock.patch.dict(os.environ, variables), warnings.catch_warnings():
        # MLflow's, of its files and of what it imports.
        warnings.simplefilter("ignore")
        yield


def check_received(run_dir: Path) -> None:
    """Hold each sink of the run in `run_dir` to every number of its record, once."""
    events = list(read_events(run_dir))
    assert not [event["cause"] for event in events if event["event"] == "sink_failed"]
    if (run_dir / "tensorboard").exists():
        recorded = [_numbers(event) for event in events if event["event"] in (UPDATES, EVALUATIONS)]
        assert _in_tensorboard(run_dir / "tensorboard") == [
            (numbers["env_steps"], [float(np.float32(numbers[name])) for name in numbers if name not in ON_THE_AXIS])
            for numbers in recorded
        ], "TensorBoard"
    if (run_dir / "mlflow").exists():
        points: dict[str, dict[int, float]] = defaultdict(dict)
        for event in events:
            if event["event"] in (UPDATES, EVALUATIONS, "analytics_snapshot"):
                for name, number in _numbers(event).items():
                    points[name][event["env_steps"]] = number
        # A resumed run measures times anew that the killed one has written.
        measured = {*TIME_FIELDS, *ON_THE_AXIS}
        expected = {name: list(steps.items()) for name, steps in points.items() if name not in measured}
        found = {name: steps for name, steps in _in_mlflow(run_dir / "mlflow").items() if name not in measured}
        assert found == expected, f"MLflow: {[n for n in {**found, **expected} if found.get(n) != expected.get(n)]}"


def _numbers(event: Mapping[str, Any]) -> dict[str, float]:
    return {n: value for n, value in event.items() if isinstance(value, int | float) and n != "time"}


def _in_tensorboard(folder: Path) -> list[tuple[int, list[float]]]:
    """Step and numbers of each point that is shown: the start of a session hides what was at its step and later."""
    shown: list[tuple[int, list[float]]] = []
    # By when they were made: two of a second have other names.
    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = FileEvent.FromString(data[12 : 12 + length])
            data = data[12 + length + 4 :]
            if event.session_log.status == SessionLog.START:
                shown = [point for point in shown if point[0] < event.step]
            elif event.summary.value:
                shown.append((event.step, [value.simple_value for value in event.summary.value]))
    return shown


def _in_mlflow(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Step and number of each point of the only run, by name, in the order in which they were written."""
    (metrics,) = folder.glob("*/*/metrics")
    found = {}
    for path in metrics.rglob("*"):
        if path.is_file():
            lines = [line.split() for line in path.read_text().splitlines()]
            found[str(path.relative_to(metrics))] = [(int(step), float(value)) for _, value, step in lines]
    return found
