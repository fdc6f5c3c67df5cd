"""Observations of Gymnasium's spaces, and how the learner sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple
from gymnasium.spaces.utils import flatdim
from numpy.typing import NDArray

from esper.envs.base import Images, ObsArray, Observations, Vectors
from esper.envs.rules import BrokenRule
from esper.settings.options import ConfigError

_FLATTENABLE = (Box, Discrete, MultiBinary, MultiDiscrete, Dict, Tuple)


def is_image(space: Space[Any]) -> bool:
    """Whether elements are images: uint8 or booleans in three dimensions."""
    return isinstance(space, Box) and len(space.shape) == 3 and space.dtype in (np.uint8, np.bool_)


def observations_of(space: Space[Any]) -> Observations:
    """The observations in `space`: images unchanged, all else as vectors.

    Raises:
        ConfigError: named "space", for a space that can be neither, as graphs, sequences and text.
    """
    if is_image(space):
        assert isinstance(space, Box)
        channels, height, width = space.shape if channels_first(space) else (space.shape[2], *space.shape[:2])
        return Images(shape=(channels, height, width), highest=max(1, int(space.high.max())))
    if odd := _no_vector(space):
        allowed = "Box, Discrete, MultiBinary, MultiDiscrete, and Dict and Tuple of these can"
        raise ConfigError("space", space, f"has observations that cannot become a vector: {odd}; {allowed}")
    if not (size := flatdim(space)):
        raise ConfigError("space", space, f"has empty observations: its space is {space}")
    return Vectors(size=size)


def _no_vector(space: Any, where: str = "") -> str:
    """The place and type of a part of `space` that has no fixed size; empty if there is none."""
    if isinstance(space, Dict | Tuple):
        named = space.spaces.items() if isinstance(space, Dict) else enumerate(space.spaces)
        return next(filter(None, (_no_vector(part, f"{where}at {name!r}, ") for name, part in named)), "")
    return "" if isinstance(space, _FLATTENABLE) else f"{where}there is a {type(space).__name__}"


def channels_first(space: Space[Any]) -> bool:
    """Whether channels are the first dimension: the other two are equal, or it is smaller than the last."""
    assert space.shape is not None
    first, middle, last = space.shape
    if (first == middle) != (middle == last):
        return middle == last
    return first < last


def to_learner(space: Space[Any], *, copy: bool = False) -> Callable[[NDArray[Any]], ObsArray]:
    """The function from observations of N environments, images or flat, to the learner's; with `copy` to new arrays."""
    if not is_image(space):
        flat = not isinstance(space, Box) or len(space.shape) == 1

        def vectors(obs: NDArray[Any]) -> NDArray[np.float32]:
            # Infinities are found by the learner.
            with np.errstate(over="ignore"):
                return (obs if flat else obs.reshape(len(obs), -1)).astype(np.float32, copy=copy)

        return vectors
    if channels_first(space):
        return lambda obs: obs.astype(np.uint8, copy=copy)
    return lambda obs: np.moveaxis(obs, -1, 1).astype(np.uint8, copy=copy)


def flatten_batch(space: Space[Any], obs: Any) -> NDArray[Any]:
    """Observations of N environments as [N, D], each flattened as by Gymnasium's `flatten`."""
    if isinstance(space, Dict):
        return np.concatenate([flatten_batch(part, obs[name]) for name, part in space.spaces.items()], axis=1)
    if isinstance(space, Tuple):
        return np.concatenate([flatten_batch(*pair) for pair in zip(space.spaces, obs, strict=True)], axis=1)
    array: NDArray[Any] = obs.reshape(len(obs), -1)
    if isinstance(space, Discrete):
        return _one_hot(array - space.start, [space.n], space)
    if isinstance(space, MultiDiscrete):
        return _one_hot(array - space.start.ravel(), space.nvec.ravel(), space)
    return array


def _one_hot(numbers: NDArray[Any], sizes: Any, space: Space[Any]) -> NDArray[Any]:
    if not ((numbers >= 0) & (numbers < sizes)).all():
        raise BrokenRule(f"observations have values that are not in their space, {space}")
    return np.concatenate(
        [column[:, None] == np.arange(size) for column, size in zip(numbers.T, sizes, strict=True)], axis=1
    ).astype(space.dtype)
