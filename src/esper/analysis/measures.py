"""Measures of a run: its final return, its speed of learning, and the stability of its updates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from esper.analysis.runs import Columns
from esper.telemetry.metrics import GROUPS

# What runs with `metrics_after` have.
AFTER = ("ratio_std_after", "approx_kl_after", "clip_fraction_after")
FINAL_ACCURACY = "user/final_accuracy"
# The columns that are read: those of the measures, and of plots of comparisons.
COLUMNS = (
    *("update", "env_steps", "episodes", "episode_return_mean"),
    *("value_loss", "ratio_std", "clip_fraction", "approx_kl", "explained_variance"),
    *AFTER,
    *(f"lr/{group}" for group in GROUPS),
)
# The share of the updates at the end of a run over which final values are averaged.
FINAL_SHARE = 0.1
# An update is a spike if its approx_kl is more than this many times the run's median.
SPIKE = 3.0


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number from the updates of a run; not finite if not available. `better` is the direction of improvement."""

    of: Callable[[Columns], float]
    better: Literal["higher", "lower"]
    description: str


def _final_return(updates: Columns) -> float:
    returns, weights = updates["episode_return_mean"], updates["episodes"]
    last = slice(len(returns) - max(1, round(FINAL_SHARE * len(returns))), None)
    return _weighted_mean(returns[last], weights[last])


def _area_under_curve(updates: Columns) -> float:
    known = np.isfinite(updates["episode_return_mean"])
    steps, returns = updates["env_steps"][known], updates["episode_return_mean"][known]
    if len(steps) < 2:
        return np.nan
    return float(np.trapezoid(returns, steps) / (steps[-1] - steps[0]))


def steps_to(threshold: float) -> Callable[[Columns], float]:
    """The first `env_steps` at which the mean return of a rollout's episodes is `threshold`; infinity if never."""

    def steps(updates: Columns) -> float:
        reached = np.flatnonzero(updates["episode_return_mean"] >= threshold)
        return float(updates["env_steps"][reached[0]]) if len(reached) else np.inf

    return steps


def _value_loss_roughness(updates: Columns) -> float:
    return _std(np.diff(_log(updates["value_loss"])))


def _value_loss_std(updates: Columns) -> float:
    return _std(updates["value_loss"])


def _value_loss_variance(updates: Columns) -> float:
    return _std(_log(updates["value_loss"])) ** 2


def _mean_of(name: str) -> Callable[[Columns], float]:
    def mean(updates: Columns) -> float:
        known = _known(updates.get(name, np.array([])))
        return float(known.mean()) if len(known) else np.nan

    return mean


def _variance_of(name: str) -> Callable[[Columns], float]:
    return lambda updates: _std(updates[name]) ** 2


def _oscillation_of(name: str) -> Callable[[Columns], float]:
    return lambda updates: _std(np.diff(updates[name]))


def _largest(name: str) -> Callable[[Columns], float]:
    return lambda updates: float(_known(updates[name]).max(initial=-np.inf))


def _spikes_of(name: str) -> Callable[[Columns], float]:
    def share(updates: Columns) -> float:
        known = _known(updates[name])
        return float(np.mean(known > SPIKE * np.median(known))) if len(known) else np.nan

    return share


def _weighted_mean(values: NDArray[Any], weights: NDArray[Any]) -> float:
    known = np.isfinite(values) & (weights > 0)
    return float(np.average(values[known], weights=weights[known])) if known.any() else np.nan


def _known(values: NDArray[Any]) -> NDArray[Any]:
    known: NDArray[Any] = values[np.isfinite(values)]
    return known


def _log(values: NDArray[Any]) -> NDArray[Any]:
    known = _known(values)
    logarithms: NDArray[Any] = np.log(known[known > 0])
    return logarithms


def _std(values: NDArray[Any]) -> float:
    known = _known(values)
    return float(known.std(ddof=1)) if len(known) > 1 else np.nan


def _of_ratios(when: str = "") -> dict[str, Measure]:
    """How far updates move the policy; `_after`, by what was measured after them."""
    std, fraction, kl = f"ratio_std{when}", f"clip_fraction{when}", f"approx_kl{when}"
    mean = "std of the ratio" if not when else std
    return {
        std: Measure(of=_mean_of(std), better="lower", description=f"{mean}, mean over updates"),
        f"{std}_variance": Measure(of=_variance_of(std), better="lower", description=f"variance of {std}"),
        f"{fraction}_oscillation": Measure(
            of=_oscillation_of(fraction), better="lower", description=f"std of first differences of {fraction}"
        ),
        f"{kl}_max": Measure(of=_largest(kl), better="lower", description=f"largest {kl}"),
    }


MEASURES: dict[str, Measure] = {
    "final_return": Measure(of=_final_return, better="higher", description="mean return of the last 10 % of updates"),
    "area_under_curve": Measure(
        of=_area_under_curve, better="higher", description="return averaged over environment steps"
    ),
    "value_loss_roughness": Measure(
        of=_value_loss_roughness, better="lower", description="std of first differences of log value_loss"
    ),
    "value_loss_std": Measure(of=_value_loss_std, better="lower", description="std of value_loss"),
    "value_loss_variance": Measure(of=_value_loss_variance, better="lower", description="variance of log value_loss"),
    **_of_ratios(),
    "approx_kl_spikes": Measure(
        of=_spikes_of("approx_kl"),
        better="lower",
        description="share of updates with approx_kl over 3 times its median",
    ),
    "explained_variance": Measure(
        of=_mean_of("explained_variance"), better="higher", description="explained_variance, mean over updates"
    ),
}

# Those of runs with `metrics_after`.
MEASURES_AFTER: dict[str, Measure] = {
    **_of_ratios("_after"),
    "approx_kl_after_oscillation": Measure(
        of=_oscillation_of("approx_kl_after"),
        better="lower",
        description="std of first differences of approx_kl_after",
    ),
}

# Those of controllers of `esper/Growth-v0`, over all episodes.
MEASURES_GROWTH: dict[str, Measure] = {
    "final_accuracy": Measure(
        of=_mean_of(FINAL_ACCURACY), better="higher", description="validation accuracy at the end, in percent"
    ),
    "seed_parameters": Measure(
        of=_mean_of("user/seed_parameters"), better="lower", description="parameters in seeds at the end"
    ),
}


def all_measures(threshold: float | None = None, *, after: bool = False, growth: bool = False) -> dict[str, Measure]:
    """`MEASURES`, those `after` the update and of `growth` if asked, and `steps_to_threshold` of a `threshold`."""
    found = MEASURES | (MEASURES_AFTER if after else {}) | (MEASURES_GROWTH if growth else {})
    if threshold is None:
        return found
    description = f"first env_steps with a mean return of {threshold:g}"
    return found | {"steps_to_threshold": Measure(of=steps_to(threshold), better="lower", description=description)}
