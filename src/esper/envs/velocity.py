"""Classic control and LunarLander without velocities: what moves must be remembered to be known.

Their ids are those of the original with NoVel before the version, as in Stable-Baselines3's zoo: CartPoleNoVel-v1.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from esper.envs.base import FloatArray

# Which numbers of an observation are velocities.
_VELOCITIES = {
    "CartPole-v1": (1, 3),
    "MountainCar-v0": (1,),
    "MountainCarContinuous-v0": (1,),
    "Pendulum-v1": (2,),
    "Acrobot-v1": (4, 5),
    "LunarLander-v3": (2, 3, 5),
}


class HideVelocities(gymnasium.ObservationWrapper[FloatArray, Any, FloatArray]):
    """Observations without the numbers at `hidden`."""

    def __init__(self, env: gymnasium.Env[FloatArray, Any], hidden: tuple[int, ...]) -> None:
        super().__init__(env)
        space = env.observation_space
        assert isinstance(space, Box)
        self._shown = tuple(index for index in range(space.shape[0]) if index not in hidden)
        self.observation_space = Box(self.observation(space.low), self.observation(space.high), dtype=np.float32)

    def observation(self, observation: FloatArray) -> FloatArray:
        return observation[list(self._shown)]


def make_without_velocities(original: str, **kwargs: Any) -> HideVelocities:
    """The environment `original` behind `HideVelocities`."""
    return HideVelocities(gymnasium.make(original, disable_env_checker=True, **kwargs), _VELOCITIES[original])


def register() -> None:
    """Let Gymnasium know the ids."""
    for original in _VELOCITIES:
        name, _, version = original.rpartition("-")
        if (env := f"{name}NoVel-{version}") not in gymnasium.registry:
            gymnasium.register(
                env, entry_point="esper.envs.velocity:make_without_velocities", kwargs={"original": original}
            )
