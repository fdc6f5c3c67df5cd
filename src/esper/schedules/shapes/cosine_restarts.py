"""Cosine cycles (SGDR, Loshchilov and Hutter 2017, arXiv 1608.03983)."""

import bisect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from esper.schedules.shape import LENGTH, NEEDED, Curve, Falling, Part, Rate, Run, between, shape
from esper.schedules.shapes.cosine import half_cosine
from esper.settings.options import Bounds, ConfigError, option


@shape("cosine_restarts", order=9, cycles=3, cycle_decay=0.7)
@dataclass(frozen=True, kw_only=True)
class CosineRestarts(Falling):
    """a cosine to F in each cycle; cycles start on whole updates"""

    cycles: int = option(NEEDED, "number of cycles", bounds=LENGTH)
    cycle_mult: float = option(1.0, "length of a cycle relative to the one before", bounds=Bounds(above=0))
    cycle_decay: float = option(1.0, "peak of a cycle relative to the one before", bounds=Bounds(above=0, maximum=1))

    def falling(self, peak: float, start: int, length: int) -> Rate:
        floor, bounds = self.floor(peak), self.bounds(start, length)

        def rate(update: int) -> float:
            cycle = bisect.bisect_right(bounds, update) - 1
            if cycle >= self.cycles:
                return floor
            x = (update - bounds[cycle]) / (bounds[cycle + 1] - bounds[cycle])
            top = max(floor, peak * self.cycle_decay**cycle)
            return between(floor, top, half_cosine(x))

        return rate

    def bounds(self, start: int, length: int) -> list[int]:
        """First update of each cycle, then the update after the last one: whole, so that every peak is reached."""
        too_many = ConfigError("cycles", self.cycles, f"{length} updates of decay are too few for that many cycles")
        if self.cycles > length:
            raise too_many
        try:
            ends = list(itertools.accumulate(self.cycle_mult**cycle for cycle in range(self.cycles)))
        except OverflowError:
            raise too_many from None
        bounds = [start, *(start + round(length * (end / ends[-1])) for end in ends)]
        if any(begin >= end for begin, end in itertools.pairwise(bounds)):
            raise too_many
        return bounds

    def parts(self, run: Run, curve: Curve) -> Iterator[Part]:
        if curve.end is not None:
            yield "cycles", "the cycle from update", self.bounds(curve.start, curve.end - curve.start)[:-1]
        yield from super().parts(run, curve)
