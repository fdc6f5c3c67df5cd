"""Runs that are followed while they train: of each record only what was added is read."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from esper.analysis.charts import numbers, rounded
from esper.analysis.record import Reading, settings_now
from esper.analysis.runs import Columns
from esper.analysis.thinning import begins_of, thinned
from esper.runs.layers import changed_and_default
from esper.storage import files
from esper.telemetry.jsonl import Place, ReplacedError, read_added
from esper.telemetry.metrics import GROUPS

# The curves of the page.
RETURN = "episode_return_mean"
_RATES = tuple(f"lr/{group}" for group in GROUPS)
_PHASES = tuple(f"lr_phase/{group}" for group in GROUPS)
_METRICS = ("value_loss", "approx_kl", "clip_fraction", "ratio_std", "entropy", "steps_per_second")
_COLUMNS = frozenset(("update", "env_steps", RETURN, *_RATES, *_PHASES, *_METRICS))
POINTS, _SPARKLINE_POINTS = 2000, 60
# A run without an event for so long is not called running: its process was killed, or it waits. Slow updates have more.
_SILENT_SECONDS, _SILENT_UPDATES = 60.0, 10


class FollowedRun:
    """The run in `folder`, found below `root`."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.name = files.printable(folder).replace("\n", "\\n").replace("\t", "\\t")
        self.folder, self._root = folder, root
        # Counts how often the record was begun anew.
        self._beginning = -1
        self._begin()

    def _begin(self) -> None:
        self._place, self._reading = Place(), Reading(_COLUMNS.__contains__)
        # Why it is not read on; and why it could not be opened just now, which may pass.
        self._broken: str | None = None
        self._refused: str | None = None
        self._is_behind = True
        self._beginning += 1
        self._row: dict[str, Any] | None = None

    def read(self, deadline: float = math.inf) -> None:
        """Read what was added to the record, until `deadline` on the monotonic clock."""
        refused = None
        try:
            self._read(deadline)
        except ReplacedError:
            self._begin()
            self.read(deadline)
        except ValueError as error:
            self._broken, self._row = str(error), None
        except OSError as error:
            refused = files.why(error)
        if refused != self._refused:
            self._refused, self._row = refused, None

    def _read(self, deadline: float) -> None:
        self._is_behind = False
        added = read_added(self.folder / "events.jsonl", self._place, root=self._root)
        for number, (events, place) in enumerate(added):
            if number and time.monotonic() > deadline:
                self._is_behind = True
                return
            if self._broken is not None:
                return
            if events:
                self._reading.see(events)
            self._place, self._row = place, None

    def row(self) -> dict[str, Any]:
        """The run's row in the table of all runs; None where a number is not known."""
        self._row = self._row or self._made_row()
        last = _time_of(self._reading.last)
        return {**self._row, "status": self._status(), "seconds_since": None if last is None else time.time() - last}

    def _made_row(self) -> dict[str, Any]:
        reading, wrong = self._reading, self._wrong()
        row: dict[str, Any] = {"name": self.name, "error": wrong}
        if not self._started:
            return row
        columns = reading.updates.columns()
        anomalies = sorted(reading.anomalies.found(), key=lambda anomaly: anomaly.last)
        total = self._total_updates()
        done = _last(columns, "update")
        return row | {
            "env": self._started["config"].get("env"),
            "seed": str(self._started.get("seed")),
            "update": done,
            "total_updates": total,
            "progress": rounded(min((done + 1) / total, 1.0) if done is not None and total > 0 else None),
            "env_steps": _last(columns, "env_steps"),
            "return": _last_known(columns, RETURN),
            "sparkline": numbers(thinned(columns[RETURN], points=_SPARKLINE_POINTS)) if RETURN in columns else [],
            "lr": _last(columns, _RATES[0]) if _RATES[0] in columns else _last(columns, _RATES[2]),
            "phase": _last(columns, _PHASES[0]) if _PHASES[0] in columns else _last(columns, _PHASES[2]),
            "anomaly": f"{anomalies[-1].kind}, update {anomalies[-1].last}" if anomalies else None,
        }

    def since(self, mark: str, points: int = POINTS) -> dict[str, Any]:
        """All of the run's page; of the curves what came after `mark`, the `mark` of an earlier answer or ''.

        `first` is the index of the first of these updates, and 0 where all curves begin anew. More than `points` are
        means over even stretches.
        """
        beginning, _, count = mark.partition(".")
        known = int(count) if beginning == str(self._beginning) and count.isdecimal() else 0
        reading, total = self._reading, self._reading.updates.count
        first = known if known <= total else 0
        columns = reading.updates.columns() if total and self._started else {}
        return {
            "row": self.row(),
            "mark": f"{self._beginning}.{total}",
            "first": first,
            "columns": {name: _thinned(values[first:], points) for name, values in columns.items()}
            if first < total
            else {},
            "evaluations": [
                (each.get("update"), each.get("env_steps"), each.get("eval_return_mean"))
                for each in reading.evaluations[-points:]
            ],
            "anomalies": [
                (each.kind, each.update, each.last, each.updates, each.says) for each in reading.anomalies.found()
            ],
            "settings": _settings(self._started.get("config", {}), reading.resumed),
        }

    @property
    def _started(self) -> Mapping[str, Any]:
        """The first event; {} where it is not that of a run."""
        first = self._reading.first or {}
        return first if first.get("event") == "run_started" and "config" in first else {}

    def _wrong(self) -> str | None:
        return self._broken or self._refused or (self._reading.wrong() if self._place.lines else None)

    def _status(self) -> str:
        if self._wrong() is not None:
            return "unreadable"
        if self._is_behind:
            return "reading"
        last = self._reading.last
        if not last:
            return "no events yet"
        if last["event"] == "run_finished":
            return str(last["status"])
        began, now = _time_of([self._started, *self._reading.resumed][-1]), _time_of(last)
        if began is None or now is None:
            return "running"
        usual = (now - began) / max(1, self._reading.updates.count)
        silent = time.time() - now > max(_SILENT_SECONDS, _SILENT_UPDATES * usual)
        return "silent" if silent else "running"

    def _total_updates(self) -> int:
        # A resume can make a run longer.
        total = [self._started, *self._reading.resumed][-1].get("total_updates")
        return total if isinstance(total, int) else 0


