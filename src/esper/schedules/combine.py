"""New schedules from others: pure functions from functions of the update index to functions of the update index."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import math
import numbers
import sys
from collections.abc import Sequence
from typing import Any

from esper.schedules.shape import Rate
from esper.settings.options import ConfigError


def join(schedules: Sequence[float | Rate], boundaries: Sequence[int]) -> Rate:
    """One schedule after the other, as `optax.join_schedules`.

    The second begins at update `boundaries[0]`, the third at `boundaries[1]`, and so on; each counts its updates from
    where it begins.

    Raises:
        ConfigError: naming the argument, when these are no schedules, or no updates in strictly increasing order, one
            fewer than schedules.
    """
    rates = [as_rate("schedules", each) for each in schedules]
    starts = [0, *(_whole("boundaries", each) for each in boundaries)]
    if len(rates) != len(starts):
        allowed = f"must be one fewer than the schedules, of which there are {len(rates)}"
        raise ConfigError("boundaries", tuple(boundaries), allowed)
    if any(left >= right for left, right in itertools.pairwise(starts)):
        raise ConfigError("boundaries", tuple(boundaries), "must be updates from 1 on in strictly increasing order")

    def joined(update: int) -> float:
        # An update before the first belongs to the first schedule, which says what is wrong with it.
        index = max(bisect.bisect_right(starts, update) - 1, 0)
        return rates[index](update - starts[index])

    return joined


def scale(schedule: float | Rate, factor: float) -> Rate:
    """`schedule` times `factor`.

    Raises:
        ConfigError: naming the argument, when it is no schedule, or no finite number of at least 0.
    """
    rate, factor = as_rate("schedule", schedule), _number("factor", factor)
    return lambda update: factor * rate(update)


def clamp(schedule: float | Rate, minimum: float = 0.0, maximum: float = math.inf) -> Rate:
    """`schedule`, but never below `minimum` or above `maximum`.

    Raises:
        ConfigError: naming the argument, when it is no schedule, or when not 0 <= minimum <= maximum.
    """
    rate, high = as_rate("schedule", schedule), _number("maximum", maximum, math.inf)
    low = _number("minimum", minimum, high)

    def clamped(update: int) -> float:
        value = rate(update)
        # A value that is not a number is passed on, for it must not look like a bound.
        return low if value < low else high if value > high else value

    return clamped


def as_rate(name: str, schedule: Any) -> Rate:
    """Argument `name` as a function of the update index; a number is constant.

    Raises:
        ConfigError: when it is neither.
    """
    if callable(schedule):
        return schedule  # type: ignore[no-any-return]
    if isinstance(schedule, numbers.Real) and not isinstance(schedule, bool):
        value = _number(name, schedule)
        return lambda update: value
    allowed = "must be a number or a function of the update index; make_schedule makes one of a ScheduleConfig"
    raise ConfigError(name, schedule, allowed)


def _number(name: str, value: Any, maximum: float = sys.float_info.max) -> float:
    number = math.nan
    with contextlib.suppress(OverflowError):  # of an integer that is too large for a float
        number = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else number
    if not 0 <= number <= maximum:
        limit = {math.inf: "", sys.float_info.max: ", and finite"}.get(maximum, f", and at most {maximum:g}")
        raise ConfigError(name, value, f"must be a number, at least 0{limit}")
    return number


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ConfigError(name, value, "must be whole numbers: updates")
    return int(value)
