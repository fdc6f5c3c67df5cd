"""The page of a search: what was found, every trial, and Optuna's own plots."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna import visualization
from optuna.trial import FrozenTrial, TrialState

from esper.analysis import charts, page
from esper.analysis.comparison_table import with_interval
from esper.analysis.statistics import mean_interval
from esper.settings.values import format_value
from esper.storage import files
from esper.tune.plan import Tuning
from esper.tune.search import best_of, values_of

Scores = Mapping[int, float]

_FEWEST_FOR_IMPORTANCE = 5
# In pixels: an axis of parallel coordinates, and the least around a figure.
_AXIS = 80
_MARGIN = {"l": 10, "r": 10, "t": 10, "b": 10}


def write_page(tuning: Tuning, study: optuna.Study, final: Mapping[str, Scores]) -> None:
    """Write `tune.html` in the folder of `tuning`.

    `final` has the scores of the `best` trial's settings, and of those at the `start`, by seeds that no trial saw.
    """
    best = best_of(study)
    sections = [page.answer(_answer(tuning, best, final)), page.text(_what(tuning, study))]
    if best is not None:
        sections += _settings(tuning, best)
    if any(final.values()):
        sections += [page.heading("With seeds that no trial saw"), _seeds(tuning, final)]
    plots = list(_plots(study))
    if plots:
        sections += [page.heading("Optuna's plots"), page.text("drag to zoom, double-click to zoom out"), *plots]
    sections += [page.heading("Trials"), _trials(tuning, study)]
    title = f"Search on {tuning.settings({}).config.environment.env}"
    html = page.page(title, sections, charts.scripts() if plots else ())
    files.write(tuning.folder / "tune.html", html.encode(errors="backslashreplace"))


def _answer(tuning: Tuning, best: FrozenTrial | None, final: Mapping[str, Scores]) -> str:
    """What came out of it, in one line."""
    if best is None:
        return "No trial is complete yet."
    found, before = final.get("best", {}), final.get("start", {})
    if not found or not before:
        return f"Best so far: trial {best.number} with {best.value:.5g}; fresh seeds have not tried it yet."
    if values_of(best, tuning) == tuning.start():
        return f"No trial beats the settings before the search, which score {_mean(before.values())} on fresh seeds."
    line = f"Trial {best.number} scores {_mean(found.values())} on fresh seeds, "
    line += f"the settings before the search {_mean(before.values())}."
    pairs = [found[seed] - before[seed] for seed in found if seed in before]
    ends = mean_interval(pairs, np.random.default_rng(0))
    if not pairs or math.isnan(ends.low):
        return line
    contains = "contains" if ends.low <= 0 <= ends.high else "does not contain"
    return f"{line} The interval of the difference, {_mean(pairs)}, {contains} 0."


def _mean(values: Any) -> str:
    """With its 95 % interval."""
    each = list(values)
    return with_interval(float(np.mean(each)), mean_interval(each, np.random.default_rng(0)))


def _what(tuning: Tuning, study: optuna.Study) -> str:
    states = Counter(trial.state.name.lower() for trial in study.trials)
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    steps = tuning.settings({}).config.ppo.total_timesteps
    each = f"{len(tuning.seeds)} run{'s' * (len(tuning.seeds) > 1)} each of {steps:,} environment steps"
    return f"{len(study.trials)} of {tuning.trials} trials ({counts}), {each}"


def _settings(tuning: Tuning, best: FrozenTrial) -> list[str]:
    """Those of the best trial beside those before the search; what is the same is folded."""
    found, before = values_of(best, tuning), tuning.before()
    changed = [(name, _short(found[name]), _short(before[name])) for name in found if found[name] != before[name]]
    same = [(name, _short(found[name])) for name in found if found[name] == before[name]]
    sections = [page.heading(f"Settings of trial {best.number}, the best")]
    if changed:
        sections += [page.table(changed, ("setting", "found", "before"))]
    return [*sections, page.folded(f"{len(same)} more are as before", page.table(same))] if same else sections


def _seeds(tuning: Tuning, final: Mapping[str, Scores]) -> str:
    rows = [
        (
            name,
            _mean(scores.values()),
            *(f"{scores[seed]:.5g}" if seed in scores else "" for seed in tuning.final_seeds),
        )
        for name, scores in final.items()
        if scores
    ]
    return page.table(rows, ("settings", "mean [95 %]", *(f"seed {seed}" for seed in tuning.final_seeds)))


def _trials(tuning: Tuning, study: optuna.Study) -> str:
    """The best first; then those without a score."""
    by_score = sorted(study.trials, key=lambda trial: (-_score(trial), trial.number))
    rows = [
        (
            trial.number,
            f"{trial.value:.5g}" if trial.state is TrialState.COMPLETE else "",
            trial.user_attrs.get("cause", trial.state.name.lower()),
            *(_short(trial.params[name]) if name in trial.params else "" for name in tuning.space),
        )
        for trial in by_score
    ]
    return page.table(rows, ("trial", "score", "state", *tuning.space))


def _score(trial: FrozenTrial) -> float:
    return trial.values[0] if trial.state is TrialState.COMPLETE else -math.inf


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else format_value(value)


def _plots(study: optuna.Study) -> Iterator[str]:
    """Those of Optuna, in the page's colours."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not done:
        return
    first = [
        _figure("history", visualization.plot_optimization_history(study, target_name="score")),
        _figure("evaluations", visualization.plot_intermediate_values(study)),
    ]
    names: Sequence[str] = list(done[0].params)
    if len(done) >= _FEWEST_FOR_IMPORTANCE:
        importance = visualization.plot_param_importances(study)
        first.append(_figure("importance of settings", importance, margin={**_MARGIN, "r": 40}, yaxis_title=None))
    yield charts.figures(first)
    if len(done) >= _FEWEST_FOR_IMPORTANCE:
        parallel = visualization.plot_parallel_coordinate(study, target_name="score")
        # The first axis says what the colours mean.
        parallel.update_traces(marker_showscale=False)
        margin = {**_MARGIN, "l": 60, "r": 60, "t": 30, "b": 80}
        whole = _figure("parallel coordinates", parallel, width=_AXIS * (len(names) + 1), margin=margin)
        yield charts.figures([whole])
    yield page.text("score by setting: later trials stand out")
    slices = {name: visualization.plot_slice(study, [name], target_name="score") for name in names}
    yield charts.figures(_figure(name, each.update_traces(marker_showscale=False)) for name, each in slices.items())


def _figure(title: str, figure: Any, width: int | None = None, **layout: Any) -> charts.Whole:
    return charts.Whole(title=title, figure=figure.update_layout(**layout).to_json(), width=width)
