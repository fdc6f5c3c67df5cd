"""Learning-rate schedules: pure functions of the PPO update index.

A `ScheduleConfig` says what is wanted; `make_schedule` resolves it against the run's number of updates. The result
has no state: resuming a run needs only the index of the next update. One tick of the clock is one PPO update (a
rollout collected and optimised), and the rate is constant inside an update.

All arithmetic is Python float (float64). Standard library only.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from esper.schedules.config import ScheduleConfig
from esper.schedules.shapes import Shape, after_warmup, between, cycle_bounds
from esper.settings.options import ConfigError

Phase: TypeAlias = Literal["delay", "warmup", "stable", "decay", "floor", "constant"]


@dataclass(frozen=True, kw_only=True)
class BeyondEnd:
    """A parameter of a schedule with a part that no update of the run sees: its name, its value, and which part."""

    name: str
    value: object
    says: str


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A resolved schedule: `schedule(u)` is the rate of update `u`. Made by `make_schedule`.

    `warmup` is the resolved length W in updates, `decay_start` and `decay_end` are the first updates of the decay and
    past it (None when it has no end), and `floor` is the lowest rate (for piecewise that of the last point).
    """

    config: ScheduleConfig
    total_updates: int
    warmup: int
    decay_start: int
    decay_end: int | None
    floor: float
    shape: Shape

    def __call__(self, update: int) -> float:
        """The rate of update `update` (0-based), defined for every update from 0 on."""
        if update < 0:
            raise ValueError(f"update = {update}: must be at least 0")
        clock = update - self.config.delay
        if clock < 0:
            return 0.0
        if clock < self.warmup:
            return self._warming(clock)
        return self.shape(clock)

    def _warming(self, clock: int) -> float:
        peak = self.config.peak
        start = (self.config.warmup_start_ratio or 0.0) * peak
        rise = (clock + 1) / (self.warmup + 1)
        if self.config.warmup_shape == "cosine":
            rise = (1 - math.cos(math.pi * rise)) / 2
        return between(start, peak, rise)

    def ratio(self, update: int) -> float:
        """The rate relative to the base rate: a `torch.optim.lr_scheduler.LambdaLR` lambda."""
        return self(update) / self.config.peak if self.config.peak else 0.0

    def phase(self, update: int) -> Phase:
        """Which part of the schedule update `update` is in.

        A shape that never falls is constant. Piecewise is warmup where it rises, decay where it falls, stable where it
        is level, and at the floor from the last point on.
        """
        clock = update - self.config.delay
        if clock < 0:
            return "delay"
        if clock < self.warmup:
            return "warmup"
        if self.config.points is not None:
            return _piecewise_phase(self.config.points, clock)
        if self.floor == self.config.peak:
            return "constant"
        if update < self.decay_start:
            return "stable"
        at_end = self.decay_end is not None and update >= self.decay_end
        return "floor" if at_end or 0 < self.floor == self(update) else "decay"

    def beyond_end(self) -> list[BeyondEnd]:
        """The parameters that the run ends too early to see all of; no error, as a run may be extended."""
        last = self.total_updates - 1
        late = ((name, what, [update for update in updates if update > last]) for name, what, updates in self._parts())
        return [
            BeyondEnd(
                name=name,
                value=getattr(self.config, name),
                says=f"{what} {updates[0]} is not reached: the run ends with update {last}",
            )
            for name, what, updates in late
            if updates
        ]

    def _parts(self) -> Iterator[tuple[str, str, list[int]]]:
        """Parameters that take effect at certain updates: the name, what happens then, and when."""
        config = self.config
        if config.milestones is not None:
            yield "milestones", "the drop at update", [config.delay + update for update in config.milestones]
        if config.step_size is not None:
            yield "step_size", "the first drop at update", [self.decay_start + config.step_size]
        if config.cycles is not None and self.decay_end is not None:
            bounds = cycle_bounds(config, self.decay_start, self.decay_end - self.decay_start)
            yield "cycles", "the cycle from update", bounds[:-1]
        # A line that ends with the run is seen whole: its end is where the next update would be.
        if config.decay_steps is not None and self.decay_end is not None and self.decay_end > self.total_updates:
            yield "decay_steps", "the end of the decay at update", [self.decay_end]
        if config.points is not None:
            ends = [config.delay + update for update, _ in config.points]
            yield "points", "the point at update", [update for update in ends if update > self.total_updates]

    def table(self) -> list[tuple[int, float, Phase]]:
        """(update, rate, phase) for every update of the run."""
        return [(update, self(update), self.phase(update)) for update in range(self.total_updates)]


def _piecewise_phase(points: tuple[tuple[int, float], ...], clock: int) -> Phase:
    if len({rate for _, rate in points}) == 1:
        return "constant"
    for (_, before), (end, after) in itertools.pairwise(points):
        if clock < end:
            return "warmup" if after > before else "decay" if after < before else "stable"
    return "floor"


def make_schedule(config: ScheduleConfig, total_updates: int) -> Schedule:
    """Resolve `config` for a run of `total_updates` PPO updates.

    Raises:
        ConfigError: naming the parameter, when the pieces do not fit into the run.
    """
    if total_updates < 1:
        raise ConfigError("total_updates", total_updates, "must be at least 1")
    warmup = config.warmup_steps or 0
    if config.warmup_frac is not None:
        warmup = math.ceil(config.warmup_frac * total_updates)
    if warmup + config.delay >= total_updates:
        name = "delay" if not warmup else "warmup_steps" if config.warmup_frac is None else "warmup_frac"
        raise ConfigError(
            name,
            getattr(config, name),
            f"warmup ({warmup} updates) and delay ({config.delay}) must leave at least one of the run's "
            f"{total_updates} updates",
        )
    start, end, shape = after_warmup(config, total_updates, warmup)
    floor = config.points[-1][1] if config.points else (config.min_ratio or 0.0) * config.peak
    return Schedule(
        config=config,
        total_updates=total_updates,
        warmup=warmup,
        decay_start=config.delay + start,
        decay_end=None if end is None else config.delay + end,
        floor=config.peak if config.decay == "constant" else floor,
        shape=shape,
    )


def as_progress_callable(schedule: Schedule, total_updates: int) -> Callable[[float], float]:
    """`schedule` as a Stable-Baselines3 `learning_rate`.

    Stable-Baselines3 counts the rollout just collected as done before it optimises on it: its n-th update (0-based)
    sees a remaining progress of `1 - (n + 1) / total_updates`, and the constructor asks for `1.0`.
    """

    def learning_rate(progress_remaining: float) -> float:
        # The small term absorbs the rounding of `1 - progress_remaining`.
        done = math.floor((1.0 - progress_remaining) * total_updates + 1e-6)
        return schedule(min(max(done - 1, 0), total_updates - 1))

    return learning_rate


SWITCH = "ESPER_LR_SCHEDULE"


def schedules_enabled(environment: Mapping[str, str] = os.environ) -> bool:
    """False when the environment switches learning-rate schedules off.

    Raises:
        ConfigError: for a value other than `on` and `off`.
    """
    value = environment.get(SWITCH, "on")
    if value not in ("on", "off"):
        raise ConfigError(SWITCH, value, "must be on or off")
    return value == "on"
