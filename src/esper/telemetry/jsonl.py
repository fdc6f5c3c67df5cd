"""The record of a run: one JSON object per line."""

from __future__ import annotations

import io
import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from esper.storage import files
from esper.telemetry.declared import missing_field, wrong_field
from esper.telemetry.events import SinkError

# The events of many updates. Only these use orjson, which is fast, but has no integers beyond 64 bits, as seeds may be.
_OFTEN = ("update_completed", "analytics_snapshot", "debug_snapshot")
_OFTEN_IN_LINES = tuple(f'"{name}"'.encode() for name in _OFTEN)
# Those that are only numbers and text are parsed many at a time.
_FLAT = frozenset(_OFTEN[:2])
_FLAT_LINES = tuple(f'{{"event":"{name}"'.encode() for name in _OFTEN[:2])
# A line with ten thousand minibatches, with telemetry `debug`, is a quarter of it.
_MAX_LINE_BYTES = 2**25
# What is read at a time; more would not stay in the processor's cache.
_BATCH_BYTES = 2**18
# Of the last line that was read; it has the time, which differs in another record.
_SEEN_BYTES = 2**12


class CutError(ValueError):
    """A line is not JSON: what wrote it was killed, or the file was cut."""


class ReplacedError(ValueError):
    """A record no longer has the lines that were read before: its run was resumed from before them, or is another."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a reader of a record is: after `lines` lines, `position` bytes, of which `seen` are the last."""

    position: int = 0
    lines: int = 0
    seen: bytes = b""


def encode(record: Mapping[str, Any]) -> bytes:
    """`record` as JSON."""
    if record["event"] in _OFTEN:
        return orjson.dumps(record)
    return json.dumps(record, allow_nan=False).encode()


def decode(line: bytes) -> Any:
    """The inverse of `encode`.

    Raises:
        ValueError: when it is not JSON.
    """
    # orjson allows ten times the depth.
    flat = line.count(b"[") + line.count(b"{") < files.MAX_DEPTH
    often = flat and any(name in line for name in _OFTEN_IN_LINES)
    return orjson.loads(line) if often else files.parse_json(line)


def decode_event(line: bytes, number: int) -> dict[str, Any]:
    """The event in `line`, the `number`-th of a record.

    Raises:
        ValueError: naming the line, when it is not an event.
    """
    try:
        event = decode(line)
    except ValueError as error:
        raise CutError(f"line {number} is not JSON ({error})") from None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise ValueError(f"line {number} is not an event")
    if wrong := wrong_field(event):
        raise ValueError(f"line {number}: {wrong}")
    return event


def read_lines(file: BinaryIO, number: int = 0) -> Iterator[bytes]:
    """The lines of a record, after the first `number`.

    Raises:
        ValueError: for a line that is longer than any that Esper writes.
    """
    while line := file.readline(_MAX_LINE_BYTES + 1):
        number += 1
        _check_length(line, number)
        yield line


def _check_length(line: bytes, number: int) -> None:
    if len(line) > _MAX_LINE_BYTES:
        raise ValueError(f"line {number} is longer than {_MAX_LINE_BYTES:,} bytes")


def read_batches(path: Path) -> Iterator[list[dict[str, Any]]]:
    """The events in `path` in order, many at a time; the fields of updates and of their statistics are not checked.

    Raises:
        OSError, ValueError: as `read_record`; all events before the line have been given.
    """
    with files.open_to_read(path) as file:
        first = 1
        for lines in _batches(file, first):
            yield from _events_in(lines, first)
            first += len(lines)


def read_added(path: Path, place: Place, *, root: Path | None = None) -> Iterator[tuple[list[dict[str, Any]], Place]]:
    """The events in `path` after `place` as in `read_batches`, each time with the place after them.

    A last line without its end is left for the next time: it is being written.

    Raises:
        ReplacedError: when the lines before `place` are not there any more.
        OSError, ValueError: as `read_batches`.
    """
    with files.open_to_read(path, root=root) as file:
        file.seek(place.position - len(place.seen))
        if file.read(len(place.seen)) != place.seen:
            raise ReplacedError(f"{path}: has been replaced")
        for lines in _batches(file, place.lines + 1):
            whole = lines if lines[-1].endswith(b"\n") else lines[:-1]
            if not whole:
                return
            first = place.lines + 1
            place = Place(
                position=place.position + sum(map(len, whole)),
                lines=place.lines + len(whole),
                seen=whole[-1][-_SEEN_BYTES:],
            )
            for events in _events_in(whole, first):
                yield events, place


