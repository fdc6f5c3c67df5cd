"""Arms beside each other: every measure with its interval, and how each arm differs from the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from esper.analysis.arms import Arm, ArmError
from esper.analysis.measures import MEASURES, Measure, steps_to
from esper.analysis.runs import Columns
from esper.analysis.statistics import (
    Interval,
    difference_interval,
    hedges_g,
    interquartile_interval,
    interquartile_mean,
    mean_interval,
    probability_of_improvement,
)

# Below so many seeds, intervals are wide and their rate is not what they say.
FEW_SEEDS = 5


@dataclass(frozen=True, kw_only=True)
class Difference:
    """An arm less the first one. Paired by seed where both have the same seeds.

    `probability_of_improvement` is that a run of this arm is better than one of the first.
    """

    mean: float
    interval: Interval
    paired: bool
    probability_of_improvement: float
    effect_size: float


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A measure of an arm over its seeds; `without` counts the runs that do not tell it, which are left out."""

    mean: float
    interval: Interval
    iqm: float
    iqm_interval: Interval
    values: dict[int, float]
    without: int
    difference: Difference | None


def compare(arms: Sequence[Arm], *, threshold: float | None = None, seed: int = 0) -> dict[str, dict[str, Summary]]:
    """Summaries by measure and arm. Resampling draws from a generator with `seed`.

    Raises:
        ArmError: for arms of different environments, or of the same name.
    """
    environments = sorted({arm.env for arm in arms})
    if len(environments) > 1:
        raise ArmError(f"the arms are of {', '.join(environments)}; only runs of one environment can be compared")
    names = [arm.name for arm in arms]
    if len(set(names)) < len(names):
        raise ArmError(f"two arms are called the same: {', '.join(names)}; rename a folder")
    measures = dict(MEASURES)
    if threshold is not None:
        measures["steps_to_threshold"] = Measure(
            of=steps_to(threshold), better="lower", says=f"first env_steps with a mean return of {threshold:g}"
        )
    return {name: _summaries(arms, measure, seed) for name, measure in measures.items()}


def warnings(arms: Sequence[Arm]) -> list[str]:
    """What a reader should know before believing the numbers."""
    found = []
    for arm in arms:
        found += [f"{arm.name}: left out {reason}" for reason in arm.left_out]
        if len(arm.runs) < FEW_SEEDS:
            found.append(f"{arm.name}: {len(arm.runs)} seeds are too few to tell arms apart; have {FEW_SEEDS} or more")
    return found


def _summaries(arms: Sequence[Arm], measure: Measure, seed: int) -> dict[str, Summary]:
    values = {arm.name: _values(arm, measure) for arm in arms}
    first = values[arms[0].name]
    found = {}
    for arm in arms:
        mine, rng = values[arm.name], np.random.default_rng(seed)
        numbers = list(mine.values())
        found[arm.name] = Summary(
            mean=float(np.mean(numbers)) if numbers else np.nan,
            interval=mean_interval(numbers, rng),
            iqm=interquartile_mean(numbers) if numbers else np.nan,
            iqm_interval=interquartile_interval(numbers, rng),
            values=mine,
            without=len(arm.runs) - len(mine),
            difference=None if arm is arms[0] else _difference(mine, first, measure, rng),
        )
    return found


def _values(arm: Arm, measure: Measure) -> dict[int, float]:
    values = {seed: _of(measure, run.updates) for seed, run in arm.runs.items()}
    return {seed: value for seed, value in values.items() if np.isfinite(value)}


def _of(measure: Measure, updates: Columns) -> float:
    try:
        return measure.of(updates)
    except KeyError:
        return np.nan


def _difference(
    mine: dict[int, float], first: dict[int, float], measure: Measure, rng: np.random.Generator
) -> Difference | None:
    if not mine or not first:
        return None
    a, b = list(mine.values()), list(first.values())
    paired = mine.keys() == first.keys()
    interval = (
        mean_interval([mine[seed] - first[seed] for seed in mine], rng) if paired else difference_interval(a, b, rng)
    )
    greater = probability_of_improvement(a, b)
    return Difference(
        mean=float(np.mean(a) - np.mean(b)),
        interval=interval,
        paired=paired,
        probability_of_improvement=greater if measure.better == "higher" else 1 - greater,
        effect_size=hedges_g(a, b),
    )
