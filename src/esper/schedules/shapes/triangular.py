"""Triangular cycles (Smith 2017, arXiv 1506.01186)."""

import bisect
import itertools
from dataclasses import dataclass

from esper.schedules.shape import NEEDED, UNIT, Curve, Phase, Rate, between, shape
from esper.schedules.shapes.cosine_restarts import CosineRestarts
from esper.settings.options import ConfigError, option


@shape("triangular", order=11, cycles=3, cycle_decay=0.7, min_ratio=0.1)
@dataclass(frozen=True, kw_only=True)
class Triangular(CosineRestarts):
    """a line from F up to P and back in each cycle; no warmup of its own"""

    no_warmup = "each cycle rises by itself"

    min_ratio: float = option(NEEDED, "floor as a fraction of the base rate", bounds=UNIT)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_ratio == 0:
            # The first update would learn nothing, and so would each cycle's first.
            raise ConfigError("min_ratio", self.min_ratio, "must be greater than 0 for decay 'triangular'")

    def falling(self, peak: float, start: int, length: int) -> Rate:
        floor, bounds = self.floor(peak), self.bounds(start, length)

        def rate(update: int) -> float:
            cycle = bisect.bisect_right(bounds, update) - 1
            if cycle >= self.cycles:
                return floor
            begin, end = bounds[cycle], bounds[cycle + 1]
            # A whole update, so that every peak is reached.
            middle = begin + (end - begin) // 2
            share = (update - begin) / (middle - begin) if update < middle else (end - update) / (end - middle)
            return between(floor, max(floor, peak * self.cycle_decay**cycle), share)

        return rate

    def bounds(self, start: int, length: int) -> list[int]:
        bounds = super().bounds(start, length)
        if any(end - begin < 2 for begin, end in itertools.pairwise(bounds)):
            allowed = f"{length} updates of decay are too few for that many cycles: each needs 2, to rise and to fall"
            raise ConfigError("cycles", self.cycles, allowed)
        return bounds

    def phase(self, update: int, curve: Curve) -> Phase | None:
        before, after = curve.rate(update), curve.rate(update + 1)
        return "warmup" if before < after else "decay" if before > after else None
