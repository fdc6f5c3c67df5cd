"""MiniGrid (Chevalier-Boisvert et al. 2023), with observations that the learner can use."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict
from numpy.typing import NDArray

from esper.envs.family import Family


class OneHotView(gymnasium.ObservationWrapper[NDArray[np.uint8], Any, Any]):
    """The cells that the agent sees, with object, colour and state one-hot: uint8 [rows, columns, 20].

    Without the text of the mission, and without the direction, as the view turns with the agent.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX

        super().__init__(env)
        assert isinstance(env.observation_space, Dict)
        view = env.observation_space["image"].shape
        assert view is not None
        self._codes = [np.eye(len(names), dtype=np.uint8) for names in (OBJECT_TO_IDX, COLOR_TO_IDX, STATE_TO_IDX)]
        channels = sum(map(len, self._codes))
        self.observation_space = Box(0, 1, (*view[:2], channels), dtype=np.uint8)

    def observation(self, observation: Any) -> NDArray[np.uint8]:
        cells = observation["image"]
        return np.concatenate([code[cells[..., layer]] for layer, code in enumerate(self._codes)], axis=-1)


class MiniGrid(Family):
    """MiniGrid's environments, each in a `OneHotView`."""

    prefixes = ("MiniGrid-",)
    module = "minigrid"
    extra = "minigrid"

    def wrap(self, env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
        """`env` in `OneHotView`, unless another wrapper has changed the observations."""
        return OneHotView(env) if env.observation_space == env.unwrapped.observation_space else env


FAMILY = MiniGrid()
