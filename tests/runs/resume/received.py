"""What TensorBoard, Weights & Biases and MLflow have of a run, held to its record."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, TypeAlias
from unittest import mock

import numpy as np
from tensorboardX.proto.event_pb2 import Event as FileEvent
from tensorboardX.proto.event_pb2 import SessionLog

from esper.analysis.runs import read_events
from esper.telemetry.events import ON_THE_AXIS, TIME_FIELDS

# Step and number.
Point: TypeAlias = tuple[int, float]
UPDATES, EVALUATIONS = "update_completed", "evaluation_completed"


@contextlib.contextmanager
def kept_in(run_dir: Path) -> Iterator[None]:
    """All is in files in the run's folder, which are as old as it when it is put back.

    MLflow's would be a database, which takes seconds.
    """
    variables = {
        "WANDB_MODE": "offline",
        "WANDB_ERROR_REPORTING": "false",
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
    if (run_dir / "wandb").exists():
        # Its newest file has the times of the record.
        _check_points(events, in_wandb(run_dir), ON_THE_AXIS, "Weights & Biases")
    if (run_dir / "mlflow").exists():
        # A resumed run measures times anew that the killed one has written.
        _check_points(events, _in_mlflow(run_dir / "mlflow"), TIME_FIELDS | ON_THE_AXIS, "MLflow")


def _check_points(
    events: Sequence[Mapping[str, Any]], found: Mapping[str, list[Point]], left_out: Set[str], sink: str
) -> None:
    """Hold what was `found` in `sink`, step and number of each point by name, to `events`."""
    points: dict[str, dict[int, float]] = defaultdict(dict)
    for event in events:
        if event["event"] in (UPDATES, EVALUATIONS, "analytics_snapshot"):
            for name, number in _numbers(event).items():
                points[name][event["env_steps"]] = number
    expected = {name: list(steps.items()) for name, steps in points.items()}
    different = [n for n in {**found, **expected} if n not in left_out and found.get(n) != expected.get(n)]
    assert not different, f"{sink}: {different}"


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


def _in_mlflow(folder: Path) -> dict[str, list[Point]]:
    """Step and number of each point of the only run, by name, in the order in which they were written."""
    (metrics,) = folder.glob("*/*/metrics")
    found = {}
    for path in metrics.rglob("*"):
        if path.is_file():
            lines = [line.split() for line in path.read_text().splitlines()]
            found[str(path.relative_to(metrics))] = [(int(step), float(value)) for _, value, step in lines]
    return found


def in_wandb(run_dir: Path) -> dict[str, list[Point]]:
    """Step and number of each point in wandb's newest file, by name, in the order in which they were written.

    The file replaces the older ones when it is sent.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    path = max((run_dir / "wandb").glob("offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    found: dict[str, list[Point]] = defaultdict(list)
    deadline = time.monotonic() + 60
    records: list[Record] = []
    # Its own process may be writing still when the run has ended.
    while not any(record.HasField("exit") for record in records):
        assert time.monotonic() < deadline, f"{path} has no end"
        time.sleep(0.02)
        records = [Record.FromString(data) for data in _records(path.read_bytes())]
    for record in records:
        # An image or a video has several keys.
        items = [item for item in record.history.item if len(item.nested_key) < 2]
        row = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}
        for name, value in row.items():
            if not name.startswith("_") and isinstance(value, int | float):
                found[name].append((row["_step"], value))
    return found


def _records(file: bytes) -> Iterator[bytes]:
    """Those of a file of wandb's: seven bytes, then a LevelDB log. There is no reader that is public."""
    position, whole = 7, b""
    while position + 7 <= len(file):
        # A block of 32 KiB ends in zeros where no header of seven bytes fits any more.
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", file, position)
        if position + 7 + length > len(file):
            return
        whole += file[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # full, last
            yield whole
            whole = b""
