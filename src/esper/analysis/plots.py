"""Pictures of runs and of schedules. The only home of matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from esper.analysis.anomalies import Anomaly
from esper.analysis.runs import Columns

_COLOURS = {"policy": "tab:blue", "value": "tab:orange", "shared": "tab:green"}
_PHASE_COLOURS = {"delay": "0.75", "warmup": "tab:red", "stable": "tab:green", "floor": "0.5"}


def plot_training(updates: Columns, path: Path, *, title: str) -> None:
    """Return, learning rates, value loss, KL and clip fraction over the updates of a run."""
    figure, axes = plt.subplots(3, 2, figsize=(11, 8), sharex=True, layout="constrained")
    figure.suptitle(title)
    if len(updates.get("update", ())):
        _plot_return(axes[0, 0], updates)
        _draw_rates(axes[0, 1], _by_group(updates, "lr"), list(updates["lr_phase/policy"]))
        axes[0, 1].set_title("learning rates", fontsize=10)
        _plot_metric(axes[1, 0], updates, "value_loss", log=True)
        _plot_metric(axes[1, 1], updates, "explained_variance")
        _plot_metric(axes[2, 0], updates, "approx_kl")
        _plot_metric(axes[2, 1], updates, "clip_fraction")
    for axis in axes[-1]:
        axis.set_xlabel("update")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_report(updates: Columns, anomalies: Sequence[Anomaly], folder: Path) -> dict[str, Path]:
    """The pictures of a report as PNG files, by their headings; anomalies are marked where they begin."""
    drawn = {}
    for name, (heading, panels) in _REPORT.items():
        figure, axes = plt.subplots(1, len(panels), figsize=(12, 3.2), layout="constrained")
        for axis, panel in zip(np.atleast_1d(axes), panels, strict=True):
            _plot_panel(axis, panel, updates)
            axis.set_xlabel("update")
            for anomaly in anomalies:
                axis.axvline(anomaly.update, color="tab:red", linewidth=0.8, linestyle=":")
        drawn[heading] = folder / f"{name}.png"
        figure.savefig(drawn[heading], dpi=110)
        plt.close(figure)
    return drawn


# File name, heading, and what is drawn side by side.
_REPORT = {
    "learning": ("Learning", ("return", "lr", "steps_per_second")),
    "value": ("Value function", ("value_loss", "explained_variance", "grad_norm")),
    "policy": ("Policy", ("policy_loss", "entropy", "approx_kl")),
    "ratio": ("Ratio and clipping", ("ratio", "clip_fraction", "ratio_std")),
}


def _plot_panel(axis: Axes, panel: str, updates: Columns) -> None:
    if panel == "return":
        _plot_return(axis, updates)
    elif panel == "lr":
        _draw_rates(axis, _by_group(updates, "lr"), list(updates["lr_phase/policy"]))
        axis.set_title("learning rates", fontsize=10)
    elif panel == "grad_norm":
        axis.set_title("grad_norm", fontsize=10)
        for group, norms in _by_group(updates, "grad_norm").items():
            axis.plot(updates["update"], norms, linewidth=1, label=group, color=_COLOURS[group])
        axis.set_yscale("log")
        axis.legend(fontsize=8)
    elif panel == "ratio":
        _plot_ratio(axis, updates)
    else:
        _plot_metric(axis, updates, panel, log=panel == "value_loss")


def _plot_ratio(axis: Axes, updates: Columns) -> None:
    axis.set_title("ratio (mean, one deviation, min to max)", fontsize=10)
    x, mean, deviation = (updates[name] for name in ("update", "ratio_mean", "ratio_std"))
    axis.fill_between(x, updates["ratio_min"], updates["ratio_max"], alpha=0.15, color="tab:blue", linewidth=0)
    axis.fill_between(x, mean - deviation, mean + deviation, alpha=0.35, color="tab:blue", linewidth=0)
    axis.plot(x, mean, linewidth=1, color="tab:blue")
    clip = updates["clip_coef"]
    for bound in (1 - clip, 1 + clip):
        axis.plot(x, bound, linewidth=0.8, linestyle="--", color="0.3")


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


def _by_group(updates: Columns, name: str) -> dict[str, Sequence[float]]:
    prefix = f"{name}/"
    return {key.removeprefix(prefix): list(column) for key, column in updates.items() if key.startswith(prefix)}


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
