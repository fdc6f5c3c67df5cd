"""The shapes a rate takes after warmup: pure functions of the update index, in Python floats."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable
from typing import TypeAlias

from esper.schedules.config import ScheduleConfig
from esper.settings.options import ConfigError

Shape: TypeAlias = Callable[[int], float]


def after_warmup(config: ScheduleConfig, total_updates: int, warmup: int) -> tuple[int, int | None, Shape]:
    """First update of the decay, first update past it (None: it has no end), and the rate from `warmup` on.

    All on the clock that starts after the delay.
    """
    peak = config.peak
    floor = (config.min_ratio or 0.0) * peak
    if config.decay == "constant":
        return warmup, None, lambda clock: peak
    if config.points is not None:
        return 0, config.points[-1][0], _piecewise(config.points)
    if config.decay == "wsd":
        start, length = _wsd_span(config, total_updates, warmup)
    else:
        start, length = warmup, config.decay_steps or total_updates - config.delay - warmup
    ends = config.decay not in ("step", "multistep", "inverse_sqrt")
    curve = _curve(config, peak, floor, start, length)
    return start, start + length if ends else None, curve


def _curve(config: ScheduleConfig, peak: float, floor: float, start: int, length: int) -> Shape:
    """The rate on the clock after the delay, for the shapes that go from `peak` to `floor`."""

    def progress(clock: int) -> float:
        return min(max((clock - start) / length, 0.0), 1.0)

    def falling(share_left: Callable[[float], float]) -> Shape:
        return lambda clock: between(floor, peak, share_left(progress(clock)))

    match config.decay:
        case "linear":
            return falling(_linear)
        case "cosine":
            return falling(_cosine)
        case "wsd":
            shapes = {"linear": _linear, "cosine": _cosine, "1-sqrt": _one_minus_sqrt}
            return falling(shapes[config.wsd_shape or "linear"])
        case "polynomial":
            power = 2.0 if config.power is None else config.power
            return falling(lambda x: float((1 - x) ** power))
        case "exponential":
            return lambda clock: max(floor, peak * (config.min_ratio or 0.0) ** progress(clock))
        case "cosine_restarts":
            return _cosine_restarts(config, peak, floor, start, length)
        case "inverse_sqrt":
            scale = float(max(start, 1)) if config.timescale is None else config.timescale
            return lambda clock: max(floor, peak * math.sqrt(scale / (clock - start + scale)))
        case _:
            return _drops(config, peak, floor, start)


def between(low: float, high: float, share: float) -> float:
    """`low` at share 0 and `high` at share 1, exactly; rounding never leads past `high`."""
    return high if share == 1 else min(high, low + (high - low) * share)


def _linear(x: float) -> float:
    return 1 - x


def _cosine(x: float) -> float:
    return (1 + math.cos(math.pi * x)) / 2


def _one_minus_sqrt(x: float) -> float:
    return 1 - math.sqrt(x)


def _drops(config: ScheduleConfig, peak: float, floor: float, start: int) -> Shape:
    """`step` and `multistep`: a factor `gamma` at each drop."""
    assert config.gamma is not None
    gamma = config.gamma
    if config.step_size is not None:
        size = config.step_size
        return lambda clock: max(floor, peak * gamma ** ((clock - start) // size))
    milestones = config.milestones or ()
    if milestones[0] <= start:
        raise ConfigError("milestones", milestones, f"must lie after the warmup of {start} updates")
    return lambda clock: max(floor, peak * gamma ** bisect.bisect_right(milestones, clock))


def _wsd_span(config: ScheduleConfig, total_updates: int, warmup: int) -> tuple[int, int]:
    """First update and length of the final decline of `wsd`."""
    assert config.decay_frac is not None
    length = math.ceil(config.decay_frac * total_updates)
    start = total_updates - config.delay - length
    if start < warmup:
        raise ConfigError(
            "decay_frac",
            config.decay_frac,
            f"a decline of {length} updates does not fit after delay {config.delay} and warmup {warmup} "
            f"in {total_updates} updates",
        )
    return start, length


def _cosine_restarts(config: ScheduleConfig, peak: float, floor: float, start: int, length: int) -> Shape:
    """Cosine cycles that each start on a whole update, so that every cycle's peak is reached exactly."""
    cycles = config.cycles or 1
    decay = 1.0 if config.cycle_decay is None else config.cycle_decay
    bounds = cycle_bounds(config, start, length)

    def rate(clock: int) -> float:
        cycle = bisect.bisect_right(bounds, clock) - 1
        if cycle >= cycles:
            return floor
        x = (clock - bounds[cycle]) / (bounds[cycle + 1] - bounds[cycle])
        top = max(floor, peak * decay**cycle)
        return between(floor, top, _cosine(x))

    return rate


def cycle_bounds(config: ScheduleConfig, start: int, length: int) -> list[int]:
    """First update of each cycle, then the update after the last one."""
    cycles = config.cycles or 1
    mult = 1.0 if config.cycle_mult is None else config.cycle_mult
    too_many = ConfigError("cycles", cycles, f"{length} updates of decay are too few for that many cycles")
    if cycles > length:
        raise too_many
    try:
        ends = list(itertools.accumulate(mult**cycle for cycle in range(cycles)))
    except OverflowError:
        raise too_many from None
    bounds = [start, *(start + round(length * (end / ends[-1])) for end in ends)]
    if any(begin >= end for begin, end in itertools.pairwise(bounds)):
        raise too_many
    return bounds


def _piecewise(points: tuple[tuple[int, float], ...]) -> Shape:
    updates = [update for update, _ in points]

    def rate(clock: int) -> float:
        index = bisect.bisect_right(updates, clock) - 1
        if index == len(points) - 1:
            return points[-1][1]
        (left, before), (right, after) = points[index], points[index + 1]
        return before + (after - before) * (clock - left) / (right - left)

    return rate
