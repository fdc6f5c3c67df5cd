"""The curves of a run: the same as in `plots`, drawn by the page itself."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esper.analysis.anomalies import AnomalySummary
from esper.analysis.charts import Panel, Trace, band, line
from esper.analysis.panels import (
    COLOURS,
    GREY,
    MOST_SHADES,
    PHASE_COLOURS,
    bands_of_ratio,
    changes,
    is_far,
    panels_of,
    scheduled,
    some_steps,
)
from esper.analysis.runs import Columns
from esper.analysis.thinning import thinned
from esper.telemetry.metrics import by_group

_BLUE = COLOURS["policy"]


def charts_of(
    updates: Columns, anomalies: Sequence[AnomalySummary], evaluations: Sequence[Mapping[str, Any]]
) -> dict[str, list[Panel]]:
    """The panels of a report by heading. Anomalies are marked, by number, where they begin."""
    marks = _marks(anomalies)
    found = {
        heading: [_panel(name, updates, evaluations, marks) for name in names]
        for heading, names in panels_of(updates).values()
    }
    return {heading: [panel for panel in panels if panel.traces] for heading, panels in found.items()}


def _panel(
    name: str, updates: Columns, evaluations: Sequence[Mapping[str, Any]], marks: Mapping[str, Sequence[Any]]
) -> Panel:
    x = updates["update"]
    title, log, axis = name, False, dict[str, Any]()
    shades: list[dict[str, Any]] = []
    if name == "return":
        title, traces = "return (mean, one deviation, range)", _returns(updates, evaluations)
    elif name == "lr":
        traces, axis, shades = _rates(updates), {"rangemode": "tozero"}, _shades(x, updates.get("lr_phase/policy", ()))
        title = "learning rates" + " (thin: the schedule)" * bool(by_group(updates, "lr_factor"))
    elif name == "coefficients":
        title = "coefficients (share of the highest)"
        colours = itertools.cycle(COLOURS.values())
        traces = [
            line(*some_steps(x, column), name=each, colour=colour, steps=True)
            for (each, column), colour in zip(scheduled(updates).items(), colours, strict=False)
        ]
    elif name == "grad_norm":
        log = True
        groups = by_group(updates, "grad_norm")
        traces = [each for group, norms in groups.items() for each in _curve(x, norms, group, COLOURS.get(group, GREY))]
    elif name == "ratio":
        (title, traces), log = _ratio(updates), is_far(updates)
    else:
        known = np.isfinite(updates[name]) if name in updates else np.zeros(len(x), dtype=bool)
        traces = _curve(x[known], updates[name][known], name, _BLUE) if known.any() else []
        log = name == "value_loss" and bool((updates[name][known] > 0).all())
    if name == "steps_per_second":
        axis = {"tickformat": "~s"}
    layout = {"yaxis": axis, "shapes": [*shades, *marks["shapes"]], "annotations": marks["annotations"]}
    return Panel(title=title, traces=traces, log=log, layout=layout)


def _returns(updates: Columns, evaluations: Sequence[Mapping[str, Any]]) -> list[Trace]:
    traces: list[Trace] = []
    if "episode_return_mean" in updates:
        known = np.isfinite(updates["episode_return_mean"])
        mean, deviation, low, high = (
            updates[f"episode_return_{name}"][known] for name in ("mean", "std", "min", "max")
        )
        traces = _with_bands(
            updates["update"][known], mean, [(low, high), (mean - deviation, mean + deviation)], "training"
        )
    points = [(each["update"], each["eval_return_mean"]) for each in evaluations if "eval_return_mean" in each]
    if points:
        found = line(*np.array(points, dtype=float).T, name="evaluation", colour=COLOURS["value"])
        traces.append(found | {"mode": "lines+markers"})
    return traces


def _rates(updates: Columns) -> list[Trace]:
    x, rates, factors = updates["update"], by_group(updates, "lr"), by_group(updates, "lr_factor")
    traces: list[Trace] = []
    for group, values in rates.items():
        colour, phases = COLOURS.get(group, GREY), updates.get(f"lr_phase/{group}")
        dash = {"value": "dash", "shared": "dot"}.get(group, "solid")
        if group in factors:
            traces.append(line(*some_steps(x, values), name=f"{group}, schedule", colour=colour, steps=True))
            traces[-1]["line"]["width"] = 0.7
        now, rate = some_steps(x, values * factors[group] if group in factors else values)
        texts = None if phases is None else list(some_steps(x, phases)[1])
        traces.append(line(now, rate, name=group, colour=colour, dash=dash, texts=texts, steps=True))  # type: ignore[arg-type]
    return traces


def _ratio(updates: Columns) -> tuple[str, list[Trace]]:
    title, middle, bands = bands_of_ratio(updates)
    x = updates["update"]
    traces = _with_bands(x, middle, bands, "ratio")
    for name, bound in (("upper bound", 1 + updates["clip_coef"]), ("lower bound", 1 - updates["clip_coef"])):
        limit = line(*some_steps(x, bound), name=name, colour=GREY, dash="dash", steps=True)
        traces.append(limit | {"showlegend": False, "hoverinfo": "skip", "hovertemplate": None})
    return title, traces


def _with_bands(
    x: NDArray[Any], middle: NDArray[Any], bands: Sequence[tuple[NDArray[Any], NDArray[Any]]], name: str
) -> list[Trace]:
    """The line `middle` in `bands` from the widest, the extremes, to the narrowest."""
    thin, traces = thinned(x), list[Trace]()
    for index, (low, high) in enumerate(bands):
        edges = (thinned(low, "min"), thinned(high, "max")) if index == 0 else (thinned(low), thinned(high))
        traces += band(thin, *edges, colour=_BLUE, opacity=0.15 if index == 0 else 0.3)
    return [*traces, line(thin, thinned(middle), name=name, colour=_BLUE)]


def _curve(x: NDArray[Any], values: NDArray[Any], name: str, colour: str) -> list[Trace]:
    thin = thinned(x)
    few = len(thin) == len(x)
    around = [] if few else band(thin, thinned(values, "min"), thinned(values, "max"), colour=colour, opacity=0.25)
    return [*around, line(thin, thinned(values), name=name, colour=colour)]


def _shades(x: NDArray[Any], phases: Sequence[str] | NDArray[Any]) -> list[dict[str, Any]]:
    return [
        {"type": "rect", "yref": "paper", "x0": float(x[begin]), "x1": float(x[min(end, len(x) - 1)]), "y0": 0, "y1": 1}
        | {"fillcolor": PHASE_COLOURS[phase], "opacity": 0.12, "line": {"width": 0}, "layer": "below"}
        for phase, begin, end in changes(phases)[:MOST_SHADES]
        if phase in PHASE_COLOURS
    ]


def _marks(anomalies: Sequence[AnomalySummary]) -> dict[str, list[dict[str, Any]]]:
    red = "#d62728"
    shapes, notes = [], []
    for number, anomaly in enumerate(anomalies, start=1):
        at = {"yref": "paper", "x0": anomaly.update, "x1": anomaly.update, "y0": 0, "y1": 1}
        shapes.append({"type": "line", "line": {"color": red, "width": 1, "dash": "dot"}, **at})
        # Numbers of nearby anomalies are stacked.
        place = {"x": anomaly.update, "y": 1 - 0.09 * ((number - 1) % 4), "yref": "paper", "xanchor": "left"}
        notes.append({"text": str(number), "showarrow": False, "font": {"color": red, "size": 10}, **place})
    return {"shapes": shapes, "annotations": notes}
