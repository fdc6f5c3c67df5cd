"""Plots of runs and of schedules."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esper.analysis.anomalies import AnomalySummary
from esper.analysis.drawing import Axes, Figure, MaxNLocator, plt
from esper.analysis.labels import plain
from esper.analysis.panels import (
    ACROSS,
    COLOURS,
    FEW,
    GREY,
    MOST_SHADES,
    PHASE_COLOURS,
    bands_of_ratio,
    changes,
    is_drawn,
    is_far,
    panels_of,
    scheduled,
    some_steps,
)
from esper.analysis.runs import OWN, Columns
from esper.analysis.streaming import ColumnsOfUpdates, common_fields
from esper.analysis.thinning import thinned
from esper.storage import files
from esper.telemetry.jsonl import read_batches
from esper.telemetry.metrics import by_group

# Dashes keep a line below visible where rates are equal.
_LINES = {"policy": "-", "value": "--", "shared": ":"}


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
    for name, (heading, panels) in panels_of(updates).items():
        down = math.ceil(len(panels) / ACROSS)
        figure, axes = plt.subplots(
            down, min(len(panels), ACROSS), figsize=(12, 3.2 * down), layout="constrained", squeeze=False
        )
        for axis, panel in zip(axes.flat, panels, strict=False):
            _plot_panel(axis, panel, _wide(updates))
            axis.set_xlabel("update")
            _mark(axis, anomalies)
        for axis in axes.flat[len(panels) :]:
            axis.set_axis_off()
        drawn[heading] = (f"{name}.png", _png(figure, dpi=150))
    return drawn


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
            axis.plot(
                *some_steps(x, rates[group]), linewidth=0.6, color=COLOURS.get(group, GREY), drawstyle="steps-post"
            )
            rates = {**rates, group: rates[group] * factors[group]}
        _draw_rates(axis, x, rates, updates.get("lr_phase/policy", ()))
    elif panel == "coefficients":
        axis.set_title("coefficients (share of the highest)", fontsize=10)
        for name, column in scheduled(updates).items():
            axis.plot(*some_steps(x, column), linewidth=1, label=name)
        axis.legend(fontsize=8)
    elif panel == "grad_norm":
        for group, norms in by_group(updates, "grad_norm").items():
            _draw_curve(axis, x, norms, label=plain(group), color=COLOURS.get(group, GREY))
        axis.set_yscale("log")
        axis.legend(fontsize=8)
    elif panel == "ratio":
        _plot_ratio(axis, updates)
    elif panel.startswith(OWN):
        # A callback need not log at every update.
        known = np.isfinite(updates[panel])
        few = "." if known.sum() < FEW else ""
        _draw_curve(axis, x[known], updates[panel][known], color=COLOURS["policy"], marker=few)
    elif panel in updates:
        _draw_curve(axis, x, updates[panel], color=COLOURS["policy"])
        if panel == "value_loss" and (updates[panel] > 0).all():
            axis.set_yscale("log")


def _plot_ratio(axis: Axes, updates: Columns) -> None:
    title, middle, bands = bands_of_ratio(updates)
    axis.set_title(title, fontsize=10)
    _draw_bands(axis, updates["update"], middle, bands)
    if is_far(updates):
        axis.set_yscale("log")
    clip = updates["clip_coef"]
    for bound in (1 - clip, 1 + clip):
        axis.plot(*some_steps(updates["update"], bound), linewidth=0.8, linestyle="--", color="0.3")


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
        axis.fill_between(x, *edges, alpha=0.15 if index == 0 else 0.3, color=COLOURS["policy"], linewidth=0)
    axis.plot(x, thinned(middle), linewidth=1, color=COLOURS["policy"])


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
    axis.locator_params(axis="x", integer=True)
    x = np.arange(len(phases)) if updates is None else np.asarray(updates)
    columns = {group: np.asarray(rates) for group, rates in curves.items()}
    wide = _wide({**columns, "update": x, "phase": np.asarray(phases, dtype=object)})
    _draw_rates(axis, wide["update"], {group: wide[group] for group in curves}, wide["phase"])
    axis.set(title=title, xlabel="update")
    files.write_named(path, _png(figure, dpi=110))


def _draw_rates(
    axis: Axes,
    x: NDArray[Any],
    curves: Mapping[str, Sequence[float] | NDArray[Any]],
    phases: Sequence[str] | NDArray[Any],
) -> None:
    for group, rates in curves.items():
        colour = COLOURS.get(group, GREY)
        line = _LINES.get(group, "-")
        where = some_steps(x, np.asarray(rates))
        axis.plot(*where, line, label=plain(group), color=colour, drawstyle="steps-post")
    _shade(axis, x, phases)
    axis.set_ylim(bottom=0)
    axis.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axis.legend(fontsize=8)


def _shade(axis: Axes, x: NDArray[Any], phases: Sequence[str] | NDArray[Any]) -> None:
    """Shade the background by the policy's phase; decay and constant stay white."""
    labelled = set[str]()
    for phase, begin, end in changes(phases)[:MOST_SHADES]:
        if phase in PHASE_COLOURS:
            label = None if phase in labelled else phase
            axis.axvspan(
                x[begin], x[min(end, len(x) - 1)], color=PHASE_COLOURS[phase], alpha=0.12, label=label, linewidth=0
            )
            labelled.add(phase)
