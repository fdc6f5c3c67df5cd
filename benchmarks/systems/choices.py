"""Cheap environments with many actions, with masks as sb3-contrib takes them: a walk whose goal is one action."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

LENGTH = 50


class Choices(gym.Env[Any, Any]):
    """Each step one action, or one value of each choice, is right, and the observation says which."""

    observation_space = gym.spaces.Box(-1, 1, (4,), np.float32)

    def __init__(self, nvec: tuple[int, ...]) -> None:
        self._nvec = np.array(nvec)
        self.action_space = gym.spaces.Discrete(nvec[0]) if len(nvec) == 1 else gym.spaces.MultiDiscrete(nvec)
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self._steps = 0
        return self._next(), {}

    def step(self, action: Any) -> Any:
        reward = float(np.mean(np.asarray(action) == self._goal))
        self._steps += 1
        return self._next(), reward, False, self._steps == LENGTH, {}

    def _next(self) -> Any:
        self._goal = self.np_random.integers(self._nvec)
        observation = np.zeros(4, np.float32)
        observation[: len(self._nvec)] = self._goal / self._nvec
        return observation


class MaskedChoices(Choices):
    """Half of the actions are forbidden, the right one never."""

    def action_masks(self) -> Any:
        mask = np.ones(int(self._nvec.sum()), bool)
        mask[self._steps % 2 :: 2] = False
        mask[self._goal[0]] = True
        return mask


gym.register("Choices-v0", lambda **_: Choices((20,)))
gym.register("MaskedChoices-v0", lambda **_: MaskedChoices((20,)))
gym.register("MultiChoices-v0", lambda **_: Choices((3, 4, 5)))
