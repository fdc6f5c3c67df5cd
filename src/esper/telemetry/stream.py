"""The way of an event: into the record first, then to whoever else listens, with what follows from it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from esper.telemetry.analytics import Analytics
from esper.telemetry.config import Level, TelemetryConfig
from esper.telemetry.events import (
    AnalyticsSnapshot,
    AnomalyDetected,
    DebugSnapshot,
    Event,
    Sink,
    SinkFailed,
    UpdateCompleted,
    to_record,
)
from esper.telemetry.jsonl import JsonlRecord

_log = logging.getLogger(__name__)

# What each level leaves out.
_LEFT_OUT: dict[Level, tuple[type, ...]] = {
    "off": (UpdateCompleted, AnalyticsSnapshot, AnomalyDetected, DebugSnapshot),
    "minimal": (AnalyticsSnapshot, AnomalyDetected, DebugSnapshot),
    "normal": (DebugSnapshot,),
    "debug": (),
}


class Telemetry:
    """Gives events to the record, to `writers` as far as the level of `config` goes, and to `watchers` all of them.

    The record is what everything else can be made of again, so an error of its own is the caller's. A writer or
    watcher that raises is reported, in the record too, and switched off. `before` are the records that are there; the
    record is the caller's to close.
    """

    def __init__(
        self,
        config: TelemetryConfig,
        record: JsonlRecord,
        *,
        writers: Iterable[Sink] = (),
        watchers: Iterable[Sink] = (),
        before: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        self._record, self._left_out = record, _LEFT_OUT[config.telemetry]
        self._analytics = Analytics(config.snapshot_every) if config.telemetry in ("normal", "debug") else None
        for each in before:
            if self._analytics is not None:
                # What follows from them was written then.
                list(self._analytics.see(each))
        # Only now: they begin to write when they are made, and what was before may be damaged.
        self._writers, self._watchers = list(writers), list(watchers)

    def emit(self, event: Event) -> None:
        """Let everyone know of `event`, and of what follows from it.

        Raises:
            SinkError: when it cannot be recorded.
        """
        record = to_record(event)
        self._pass_on(event, record)
        if self._analytics is not None:
            for derived in self._analytics.see(record):
                self._pass_on(derived, to_record(derived))

    def close(self) -> None:
        """End the writing; what was emitted stays."""
        for sink in [*self._writers, *self._watchers]:
            self._try(sink, sink.close)

    def _pass_on(self, event: Event, record: Mapping[str, Any]) -> None:
        listeners = list(self._watchers)
        if not isinstance(event, self._left_out):
            self._record.write(record)
            listeners += self._writers
        for sink in listeners:
            self._try(sink, lambda sink=sink: sink.emit(event))  # type: ignore[misc]

    def _try(self, sink: Sink, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            for sinks in (self._writers, self._watchers):
                if sink in sinks:
                    sinks.remove(sink)
            failed = SinkFailed(sink=type(sink).__name__, cause=f"{type(error).__name__}: {error}")
            _log.warning("%s failed and is switched off; training and the record go on: %s", failed.sink, failed.cause)
            self._pass_on(failed, to_record(failed))
