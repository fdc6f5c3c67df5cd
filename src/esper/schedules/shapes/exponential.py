"""A constant factor for each update."""

from dataclasses import dataclass

from esper.schedules.shape import NEEDED, UNIT, Falling, Rate, progress, shape
from esper.settings.options import ConfigError, option


@shape("exponential", order=4, min_ratio=0.05)
@dataclass(frozen=True, kw_only=True)
class Exponential(Falling):
    """P (F / P)^x"""

    min_ratio: float = option(NEEDED, "floor as a fraction of the base rate", bounds=UNIT)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_ratio == 0:
            raise ConfigError("min_ratio", self.min_ratio, "must be greater than 0 for decay 'exponential'")

    def falling(self, peak: float, start: int, length: int) -> Rate:
        floor = self.floor(peak)
        return lambda update: max(floor, peak * self.min_ratio ** progress(update, start, length))
