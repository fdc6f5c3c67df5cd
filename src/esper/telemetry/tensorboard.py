"""TensorBoard files, by way of tensorboardX (the writer alone, without TensorBoard's server)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event as FileEvent
from tensorboardX.proto.event_pb2 import SessionLog

from esper.telemetry.events import EvaluationCompleted, Event, UpdateCompleted, to_record

_ON_THE_AXIS = ("update", "env_steps")
_SECONDS_BETWEEN_FLUSHES = 10.0


class TensorBoardSink:
    """Every number of an update or an evaluation, by its name in the record, over `env_steps`.

    A run that goes on after `env_steps` hides what is there of later ones. Written by the caller: the queue and thread
    of a SummaryWriter would cost a fast run more than the writing does, and keep a full disk to themselves.
    """

    def __init__(self, folder: Path, env_steps: int = 0) -> None:
        self._folder, self._env_steps = folder, env_steps
        self._writer: Any = None
        self._flushed = time.monotonic()

    def emit(self, event: Event) -> None:
        # Not before: nothing but the record may keep a run from beginning.
        writer = self._writer = self._writer or self._open()
        if not isinstance(event, UpdateCompleted | EvaluationCompleted):
            return
        # One summary for all numbers: one for each would cost as much again.
        file_event = FileEvent(wall_time=time.time(), step=event.env_steps)
        add = file_event.summary.value.add
        for name, value in to_record(event).items():
            if isinstance(value, int | float) and name not in _ON_THE_AXIS:
                add(tag=name, simple_value=value)
        writer.write_event(file_event)
        if time.monotonic() - self._flushed > _SECONDS_BETWEEN_FLUSHES:
            writer.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _open(self) -> Any:
        self._folder.mkdir(parents=True, exist_ok=True)
        # File names have whole seconds; a run may go on sooner.
        writer = EventsWriter(str(self._folder / "events"), f".{self._env_steps}")
        if self._env_steps:
            start = SessionLog(status=SessionLog.START)
            writer.write_event(FileEvent(wall_time=time.time(), step=self._env_steps + 1, session_log=start))
        return writer
