"""What pictures of a run show, however they are drawn."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esper.analysis.measures import AFTER
from esper.analysis.runs import OWN, Columns

COLOURS = {"policy": "#1f77b4", "value": "#ff7f0e", "shared": "#2ca02c"}
GREY = "#7f7f7f"
PHASE_COLOURS = {"delay": "#bfbfbf", "warmup": "#d62728", "stable": "#2ca02c", "floor": GREY}
# Restarts by the thousand would be a colour.
MOST_SHADES = 200
# With fewer points they are marked: a line of one would be invisible.
FEW = 20

# File name, heading, and what is drawn side by side.
_REPORT = {
    "learning": ("Learning", ("return", "success_rate", "lr", "steps_per_second")),
    "value": ("Value function", ("value_loss", "explained_variance", "grad_norm")),
    "policy": ("Policy", ("policy_loss", "entropy", "approx_kl", "coefficients")),
    "ratio": ("Ratio and clipping", ("ratio", "clip_fraction", "ratio_std")),
    "after": ("After the update", AFTER),
}
# Side by side, and below each other in a picture: one of more rows is too high for matplotlib.
ACROSS = 4
_PANELS = 12 * ACROSS
# With a ratio beyond this limit, the band around 1 would be invisible.
_FAR_RATIO = 3.0
# A curve of steps has so many points, more than a picture has pixels.
_STEPS = 4000
_COEFFICIENTS = ("clip_coef", "entropy_coef", "value_coef", "value_clip_coef", "target_kl")

_READ = {
    *("update", "env_steps", "episodes", "loss", *_COEFFICIENTS),
    *(f"episode_return_{name}" for name in ("mean", "std", "min", "max")),
    *(f"ratio_{name}" for name in ("mean", "std", "min", "max")),
    *(panel for _, panels in _REPORT.values() for panel in panels),
}
_READ_BY_GROUP = ("lr/", "lr_factor/", "lr_phase/", "grad_norm/", *OWN)


def is_drawn(name: str) -> bool:
    """Whether a picture of a run shows the column `name`."""
    return name in _READ or name.startswith(_READ_BY_GROUP)


def panels_of(updates: Columns) -> dict[str, tuple[str, Sequence[str]]]:
    """The pictures of a report: name of the file, heading, and the panels for which there is anything to draw."""
    found = {
        name: (heading, [panel for panel in panels if _is_known(panel, updates)])
        for name, (heading, panels) in (_REPORT | own_metrics(updates)).items()
    }
    return {name: (heading, panels) for name, (heading, panels) in found.items() if panels}


def own_metrics(updates: Columns) -> dict[str, tuple[str, Sequence[str]]]:
    """The pictures of what was added from Python, a panel for each metric of a callback and each term of the loss."""
    names = [name for name in updates if name.startswith(OWN)]
    parts = [names[begin : begin + _PANELS] for begin in range(0, len(names), _PANELS)]
    return {
        f"own-{number}": (f"Your metrics{f' ({number} of {len(parts)})' * (len(parts) > 1)}", part)
        for number, part in enumerate(parts, start=1)
    }


def _is_known(panel: str, updates: Columns) -> bool:
    """Whether there is anything to draw: most environments report no success, and few runs schedule coefficients."""
    if "loss" not in updates and not panel.startswith(OWN):
        # Of a controller that does not learn.
        return panel in ("return", "steps_per_second")
    if panel == "coefficients":
        return bool(scheduled(updates))
    return panel not in ("success_rate", *AFTER) or panel in updates


def scheduled(updates: Columns) -> Columns:
    """The coefficients that change, relative to their highest value."""
    found = {name: updates[name] for name in _COEFFICIENTS if name in updates and np.ptp(updates[name]) > 0}
    return {name: column / column.max() for name, column in found.items()}


def bands_of_ratio(updates: Columns) -> tuple[str, NDArray[Any], list[tuple[NDArray[Any], NDArray[Any]]]]:
    """What is drawn of the ratio: in words, the middle, and bands from the widest to the narrowest."""
    extremes = (updates["ratio_min"], updates["ratio_max"])
    if all(f"ratio_{name}" in updates for name in ("p05", "p25", "p50", "p75", "p95")):
        bands = [(updates[f"ratio_{low}"], updates[f"ratio_{high}"]) for low, high in (("p05", "p95"), ("p25", "p75"))]
        return "ratio (median, 25-75 %, 5-95 %, range)", updates["ratio_p50"], [extremes, *bands]
    middle, deviation = updates["ratio_mean"], updates["ratio_std"]
    return "ratio (mean, one deviation, range)", middle, [extremes, (middle - deviation, middle + deviation)]


def is_far(updates: Columns) -> bool:
    """Whether ratios are so far from 1 that a logarithmic axis is needed."""
    return bool(updates["ratio_max"].max() > _FAR_RATIO and (updates["ratio_min"] > 0).all())


def changes(phases: Sequence[str] | NDArray[Any]) -> list[tuple[str, int, int]]:
    """The phases in a row, each with the index where it begins and that where the next one does."""
    given = np.asarray(phases, dtype=object)
    if not len(given):
        return []
    begins = [0, *(np.flatnonzero(given[1:] != given[:-1]) + 1).tolist(), len(given)]
    return [(given[begin], begin, end) for begin, end in itertools.pairwise(begins)]


def some_steps(x: NDArray[Any], values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Some of many points, with the last; each as it is, as a mean would blunt a step."""
    if len(x) <= _STEPS:
        return x, values
    kept = np.linspace(0, len(x) - 1, _STEPS).astype(int)
    return x[kept], values[kept]
