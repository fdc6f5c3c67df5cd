"""Distributes events: to the record first, then to the other sinks, with the events derived from them."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from esper.system.errors import describe
from esper.telemetry.analytics import Analytics
from esper.telemetry.config import Level, TelemetryConfig
from esper.telemetry.events import (
    AnalyticsSnapshot,
    AnomalyDetected,
    DebugSnapshot,
    Event,
    LearningStalled,
    RunFinished,
    Sink,
    SinkFailed,
    UpdateCompleted,
    Writer,
)
from esper.telemetry.jsonl import JsonlRecord
from esper.telemetry.records import to_record

_log = logging.getLogger(__name__)

# The events that each level leaves out.
_LEFT_OUT: dict[Level, tuple[type, ...]] = {
    "off": (UpdateCompleted, AnalyticsSnapshot, AnomalyDetected, DebugSnapshot, LearningStalled),
    "minimal": (AnalyticsSnapshot, AnomalyDetected, DebugSnapshot, LearningStalled),
    "normal": (DebugSnapshot,),
    "debug": (),
}


class Telemetry:
    """Passes events to the record and to `writers`, filtered by the level of `config`, and all events to `watchers`.

    All else can be rebuilt from the record, so its errors are raised. A writer or watcher that raises anything but
    Ctrl-C is reported, also in the record, and switched off. `before` are the existing records; the caller closes the
    record. `limit(close)` calls the `close` of a sink, and raises when that takes too long.
    """

    def __init__(
        self,
        config: TelemetryConfig,
        record: JsonlRecord,
        *,
        writers: Iterable[Writer] = (),
        watchers: Iterable[Sink] = (),
        before: Iterable[Mapping[str, Any]] = (),
        limit: Callable[[Callable[[], None]], None] = lambda close: close(),
    ) -> None:
        self._record, self._left_out = record, _LEFT_OUT[config.telemetry]
        self._analytics = Analytics(config.snapshot_every) if config.telemetry in ("normal", "debug") else None
        if self._analytics is None:
            # Reading them checks them, too.
            deque(before, maxlen=0)
        else:
            self._analytics.recall(before)
        # Made after reading: writers write when they are made, and the existing record may be damaged.
        self._writers, self._watchers, self._limit = list(writers), list(watchers), limit

    def emit(self, event: Event) -> None:
        """Pass `event`, and the events derived from it, to all sinks.

        Raises:
            SinkError: when it cannot be recorded.
        """
        record = to_record(event)
        if isinstance(event, RunFinished):
            if self._analytics is not None and (stalled := self._analytics.conclude()) is not None:
                self._pass_on(stalled, to_record(stalled))
            # Its line is the last one, so sinks are closed, and their failures recorded, before it.
            self._tell([*self._writers, *self._watchers], event)
            self.close()
        self._pass_on(event, record)
        if self._analytics is not None:
            for derived in self._analytics.see(record):
                self._pass_on(derived, to_record(derived))

    def flush(self) -> None:
        """Have the writers write what they keep back."""
        for writer in list(self._writers):
            self._try(writer, writer.flush)

    def close(self) -> None:
        """Close all sinks."""
        for sinks in (self._writers, self._watchers):
            while sinks:
                sink: Sink = sinks.pop(0)
                self._try(sink, lambda sink=sink: self._limit(sink.close))  # type: ignore[misc]

    def _pass_on(self, event: Event, record: Mapping[str, Any]) -> None:
        listeners = list(self._watchers)
        if not isinstance(event, self._left_out):
            self._record.write(record)
            listeners += self._writers
        self._tell(listeners, event)

    def _tell(self, sinks: Iterable[Sink], event: Event) -> None:
        for sink in sinks:
            self._try(sink, lambda sink=sink: sink.emit(event))  # type: ignore[misc]

    def _try(self, sink: Sink, action: Callable[[], None]) -> None:
        try:
            action()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._switch_off(sink, error)

    def _switch_off(self, sink: Sink, error: BaseException) -> None:
        everyone: tuple[list[Any], ...] = (self._writers, self._watchers)
        for sinks in everyone:
            if sink in sinks:
                sinks.remove(sink)
                # It may hold files, or the terminal. A second failure is not reported.
                with contextlib.suppress(Exception, SystemExit):
                    self._limit(sink.close)
        failed = SinkFailed(sink=type(sink).__name__, cause=describe(error))
        _log.warning("%s failed and is switched off; training and the record continue: %s", failed.sink, failed.cause)
        self._pass_on(failed, to_record(failed))
