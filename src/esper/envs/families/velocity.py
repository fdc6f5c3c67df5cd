"""Classic control and LunarLander without velocities: partially observable, for recurrent policies.

Their ids are those of the original with NoVel before the version, as in Stable-Baselines3's zoo: CartPoleNoVel-v1.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from esper.envs.base import FloatArray
from esper.envs.family import Family
from esper.envs.snapshot import StateInAttributes

# The indices of velocities in an observation.
_VELOCITIES = {
    "CartPole-v1": (1, 3),
    "MountainCar-v0": (1,),
    "MountainCarContinuous-v0": (1,),
    "Pendulum-v1": (2,),
    "Acrobot-v1": (4, 5),
    "LunarLander-v3": (2, 3, 5),
}


class HideVelocities(StateInAttributes, gymnasium.ObservationWrapper[FloatArray, Any, FloatArray]):
    """Observations without the indices `hidden`."""

    def __init__(self, env: gymnasium.Env[FloatArray, Any], hidden: tuple[int, ...]) -> None:
        super().__init__(env)
        space = env.observation_space
        assert isinstance(space, Box)
        self._shown = tuple(index for index in range(space.shape[0]) if index not in hidden)
        self.observation_space = Box(self.observation(space.low), self.observation(space.high), dtype=np.float32)

    def observation(self, observation: FloatArray) -> FloatArray:
        return observation[list(self._shown)]


def make_without_velocities(original: str, **kwargs: Any) -> HideVelocities:
    """The environment `original` in `HideVelocities`."""
    return HideVelocities(gymnasium.make(original, disable_env_checker=True, **kwargs), _VELOCITIES[original])


def _without_velocities(original: str) -> str:
    name, _, version = original.rpartition("-")
    return f"{name}NoVel-{version}"


class NoVelocity(Family):
    """The originals, each in `HideVelocities`."""

    prefixes = tuple(map(_without_velocities, _VELOCITIES))


# Registered at import: they need no package, and similar ids are suggested in errors.
for _original in _VELOCITIES:
    gymnasium.register(
        _without_velocities(_original),
        entry_point=f"{__name__}:{make_without_velocities.__name__}",
        kwargs={"original": _original},
    )
FAMILY = NoVelocity()
