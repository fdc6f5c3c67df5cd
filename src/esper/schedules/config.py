"""What a learning-rate schedule is made of: the declaration, and every check that needs no run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, get_args

from esper.settings.options import Bounds, ConfigError, check_options, option

Decay: TypeAlias = Literal[
    "constant",
    "linear",
    "cosine",
    "polynomial",
    "exponential",
    "step",
    "multistep",
    "inverse_sqrt",
    "wsd",
    "cosine_restarts",
    "piecewise",
]

DECAYS: tuple[str, ...] = get_args(Decay)

# The parameters each shape reads, and those of them it cannot do without.
USES: Mapping[str, tuple[str, ...]] = {
    "constant": (),
    "linear": ("decay_steps", "min_ratio"),
    "cosine": ("decay_steps", "min_ratio"),
    "polynomial": ("decay_steps", "min_ratio", "power"),
    "exponential": ("decay_steps", "min_ratio"),
    "step": ("min_ratio", "step_size", "gamma"),
    "multistep": ("min_ratio", "milestones", "gamma"),
    "inverse_sqrt": ("min_ratio", "timescale"),
    "wsd": ("min_ratio", "decay_frac", "wsd_shape"),
    "cosine_restarts": ("decay_steps", "min_ratio", "cycles", "cycle_mult", "cycle_decay"),
    "piecewise": ("points",),
}
NEEDS: Mapping[str, tuple[str, ...]] = {
    "exponential": ("min_ratio",),
    "step": ("step_size", "gamma"),
    "multistep": ("milestones", "gamma"),
    "wsd": ("decay_frac",),
    "cosine_restarts": ("cycles",),
    "piecewise": ("points",),
}
DECAY_PARAMETERS: tuple[str, ...] = tuple(dict.fromkeys(name for names in USES.values() for name in names))

DEFAULT_PEAK = 3e-4

_COUNT = Bounds(minimum=0)
_LENGTH = Bounds(minimum=1)
_UNIT = Bounds(minimum=0, maximum=1)
_FRACTION = Bounds(minimum=0, below=1)


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """A learning rate over the updates of a run. With only `peak` given it is constant.

    `None` means "not given"; a parameter that the chosen `decay` does not use is an error, not ignored. `peak` is
    always a number once the config is made: 3e-4 where it was not given, for piecewise the rate of the first point.
    """

    prefixed_by: ClassVar[str] = "peak"
    zero_peak: ClassVar[bool] = False

    peak: float = option(None, "base rate: the value after warmup, before decay", derived_from="points")
    warmup_steps: int | None = option(None, "warmup length in updates", bounds=_COUNT)
    warmup_frac: float | None = option(None, "warmup length as a fraction of all updates", bounds=_FRACTION)
    warmup_shape: Literal["linear", "cosine"] | None = option(None, "how warmup rises (default linear)")
    warmup_start_ratio: float | None = option(
        None, "where warmup starts, as a fraction of the base rate (default 0)", bounds=_FRACTION
    )
    delay: int = option(0, "updates held at exactly 0 before anything else", bounds=_COUNT)
    decay: Decay = option("constant", f"shape after warmup: {', '.join(DECAYS)}")
    decay_steps: int | None = option(None, "decay length in updates (default: to the end of the run)", bounds=_LENGTH)
    min_ratio: float | None = option(None, "floor as a fraction of the base rate (default 0)", bounds=_UNIT)
    power: float | None = option(None, "polynomial: exponent (default 2)", bounds=Bounds(above=0))
    step_size: int | None = option(None, "step: updates between drops", bounds=_LENGTH)
    gamma: float | None = option(None, "step, multistep: factor of each drop", bounds=Bounds(above=0, below=1))
    milestones: tuple[int, ...] | None = option(None, "multistep: updates of the drops, as 100,200", bounds=_LENGTH)
    timescale: float | None = option(
        None, "inverse_sqrt: updates until the rate has fallen by sqrt(2) (default: warmup length)", bounds=_LENGTH
    )
    decay_frac: float | None = option(
        None, "wsd: fraction of all updates, the last ones, that decay", bounds=Bounds(above=0, maximum=1)
    )
    wsd_shape: Literal["linear", "cosine", "1-sqrt"] | None = option(None, "wsd: how it falls (default linear)")
    cycles: int | None = option(None, "cosine_restarts: number of cycles", bounds=_LENGTH)
    cycle_mult: float | None = option(
        None, "cosine_restarts: length of a cycle relative to the one before (default 1)", bounds=Bounds(above=0)
    )
    cycle_decay: float | None = option(
        None,
        "cosine_restarts: peak of a cycle relative to the one before (default 1)",
        bounds=Bounds(above=0, maximum=1),
    )
    points: tuple[tuple[int, float], ...] | None = option(
        None, "piecewise: update:rate pairs joined by lines, as 0:3e-4,100:1e-4; the first rate is the base rate"
    )

    def __post_init__(self) -> None:
        has_peak = self.peak is not None
        if not has_peak:
            object.__setattr__(self, "peak", DEFAULT_PEAK)
        check_options(self)
        if not math.isfinite(self.peak) or self.peak < 0 or (self.peak == 0 and not self.zero_peak):
            raise ConfigError(
                "peak", self.peak, f"must be finite and {'at least' if self.zero_peak else 'greater than'} 0"
            )
        self._check_warmup()
        self._check_decay_parameters()
        if self.milestones is not None:
            _check_milestones(self.milestones)
        if self.points is not None:
            _check_points(self.points)
            self._take_peak_from_points(self.points, has_peak=has_peak)

    def _take_peak_from_points(self, points: tuple[tuple[int, float], ...], *, has_peak: bool) -> None:
        first = points[0][1]
        if has_peak and self.peak != first:
            allowed = f"decay 'piecewise' has its rates in points, the first {first:g}; give no base rate beside them"
            raise ConfigError("peak", self.peak, allowed)
        object.__setattr__(self, "peak", first)

    def _check_warmup(self) -> None:
        if self.warmup_steps is not None and self.warmup_frac is not None:
            raise ConfigError("warmup_frac", self.warmup_frac, "give warmup_steps or warmup_frac, not both")
        if self.warmup_steps is None and self.warmup_frac is None:
            for name in ("warmup_shape", "warmup_start_ratio"):
                if (value := getattr(self, name)) is not None:
                    raise ConfigError(name, value, "needs a warmup: give warmup_steps or warmup_frac too")
        elif self.decay == "piecewise":
            name = "warmup_steps" if self.warmup_frac is None else "warmup_frac"
            raise ConfigError(name, getattr(self, name), "decay 'piecewise' has no warmup: put it into points")

    def _check_decay_parameters(self) -> None:
        uses, needs = USES[self.decay], NEEDS.get(self.decay, ())
        for name in DECAY_PARAMETERS:
            value = getattr(self, name)
            if value is None and name in needs:
                raise ConfigError(name, value, f"decay '{self.decay}' needs it")
            if value is not None and name not in uses:
                allowed = ", ".join(uses) or "none of the decay parameters"
                raise ConfigError(name, value, f"decay '{self.decay}' does not use it; it uses {allowed}")
        if self.decay == "exponential" and self.min_ratio == 0:
            raise ConfigError("min_ratio", self.min_ratio, "must be greater than 0 for decay 'exponential'")


@dataclass(frozen=True, kw_only=True)
class CoefficientConfig(ScheduleConfig):
    """The same for a loss coefficient, which may be 0: then its term is off."""

    zero_peak: ClassVar[bool] = True


def _check_milestones(milestones: tuple[int, ...]) -> None:
    if not milestones or any(left >= right for left, right in itertools.pairwise(milestones)):
        raise ConfigError("milestones", milestones, "must be updates in strictly increasing order, as 100,200")


def _check_points(points: tuple[tuple[int, float], ...]) -> None:
    if not points or points[0][0] != 0:
        raise ConfigError("points", points, "must begin at update 0")
    if any(left >= right for (left, _), (right, _) in itertools.pairwise(points)):
        raise ConfigError("points", points, "updates must be strictly increasing")
    if points[0][1] <= 0 or not all(math.isfinite(rate) and rate >= 0 for _, rate in points):
        raise ConfigError("points", points, "rates must be finite, the first greater than 0 and none negative")
