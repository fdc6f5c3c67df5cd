"""TensorBoard files, by way of tensorboardX (its messages alone, without TensorBoard's server)."""

from __future__ import annotations

import secrets
import socket
import struct
import time
from pathlib import Path
from typing import BinaryIO

from tensorboardX.proto.event_pb2 import Event as FileEvent
from tensorboardX.proto.event_pb2 import SessionLog
from tensorboardX.record_writer import masked_crc32c

from esper.storage import files
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
        self._file: BinaryIO | None = None
        self._flushed = time.monotonic()

    def emit(self, event: Event) -> None:
        # Not before: nothing but the record may keep a run from beginning.
        file = self._file = self._file or self._open()
        if not isinstance(event, UpdateCompleted | EvaluationCompleted):
            return
        # One summary for all numbers: one for each would cost as much again.
        file_event = FileEvent(wall_time=time.time(), step=event.env_steps)
        add = file_event.summary.value.add
        for name, value in to_record(event).items():
            if isinstance(value, int | float) and name not in _ON_THE_AXIS:
                add(tag=name, simple_value=value)
        self._write(file, file_event)
        if time.monotonic() - self._flushed > _SECONDS_BETWEEN_FLUSHES:
            file.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _open(self) -> BinaryIO:
        files.make_folder(self._folder)
        # In the order of their names files are read; one of a run that goes on within a second is not the same.
        place = f"{socket.gethostname()}.{self._env_steps}.{secrets.token_hex(4)}"
        # tensorboardX would open it by its name, through a link too.
        name = f"events.out.tfevents.{int(time.time())}.{place}"
        file = files.open_new(self._folder / name, root=self._folder.parent)
        self._write(file, FileEvent(wall_time=time.time(), file_version="brain.Event:2"))
        if self._env_steps:
            start = SessionLog(status=SessionLog.START)
            self._write(file, FileEvent(wall_time=time.time(), step=self._env_steps + 1, session_log=start))
        return file

    @staticmethod
    def _write(file: BinaryIO, event: FileEvent) -> None:
        """Add a record as TensorFlow frames it: length and its checksum, data and their checksum."""
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        checksums = (struct.pack("<I", masked_crc32c(each)) for each in (length, data))
        file.write(length + next(checksums) + data + next(checksums))
