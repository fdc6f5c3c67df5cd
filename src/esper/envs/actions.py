"""Actions of Gymnasium's spaces: how the learner sees them, and how its actions become those of the space."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from numpy.typing import NDArray

from esper.envs.base import (
    ActionBounds,
    Actions,
    BoolArray,
    ContinuousActions,
    DiscreteActions,
    MultiDiscreteActions,
    scaled_to,
)
from esper.envs.config import ScaleActions
from esper.envs.scaling import bounds_to_scale_to, cannot_scale, clipping_bounds
from esper.settings.options import ConfigError


def actions_of(space: Space[Any], scale_actions: ScaleActions = "off") -> Actions:
    """The actions in `space`, scaled if `scale_actions` requires it.

    Raises:
        ConfigError: named "space", for a space other than Discrete, MultiDiscrete, MultiBinary and Box of floats, or
            one whose elements are empty; named "scale_actions", for `on` without finite bounds.
    """
    if scale_actions == "on" and not isinstance(space, Box):
        raise cannot_scale(str(space))
    if isinstance(space, Discrete):
        return DiscreteActions(n=int(space.n))
    if isinstance(space, MultiDiscrete | MultiBinary) or (
        isinstance(space, Box) and np.issubdtype(space.dtype, np.floating)
    ):
        if not (size := math.prod(space.shape)):
            raise ConfigError("space", space, f"has empty actions: its space is {space}")
        if isinstance(space, Box):
            return ContinuousActions(size=size, scaled_to=bounds_to_scale_to(scale_actions, space.low, space.high))
        return MultiDiscreteActions(nvec=(2,) * size if isinstance(space, MultiBinary) else _nvec(space))
    allowed = "Discrete, MultiDiscrete, MultiBinary and Box of floats"
    raise ConfigError("space", space, f"{space} is an action space that is not supported; {allowed} are")


def bounds_of(space: Space[Any], actions: Actions) -> ActionBounds | None:
    """Where `space` clips `actions`, in the learner's units; None if they are choices, or a bound is not finite."""
    if not (isinstance(space, Box) and isinstance(actions, ContinuousActions)):
        return None
    return clipping_bounds(actions, space.low, space.high)


def _nvec(space: MultiDiscrete) -> tuple[int, ...]:
    return tuple(space.nvec.ravel().tolist())


def same_actions(ours: Actions, theirs: Actions) -> bool:
    """Whether actions are equal up to the dtype of bounds: EnvPool has some in float64, Gymnasium in float32."""
    bounds, others = scaled_to(ours), scaled_to(theirs)
    if bounds is None or others is None or len(bounds.low) != len(others.low):
        return ours == theirs
    pairs = ((bounds.low, others.low), (bounds.high, others.high))
    return all(np.array_equal(*np.array(pair, dtype=np.float32)) for pair in pairs)


def to_space(space: Space[Any], actions: Actions) -> Callable[[NDArray[np.generic]], NDArray[np.generic]]:
    """The function from the learner's `actions` for N environments to N elements of `space`, in its dtype.

    The learner counts discrete actions from 0; its continuous ones have no bounds.
    """
    in_units_of_space = functools.partial(_to_space, space)
    if (bounds := scaled_to(actions)) is None:
        return in_units_of_space
    factor, offset = bounds.scale

    def scaled(numbers: NDArray[Any]) -> NDArray[np.generic]:
        return in_units_of_space(numbers * factor + offset)

    return scaled


def _to_space(space: Space[Any], actions: NDArray[np.generic]) -> NDArray[np.generic]:
    if isinstance(space, Discrete):
        numbers = actions + space.start if space.start else actions
        return numbers.astype(space.dtype, copy=False)
    shaped = actions.reshape(-1, *(space.shape or ()))
    if isinstance(space, Box):
        shaped = np.clip(shaped, space.low, space.high)
    elif isinstance(space, MultiDiscrete):
        shaped = shaped + space.start
    return shaped.astype(space.dtype, copy=False)


def check_mask(mask: Any, actions: Actions) -> BoolArray:
    """`mask` as booleans; it has booleans, or 0 and 1, for each value of each choice.

    Raises:
        ValueError: for another shape, other values, or a choice without an allowed value.
    """
    array = np.asarray(mask)
    if array.shape != (actions.outputs,):
        raise ValueError(f"has shape {list(array.shape)}, not [{actions.outputs}]")
    if array.dtype != np.bool_ and not ((array == 0) | (array == 1)).all():
        raise ValueError("has values other than 0 and 1")
    array = array.astype(np.bool_, copy=False)
    if isinstance(actions, MultiDiscreteActions):
        choices = np.split(array, np.cumsum(actions.nvec[:-1]))
        empty = [choice for choice, values in enumerate(choices) if not values.any()]
        if empty:
            raise ValueError(f"allows no value of choice {empty[0]}")
    elif not np.count_nonzero(array):  # quicker than any()
        raise ValueError("allows no action")
    return array
