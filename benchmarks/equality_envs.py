"""An environment of many kinds for `equality.py`, free of esper, and an encoder of its own."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from torch import nn

OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "vector": spaces.Box(-1, 1, (3,)),
    "image": spaces.Box(0, 255, (8, 8, 1), dtype=np.uint8),
    "large image": spaces.Box(0, 255, (36, 36, 1), dtype=np.uint8),
    "dict": spaces.Dict({"where": spaces.Box(-1, 1, (2,)), "which": spaces.Discrete(3)}),
}
ACTIONS: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(3),
    "multi_discrete": spaces.MultiDiscrete([3, 2]),
    "multi_binary": spaces.MultiBinary(2),
    "box": spaces.Box(-1, 1, (2,)),
}
_CHOICES = {"discrete": (3,), "multi_discrete": (3, 2), "multi_binary": (2, 2)}


class Varied(gymnasium.Env[Any, Any]):
    """Episodes of 3 to 9 steps, half of them truncated; its state can be stored.

    Rewards are NaN in step 21 with `fault` "once", and from there on with "always".
    """

    def __init__(
        self,
        observations: str = "vector",
        actions: str = "discrete",
        masked: bool = False,
        fault: str | None = None,
    ) -> None:
        self.observation_space, self.action_space = OBSERVATIONS[observations], ACTIONS[actions]
        self._kind, self._choices, self._fault = observations, _CHOICES[actions] if masked else None, fault
        self._steps = self._age = self._length = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self._steps = 0
        self._age, self._length = 0, int(self.np_random.integers(3, 10))
        return self._observe(), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        self._age += 1
        reward = float(np.sum(action)) + float(self.np_random.normal())
        if (self._fault == "once" and self._steps == 21) or (self._fault == "always" and self._steps >= 21):
            reward = np.nan
        over = self._age >= self._length
        return self._observe(), reward, over and self._length % 2 == 0, over and self._length % 2 == 1, self._info()

    def state_dict(self) -> dict[str, Any]:
        counts = {"steps": self._steps, "age": self._age, "length": self._length}
        return {**counts, "rng": self.np_random.bit_generator.state}

    def load_state_dict(self, state: Any) -> None:
        self._steps, self._age, self._length = state["steps"], state["age"], state["length"]
        self.np_random.bit_generator.state = state["rng"]

    def _observe(self) -> Any:
        if "image" in self._kind:
            return self.np_random.integers(0, 256, self.observation_space.shape, dtype=np.uint8)
        numbers = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return {"where": numbers[:2], "which": self._age % 3} if self._kind == "dict" else numbers

    def _info(self) -> dict[str, Any]:
        if self._choices is None:
            return {}
        # In every choice one value is not allowed, another one in the next step.
        return {"action_mask": np.concatenate([np.arange(n) != self._age % n for n in self._choices])}


def encoder(shape: tuple[int, ...]) -> nn.Module:
    """From observations of `shape` [N, ...] to [N, 5]."""
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(5), nn.Tanh()) if len(shape) > 1 else nn.Linear(shape[0], 5)


gymnasium.register("Varied-v0", entry_point=Varied)
