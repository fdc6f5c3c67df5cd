"""Environments that are nothing but spaces, one for each kind of task."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, Space

_NUMBERS = Box(-1, 1, (3,), np.float32)
_SPACES: dict[str, tuple[Space[Any], Space[Any]]] = {
    "Box": (_NUMBERS, Box(-1, 1, (2,), np.float32)),
    "Choice": (_NUMBERS, Discrete(3)),
    "Dict": (Dict({"numbers": _NUMBERS, "place": Discrete(4)}), Discrete(3)),
    "Place": (Discrete(16), Discrete(4)),
    "Picture": (Box(0, 255, (8, 8, 3), np.uint8), Discrete(4)),
}


class Spaces(gym.Env[Any, Any]):
    """Samples of its observation space; every reward is 1, and an episode has 10 steps."""

    def __init__(self, name: str) -> None:
        self.observation_space, self.action_space = _SPACES[name]
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self._steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        return self.observation_space.sample(), 1.0, self._steps == 10, False, {}


for _name in _SPACES:
    gym.register(f"{_name}-v0", f"{__name__}:Spaces", kwargs={"name": _name})
