"""Curves of an arm: means over its seeds with their bands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from esper.analysis.arms import Arm
from esper.analysis.statistics import mean_band
from esper.analysis.thinning import thinned

_MARGIN = 0.05


class Curve(NamedTuple):
    """All [P]; `low` and `high` are NaN if there are too few seeds for an interval."""

    x: NDArray[Any]
    mean: NDArray[Any]
    low: NDArray[Any]
    high: NDArray[Any]


def curve_of(arm: Arm, name: str, over: Literal["update", "env_steps"], *, log: bool = False) -> Curve:
    """The mean over the seeds that have column `name`, thinned in each run; with `log`, the geometric mean."""
    runs = [run.updates for run in arm.runs.values()]
    x = np.unique(np.concatenate([updates[over] for updates in runs]))
    # Runs that skipped an update have no value at some x.
    values = np.full((len(runs), len(x)), np.nan)
    for row, updates in zip(values, runs, strict=True):
        if name in updates:
            row[np.searchsorted(x, updates[over])] = updates[name]
    if not log:
        return Curve(thinned(x), *mean_band(thinned(values)))
    logarithms = np.log(values, out=np.full(values.shape, np.nan), where=values > 0)
    return Curve(thinned(x), *map(np.exp, mean_band(thinned(logarithms))))


def limits_of(arms: Sequence[Arm], name: str, *, log: bool = False) -> tuple[float, float] | None:
    """The span of what the runs had: bands of few seeds are far wider, and would hide the curves."""
    columns = [run.updates[name] for arm in arms for run in arm.runs.values() if name in run.updates]
    values = np.concatenate([thinned(column) for column in columns]) if columns else np.empty(0)
    values = values[np.isfinite(values) & ((values > 0) | (not log))]
    if not len(values) or values.min() == values.max():
        return None
    low, high = np.log((values.min(), values.max())) if log else (values.min(), values.max())
    ends = np.array((low, high)) + np.array((-1, 1)) * _MARGIN * (high - low)
    low, high = np.exp(ends) if log else ends
    return float(low), float(high)
