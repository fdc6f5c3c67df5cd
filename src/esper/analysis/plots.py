"""Pictures of runs and of schedules. The only home of matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from esper.analysis.runs import Columns

_COLOURS = {"policy": "tab:blue", "value": "tab:orange", "shared": "tab:green"}
_PHASE_COLOURS = {"delay": "0.75", "warmup": "tab:red", "stable": "tab:green", "floor": "0.5"}


def plot_training(updates: Columns, path: Path, *, title: str) -> None:
    """Return, learning rates, value loss, KL and clip fraction over the updates of a run."""
    figure, axes = plt.subplots(3, 2, figsize=(11, 8), sharex=True, layout="constrained")
    figure.suptitle(title)
    if len(updates.get("update", ())):
        _plot_return(axes[0, 0], updates)
        _draw_rates(axes[0, 1], _rates(updates), list(updates["lr_phase/policy"]))
        axes[0, 1].set_title("learning rates", fontsize=10)
        _plot_metric(axes[1, 0], updates, "value_loss", log=True)
        _plot_metric(axes[1, 1], updates, "explained_variance")
        _plot_metric(axes[2, 0], updates, "approx_kl")
        _plot_metric(axes[2, 1], updates, "clip_fraction")
    for axis in axes[-1]:
        axis.set_xlabel("update")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_schedules(
    curves: Mapping[str, Sequence[float]],
    phases: Sequence[str],
    path: Path,
    *,
    title: str,
    size: tuple[float, float] = (7, 3.5),
) -> None:
    """Learning-rate curves by parameter group over the update index; `phases` shades the background."""
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    _draw_rates(axis, curves, phases)
    axis.set(title=title, xlabel="update")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_rates(axis: Axes, curves: Mapping[str, Sequence[float]], phases: Sequence[str]) -> None:
    for group, rates in curves.items():
        # Dashes let a line below be seen where two rates are the same.
        style = "--" if group == "value" else "-"
        axis.plot(rates, style, label=group, color=_COLOURS[group], drawstyle="steps-post")
    _shade(axis, phases)
    axis.set_ylim(bottom=0)
    axis.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axis.legend(fontsize=8)


def _plot_return(axis: Axes, updates: Columns) -> None:
    mean = updates.get("episode_return_mean")
    axis.set_title("episode return (mean, min to max)", fontsize=10)
    if mean is None:
        axis.text(0.5, 0.5, "no episode ended", ha="center", transform=axis.transAxes)
        return
    known = np.isfinite(mean)
    x = updates["update"][known]
    axis.fill_between(x, updates["episode_return_min"][known], updates["episode_return_max"][known], alpha=0.2)
    axis.plot(x, mean[known], linewidth=1)


def _rates(updates: Columns) -> dict[str, Sequence[float]]:
    return {name.removeprefix("lr/"): list(rates) for name, rates in updates.items() if name.startswith("lr/")}


def _plot_metric(axis: Axes, updates: Columns, name: str, *, log: bool = False) -> None:
    axis.set_title(name, fontsize=10)
    values = updates.get(name)
    if values is None:
        return
    axis.plot(updates["update"], values, linewidth=1)
    if log and (values > 0).all():
        axis.set_yscale("log")


def _shade(axis: Axes, phases: Sequence[str]) -> None:
    """Colour the background by the policy's phase; decay and constant stay white."""
    start, labelled = 0, set[str]()
    for index in range(1, len(phases) + 1):
        if index < len(phases) and phases[index] == phases[start]:
            continue
        phase = phases[start]
        if phase in _PHASE_COLOURS:
            label = None if phase in labelled else phase
            axis.axvspan(start, index, color=_PHASE_COLOURS[phase], alpha=0.12, label=label, linewidth=0)
            labelled.add(phase)
        start = index
