"""Why learning stands still, from what a run measured: the first cause in `esper.telemetry.causes` that holds."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esper.telemetry.causes import CAUSES, Measured
from esper.telemetry.events import LearningStalled

# The beginning of a run: its first episodes, as a fast learner is done after a hundredth of its updates.
_FIRST_EPISODES = 30
# Fewer updates show nothing.
_FEWEST_UPDATES = 20
# Returns that are less than so many of the beginning's deviations above another mean are not above it.
_NOTICEABLE = 0.5
# A run that lost more than this share of what it had gained has fallen back.
_LOST = 0.5

_RETURNS = ("episodes", "episode_return_mean", "episode_return_std")


class Diagnosis:
    """Reads the records of a run in order."""

    def __init__(self) -> None:
        self._settings: dict[str, Any] = {}
        read = dict.fromkeys((*_RETURNS, *(name for cause in CAUSES for name in cause.reads)))
        self._columns = {name: array("d") for name in read}
        self._begins_later = False
        self._last_update = self._env_steps = 0

    def see(self, record: Mapping[str, Any]) -> None:
        """Take what `record` measured, or the settings in it."""
        match record["event"]:
            case "run_started":
                self._settings = dict(record["config"])
            case "run_resumed":
                # Of a run in another folder: the policy may be good already.
                self._begins_later |= record["update"] > 0 and not self._columns["episodes"]
                self._settings |= {name: change[-1] for name, change in record["changed"].items()}
            case "update_completed":
                self._last_update, self._env_steps = record["update"], record["env_steps"]
                for name, column in self._columns.items():
                    column.append(record.get(name, np.nan))

    def see_updates(self, columns: Mapping[str, NDArray[np.float64]]) -> None:
        """Take several completed updates in a row, as `columns`; a number that none of them has may be missing."""
        self._last_update, self._env_steps = int(columns["update"][-1]), int(columns["env_steps"][-1])
        missing = np.full(len(columns["update"]), np.nan)
        for name, column in self._columns.items():
            column.frombytes(columns.get(name, missing).tobytes())

    def result(self) -> LearningStalled | None:
        """Why returns stand still; None if they do not, or the cause is not known."""
        # numpy makes no view of an empty buffer.
        columns = {name: np.frombuffer(column) if column else np.empty(0) for name, column in self._columns.items()}
        if self._begins_later or (level := stalled_at(*(columns[name] for name in _RETURNS))) is None:
            return None
        measured = Measured(columns, self._settings)
        for cause in CAUSES:
            tries = [each.words for each in cause.tries if each.applies(self._settings)]
            if bool(tries) == bool(cause.tries) and (says := cause.judge(measured)) is not None:
                first, last = level
                what = f"returns stand still ({first:.4g} at the start, {last:.4g} at the end): {says}"
                return LearningStalled(
                    update=self._last_update,
                    env_steps=self._env_steps,
                    cause=cause.name,
                    says=f"{what}; try {' or '.join(tries)}" if tries else what,
                    tries=tries,
                )
        return None


def diagnose(events: Iterable[Mapping[str, Any]]) -> LearningStalled | None:
    """The diagnosis of the run with these records."""
    diagnosis = Diagnosis()
    for event in events:
        diagnosis.see(event)
    return diagnosis.result()


def stalled_at(
    episodes: NDArray[np.float64], means: NDArray[np.float64], stds: NDArray[np.float64]
) -> tuple[float, float] | None:
    """The mean returns of the first episodes and of the last quarter of updates, if returns stand still at the end.

    They do if the last quarter is not noticeably above the first episodes, or has lost most of what the best quarter
    had gained, and is not noticeably above the quarter before. The arguments are of each update.
    """
    known = (episodes > 0) & np.isfinite(means) & np.isfinite(stds)
    counts = np.where(known, episodes, 0)
    first = np.flatnonzero(known & (np.cumsum(counts) - counts < _FIRST_EPISODES))
    quarters = [part[known[part]] for part in np.array_split(np.arange(len(episodes)), 4)]
    if len(episodes) < _FEWEST_UPDATES or not all(map(len, quarters)) or quarters[-1][0] <= first[-1]:
        return None
    beginning = _mean(means[first], episodes[first])
    variance = _mean(stds[first] ** 2 + (means[first] - beginning) ** 2, episodes[first])
    noticeable = _NOTICEABLE * variance**0.5
    levels = [_mean(means[part], episodes[part]) for part in quarters]
    gain, best = levels[-1] - beginning, max(levels) - beginning
    if gain > max(noticeable, _LOST * best) or levels[-1] - levels[-2] > noticeable:
        return None
    return beginning, levels[-1]


def _mean(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    return float(np.average(values, weights=weights))
