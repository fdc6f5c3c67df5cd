"""Observations of Gymnasium's spaces: what the learner sees of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple
from gymnasium.spaces.utils import flatdim
from numpy.typing import NDArray

from esper.envs.base import Images, ObsArray, Observations, Vectors
from esper.options import ConfigError

_FLATTENABLE = (Box, Discrete, MultiBinary, MultiDiscrete, Dict, Tuple)


def is_image(space: Space[Any]) -> bool:
    """Whether elements are pixels: uint8 or booleans in three dimensions."""
    return isinstance(space, Box) and len(space.shape) == 3 and space.dtype in (np.uint8, np.bool_)


def observations_of(space: Space[Any]) -> Observations:
    """The observations in `space`: images as they are, all else as vectors.

    Raises:
        ConfigError: named "space", for a space that is neither.
    """
    if is_image(space):
        assert isinstance(space, Box)
        channels, height, width = space.shape if channels_first(space) else (space.shape[2], *space.shape[:2])
        return Images(shape=(channels, height, width), highest=max(1, int(space.high.max())))
    if not isinstance(space, _FLATTENABLE) or not space.is_np_flattenable:
        raise ConfigError("space", space, f"observation space {space} cannot be made a vector")
    return Vectors(size=flatdim(space))


def channels_first(space: Space[Any]) -> bool:
    """Whether an image's channels are its first dimension: it is square after it, or there are fewer than columns."""
    assert space.shape is not None
    first, middle, last = space.shape
    if (first == middle) != (middle == last):
        return middle == last
    return first < last


def to_learner(space: Space[Any]) -> Callable[[NDArray[Any]], ObsArray]:
    """What makes observations of N copies, images or already flat, what the learner takes."""
    if not is_image(space):
        return lambda obs: obs.reshape(len(obs), -1).astype(np.float32, copy=False)
    if channels_first(space):
        return lambda obs: obs.astype(np.uint8, copy=False)
    return lambda obs: np.moveaxis(obs, -1, 1).astype(np.uint8, copy=False)
