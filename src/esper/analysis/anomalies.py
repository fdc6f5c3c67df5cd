"""The anomalies of a run, by kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from esper.telemetry.anomalies import AnomalyDetector


@dataclass(kw_only=True)
class AnomalySummary:
    """A kind of anomaly: the first update that had it, and the number of updates that had it."""

    kind: str
    update: int
    updates: int
    says: str


def summarize_anomalies(events: Iterable[Mapping[str, Any]]) -> list[AnomalySummary]:
    """The anomalies in the records of a run, ordered by first update."""
    detector, found = AnomalyDetector(), dict[str, AnomalySummary]()
    for event in events:
        for anomaly in detector.see(event):
            first = AnomalySummary(kind=anomaly.kind, update=event["update"], updates=0, says=anomaly.says)
            found.setdefault(anomaly.kind, first).updates += 1
    return list(found.values())
