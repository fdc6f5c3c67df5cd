"""Half a cosine."""

import math
from dataclasses import dataclass

from esper.schedules.shape import Falling, shape


def half_cosine(x: float) -> float:
    """What is left of 1 at `x`."""
    return (1 + math.cos(math.pi * x)) / 2


@shape("cosine", order=2, min_ratio=0.1)
@dataclass(frozen=True, kw_only=True)
class Cosine(Falling):
    """F + (P - F)(1 + cos(pi x)) / 2"""

    def share_left(self, x: float) -> float:
        return half_cosine(x)
