"""A factor at each drop: at even distances, or at given updates."""

import bisect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from esper.schedules.shape import LENGTH, NEEDED, Curve, Floored, Part, Run, shape
from esper.settings.options import Bounds, ConfigError, option

_FACTOR = Bounds(above=0, below=1)


@shape("step", order=5, step_size=50, gamma=0.5)
@dataclass(frozen=True, kw_only=True)
class Step(Floored):
    """P gamma^floor((u - W) / step_size), not below F"""

    step_size: int = option(NEEDED, "updates between drops", bounds=LENGTH)
    gamma: float = option(NEEDED, "factor of each drop", bounds=_FACTOR)

    def curve(self, run: Run) -> Curve:
        peak, start, floor, gamma, size = run.peak, run.warmup, self.floor(run.peak), self.gamma, self.step_size
        return Curve(start=start, end=None, rate=lambda update: max(floor, peak * gamma ** ((update - start) // size)))

    def parts(self, run: Run, curve: Curve) -> Iterator[Part]:
        yield "step_size", "the first drop at update", [curve.start + self.step_size]


@shape("multistep", order=6, milestones=(60, 140), gamma=0.3)
@dataclass(frozen=True, kw_only=True)
class MultiStep(Floored):
    """P gamma^k after k milestones, not below F"""

    milestones: tuple[int, ...] = option(NEEDED, "updates of the drops, as 100,200", bounds=LENGTH)
    gamma: float = option(NEEDED, "factor of each drop", bounds=_FACTOR)

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.milestones
        if not given or any(left >= right for left, right in itertools.pairwise(given)):
            raise ConfigError("milestones", given, "must be updates in strictly increasing order, as 100,200")

    def curve(self, run: Run) -> Curve:
        peak, floor, gamma, milestones = run.peak, self.floor(run.peak), self.gamma, self.milestones
        if milestones[0] <= run.warmup:
            raise ConfigError("milestones", milestones, f"must lie after the warmup of {run.warmup} updates")
        return Curve(
            start=run.warmup,
            end=None,
            rate=lambda update: max(floor, peak * gamma ** bisect.bisect_right(milestones, update)),
        )

    def parts(self, run: Run, curve: Curve) -> Iterator[Part]:
        yield "milestones", "the drop at update", list(self.milestones)
