"""A comparison of arms as one HTML page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from esper.analysis import charts
from esper.analysis.arms import Arm, differing
from esper.analysis.charts_comparison import curve_charts, measure_charts, styles_of
from esper.analysis.comparison import Summary
from esper.analysis.comparison_table import HEADINGS, rows, with_interval
from esper.analysis.measures import AFTER, Measure
from esper.analysis.page import answer, heading, page, picture, table, text
from esper.analysis.plots_comparison import plot_curves, plot_measures
from esper.analysis.runs import OWN
from esper.analysis.thinning import POINTS

_CURVES = {
    "Learning rates": ("lr/policy", "lr/value", "lr/shared"),
    "Stability": ("value_loss", "ratio_std", "approx_kl", "clip_fraction"),
    "After the update": AFTER,
}
# A picture of hundreds is too high for matplotlib.
_PANELS = 20
# Arms that can be told apart by colour and line.
_DRAWN = 24


def comparison_page(
    arms: Sequence[Arm],
    results: Mapping[str, Mapping[str, Summary]],
    measures: Mapping[str, Measure],
    notes: Sequence[str],
) -> str:
    """The page with the summaries of `compare` by `measures`, and with the `warnings`."""
    shown, which = _drawn(arms, results)
    sections = [answer(_result(arms, results["final_return"])), _arms(arms)]
    if notes:
        sections += [heading("Notes", bad=True), text(*notes)]
    every = [run.updates for arm in arms for run in arm.runs.values()]
    # Controllers that do not learn have episodes alone.
    curves = {
        title: [name for name in names if any(np.isfinite(updates[name]).any() for updates in every)]
        for title, names in _CURVES.items()
    }
    own = list(dict.fromkeys(name for updates in every for name in updates if name.startswith(OWN)))
    longest = max(len(updates["update"]) for updates in every)
    thin = f" Each point is the mean of up to {math.ceil(longest / POINTS)} updates." if longest > POINTS else ""
    if charts.available():
        sections += [charts.switches(styles_of(shown))]
    sections += [
        heading("Learning curves"),
        text(f"Means over seeds, with 95 % bands.{thin}{which}"),
        _curves("learning curves", shown, ["episode_return_mean"], "env_steps"),
    ]
    for title, names in curves.items():
        if names:
            sections += [heading(title), _curves(title.lower(), shown, names, "update")]
    if own:
        parts = [own[begin : begin + _PANELS] for begin in range(0, len(own), _PANELS)]
        sections += [heading("Your metrics")]
        sections += [_curves("your metrics", shown, part, "update") for part in parts]
    sections += [
        heading("Measures"),
        text(f"Means with 95 % intervals; a dot is a run.{which}"),
        _intervals(_of(shown, results), measures),
        _measures(results, measures, arms[0].name),
    ]
    which = ", ".join(arm.name for arm in arms) if len(arms) <= _DRAWN else f"{len(arms)} arms"
    return page(f"{which} on {arms[0].env}", sections, charts.scripts() if charts.available() else ())


def _curves(title: str, arms: Sequence[Arm], names: Sequence[str], over: Literal["update", "env_steps"]) -> str:
    if charts.available():
        return charts.figures(curve_charts(arms, names, over))
    return picture(title, plot_curves(arms, names, over))


def _intervals(results: Mapping[str, Mapping[str, Summary]], measures: Mapping[str, Measure]) -> str:
    if charts.available():
        return charts.figures(measure_charts(results, measures))
    return picture("measures", plot_measures(results, measures))


def _result(arms: Sequence[Arm], returns: Mapping[str, Summary]) -> str:
    """The highest final_return beside that of the first arm, or where it is the first's, beside the next."""
    ranked = _ranked(arms, returns)
    best = ranked[0]
    of = {arm.name: with_interval(returns[arm.name].mean, returns[arm.name].interval) for arm in arms}
    if len(arms) == 1:
        return f"final_return {of[best.name]}"
    other = ranked[1] if best is arms[0] else arms[0]
    line = f"{best.name} has the highest final_return, {of[best.name]}; {other.name} has {of[other.name]}."
    # Differences are to the first arm.
    difference = returns[(other if best is arms[0] else best).name].difference
    if difference is None or not math.isfinite(difference.interval.low):
        return line
    contains = difference.interval.low <= 0 <= difference.interval.high
    return f"{line} The interval of the difference {'contains' if contains else 'does not contain'} 0."


def _ranked(arms: Sequence[Arm], returns: Mapping[str, Summary]) -> list[Arm]:
    return sorted(arms, key=lambda arm: np.nan_to_num(returns[arm.name].mean, nan=-np.inf), reverse=True)


def _drawn(arms: Sequence[Arm], results: Mapping[str, Mapping[str, Summary]]) -> tuple[Sequence[Arm], str]:
    """The arms that can be told apart in a picture, and which they are, if not all."""
    if len(arms) <= _DRAWN:
        return arms, ""
    best = _ranked(arms[1:], results["final_return"])
    return [arms[0], *best[: _DRAWN - 1]], f" Drawn are the first arm and the {_DRAWN - 1} of the highest final_return."


def _of(arms: Sequence[Arm], results: Mapping[str, Mapping[str, Summary]]) -> dict[str, dict[str, Summary]]:
    return {name: {arm.name: summaries[arm.name] for arm in arms} for name, summaries in results.items()}


def _arms(arms: Sequence[Arm]) -> str:
    lines = []
    for arm in arms:
        longest = max((run.updates for run in arm.runs.values()), key=lambda updates: float(updates["env_steps"][-1]))
        ends = (f"{len(longest['update']):,}", f"{longest['env_steps'][-1]:,.0f}")
        lines.append((arm.name, arm.path, len(arm.runs), ", ".join(map(str, sorted(arm.runs))), *ends))
    found = table(lines, ("arm", "folder", "runs", "seeds", "updates", "env_steps"))
    if names := differing(*(arm.settings for arm in arms)):
        found += heading("Settings in which they differ")
        if len(arms) <= _DRAWN:
            settings = ((name, *(arm.settings.get(name) for arm in arms)) for name in names)
            found += table(settings, ("setting", *(arm.name for arm in arms)))
        else:
            found += table(((arm.name, *map(arm.settings.get, names)) for arm in arms), ("arm", *names))
    return found


def _measures(results: Mapping[str, Mapping[str, Summary]], measures: Mapping[str, Measure], first: str) -> str:
    lines: list[Sequence[str]] = []
    for name, summaries in results.items():
        lines += [(f"{name}: {measures[name].description}, {measures[name].better} is better",), *rows(summaries)]
    return table(lines, HEADINGS)
