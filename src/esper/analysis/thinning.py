"""Fewer points, only for plots: more points than pixels blur them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

POINTS = 400


def thinned(values: NDArray[Any], by: Literal["mean", "min", "max"] = "mean") -> NDArray[np.float64]:
    """Reduce `values` [..., N] to at most `POINTS` stretches along the last axis: [..., min(N, POINTS)].

    NaN is ignored; a stretch of only NaN is NaN.
    """
    count = values.shape[-1]
    begins = np.linspace(0, count, min(count, POINTS), endpoint=False).astype(int)
    if by != "mean":
        extreme = np.fmin if by == "min" else np.fmax
        found: NDArray[np.float64] = extreme.reduceat(values.astype(float), begins, axis=-1)
        return found
    known = np.isfinite(values)
    sums = np.add.reduceat(np.where(known, values, 0.0), begins, axis=-1)
    counts = np.add.reduceat(known.astype(float), begins, axis=-1)
    means: NDArray[np.float64] = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    return means
