"""Actions of Gymnasium's spaces: what the learner sees of them, and from it back to what an environment takes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from numpy.typing import NDArray

from esper.envs.base import Actions, BoolArray, ContinuousActions, DiscreteActions, MultiDiscreteActions
from esper.options import ConfigError


def actions_of(space: Space[Any]) -> Actions:
    """The actions in `space`.

    Raises:
        ConfigError: named "space", for one that is none of Discrete, MultiDiscrete, MultiBinary and Box of floats, or
            whose elements have no numbers.
    """
    if isinstance(space, Discrete):
        return DiscreteActions(n=int(space.n))
    if isinstance(space, MultiDiscrete | MultiBinary) or (
        isinstance(space, Box) and np.issubdtype(space.dtype, np.floating)
    ):
        if not (size := math.prod(space.shape)):
            raise ConfigError("space", space, f"has actions without numbers, of the space {space}")
        if isinstance(space, Box):
            return ContinuousActions(size=size)
        return MultiDiscreteActions(nvec=(2,) * size if isinstance(space, MultiBinary) else _nvec(space))
    allowed = "Discrete, MultiDiscrete, MultiBinary and Box of floats"
    raise ConfigError("space", space, f"{space} is an action space that is not supported; {allowed} are")


def _nvec(space: MultiDiscrete) -> tuple[int, ...]:
    return tuple(space.nvec.ravel().tolist())


def to_space(space: Space[Any], actions: NDArray[np.generic]) -> NDArray[np.generic]:
    """The learner's actions for N copies, numbered from 0 or without bounds, as N elements of `space`, of its type."""
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
    """`mask`, booleans or 0 and 1 for each value of each choice, as booleans.

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
    elif not array.any():
        raise ValueError("allows no action")
    return array
