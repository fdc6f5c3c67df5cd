"""Compares arms: every measure with its interval, and the difference of each arm from the first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from esper.analysis.arms import Arm, ArmError
from esper.analysis.measures import MEASURES, Measure
from esper.analysis.statistics import (
    Interval,
    difference_interval,
    hedges_g,
    interquartile_interval,
    interquartile_mean,
    mean_interval,
    probability_of_improvement,
    ratio_interval,
)

# With fewer seeds, intervals are wide and do not have their nominal coverage.
FEW_SEEDS = 5
# With fewer pairs, pairing costs more in degrees of freedom than it removes in shared noise.
FEWEST_PAIRS = 5
# The maximum number of seeds, and of arms, that are named.
_NAMED = 10
# The maximum numbers of runs that are left out by name, and of other notes.
_LEFT_OUT = 20
_NOTES = 40
# The arm that a note is about, in its text.
_ITSELF = "{arm}"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """An arm minus the first one: over `pairs` of runs with the same seed, or over all runs if that is 0.

    `ratio` is its mean as a multiple of the first one's; NaN unless all values are positive.

    `probability_of_improvement`: that a run of this arm is better than a run of the first.
    """

    mean: float
    interval: Interval
    ratio: float
    ratio_interval: Interval
    pairs: int
    probability_of_improvement: float
    effect_size: float


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A measure of an arm over its seeds; `without` counts the runs without a value, which are left out."""

    mean: float
    interval: Interval
    iqm: float
    iqm_interval: Interval
    values: dict[int, float]
    without: int
    difference: Difference | None


def compare(
    arms: Sequence[Arm], measures: Mapping[str, Measure] = MEASURES, *, seed: int = 0
) -> dict[str, dict[str, Summary]]:
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
    return {name: _summaries(arms, measure, seed) for name, measure in measures.items()}


def warnings(arms: Sequence[Arm]) -> list[str]:
    """Warnings for readers of the numbers."""
    notes = [(arm.name, f"left out {reason}") for arm in arms for reason in arm.left_out]
    found = [f"{name}: {text}" for name, text in notes[:_LEFT_OUT]]
    if len(notes) > _LEFT_OUT:
        found.append(f"{len(notes) - _LEFT_OUT} more runs are left out")
    notes = []
    for arm in arms:
        if len(arm.runs) < FEW_SEEDS:
            notes.append((arm.name, f"too few seeds to tell arms apart ({len(arm.runs)}); have {FEW_SEEDS} or more"))
        if skipped := {seed: run.skipped for seed, run in arm.runs.items() if run.skipped}:
            notes.append((arm.name, f"{sum(skipped.values())} updates were skipped, by {name_seeds(skipped)}"))
        if stalled := {seed: run.stalled for seed, run in arm.runs.items() if run.stalled}:
            notes.append((arm.name, f"{name_seeds(stalled)}: {stalled[min(stalled)]}"))
    notes += [(arm.name, text) for arm in arms[1:] for text in _about_pairs(arm, arms[0])]
    found += _together(notes)
    ends = {arm.name: max(int(run.updates["env_steps"][-1]) for run in arm.runs.values()) for arm in arms}
    if len(set(ends.values())) > 1:
        each = _few([f"{name} {steps:,}" for name, steps in ends.items()])
        found.append(f"the arms were trained for different env_steps: {each}")
    return found


def _about_pairs(arm: Arm, first: Arm) -> list[str]:
    shared = arm.runs.keys() & first.runs.keys()
    alone = [
        f"{name_seeds(each.runs.keys() - shared)} of {_ITSELF if each is arm else each.name}"
        for each in (first, arm)
        if each.runs.keys() - shared
    ]
    # Without such seeds there are as many pairs as seeds: if they are too few, the note about seeds says it.
    if not shared or not alone:
        return []
    if len(shared) < FEWEST_PAIRS:
        return [f"shares only {name_seeds(shared)} with {first.name}; compared without pairs"]
    return [f"{len(shared)} pairs with {first.name}; without a partner: {', '.join(alone)}"]


def _together(notes: Iterable[tuple[str, str]]) -> list[str]:
    """A line for each text: the arms that it is about, and the text."""
    about: dict[str, list[str]] = {}
    for name, text in notes:
        about.setdefault(text, []).append(name)
    lines = [
        f"{_few(names)}: {text.replace(_ITSELF, names[0] if len(names) == 1 else 'each')}"
        for text, names in about.items()
    ]
    return lines if len(lines) <= _NOTES else [*lines[:_NOTES], f"and {len(lines) - _NOTES} more notes of this kind"]


def _few(names: Sequence[str]) -> str:
    """The first of `names`, and how many more."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def name_seeds(seeds: Iterable[int]) -> str:
    """`seeds 1, 2, 3`, and how many more."""
    found = sorted(seeds)
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return f"seed{'s' * (len(found) > 1)} {', '.join(map(str, found[:_NAMED]))}{more}"


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
    values = {seed: measure.of(run.updates) for seed, run in arm.runs.items()}
    return {seed: value for seed, value in values.items() if np.isfinite(value)}


def _difference(
    mine: dict[int, float], first: dict[int, float], measure: Measure, rng: np.random.Generator
) -> Difference | None:
    if not mine or not first:
        return None
    shared = sorted(mine.keys() & first.keys())
    pairs = len(shared) if len(shared) >= FEWEST_PAIRS else 0
    a, b = ([values[seed] for seed in (shared if pairs else values)] for values in (mine, first))
    interval = (
        mean_interval([x - y for x, y in zip(a, b, strict=True)], rng) if pairs else difference_interval(a, b, rng)
    )
    greater = probability_of_improvement(a, b)
    has_ratio = min(*a, *b) > 0
    return Difference(
        mean=float(np.mean(a) - np.mean(b)),
        interval=interval,
        ratio=float(np.mean(a) / np.mean(b)) if has_ratio else np.nan,
        ratio_interval=ratio_interval(a, b, rng, paired=bool(pairs)) if has_ratio else Interval(np.nan, np.nan),
        pairs=pairs,
        probability_of_improvement=greater if measure.better == "higher" else 1 - greater,
        effect_size=hedges_g(a, b),
    )