class FollowedRuns:
    """All runs below the folders `roots`; the folders are looked through anew when `look` is called."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = roots
        self._runs: dict[Path, FollowedRun] = {}
        self._next_search, self._next_run = 0.0, 0

    def look(self, seconds: float = math.inf) -> None:
        """Read what was added to all records, for about so many `seconds`: the next look goes on."""
        began = time.monotonic()
        if began >= self._next_search:
            found = {folder: root for root in self._roots for folder in files.find(root, "events.jsonl")}
            self._runs = {
                folder: self._runs.get(folder) or FollowedRun(folder, root) for folder, root in sorted(found.items())
            }
            # A search of many folders takes a twentieth of the time at most.
            took = time.monotonic() - began
            self._next_search = began + 20 * took
        runs = list(self._runs.values())
        for index in (number % len(runs) for number in range(self._next_run, self._next_run + len(runs))):
            runs[index].read(began + seconds)
            if time.monotonic() > began + seconds:
                self._next_run = index + 1
                return

    def rows(self) -> list[dict[str, Any]]:
        return [run.row() for run in self._runs.values()]

    def named(self, name: str) -> FollowedRun | None:
        """The run called `name`; no other folder can be named."""
        return next((run for run in self._runs.values() if run.name == name), None)


def _time_of(event: Mapping[str, Any]) -> float | None:
    # Of events that are not declared any type may be there.
    return event["time"] if isinstance(event.get("time"), float) else None


def _settings(config: Mapping[str, Any], resumed: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[str, str]]]:
    """The settings as text: those that are no defaults, and the rest."""
    changed, others = changed_and_default(settings_now(config, resumed))
    return {"changed": list(changed.items()), "default": list(others.items())}


def _thinned(values: Any, points: int) -> list[Any]:
    if values.dtype == object:
        return list(values[begins_of(len(values), points)])
    return numbers(thinned(values, points=points) if len(values) > points else values)


def _last(columns: Columns, name: str) -> Any:
    if name not in columns:
        return None
    value = columns[name][-1]
    return value if isinstance(value, str) else rounded(float(value))


def _last_known(columns: Columns, name: str) -> float | None:
    known = np.flatnonzero(np.isfinite(columns.get(name, np.array([]))))
    return rounded(float(columns[name][known[-1]])) if len(known) else None
