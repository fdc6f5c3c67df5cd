"""The record of a run for its report: read once, in batches, whatever its length."""

from __future__ import annotations

import itertools
import operator
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from esper.analysis.anomalies import Anomalies, AnomalySummary
from esper.analysis.runs import ROWS, Columns, ratio_quantiles
from esper.analysis.streaming import ColumnsOfUpdates, common_fields
from esper.storage import files
from esper.telemetry.declared import missing_field, unreadable_schema, wrong_field
from esper.telemetry.diagnosis import Diagnosis
from esper.telemetry.events import LearningStalled
from esper.telemetry.jsonl import CutError, read_batches, why_no_event

# A report computes these itself.
_NOT_READ = frozenset(("analytics_snapshot", "anomaly_detected"))


class ReportError(ValueError):
    """A run cannot be reported; the message says which, and why."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """The content of `events.jsonl`, by kind; `cut` says from which line on it cannot be read, if it cannot."""

    started: Mapping[str, Any]
    finished: Mapping[str, Any] | None
    resumed: Sequence[Mapping[str, Any]]
    updates: Columns
    anomalies: Sequence[AnomalySummary]
    stalled: LearningStalled | None
    evaluations: Sequence[Mapping[str, Any]]
    episodes: Sequence[Mapping[str, Any]]
    cut: str | None

    def settings(self) -> dict[str, Any]:
        """The settings now: those at the beginning, with what changed at resumes."""
        return settings_now(self.started["config"], self.resumed)


def settings_now(config: Mapping[str, Any], resumed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`config` with what the events `resumed` changed."""
    changes = [(name, values[1]) for event in resumed for name, values in event["changed"].items() if len(values) == 2]
    return {**config, **dict(changes)}


def read_record(run_dir: Path, wanted: Callable[[str], bool] = lambda name: True) -> Record:
    """The record of a run, which may still be running, with the columns `wanted` of its updates.

    Raises:
        ReportError: when it cannot be read, or has no completed update.
    """
    reading, cut = Reading(wanted), None
    try:
        for events in read_batches(run_dir / "events.jsonl"):
            reading.see(events)
    except (OSError, ValueError) as error:
        if not isinstance(error, CutError) or not reading.updates.count:
            raise ReportError(f"{run_dir / 'events.jsonl'}: cannot be read: {files.why(error)}") from None
        cut = str(error)
    if reading.first is None:
        raise ReportError(f"{run_dir}: {why_no_event(run_dir / 'events.jsonl')}")
    if wrong := reading.wrong():
        raise ReportError(f"{run_dir}: {wrong}")
    if not reading.updates.count:
        raise ReportError(f"{run_dir}: has no completed update yet")
    return reading.result(cut)


class Reading:
    """What was read so far: its state grows by a few numbers for each update."""

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        self.updates = ColumnsOfUpdates(wanted)
        self.first: Mapping[str, Any] | None = None
        self.last: Mapping[str, Any] = {}
        self.resumed: list[Mapping[str, Any]] = []
        self.evaluations: list[Mapping[str, Any]] = []
        self.anomalies = Anomalies()
        self._unreadable: str | None = None
        self._incomplete: str | None = None
        self._episodes: list[Mapping[str, Any]] = []
        self._diagnosis = Diagnosis()
        self._quantiles: dict[str, array[float]] = {}
        self._quantiles_of = array("q")
        self._lines = 0

    def see(self, events: Sequence[dict[str, Any]]) -> None:
        """Take the next `events`.

        Raises:
            ValueError: for a field of another type than declared.
        """
        read = (event for event in events if event["event"] not in _NOT_READ)
        try:
            for kind, group in itertools.groupby(read, operator.itemgetter("event")):
                if kind in ROWS:
                    self._see_rows(list(group), learning=kind == "update_completed")
                else:
                    for event in group:
                        self._see(event)
        except ValueError:
            for line, event in enumerate(events, start=self._lines + 1):
                if event["event"] in ROWS and (wrong := wrong_field(event)):
                    raise ValueError(f"line {line}: {wrong}") from None
            raise
        if events:
            self._lines += len(events)
            self.last = events[-1]
            self.first = self.first or events[0]

    def wrong(self) -> str | None:
        """Why what was read so far is no record of a run; None if it is one."""
        if self.first is None or self.first["event"] != "run_started":
            return "events.jsonl does not begin with run_started"
        if self._unreadable is None and not isinstance(self.first.get("config", {}).get("env"), str):
            return "its run_started names no environment"
        return self._unreadable or self._incomplete

    def _see_rows(self, events: Sequence[dict[str, Any]], *, learning: bool) -> None:
        fields = common_fields(events)
        self._note_missing(events if fields is None else events[:1])
        columns = self.updates.add(events, fields)
        if self._incomplete is None and learning:
            self._diagnosis.see_updates(columns)
            self.anomalies.see_updates(events, columns)

    def _see(self, event: dict[str, Any]) -> None:
        self._unreadable = self._unreadable or unreadable_schema(event)
        self._note_missing([event])
        if self._unreadable or self._incomplete:
            return
        self._diagnosis.see(event)
        self.anomalies.see([event])
        if event["event"] == "run_resumed":
            self.resumed.append(event)
        elif event["event"] == "evaluation_completed":
            self.evaluations.append(event)
        elif event["event"] == "growth_episode":
            self._episodes.append(event)
        elif event["event"] == "debug_snapshot":
            self._quantiles_of.append(event["update"])
            for name, values in ratio_quantiles([event], np.array([event["update"]])).items():
                column = self._quantiles.setdefault(name, array("d", [np.nan]) * (len(self._quantiles_of) - 1))
                column.append(values[0])

    def _note_missing(self, events: Iterable[Mapping[str, Any]]) -> None:
        for event in events if self._incomplete is None else ():
            if name := missing_field(event):
                self._incomplete = f"one of its {event['event']} has no {name}"
                return

    def result(self, cut: str | None) -> Record:
        assert self.first is not None
        updates = self.updates.columns()
        return Record(
            started=self.first,
            finished=self.last if self.last["event"] == "run_finished" and cut is None else None,
            resumed=self.resumed,
            updates={**updates, **self._quantiles_at(updates["update"])},
            anomalies=self.anomalies.found(),
            stalled=self._diagnosis.result(),
            evaluations=self.evaluations,
            episodes=self._episodes,
            cut=cut,
        )

    def _quantiles_at(self, updates: Any) -> Columns:
        """The quantiles of completed updates; skipped ones have some, too."""
        place = {update: index for index, update in enumerate(self._quantiles_of)}
        index = np.array([place.get(int(update), -1) for update in updates] if place else [], dtype=int)
        return {
            name: np.where(index < 0, np.nan, np.frombuffer(column)[index]) for name, column in self._quantiles.items()
        }
