"""The record of a run: one JSON object per line."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from esper.telemetry.events import SinkError

# What there is one of for every update. Only these are for orjson, which is quick, but has no whole numbers beyond 64
# bits, as a seed may be.
_OFTEN = ("update_completed", "debug_snapshot")
_OFTEN_IN_LINES = tuple(f'"{name}"'.encode() for name in _OFTEN)


def encode(record: Mapping[str, Any]) -> bytes:
    """`record` as JSON."""
    if record["event"] in _OFTEN:
        return orjson.dumps(record)
    return json.dumps(record, allow_nan=False).encode()


def decode(line: bytes) -> Any:
    """What `encode` made `line` of.

    Raises:
        ValueError: for what is no JSON.
    """
    try:
        return orjson.loads(line) if any(name in line for name in _OFTEN_IN_LINES) else json.loads(line)
    except RecursionError as error:
        raise ValueError(error) from None


def decode_event(line: bytes, number: int) -> dict[str, Any]:
    """The event in `line`, which is the `number`-th of a record.

    Raises:
        ValueError: naming the line, when it holds none.
    """
    try:
        event = decode(line)
    except ValueError as error:
        raise ValueError(f"line {number} is not JSON ({error})") from None
    if not isinstance(event, dict) or "event" not in event:
        raise ValueError(f"line {number} is no event")
    return event


class JsonlRecord:
    """Writes records to `path`, after its first `position` bytes.

    What comes behind them is dropped with the first `write`, so that a record that cannot be gone on with stays as it
    is. A line is one write: a run that is killed leaves whole lines, but for the last on a disk that is full.

    Raises:
        SinkError: when `path` cannot be written, or does not have a line that ends at `position`.
    """

    def __init__(self, path: Path, position: int = 0) -> None:
        self._path, self.position = path, position
        self._dropped = False  # what is behind `position`
        try:
            new = 0 if position else os.O_CREAT
            self._descriptor = os.open(path, os.O_RDWR | new | os.O_CLOEXEC, 0o666)
            self._check_line_ends(position)
        except OSError as error:
            raise SinkError(f"{path}: {error.strerror}") from None

    def _check_line_ends(self, position: int) -> None:
        size = os.fstat(self._descriptor).st_size
        if size < position or (position and os.pread(self._descriptor, 1, position - 1) != b"\n"):
            os.close(self._descriptor)
            raise SinkError(
                f"{self._path}: has {size:,} bytes, and no line that ends at byte {position:,}, where the checkpoint "
                "was made; it is not this checkpoint's record"
            )

    def read(self) -> Iterator[dict[str, Any]]:
        """The records before `position`, in order.

        Raises:
            SinkError: for a line that is no event.
        """
        with open(self._descriptor, "rb", closefd=False) as file:
            file.seek(0)
            left = self.position
            for number, line in enumerate(file, start=1):
                if left <= 0:
                    return
                left -= len(line)
                try:
                    yield decode_event(line, number)
                except ValueError as error:
                    raise SinkError(f"{self._path}: {error}") from None

    def _drop_the_rest(self) -> None:
        os.ftruncate(self._descriptor, self.position)
        os.lseek(self._descriptor, self.position, os.SEEK_SET)
        self._dropped = True

    def write(self, record: Mapping[str, Any]) -> None:
        """Add a line with `record` and the time.

        Raises:
            SinkError: when it cannot be written, whole.
        """
        line = encode({**record, "time": time.time()}) + b"\n"
        try:
            if not self._dropped:
                self._drop_the_rest()
            if os.fstat(self._descriptor).st_nlink == 0:
                raise SinkError(f"{self._path}: was removed while the run was writing it")
            written = os.write(self._descriptor, line)
        except OSError as error:
            raise SinkError(f"{self._path}: {error.strerror}") from None
        if written < len(line):
            raise SinkError(f"{self._path}: No space left on device")
        self.position += written

    def flush(self) -> None:
        """Wait until everything emitted is on the disk.

        Raises:
            OSError: when it cannot be.
        """
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)
