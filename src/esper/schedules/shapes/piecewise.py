"""Straight lines between points."""

import bisect
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from esper.schedules.shape import LARGEST, NEEDED, SMALLEST, Curve, Part, Phase, Run, Shape, shape
from esper.settings.options import ConfigError, option


@shape("piecewise", order=10, points=((0, 2e-4), (40, 1e-3), (120, 8e-4), (200, 1e-4)))
@dataclass(frozen=True, kw_only=True)
class Piecewise(Shape):
    """straight lines between points; no warmup of its own"""

    no_warmup = "put it into points"
    has_own_peak = True

    points: tuple[tuple[int, float], ...] = option(
        NEEDED, "update:rate pairs joined by lines, as 0:3e-4,100:1e-4; the first rate is the base rate"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        points = self.points
        if not points or points[0][0] != 0:
            raise ConfigError("points", points, "must begin at update 0")
        if any(left >= right for (left, _), (right, _) in itertools.pairwise(points)):
            raise ConfigError("points", points, "updates must be strictly increasing")
        if points[0][1] <= 0 or not all(math.isfinite(rate) and rate >= 0 for _, rate in points):
            raise ConfigError("points", points, "rates must be finite, the first greater than 0 and none negative")
        if points[0][1] < SMALLEST or max(rate for _, rate in points) > LARGEST:
            allowed = f"rates must be numbers in float32: up to {LARGEST:.3g}, the first at least {SMALLEST:.2g}"
            raise ConfigError("points", points, allowed)

    def base_rate(self, given: float | None) -> float:
        first = self.points[0][1]
        if given is not None and given != first:
            allowed = f"decay 'piecewise' has its rates in points, the first {first:g}; give no base rate beside them"
            raise ConfigError("peak", given, allowed)
        return first

    def floor(self, peak: float) -> float:
        return self.points[-1][1]

    def curve(self, run: Run) -> Curve:
        return Curve(start=0, end=self.points[-1][0], rate=self._rate)

    def _rate(self, update: int) -> float:
        points = self.points
        index = bisect.bisect_right(points, update, key=lambda point: point[0]) - 1
        if index == len(points) - 1:
            return points[-1][1]
        (left, before), (right, after) = points[index], points[index + 1]
        return before + (after - before) * (update - left) / (right - left)

    def phase(self, update: int, curve: Curve) -> Phase:
        if len({rate for _, rate in self.points}) == 1:
            return "constant"
        for (_, before), (end, after) in itertools.pairwise(self.points):
            if update < end:
                return "warmup" if after > before else "decay" if after < before else "stable"
        return "floor"

    def parts(self, run: Run, curve: Curve) -> Iterator[Part]:
        yield "points", "the point at update", [update for update, _ in self.points if update > run.end]
