"""What the schedules of a run say for each update: one learning rate per parameter group, and the coefficients."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from esper.schedules.function import Custom
from esper.simic.config import SCHEDULES, PPOConfig


@dataclass(frozen=True, kw_only=True)
class Horizon:
    """The span of all schedules: `updates` of them, the first at the clock's reading `start`."""

    start: int = 0
    updates: int


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Learning rates and phases by parameter group, and the other scalars by setting, of one update.

    `factors` are those by which feedback multiplies the learning rates, where there is any and they are known.
    """

    learning_rates: dict[str, float]
    phases: dict[str, str]
    coefficients: dict[str, float]
    factors: dict[str, float] | None = None


class RateSchedules:
    """The schedules of `config` over `horizon`, for the parameter groups `groups`.

    Raises:
        ConfigError: naming the setting of a schedule that does not fit into the horizon.
    """

    def __init__(self, config: PPOConfig, groups: Collection[str], horizon: Horizon) -> None:
        self.horizon = horizon
        self._shared_lr = config.shared_lr if "shared" in groups else None
        self._frozen = config.freeze_encoder if "shared" in groups else 0
        self._schedules = config.make_schedules(horizon.updates)
        self._coefficients = {
            name: schedule for name, schedule in self._schedules.items() if name not in ("policy_lr", "value_lr")
        }

    def at(self, update: int) -> Rates:
        """What holds for update `update` of the clock."""
        clock = update - self.horizon.start
        lrs = {name: self._schedules[f"{name}_lr"] for name in ("policy", "value")}
        followed = dict(lrs)
        if self._shared_lr == "min":
            followed["shared"] = min(lrs.values(), key=lambda schedule: schedule(clock))
        elif self._shared_lr is not None:
            followed["shared"] = lrs[self._shared_lr]
        frozen = {"shared"} if update < self._frozen else set()
        return Rates(
            learning_rates={group: 0.0 if group in frozen else schedule(clock) for group, schedule in followed.items()},
            phases={
                group: "frozen" if group in frozen else schedule.phase(clock) for group, schedule in followed.items()
            },
            coefficients={name: schedule(clock) for name, schedule in self._coefficients.items()},
        )

    def past_end(self, updates: int) -> str | None:
        """That a run to `updates` goes on past the end of the schedules, and what they are then; else None."""
        end = self.horizon.start + self.horizon.updates
        if updates <= end:
            return None
        first, last = end - self.horizon.start, updates - 1 - self.horizon.start
        values = {
            name: (f"{schedule(first):.4g}", f"{schedule(last):.4g}")
            for name, schedule in self._schedules.items()
            if schedule.phase(first) != "constant"
        }
        if not values:
            return None
        there = ", ".join(f"{name} {a}" if a == b else f"{name} {a} to {b}" for name, (a, b) in values.items())
        return f"the schedules end with update {end - 1} of the {updates} updates; after that: {there}"

    def resolved(self) -> dict[str, dict[str, Any]]:
        """Each schedule's base rate, floor, and where its parts begin, in updates from the horizon's start."""
        return {
            name: {
                "decay": str(schedule.config.decay),
                "peak": schedule.config.peak,
                "floor": schedule.floor,
                "delay": schedule.config.delay,
                "warmup": schedule.warmup,
                "decay_start": schedule.decay_start,
                "decay_end": schedule.decay_end,
                **({"function": shape.function.path} if isinstance(shape := schedule.config.shape, Custom) else {}),
            }
            for name, schedule in self._schedules.items()
        }

    def state(self, update: int) -> dict[str, Any]:
        """What a checkpoint holds before update `update`; the same settings must give the same state again."""
        rates = self.at(update)
        return {
            "start": self.horizon.start,
            "updates": self.horizon.updates,
            "resolved": self.resolved(),
            "next": {
                **{f"{group}_lr": rate for group, rate in rates.learning_rates.items()},
                **rates.coefficients,
            },
            "next_phase": {f"{group}_lr": phase for group, phase in rates.phases.items()},
        }


def tables(config: PPOConfig, horizon: Horizon) -> dict[str, tuple[float, ...]]:
    """The rates that functions give over `horizon`, by schedule, for a checkpoint: functions themselves are not stored.

    Those of `config` itself, whatever the switch holds instead.
    """
    shapes = {name: getattr(config, name).shape for name in SCHEDULES}
    return {name: shape.function.rates(horizon.updates) for name, shape in shapes.items() if isinstance(shape, Custom)}
