"""Fewer points, only for plots: more points than pixels blur them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

POINTS = 400


def begins_of(count: int, points: int = POINTS) -> NDArray[np.int64]:
    """Where at most `points` even stretches of `count` values begin."""
    return np.linspace(0, count, min(count, points), endpoint=False).astype(int)


def thinned(
    values: NDArray[Any], by: Literal["mean", "min", "max"] = "mean", points: int = POINTS
) -> NDArray[np.float64]:
    """Reduce `values` [..., N] to at most `points` stretches along the last axis: [..., min(N, points)].

    NaN is ignored; a stretch of only NaN is NaN.
    """
    begins = begins_of(values.shape[-1], points)
    if by != "mean":
        extreme = np.fmin if by == "min" else np.fmax
        found: NDArray[np.float64] = extreme.reduceat(values.astype(float), begins, axis=-1)
        return found
    known = np.isfinite(values)
    sums = np.add.reduceat(np.where(known, values, 0.0), begins, axis=-1)
    counts = np.add.reduceat(known.astype(float), begins, axis=-1)
    means: NDArray[np.float64] = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    return means
