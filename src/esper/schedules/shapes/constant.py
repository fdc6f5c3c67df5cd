"""No decay."""

from dataclasses import dataclass

from esper.schedules.shape import Curve, Run, Shape, shape


@shape("constant", order=0)
@dataclass(frozen=True, kw_only=True)
class Constant(Shape):
    """P"""

    def floor(self, peak: float) -> float:
        return peak

    def curve(self, run: Run) -> Curve:
        return Curve(start=run.warmup, end=None, rate=lambda update: run.peak)
