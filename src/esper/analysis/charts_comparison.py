"""The curves and measures of a comparison: the same as in `plots_comparison`, drawn by the page itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from esper.analysis.arms import Arm
from esper.analysis.charts import Dash, Panel, Trace, band, line, rounded, words
from esper.analysis.comparison import Summary
from esper.analysis.curves import curve_of, limits_of
from esper.analysis.measures import Measure
from esper.analysis.styles import style_of

_DASHES: Mapping[str, Dash] = {"-": "solid", "--": "dash", ":": "dot", "-.": "dashdot"}
# In pixels.
_MARGIN, _ROW = 60, 34


def styles_of(arms: Sequence[Arm]) -> list[tuple[str, str, Dash]]:
    """Name, colour and dash of each arm."""
    return [(arm.name, *_style(index)) for index, arm in enumerate(arms)]


def curve_charts(arms: Sequence[Arm], names: Sequence[str], over: Literal["update", "env_steps"]) -> list[Panel]:
    """A panel for each of the columns `names`, with a curve and its band for each arm."""
    panels = []
    for name in names:
        log = name == "value_loss"
        limits = limits_of(arms, name, log=log)
        axis = {} if limits is None else {"range": [rounded(limits[0]), rounded(limits[1])]}
        traces = [each for index, arm in enumerate(arms) for each in _curve(index, arm, name, over, log=log)]
        layout = {"xaxis": {"title": {"text": over}}, "yaxis": axis}
        panels.append(Panel(title=f"{name} (geometric mean)" if log else name, traces=traces, log=log, layout=layout))
    return panels


def _curve(index: int, arm: Arm, name: str, over: Literal["update", "env_steps"], *, log: bool) -> list[Trace]:
    colour, dash = _style(index)
    x, mean, low, high = curve_of(arm, name, over, log=log)
    known = np.isfinite(mean)
    x, mean, low, high = (each[known] for each in (x, mean, low, high))
    found: list[Trace] = []
    if np.isfinite(low).any():
        edges = (np.where(np.isfinite(each), each, mean) for each in (low, high))
        found = band(x, *edges, colour=colour, opacity=0.2, group=arm.name)
    return [*found, line(x, mean, name=arm.name, colour=colour, dash=dash, group=arm.name)]


def measure_charts(results: Mapping[str, Mapping[str, Summary]], measures: Mapping[str, Measure]) -> list[Panel]:
    """A panel for each measure: of each arm the mean with its interval, and below it the runs."""
    return [
        Panel(
            title=f"{name} ({measures[name].better} is better)",
            traces=[each for index, arm in enumerate(arms) for each in _interval(index, arm, arms[arm])],
            log=None,
            layout={
                "height": _MARGIN + _ROW * len(arms),
                "hovermode": "closest",
                "yaxis": {
                    "range": [len(arms) - 0.4, -0.5],
                    "tickvals": list(range(len(arms))),
                    "ticktext": list(map(words, arms)),
                    "showgrid": False,
                    "zeroline": False,
                },
            },
        )
        for name, arms in results.items()
    ]


def _interval(index: int, arm: str, summary: Summary) -> list[Trace]:
    colour, _ = _style(index)
    mean = {"x": [rounded(summary.mean)], "y": [index], "mode": "markers"}
    shared: Trace = {"name": words(arm), "legendgroup": arm, "showlegend": False, "hovertemplate": "%{x:.4g}"}
    ends = [rounded(end) for end in summary.interval]
    seeds = {"text": [f"seed {seed}" for seed in summary.values], "hovertemplate": "%{x:.4g}, %{text}"}
    dots: dict[str, Any] = {"x": [rounded(value) for value in summary.values.values()]}
    dots |= {"y": [index + 0.28] * len(summary.values), "mode": "markers"}
    return [
        shared | {"x": ends, "y": [index, index], "mode": "lines", "line": {"color": colour, "width": 3}},
        shared | mean | {"marker": {"color": colour, "size": 9}},
        shared | seeds | dots | {"marker": {"color": colour, "size": 6, "opacity": 0.5}},
    ]


def _style(index: int) -> tuple[str, Dash]:
    colour, dash = style_of(index)
    return colour, _DASHES[dash]
