"""Plots of runs and of schedules. Only this module and `plots_comparison` import matplotlib."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from esper.analysis.anomalies import AnomalySummary
from esper.analysis.labels import plain
from esper.analysis.measures import AFTER
from esper.analysis.runs import OWN, Columns
from esper.analysis.streaming import ColumnsOfUpdates, common_fields
from esper.analysis.thinning import thinned
from esper.storage import files
from esper.telemetry.jsonl import read_batches
from esper.telemetry.metrics import by_group

_COLOURS = {"policy": "tab:blue", "value": "tab:orange", "shared": "tab:green"}
# Dashes keep a line below visible where rates are equal.
_LINES = {"policy": "-", "value": "--", "shared": ":"}
# With a ratio beyond this limit, the band around 1 would be invisible.
_FAR_RATIO = 3.0
_PHASE_COLOURS = {"delay": "0.75", "warmup": "tab:red", "stable": "tab:green", "floor": "0.5"}


def plot_run(run_dir: Path, path: Path, *, title: str) -> None:
    """`plot_training` of the run in `run_dir`."""
    updates = ColumnsOfUpdates(is_drawn)
    for events in read_batches(run_dir / "events.jsonl"):
        completed = [event for event in events if event["event"] == "update_completed"]
        if completed:
            updates.add(completed, common_fields(completed))
    plot_training(updates.columns(), path, title=title)


def plot_training(updates: Columns, path: Path, *, title: str) -> None:
    """Return, learning rates, value loss, KL and clip fraction over the updates of a run."""
    figure, axes = plt.subplots(3, 2, figsize=(11, 8), sharex=True, layout="constrained")
    figure.suptitle(plain(title))
    if len(updates.get("update", ())):
        panels = ("return", "lr", "value_loss", "explained_variance", "approx_kl", "clip_fraction")
        for axis, panel in zip(axes.flat, panels, strict=True):
            _plot_panel(axis, panel, _wide(updates))
    for axis in axes[-1]:
        axis.set_xlabel("update")
    files.write(path, _png(figure, dpi=110))


def plot_report(updates: Columns, anomalies: Sequence[AnomalySummary]) -> dict[str, tuple[str, bytes]]:
    """The plots of a report by heading, each as a file name and its PNG.

    Anomalies are marked, by number, where they begin.
    """
    drawn = {}
    for name, (heading, every) in (_REPORT | own_metrics(updates)).items():
        panels = [panel for panel in every if _is_known(panel, updates)]
        if not panels:
            continue
        down = math.ceil(len(panels) / _ACROSS)
        figure, axes = plt.subplots(
            down, min(len(panels), _ACROSS), figsize=(12, 3.2 * down), layout="constrained", squeeze=False
        )
        for axis, panel in zip(axes.flat, panels, strict=False):
            _plot_panel(axis, panel, _wide(updates))
            axis.set_xlabel("update")
            _mark(axis, anomalies)
        for axis in axes.flat[len(panels) :]:
            axis.set_axis_off()
        drawn[heading] = (f"{name}.png", _png(figure, dpi=150))
    return drawn


def own_metrics(updates: Columns) -> dict[str, tuple[str, Sequence[str]]]:
    """The pictures of what was added from Python, a panel for each metric of a callback and each term of the loss."""
    names = [name for name in updates if name.startswith(OWN)]
    parts = [names[begin : begin + _PANELS] for begin in range(0, len(names), _PANELS)]
    return {
        f"own-{number}": (f"Your metrics{f' ({number} of {len(parts)})' * (len(parts) > 1)}", part)
        for number, part in enumerate(parts, start=1)
    }


def _png(figure: Figure, dpi: int) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    plt.close(figure)
    return buffer.getvalue()


def _wide(updates: Columns) -> Columns:
    """Draw a single update twice, as a line of one point is invisible."""
    if len(updates["update"]) > 1:
        return updates
    return {name: np.repeat(column, 2) for name, column in updates.items()} | {
        "update": updates["update"] + np.array([-0.5, 0.5])
    }


def _mark(axis: Axes, anomalies: Sequence[AnomalySummary]) -> None:
    for number, anomaly in enumerate(anomalies, start=1):
        axis.axvline(anomaly.update, color="tab:red", linewidth=0.8, linestyle=":")
        # Numbers of nearby anomalies are stacked.
        axis.annotate(
            f" {number}",
            (anomaly.update, 0.98 - 0.09 * ((number - 1) % 4)),
            xycoords=("data", "axes fraction"),
            va="top",
            fontsize=8,
            color="tab:red",
        )


# File name, heading, and what is drawn side by side.
_REPORT = {
    "learning": ("Learning", ("return", "success_rate", "lr", "steps_per_second")),
    "value": ("Value function", ("value_loss", "explained_variance", "grad_norm")),
    "policy": ("Policy", ("policy_loss", "entropy", "approx_kl", "coefficients")),
    "ratio": ("Ratio and clipping", ("ratio", "clip_fraction", "ratio_std")),
    "after": ("After the update", AFTER),
}
_ACROSS = 4
# A picture of more rows is too high for matplotlib.
_PANELS = 12 * _ACROSS
# With fewer points than these they are marked, as a line of one would be invisible.
_FEW = 20
# A curve of steps has so many points, more than a picture has pixels.
_STEPS = 4000
_MOST_SHADES = 200
_COEFFICIENTS = ("clip_coef", "entropy_coef", "value_coef", "value_clip_coef", "target_kl")


_READ = {
    *("update", "env_steps", "loss", "lr_phase/policy", *_COEFFICIENTS),
    *(f"episode_return_{name}" for name in ("mean", "std", "min", "max")),
    *(f"ratio_{name}" for name in ("mean", "std", "min", "max")),
    *(panel for _, panels in _REPORT.values() for panel in panels),
}
_READ_BY_GROUP = ("lr/", "lr_factor/", "grad_norm/", *OWN)


def is_drawn(name: str) -> bool:
    """Whether a picture of a run shows the column `name`."""
    return name in _READ or name.startswith(_READ_BY_GROUP)


def _is_known(panel: str, updates: Columns) -> bool:
    """Whether there is anything to draw: most environments report no success, and few runs schedule coefficients."""
    if "loss" not in updates and not panel.startswith(OWN):
        # Of a controller that does not learn.
        return panel in ("return", "steps_per_second")
    if panel == "coefficients":
        return bool(_scheduled(updates))
    return panel not in ("success_rate", *AFTER) or panel in updates


def _scheduled(updates: Columns) -> Columns:
    """The coefficients that change, relative to their highest value."""
    found = {name: updates[name] for name in _COEFFICIENTS if name in updates and np.ptp(updates[name]) > 0}
    return {name: column / column.max() for name, column in found.items()}


def _plot_panel(axis: Axes, panel: str, updates: Columns) -> None:
    axis.set_title(plain(panel), fontsize=10)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    x = updates["update"]
    if panel == "return":
        _plot_return(axis, updates)
    elif panel == "lr":
        rates, factors = by_group(updates, "lr"), by_group(updates, "lr_factor")
        axis.set_title("learning rates" + " (thin: the schedule)" * bool(factors), fontsize=10)
        for group in factors:
            axis.plot(*_steps(x, rates[group]), linewidth=0.6, color=_COLOURS.get(group, "0.5"), drawstyle="steps-post")
            rates = {**rates, group: rates[group] * factors[group]}
        _draw_rates(axis, x, rates, updates.get("lr_phase/policy", ()))
    elif panel == "coefficients":
        axis.set_title("coefficients (share of the highest)", fontsize=10)
        for name, column in _scheduled(updates).items():
            axis.plot(*_steps(x, column), linewidth=1, label=name)
        axis.legend(fontsize=8)
    elif panel == "grad_norm":
        for group, norms in by_group(updates, "grad_norm").items():
            _draw_curve(axis, x, norms, label=plain(group), color=_COLOURS.get(group, "0.5"))
        axis.set_yscale("log")
        axis.legend(fontsize=8)
    elif panel == "ratio":
        _plot_ratio(axis, updates)
    elif panel.startswith(OWN):
        # A callback need not log at every update.
        known = np.isfinite(updates[panel])
        few = "." if known.sum() < _FEW else ""
        _draw_curve(axis, x[known], updates[panel][known], color=_COLOURS["policy"], marker=few)
    elif panel in updates:
        _draw_curve(axis, x, updates[panel], color=_COLOURS["policy"])
        if panel == "value_loss" and (updates[panel] > 0).all():
            axis.set_yscale("log")


def _plot_ratio(axis: Axes, updates: Columns) -> None:
    if all(f"ratio_{name}" in updates for name in ("p05", "p25", "p50", "p75", "p95")):
        axis.set_title("ratio (median, 25-75 %, 5-95 %, range)", fontsize=10)
        middle = updates["ratio_p50"]
        bands = [(updates[f"ratio_{low}"], updates[f"ratio_{high}"]) for low, high in (("p05", "p95"), ("p25", "p75"))]
    else:
        axis.set_title("ratio (mean, one deviation, range)", fontsize=10)
        middle, deviation = updates["ratio_mean"], updates["ratio_std"]
        bands = [(middle - deviation, middle + deviation)]
    _draw_bands(axis, updates["update"], middle, [(updates["ratio_min"], updates["ratio_max"]), *bands])
    if updates["ratio_max"].max() > _FAR_RATIO and (updates["ratio_min"] > 0).all():
        axis.set_yscale("log")
    clip = updates["clip_coef"]
    for bound in (1 - clip, 1 + clip):
        axis.plot(*_steps(updates["update"], bound), linewidth=0.8, linestyle="--", color="0.3")


def _plot_return(axis: Axes, updates: Columns) -> None:
    axis.set_title("return (mean, one deviation, range)", fontsize=10)
    if "episode_return_mean" not in updates:
        axis.text(0.5, 0.5, "no episode ended", ha="center", transform=axis.transAxes)
        return
    known = np.isfinite(updates["episode_return_mean"])
    mean, deviation, low, high = (updates[f"episode_return_{name}"][known] for name in ("mean", "std", "min", "max"))
    _draw_bands(axis, updates["update"][known], mean, [(low, high), (mean - deviation, mean + deviation)])


def _draw_bands(
    axis: Axes, x: NDArray[Any], middle: NDArray[Any], bands: Sequence[tuple[NDArray[Any], NDArray[Any]]]
) -> None:
    """The line `middle` over `x`, in bands from the widest, the extremes, to the narrowest."""
    x = thinned(x)
    for index, (low, high) in enumerate(bands):
        edges = (thinned(low, "min"), thinned(high, "max")) if index == 0 else (thinned(low), thinned(high))
        axis.fill_between(x, *edges, alpha=0.15 if index == 0 else 0.3, color=_COLOURS["policy"], linewidth=0)
    axis.plot(x, thinned(middle), linewidth=1, color=_COLOURS["policy"])


def _draw_curve(
    axis: Axes, x: NDArray[Any], values: NDArray[Any], *, color: str, label: str | None = None, marker: str = ""
) -> None:
    """`values` over `x`; where they are thinned, with a band from their lowest to their highest."""
    x_thin = thinned(x)
    if len(x_thin) < len(x):
        axis.fill_between(x_thin, thinned(values, "min"), thinned(values, "max"), alpha=0.25, color=color, linewidth=0)
    axis.plot(x_thin, thinned(values), linewidth=1, color=color, label=label, marker=marker)


def plot_schedules(
    curves: Mapping[str, Sequence[float]],
    phases: Sequence[str],
    path: Path,
    *,
    title: str,
    updates: Sequence[int] | None = None,
    size: tuple[float, float] = (7, 3.5),
) -> None:
    """Learning-rate curves by parameter group over `updates`, by default all; `phases` shades the background."""
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    _draw_rates(axis, np.arange(len(phases)) if updates is None else np.asarray(updates), curves, phases)
    axis.set(title=title, xlabel="update")
    files.write(path, _png(figure, dpi=110))


def _draw_rates(
    axis: Axes,
    x: NDArray[Any],
    curves: Mapping[str, Sequence[float] | NDArray[Any]],
    phases: Sequence[str] | NDArray[Any],
) -> None:
    for group, rates in curves.items():
        colour = _COLOURS.get(group, "0.5")
        line = _LINES.get(group, "-")
        where = _steps(x, np.asarray(rates))
        axis.plot(*where, line, label=plain(group), color=colour, drawstyle="steps-post")
    _shade(axis, x, phases)
    axis.set_ylim(bottom=0)
    axis.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axis.legend(fontsize=8)


def _steps(x: NDArray[Any], values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Some of many points, with the last; each as it is, as a mean would blunt a step."""
    if len(x) <= _STEPS:
        return x, values
    kept = np.linspace(0, len(x) - 1, _STEPS).astype(int)
    return x[kept], values[kept]


def _shade(axis: Axes, x: NDArray[Any], phases: Sequence[str] | NDArray[Any]) -> None:
    """Shade the background by the policy's phase; decay and constant stay white."""
    given, labelled = np.asarray(phases, dtype=object), set[str]()
    changes = [0, *(np.flatnonzero(given[1:] != given[:-1]) + 1), len(given)]
    # Restarts by the thousand would be a colour.
    for start, index in itertools.pairwise(changes[:_MOST_SHADES]) if len(given) else ():
        phase = given[start]
        if phase in _PHASE_COLOURS:
            label = None if phase in labelled else phase
            axis.axvspan(
                x[start], x[min(index, len(x) - 1)], color=_PHASE_COLOURS[phase], alpha=0.12, label=label, linewidth=0
            )
            labelled.add(phase)
