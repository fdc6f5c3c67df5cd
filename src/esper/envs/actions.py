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
        ConfigError: for a space that is none of Discrete, MultiDiscrete, MultiBinary and Box of floats.
    """
    if isinstance(space, Discrete):
        return DiscreteActions(n=int(space.n))
    if isinstance(space, MultiDiscrete):
        return MultiDiscreteActions(nvec=tuple(space.nvec.ravel().tolist()))
    if isinstance(space, MultiBinary):
        return MultiDiscreteActions(nvec=(2,) * math.prod(space.shape))
    if isinstance(space, Box) and np.issubdtype(space.dtype, np.floating):
        return ContinuousActions(size=math.prod(space.shape))
    allowed = "Discrete, MultiDiscrete, MultiBinary and Box of floats"
    raise ConfigError("env", str(space), f"is an action space that is not supported; {allowed} are")


def to_space(space: Space[Any], actions: NDArray[np.generic]) -> NDArray[np.generic]:
    """The learner's actions for N copies, numbered from 0 or without bounds, as N elements of `space`."""
    if isinstance(space, Discrete):
        return actions + space.start if space.start else actions
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
