"""The page of a search: what was found, every trial, and Optuna's own plots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna import visualization
from optuna.trial import FrozenTrial, TrialState

from esper.analysis import page
from esper.storage import files
from esper.tune.plan import Tuning
from esper.tune.search import best_of

_FEWEST_FOR_IMPORTANCE = 5


def write_page(tuning: Tuning, study: optuna.Study, final: Mapping[str, list[float]]) -> None:
    """Write `tune.html` in the folder of `tuning`; `final` has the scores of the seeds that no trial saw, by name."""
    best = best_of(study)
    sections = [page.text(f"{len(study.trials)} trials, {len(tuning.seeds)} runs each")]
    if best is not None:
        found = [(name, value) for name, value in best.params.items()]
        sections += [page.heading(f"Best: {best.value:.5g} (trial {best.number})"), page.table(found)]
    if final:
        rows = [
            (name, f"{sum(each) / len(each):.5g}", ", ".join(f"{x:.5g}" for x in each)) for name, each in final.items()
        ]
        heads = ("settings", "mean", "each seed")
        sections += [page.heading("With seeds that no trial saw"), page.table(rows, heads)]
    sections += [page.heading("Plots"), *_plots(study)]
    sections += [page.heading("Trials"), page.table(map(_row, study.trials), ("trial", "state", "score", "settings"))]
    files.write(tuning.folder / "tune.html", page.page("esper tune", sections).encode())


def _row(trial: FrozenTrial) -> tuple[Any, ...]:
    settings = ", ".join(f"{name} {_short(value)}" for name, value in trial.params.items())
    value = "" if trial.value is None else f"{trial.value:.5g}"
    return trial.number, trial.user_attrs.get("cause", trial.state.name.lower()), value, settings


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _plots(study: optuna.Study) -> list[str]:
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not done:
        return [page.text("no trial is complete yet")]
    figures = [visualization.plot_optimization_history(study), visualization.plot_intermediate_values(study)]
    if len(done) >= _FEWEST_FOR_IMPORTANCE:
        figures += [visualization.plot_param_importances(study), visualization.plot_parallel_coordinate(study)]
    figures.append(visualization.plot_slice(study))
    # The library's JavaScript is in the page once, so that it needs no network.
    return [figure.to_html(full_html=False, include_plotlyjs=number == 0) for number, figure in enumerate(figures)]
