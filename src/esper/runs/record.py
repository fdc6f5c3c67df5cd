"""A run's record, and the other sinks of its events."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from esper.runs.folder import RunFolder
from esper.runs.resume.point import ResumeError
from esper.system.stopping import StopRequest
from esper.telemetry.config import TelemetryConfig
from esper.telemetry.events import Event, Sink, SinkError
from esper.telemetry.jsonl import JsonlRecord
from esper.telemetry.stream import Telemetry
from esper.telemetry.writers import make_writers

# Long enough for Weights & Biases to upload its data; a second signal ends the process.
SECONDS_TO_CLOSE_A_SINK = 60.0

_Records: TypeAlias = Iterable[Mapping[str, Any]]


class Record:
    """`events.jsonl`, and every sink of the run, until `open_record` ends."""

    def __init__(self, jsonl: JsonlRecord, telemetry: Telemetry) -> None:
        self._jsonl = jsonl
        self.emit: Callable[[Event], None] = telemetry.emit
        self.flush: Callable[[], None] = jsonl.flush
        self.flush_writers: Callable[[], None] = telemetry.flush

    @property
    def position(self) -> int:
        """Bytes written so far."""
        return self._jsonl.position


@contextlib.contextmanager
def open_record(
    config: TelemetryConfig,
    folder: RunFolder,
    *,
    position: int,
    env_steps: int,
    recall: Callable[[_Records], _Records],
    sinks: Sequence[Sink],
    stop: StopRequest,
) -> Iterator[Record]:
    """The record in `folder`, continued after its first `position` bytes and `env_steps`; `recall` reads these bytes.

    Raises:
        ResumeError: when these bytes are not a record.
    """
    with contextlib.ExitStack() as stack:
        try:
            jsonl = JsonlRecord(folder.events, position)
            stack.callback(jsonl.close)
            telemetry = Telemetry(
                config,
                jsonl,
                writers=make_writers(config, folder.path, env_steps),
                watchers=sinks,
                before=recall(jsonl.read()),
                limit=partial(stop.limited, SECONDS_TO_CLOSE_A_SINK),
            )
        except SinkError as error:
            raise ResumeError(f"{error}; resume in another folder with --run-dir") from None
        stack.callback(telemetry.close)
        yield Record(jsonl, telemetry)
