"""A straight line."""

from dataclasses import dataclass

from esper.schedules.shape import Falling, shape


def line(x: float) -> float:
    """What is left of 1 at `x`."""
    return 1 - x


@shape("linear", order=1)
@dataclass(frozen=True, kw_only=True)
class Linear(Falling):
    """F + (P - F)(1 - x)"""

    def share_left(self, x: float) -> float:
        return line(x)
