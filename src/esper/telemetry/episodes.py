"""What events say of episodes that ended."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any


def episode_fields(returns: Sequence[float], lengths: Sequence[int]) -> dict[str, Any]:
    """The `episode` fields of `UpdateCompleted`."""
    if not returns:
        names = ("return_mean", "return_std", "return_min", "return_max", "length_mean")
        return {"episodes": 0, **{f"episode_{name}": None for name in names}}
    mean = statistics.fmean(returns)
    return {
        "episodes": len(returns),
        "episode_return_mean": mean,
        # statistics.pstdev fails on a return that is not finite.
        "episode_return_std": math.sqrt(statistics.fmean([(value - mean) ** 2 for value in returns])),
        "episode_return_min": min(returns),
        "episode_return_max": max(returns),
        "episode_length_mean": statistics.fmean(lengths),
    }


def fraction(flags: Sequence[float]) -> float | None:
    """The share of 1 among ones and zeros; None if there are none."""
    return statistics.fmean(flags) if flags else None
