"""A power of what is left."""

from dataclasses import dataclass

from esper.schedules.shape import Falling, shape
from esper.settings.options import Bounds, option


@shape("polynomial", order=3, power=3.0)
@dataclass(frozen=True, kw_only=True)
class Polynomial(Falling):
    """F + (P - F)(1 - x)^power"""

    power: float = option(2.0, "exponent", bounds=Bounds(above=0))

    def share_left(self, x: float) -> float:
        return float((1 - x) ** self.power)
