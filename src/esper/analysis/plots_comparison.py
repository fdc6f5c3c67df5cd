"""Plots of a comparison, as PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from esper.analysis.arms import Arm
from esper.analysis.comparison import Summary
from esper.analysis.curves import curve_of, limits_of
from esper.analysis.drawing import Axes, Figure, MaxNLocator
from esper.analysis.labels import plain
from esper.analysis.measures import Measure
from esper.analysis.styles import style_of

_ACROSS = 3


def plot_curves(arms: Sequence[Arm], names: Sequence[str], over: Literal["update", "env_steps"]) -> bytes:
    """A panel for each of the columns `names`, with a curve and its band for each arm."""
    across = min(2, len(names))
    down = math.ceil(len(names) / across)
    legend = math.ceil(len(arms) / _ACROSS)
    figure = Figure(figsize=(12, 3.4 * down + 0.1 + 0.22 * legend), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).flat
    for axis, name in zip(axes, names, strict=False):
        _draw_curves(axis, arms, name, over)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=_ACROSS, frameon=False)
    return _png(figure)


def _draw_curves(axis: Axes, arms: Sequence[Arm], name: str, over: Literal["update", "env_steps"]) -> None:
    log = name == "value_loss"
    for index, arm in enumerate(arms):
        colour, line = style_of(index)
        x, mean, low, high = curve_of(arm, name, over, log=log)
        if len(x) == 1:
            # A line of one point would be invisible.
            x, mean, low, high = x + np.array([-0.5, 0.5]), *(np.repeat(each, 2) for each in (mean, low, high))
        axis.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        axis.plot(x, mean, line, color=colour, linewidth=1.3, label=plain(arm.name))
    if log:
        axis.set_yscale("log")
    if (limits := limits_of(arms, name, log=log)) is not None:
        axis.set_ylim(*limits)
    axis.set(title=f"{name} (geometric mean)" if log else plain(name), xlabel=over)
    axis.title.set_fontsize(10)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))


def plot_measures(results: Mapping[str, Mapping[str, Summary]], measures: Mapping[str, Measure]) -> bytes:
    """A panel for each measure: of each arm the mean with its interval, and below it the runs."""
    arms = list(next(iter(results.values())))
    down = math.ceil(len(results) / _ACROSS)
    figure = Figure(figsize=(12, down * (0.9 + 0.33 * len(arms))), layout="constrained")
    axes = figure.subplots(down, _ACROSS, sharey=True, squeeze=False).flat
    for axis, (name, summaries) in zip(axes, results.items(), strict=False):
        _draw_intervals(axis, list(summaries.values()))
        axis.set_title(f"{name} ({measures[name].better} is better)", fontsize=9)
        axis.set_yticks(range(len(arms)), list(map(plain, arms)))
        axis.set_ylim(len(arms) - 0.4, -0.5)
    for axis in axes[len(results) :]:
        axis.set_axis_off()
    return _png(figure)


def _draw_intervals(axis: Axes, summaries: Sequence[Summary]) -> None:
    for index, summary in enumerate(summaries):
        colour, _ = style_of(index)
        axis.plot(summary.interval, (index, index), color=colour, linewidth=2)
        axis.plot(summary.mean, index, "o", color=colour, markersize=5)
        values = list(summary.values.values())
        axis.plot(values, np.full(len(values), index + 0.28), ".", color=colour, markersize=7, alpha=0.5, mew=0)
    axis.tick_params(labelsize=8)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=4))
    axis.grid(axis="x", linewidth=0.4)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
