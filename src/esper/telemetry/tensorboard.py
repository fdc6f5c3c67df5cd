"""TensorBoard files, with the protobuf messages of tensorboardX."""

from __future__ import annotations

import dataclasses
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
from esper.telemetry.events import ON_THE_AXIS, EvaluationCompleted, Event, UpdateCompleted, VideoRecorded
from esper.telemetry.metrics import metrics_of
from esper.telemetry.records import to_record
from esper.telemetry.rounds import RoundCompleted

_SECONDS_BETWEEN_FLUSHES = 10.0
# TensorBoard keeps the images that it shows in memory.
_MAX_GIF_BYTES = 4 * 2**20


_SECTIONS = {metric.name: metric.section for metric in metrics_of(UpdateCompleted)}
_OF_EVALUATIONS = frozenset(field.name for field in dataclasses.fields(EvaluationCompleted))


class TensorBoardSink:
    """Writes every number of an update or an evaluation, over `env_steps`.

    Its tag is its name in the record, in a group: TensorBoard groups what is before a slash. A GIF of `record_every` is
    an image, which moves there; an MP4 has no place in these files.

    A run that resumes after `env_steps` hides existing points of later steps. Written without SummaryWriter: its queue
    and thread cost a fast run more than the writing, and it hides errors of a full disk.
    """

    def __init__(self, folder: Path, env_steps: int = 0) -> None:
        self._folder, self._env_steps = folder, env_steps
        self._file: BinaryIO | None = None
        self._flushed = time.monotonic()

    def emit(self, event: Event) -> None:
        # Opened late: only the record may keep a run from starting.
        file = self._file = self._file or self._open()
        if isinstance(event, VideoRecorded):
            self._add_video(file, event)
        if not isinstance(event, UpdateCompleted | RoundCompleted | EvaluationCompleted):
            return
        # One summary for all numbers: one for each would double the cost.
        file_event = FileEvent(wall_time=time.time(), step=event.env_steps)
        add = file_event.summary.value.add
        for name, value in to_record(event).items():
            if isinstance(value, int | float) and name not in ON_THE_AXIS:
                add(tag=_tag(name), simple_value=value)
        self._write(file, file_event)
        if time.monotonic() - self._flushed > _SECONDS_BETWEEN_FLUSHES:
            file.flush()
            self._flushed = time.monotonic()

    def _add_video(self, file: BinaryIO, event: VideoRecorded) -> None:
        path = self._folder.parent / event.video
        if path.suffix != ".gif" or files.size_of(path, root=self._folder.parent) > _MAX_GIF_BYTES:
            return
        gif = files.read(path, _MAX_GIF_BYTES, root=self._folder.parent)
        # The header of a GIF has these behind its six letters.
        width, height = struct.unpack("<HH", gif[6:10])
        image = {"width": width, "height": height, "colorspace": 3, "encoded_image_string": gif}
        file_event = FileEvent(wall_time=time.time(), step=event.env_steps)
        file_event.summary.value.add(tag="video", image=image)
        self._write(file, file_event)

    def flush(self) -> None:
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _open(self) -> BinaryIO:
        files.make_folder(self._folder)
        # Files are read in the order of their names; a run that resumes within the same second needs another name.
        place = f"{socket.gethostname()}.{self._env_steps}.{secrets.token_hex(4)}"
        # tensorboardX would open it by name and follow links.
        name = f"events.out.tfevents.{int(time.time())}.{place}"
        file = files.open_new(self._folder / name, root=self._folder.parent)
        self._write(file, FileEvent(wall_time=time.time(), file_version="brain.Event:2"))
        if self._env_steps:
            start = SessionLog(status=SessionLog.START)
            self._write(file, FileEvent(wall_time=time.time(), step=self._env_steps + 1, session_log=start))
        return file

    @staticmethod
    def _write(file: BinaryIO, event: FileEvent) -> None:
        """Add a record in TensorFlow's format: length and its checksum, data and its checksum."""
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        checksums = (struct.pack("<I", masked_crc32c(each)) for each in (length, data))
        file.write(length + next(checksums) + data + next(checksums))


def _tag(name: str) -> str:
    if "/" in name:
        # A number for each parameter group, callback or term.
        return name
    section = _SECTIONS.get(name) or ("eval" if name in _OF_EVALUATIONS else "train")
    return f"{section}/{name}"
