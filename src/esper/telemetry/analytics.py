"""What a run's updates say together: rolling statistics, anomalies when they begin, and a diagnosis at the end."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esper.telemetry.anomalies import AnomalyDetector
from esper.telemetry.diagnosis import Diagnosis
from esper.telemetry.events import AnalyticsSnapshot, AnomalyDetected, LearningStalled, UpdateCompleted
from esper.telemetry.metrics import by_group, in_snapshots

# Updates that a snapshot's statistics are over.
WINDOW = 100
# An anomaly that comes back within so many updates is still the same one.
_SAME = 10

_METRICS = in_snapshots(UpdateCompleted)


class Analytics:
    """Turns records into further events. All it knows is from records: to go on, let it recall those of before."""

    def __init__(self, snapshot_every: int) -> None:
        self._snapshot_every = snapshot_every
        self._detector, self._diagnosis = AnomalyDetector(), Diagnosis()
        self._last_seen: dict[str, int] = {}
        self._last: Mapping[str, Any] = {}
        # A row per update, the oldest overwritten; NaN where a number was not computed.
        self._rows = np.full((WINDOW, len(_METRICS)), np.nan)
        self._seen = 0

    def see(self, record: Mapping[str, Any]) -> Iterator[AnomalyDetected | AnalyticsSnapshot]:
        """The events that follow from `record`."""
        self._diagnosis.see(record)
        for anomaly in self._detector.see(record):
            kind, update = anomaly.kind, record["update"]
            last = self._last_seen.get(kind)
            self._last_seen[kind] = update
            if last is None or update - last > _SAME:
                yield AnomalyDetected(
                    update=update, env_steps=record["env_steps"], kind=kind, value=anomaly.value, says=anomaly.says
                )
        if record["event"] == "update_completed":
            self._add_row(record)
            if (record["update"] + 1) % self._snapshot_every == 0:
                yield self._snapshot()

    def recall(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Take what was recorded before, whose events are in the record, too."""
        last = deque[Mapping[str, Any]](maxlen=WINDOW)
        for record in records:
            self._diagnosis.see(record)
            for anomaly in self._detector.see(record):
                self._last_seen[anomaly.kind] = record["update"]
            if record["event"] == "update_completed":
                last.append(record)
        for record in last:
            self._add_row(record)

    def conclude(self) -> LearningStalled | None:
        """The diagnosis of all that was seen, if learning stands still."""
        return self._diagnosis.result()

    def _add_row(self, record: Mapping[str, Any]) -> None:
        self._rows[self._seen % WINDOW] = [record.get(name, np.nan) for name in _METRICS]
        self._seen += 1
        self._last = record

    def _snapshot(self) -> AnalyticsSnapshot:
        window = min(self._seen, WINDOW)
        # In the order of the updates.
        rows = np.roll(self._rows, -(self._seen % WINDOW), axis=0)[WINDOW - window :]
        known = np.flatnonzero(np.isfinite(rows).any(axis=0))
        names, columns = [_METRICS[index] for index in known], rows[:, known]
        # Those that look for NaN take several times as long.
        some_missing = np.isnan(columns).any()
        mean, std = (np.nanmean, np.nanstd) if some_missing else (np.mean, np.std)
        low, high = (np.nanmin, np.nanmax) if some_missing else (np.min, np.max)

        def by_name(values: NDArray[Any]) -> dict[str, float]:
            return dict(zip(names, values.tolist(), strict=True))

        return AnalyticsSnapshot(
            update=self._last["update"],
            env_steps=self._last["env_steps"],
            lr=by_group(self._last, "lr"),
            lr_factor=by_group(self._last, "lr_factor") or None,
            lr_phase=by_group(self._last, "lr_phase"),
            schedule_update=self._last["schedule_update"],
            schedule_total_updates=self._last["schedule_total_updates"],
            window=window,
            mean=by_name(mean(columns, axis=0)),
            std=by_name(std(columns, axis=0)),
            min=by_name(low(columns, axis=0)),
            max=by_name(high(columns, axis=0)),
            value_loss_roughness=_roughness(rows[:, _METRICS.index("value_loss")]),
        )


def _roughness(losses: NDArray[Any]) -> float | None:
    logarithms = np.log(losses[losses > 0])
    return float(np.diff(logarithms).std(ddof=1)) if len(logarithms) > 2 else None
