"""Warmup, stable, decay: a fall over the last part of the run."""

import math
from dataclasses import dataclass
from typing import Literal

from esper.schedules.shape import NEEDED, Curve, Floored, Run, fall, shape
from esper.schedules.shapes.cosine import half_cosine
from esper.schedules.shapes.linear import line
from esper.settings.options import Bounds, ConfigError, option

_SHARE_LEFT = {"linear": line, "cosine": half_cosine, "1-sqrt": lambda x: 1 - math.sqrt(x)}


@shape("wsd", order=8, decay_frac=0.3)
@dataclass(frozen=True, kw_only=True)
class WarmupStableDecay(Floored):
    """P until the last ceil(decay_frac U) updates, then down to F"""

    decay_frac: float = option(
        NEEDED, "fraction of all updates, the last ones, that decay", bounds=Bounds(above=0, maximum=1)
    )
    wsd_shape: Literal["linear", "cosine", "1-sqrt"] = option("linear", "how it falls")

    def curve(self, run: Run) -> Curve:
        length = math.ceil(self.decay_frac * run.total_updates)
        start = run.end - length
        if start < run.warmup:
            raise ConfigError(
                "decay_frac",
                self.decay_frac,
                f"a decline of {length} updates does not fit after delay {run.delay} and warmup {run.warmup} "
                f"in {run.total_updates} updates",
            )
        rate = fall(_SHARE_LEFT[self.wsd_shape], self.floor(run.peak), run.peak, start, length)
        return Curve(start=start, end=start + length, rate=rate)
