"""One over the square root of the updates."""

import math
from dataclasses import dataclass

from esper.schedules.shape import LENGTH, Curve, Floored, Run, shape
from esper.settings.options import option


@shape("inverse_sqrt", order=7)
@dataclass(frozen=True, kw_only=True)
class InverseSqrt(Floored):
    """P sqrt(tau / (u - W + tau)), not below F"""

    timescale: float | None = option(
        None, "updates until the rate has fallen by sqrt(2) (default: warmup length)", bounds=LENGTH
    )

    def curve(self, run: Run) -> Curve:
        peak, start, floor = run.peak, run.warmup, self.floor(run.peak)
        scale = float(max(start, 1)) if self.timescale is None else self.timescale
        return Curve(
            start=start,
            end=None,
            rate=lambda update: max(floor, peak * math.sqrt(scale / (update - start + scale))),
        )
