"""What went wrong in a run, by kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from esper.telemetry.anomalies import AnomalyDetector


@dataclass(kw_only=True)
class Trouble:
    """A kind of anomaly: the update it was first seen at, and in how many altogether."""

    kind: str
    update: int
    updates: int
    says: str


def find_troubles(events: Iterable[Mapping[str, Any]]) -> list[Trouble]:
    """Of the records of a run, in their order; by when each began."""
    detector, found = AnomalyDetector(), dict[str, Trouble]()
    for event in events:
        for anomaly in detector.see(event):
            first = Trouble(kind=anomaly.kind, update=event["update"], updates=0, says=anomaly.says)
            found.setdefault(anomaly.kind, first).updates += 1
    return list(found.values())
