"""The anomalies of a run, by kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esper.telemetry.anomalies import AnomalyDetector


@dataclass(kw_only=True)
class AnomalySummary:
    """A kind of anomaly: the first and the last update that had it, and the number of those that had it."""

    kind: str
    update: int
    last: int
    updates: int
    says: str


class Anomalies:
    """Reads the records of a run in order."""

    def __init__(self) -> None:
        self._detector, self._found = AnomalyDetector(), dict[str, AnomalySummary]()

    def see(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Take the next `events`."""
        for event in events:
            for anomaly in self._detector.see(event):
                update = event["update"]
                first = AnomalySummary(kind=anomaly.kind, update=update, last=update, updates=0, says=anomaly.says)
                found = self._found.setdefault(anomaly.kind, first)
                found.last, found.updates = update, found.updates + 1

    def see_updates(self, updates: Sequence[Mapping[str, Any]], columns: Mapping[str, NDArray[np.float64]]) -> None:
        """Take `updates` in a row, whose numbers are in `columns`, too."""
        if not self._detector.skim(columns):
            self.see(updates)

    def found(self) -> list[AnomalySummary]:
        """The anomalies so far, ordered by first update."""
        return list(self._found.values())


def summarize_anomalies(events: Iterable[Mapping[str, Any]]) -> list[AnomalySummary]:
    """The anomalies in the records of a run, ordered by first update."""
    anomalies = Anomalies()
    anomalies.see(events)
    return anomalies.found()
