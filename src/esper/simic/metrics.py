"""The columns of a minibatch's metrics, and what an update says of all of them together."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from esper.telemetry.events import UpdateCompleted
from esper.telemetry.metrics import RATIO_QUANTILES as RATIO_QUANTILES
from esper.telemetry.metrics import columns_of

METRICS = columns_of(UpdateCompleted)
COLUMNS = tuple(metric.column for metric in METRICS)

# A share of the returns' root mean square; docs/telemetry.md has the measurements.
LEAST_DEVIATION = 0.02


def explained_variance(returns: Tensor, values: Tensor) -> Tensor:
    """1 - Var(returns - values) / Var(returns), 0-d; NaN where returns hardly vary.

    That is where their standard deviation is at most 0.02 of their root mean square: then the smallest error of the
    values is large beside what there is to explain.
    """
    if returns.numel() < 2:
        return returns.new_full((), math.nan)
    variance = returns.var()
    explained = 1 - (returns - values).var() / variance
    return explained.masked_fill(variance <= LEAST_DEVIATION**2 * returns.square().mean(), math.nan)


def means_of(names: tuple[str, ...], stepped: np.ndarray) -> dict[str, float]:
    """The mean of each column of rows `stepped` [minibatches, names]; empty without rows."""
    return dict(zip(names, stepped.mean(axis=0).tolist(), strict=True)) if len(stepped) else {}


def summarize(means: Mapping[str, float], names: tuple[str, ...], stepped: np.ndarray) -> dict[str, float]:
    """The metrics of an update, from rows `stepped` that the optimizer stepped on, and their `means_of`."""
    summarized = {}
    for metric in METRICS:
        match metric.summary:
            case "mean":
                summarized[metric.name] = means[metric.column]
            case "std":
                summarized[metric.name] = _std(means[metric.column], means[f"{metric.name.removesuffix('_std')}_mean"])
            case "min" | "max":
                column = stepped[:, names.index(metric.column)]
                summarized[metric.name] = float(column.min() if metric.summary == "min" else column.max())
    return summarized


def named_after(means: Mapping[str, float]) -> dict[str, float]:
    """The metrics of a rollout after its update, from the `ratio_metrics` of its samples."""
    return {
        "approx_kl_after": means["approx_kl"],
        "clip_fraction_after": means["clip_fraction"],
        "ratio_std_after": _std(means["ratio_deviation_sq"], means["ratio_mean"]),
    }


def below(prefix: str, means: Mapping[str, float]) -> dict[str, float]:
    """Those whose names begin with `prefix`, by the rest of their names."""
    return {name.removeprefix(prefix): mean for name, mean in means.items() if name.startswith(prefix)}


def _std(mean_square_from_1: float, mean: float) -> float:
    return float(max(mean_square_from_1 - (mean - 1) ** 2, 0.0) ** 0.5)
