"""Learning-rate schedules: pure functions of the PPO update index.

A `ScheduleConfig` says what is wanted; `make_schedule` resolves it against the run's number of updates. The result
has no state: resuming a run needs only the index of the next update. One tick of the clock is one PPO update (a
rollout collected and optimised), and the rate is constant inside an update.

All arithmetic is Python float (float64). Standard library only.
"""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from esper.schedules.combine import as_rate
from esper.schedules.config import ScheduleConfig
from esper.schedules.function import Custom
from esper.schedules.shape import Curve, Phase, Rate, Run, between, in_updates
from esper.settings.options import ConfigError


@dataclass(frozen=True, kw_only=True)
class BeyondEnd:
    """A parameter of a schedule with a part that no update of the run sees: its name, its value, and which part."""

    name: str
    value: object
    says: str


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A resolved schedule: `schedule(u)` is the rate of update `u`. Made by `make_schedule`.

    `curve` is its shape in `run`, on the clock that starts after the delay; `floor` is the lowest rate (for piecewise
    that of the last point, for a function that of the last update).
    """

    config: ScheduleConfig
    run: Run
    curve: Curve
    floor: float

    @property
    def total_updates(self) -> int:
        return self.run.total_updates

    @property
    def warmup(self) -> int:
        """The length of the warmup in updates."""
        return self.run.warmup

    @property
    def decay_start(self) -> int:
        """The first update of the decay."""
        return self.config.delay + self.curve.start

    @property
    def decay_end(self) -> int | None:
        """The first update past the decay; None when it has no end."""
        return None if self.curve.end is None else self.config.delay + self.curve.end

    def __call__(self, update: int) -> float:
        """The rate of update `update` (0-based), defined for every update from 0 on."""
        if not update >= 0:  # nor NaN
            raise ValueError(f"update = {update}: must be at least 0")
        clock = update - self.config.delay
        if clock < 0:
            return 0.0
        if clock < self.run.warmup:
            return self._warming(clock)
        return self.curve.rate(clock)

    def _warming(self, clock: int) -> float:
        peak = self.config.peak
        start = (self.config.warmup_start_ratio or 0.0) * peak
        rise = (clock + 1) / (self.warmup + 1)
        if self.config.warmup_shape == "cosine":
            rise = (1 - math.cos(math.pi * rise)) / 2
        return between(start, peak, rise)

    def ratio(self, update: int) -> float:
        """The rate relative to the base rate: a `torch.optim.lr_scheduler.LambdaLR` lambda.

        Raises:
            ConfigError: for a function, whose rates are absolute.
        """
        if isinstance(self.config.shape, Custom):
            allowed = "gives absolute rates: there is no ratio to a base rate; call the schedule itself"
            raise ConfigError("decay", str(self.config.decay), allowed)
        return self(update) / self.config.peak if self.config.peak else 0.0

    def phase(self, update: int) -> Phase:
        """Which part of the schedule update `update` is in.

        A shape that never falls is constant. Piecewise and triangular are warmup where they rise and decay where they
        fall; piecewise is stable where it is level, and at the floor from the last point on.
        """
        clock = update - self.config.delay
        if clock < 0:
            return "delay"
        if clock < self.warmup:
            return "warmup"
        of_shape = self.config.shape.phase(clock, self.curve)
        if of_shape is not None:
            return of_shape
        if self.floor == self.config.peak:
            return "constant"
        if update < self.decay_start:
            return "stable"
        at_end = self.decay_end is not None and update >= self.decay_end
        return "floor" if at_end or 0 < self.floor == self(update) else "decay"

    def beyond_end(self) -> list[BeyondEnd]:
        """The parameters that the run ends too early to see all of; no error, as a run may be extended."""
        last = self.total_updates - 1
        parts = self.config.shape.parts(self.run, self.curve)
        late = (
            (name, what, [self.config.delay + update for update in updates if self.config.delay + update > last])
            for name, what, updates in parts
        )
        return [
            BeyondEnd(
                name=name,
                value=getattr(self.config, name),
                says=f"{what} {updates[0]} is not reached: the run ends with update {last}",
            )
            for name, what, updates in late
            if updates
        ]

    def table(self) -> list[tuple[int, float, Phase]]:
        """(update, rate, phase) for every update of the run."""
        return [(update, self(update), self.phase(update)) for update in range(self.total_updates)]


def make_schedule(config: ScheduleConfig | float | Rate, total_updates: int, batch_size: int | None = None) -> Schedule:
    """Resolve `config` for a run of `total_updates` PPO updates; a number is constant, a function gives every rate.

    `batch_size` is the environment steps of an update, `num_envs * num_steps`; lengths in timesteps need it.

    Raises:
        ConfigError: naming the parameter, when the pieces do not fit into the run.
    """
    try:
        config = ScheduleConfig.of(config)
    except TypeError as error:
        raise ConfigError("config", config, str(error)) from None
    _check_updates(total_updates)
    warmup = config.warmup_steps or 0
    if config.warmup_frac is not None:
        warmup = math.ceil(config.warmup_frac * total_updates)
    elif config.warmup_timesteps is not None:
        warmup = in_updates("warmup_timesteps", config.warmup_timesteps, batch_size)
    if warmup + config.delay >= total_updates:
        name = config.warmup_length if warmup and config.warmup_length else "delay"
        raise ConfigError(
            name,
            getattr(config, name),
            f"warmup ({warmup} updates) and delay ({config.delay}) must leave at least one of the run's "
            f"{total_updates} updates",
        )
    run = Run(peak=config.peak, total_updates=total_updates, delay=config.delay, warmup=warmup, batch_size=batch_size)
    curve = config.shape.curve(run)
    floor = config.shape.floor(config.peak) if curve.floor is None else curve.floor
    return Schedule(config=config, run=run, curve=curve, floor=floor)


def _check_updates(total_updates: object) -> None:
    if isinstance(total_updates, bool) or not isinstance(total_updates, numbers.Integral):
        raise ConfigError("total_updates", total_updates, "must be a whole number, at least 1")
    if total_updates < 1:
        raise ConfigError("total_updates", total_updates, "must be at least 1")


def as_progress_callable(schedule: float | Rate, total_updates: int) -> Callable[[float], float]:
    """`schedule`, any function of the update index, as a Stable-Baselines3 `learning_rate`.

    Stable-Baselines3 counts the rollout just collected as done before it optimises on it: its n-th update (0-based)
    sees a remaining progress of `1 - (n + 1) / total_updates`, and the constructor asks for `1.0`.

    Raises:
        ConfigError: naming the argument that is none.
    """
    rate = as_rate("schedule", schedule)
    _check_updates(total_updates)

    def learning_rate(progress_remaining: float) -> float:
        # The small term absorbs the rounding of `1 - progress_remaining`.
        done = math.floor((1.0 - progress_remaining) * total_updates + 1e-6)
        return rate(min(max(done - 1, 0), total_updates - 1))

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