def _batches(file: BinaryIO, first: int) -> Iterator[list[bytes]]:
    """Lines that are parsed together; the next one in `file` has the number `first`."""
    rest = b""
    while read := file.read(_BATCH_BYTES):
        lines = io.BytesIO(rest + read).readlines()
        for number, line in enumerate(lines, start=first) if len(rest) + len(read) > _MAX_LINE_BYTES else ():
            _check_length(line, number)
        rest = b"" if lines[-1].endswith(b"\n") else lines.pop()
        if lines:
            yield lines
            first += len(lines)
    if rest:
        yield [rest]


def _events_in(lines: list[bytes], first: int) -> Iterator[list[dict[str, Any]]]:
    """The events in `lines`, of which the first one has the number `first`."""
    events: list[dict[str, Any]] = []
    for flat, group in itertools.groupby(lines, lambda line: line.startswith(_FLAT_LINES)):
        some = list(group)
        if flat and (parsed := _parse_flat(some)):
            events += parsed
            continue
        for line in some:
            try:
                events.append(decode_event(line, first + len(events)))
            except ValueError:
                yield events
                if line.endswith(b"\n"):
                    raise
                return
    yield events


def _parse_flat(lines: list[bytes]) -> list[dict[str, Any]]:
    """The events in `lines`, all at once; none if one of them may be nested, or is no such event."""
    text = b"[" + b",".join(lines) + b"]"
    # With one bracket a line none is nested.
    if text.count(b"{") != len(lines) or text.count(b"[") != 1:
        return []
    try:
        events: list[dict[str, Any]] = orjson.loads(text)
    except ValueError:
        return []
    return events if len(events) == len(lines) and _FLAT.issuperset(event.get("event") for event in events) else []


def read_record(path: Path) -> Iterator[dict[str, Any]]:
    """The events in `path`, in order; an incomplete last line, as of a killed run, is left out.

    Raises:
        OSError: when there is no such file, or it cannot be read.
        ValueError: for any other line that is not an event.
    """
    with files.open_to_read(path) as file:
        for number, line in enumerate(read_lines(file), start=1):
            try:
                event = decode_event(line, number)
            except ValueError:
                if line.endswith(b"\n"):
                    raise
                return
            yield event


def why_no_event(path: Path) -> str:
    """What is wrong with `path`, a record without an event."""
    return f"{path.name} is cut within its first line" if files.size_of(path) else f"{path.name} is empty"


class JsonlRecord:
    """Writes records to `path`, after its first `position` bytes.

    The first `write` drops what follows them, so that a record that cannot be resumed stays unchanged. A line is one
    write: a killed run leaves complete lines, except for the last one on a full disk.

    Raises:
        SinkError: when `path` cannot be written, or does not have a line that ends at `position`.
    """

    def __init__(self, path: Path, position: int = 0) -> None:
        self._path, self.position = path, position
        self._dropped = False  # whether the bytes after `position` are dropped
        try:
            self._descriptor = files.open_in_place(path, create=not position)
            self._check_line_ends(position)
        except OSError as error:
            raise SinkError(files.why(error)) from None

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
            SinkError: for a line that is not an event.
        """
        with open(self._descriptor, "rb", closefd=False) as file:
            file.seek(0)
            left = self.position
            try:
                for number, line in enumerate(read_lines(file), start=1):
                    if left <= 0:
                        return
                    left -= len(line)
                    event = decode_event(line, number)
                    if name := missing_field(event):
                        raise ValueError(f"line {number}: its {event['event']} has no {name}")
                    yield event
            except ValueError as error:
                raise SinkError(f"{self._path}: {error}") from None

    def _drop_the_rest(self) -> None:
        os.ftruncate(self._descriptor, self.position)
        os.lseek(self._descriptor, self.position, os.SEEK_SET)
        self._dropped = True

    def write(self, record: Mapping[str, Any]) -> None:
        """Add a line with `record` and the time.

        Raises:
            SinkError: when it cannot be written completely.
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
            # A line that still fits, as that of the failure, must not follow half of one.
            self._drop_the_rest()
            raise SinkError(f"{self._path}: No space left on device")
        self.position += written

    def flush(self) -> None:
        """Wait until everything emitted is on the disk.

        Raises:
            OSError: when that fails.
        """
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)
