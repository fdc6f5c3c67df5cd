"""TensorBoard files, by way of tensorboardX (the writer alone, without TensorBoard's server)."""

from __future__ import annotations

from pathlib import Path

from tensorboardX import SummaryWriter
from tensorboardX.proto.summary_pb2 import Summary

from esper.telemetry.events import Event, UpdateCompleted, to_record

_ON_THE_AXIS = ("update", "env_steps")


class TensorBoardSink:
    """Every number of an update, by its name in the record, over `env_steps`.

    A run that goes on after `env_steps` hides what is there of later ones.
    """

    def __init__(self, folder: Path, env_steps: int = 0) -> None:
        purge_step = env_steps + 1 if env_steps else None
        self._writer = SummaryWriter(str(folder), write_to_disk=True, purge_step=purge_step)

    def emit(self, event: Event) -> None:
        if not isinstance(event, UpdateCompleted):
            return
        # One summary for all numbers: one for each would cost a fast run a tenth of its time.
        values = [
            Summary.Value(tag=name, simple_value=value)
            for name, value in to_record(event).items()
            if isinstance(value, int | float) and name not in _ON_THE_AXIS
        ]
        self._writer.file_writer.add_summary(Summary(value=values), event.env_steps)

    def close(self) -> None:
        self._writer.close()
