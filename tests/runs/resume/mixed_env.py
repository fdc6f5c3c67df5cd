"""One environment of every kind: its observations, actions, masks and faults are arguments, its state is exact.

To import this registers `Mixed-v0`. It is stepped copy by copy; its own vector version resets in the next step.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from copy import deepcopy
from typing import Any, cast

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array
from numpy.typing import NDArray

OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "vector": spaces.Box(-1, 1, (3,)),
    "image": spaces.Box(0, 255, (8, 8, 1), dtype=np.uint8),
    "dict": spaces.Dict({"where": spaces.Box(-1, 1, (2,)), "which": spaces.Discrete(3)}),
}
ACTIONS: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(3),
    "multi_discrete": spaces.MultiDiscrete([3, 2]),
    "multi_binary": spaces.MultiBinary(2),
    "box": spaces.Box(np.array([-1, 0], np.float32), np.array([1, 5], np.float32)),
}


class Mixed(gymnasium.Env[Any, Any]):
    """Episodes of 3 to 9 steps, half of them truncated; in step 21 its `fault`, observation or reward, is NaN.

    With `draws` "global" it also draws from the global generators and those of its spaces, which it does not seed.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self,
        observations: str = "vector",
        actions: str = "discrete",
        masked: bool = False,
        fault: str | None = None,
        draws: str = "own",
        success: bool = False,
        masks_of_vector: bool = False,  # whether the vector version hands over masks too; stored runs are without
        render_mode: str | None = None,
    ) -> None:
        self.render_mode = render_mode
        self.observation_space, self.action_space = OBSERVATIONS[observations], deepcopy(ACTIONS[actions])
        self._kind, self._masked, self._fault, self._draws = observations, masked, fault, draws
        self._tells, self._masks_of_vector = success, masks_of_vector
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
        if self._draws == "global":
            reward += _draw_globally() + float(np.sum(self.action_space.sample()))
        if self._steps == 21 and self._fault == "reward":
            reward = np.nan
        over = self._age >= self._length
        return self._observe(), reward, over and self._length % 2 == 0, over and self._length % 2 == 1, self._info()

    def render(self) -> Any:
        return np.full((8, 8, 3), 20 * self._age, np.uint8)

    def state_dict(self) -> dict[str, Any]:
        counts = {"steps": self._steps, "age": self._age, "length": self._length}
        return {**counts, "rng": self.np_random.bit_generator.state}

    def load_state_dict(self, state: Any) -> None:
        self._steps, self._age, self._length = state["steps"], state["age"], state["length"]
        self.np_random.bit_generator.state = state["rng"]

    def _observe(self) -> Any:
        numbers = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        if self._steps == 21 and self._fault == "observation":
            numbers[0] = np.nan
        if self._kind == "image":
            return self.np_random.integers(0, 256, (8, 8, 1), dtype=np.uint8)
        return {"where": numbers[:2], "which": self._age % 3} if self._kind == "dict" else numbers

    def _info(self) -> dict[str, Any]:
        success = {"is_success": self._length > 5} if self._tells else {}
        if not self._masked:
            return success
        choices = {"discrete": (3,), "multi_discrete": (3, 2), "multi_binary": (2, 2)}
        (kind,) = (name for name, space in ACTIONS.items() if space == self.action_space)
        # In every choice one value is not allowed, another one in the next step.
        return {**success, "action_mask": np.concatenate([np.arange(n) != self._age % n for n in choices[kind]])}


def images() -> tuple[NDArray[Any], ...]:
    """Data for hosts that grow: 4x4 images of noise, brighter in the second class."""
    generator = np.random.default_rng(0)
    classes = generator.integers(0, 2, 48)
    pictures = generator.standard_normal((48, 1, 4, 4)) + classes[:, None, None, None]
    return pictures[16:], classes[16:], pictures[:16], classes[:16]


def odd_images() -> tuple[NDArray[Any], ...]:
    """The same with one image of training that no host survives."""
    first, *others = images()
    first[0] = 1e30
    return first, *others


def halving(total: int) -> Callable[[int], float]:
    """A schedule of learning rates."""
    return lambda update: 1e-3 * 0.5 ** (4 * update // total)


def _draw_globally() -> float:
    return random.gauss() + np.random.normal() + float(torch.rand(()))  # noqa: NPY002


class MixedVector(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """`num_envs` copies that reset in the step after an episode's last one."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int, max_episode_steps: float = math.inf, **arguments: Any) -> None:
        self._copies = [Mixed(**arguments) for _ in range(num_envs)]
        self._over = np.zeros(num_envs, dtype=np.bool_)
        self._limit, self.num_envs = max_episode_steps, num_envs
        first = self._copies[0]
        self.single_observation_space, self.single_action_space = first.observation_space, first.action_space
        self.observation_space, self.action_space = (
            batch_space(space, num_envs) for space in (first.observation_space, first.action_space)
        )

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self._over[:] = False
        first = seed if seed is not None else 0
        observations = [copy.reset(seed=first + index)[0] for index, copy in enumerate(self._copies)]
        return self._batch(observations), self._info()

    def step(self, actions: Any) -> Any:
        rows = [
            (copy.reset()[0], 0.0, False, False) if over else self._step(copy, action)
            for copy, action, over in zip(self._copies, actions, self._over, strict=True)
        ]
        observations, *columns = zip(*rows, strict=True)
        rewards, terminated, truncated = map(np.stack, columns)
        self._over = terminated | truncated
        return self._batch(observations), rewards, terminated, truncated, self._info()

    def _batch(self, observations: Any) -> Any:
        space = self.single_observation_space
        return concatenate(space, observations, cast(Any, create_empty_array(space, self.num_envs)))

    def _info(self) -> dict[str, Any]:
        infos = [copy._info() for copy in self._copies]
        names = [name for name in infos[0] if name != "action_mask" or self._copies[0]._masks_of_vector]
        return {name: np.stack([info[name] for info in infos]) for name in names}

    def _step(self, copy: Mixed, action: Any) -> tuple[Any, float, bool, bool]:
        obs, reward, terminated, truncated, _ = copy.step(action)
        return obs, reward, terminated, truncated or copy._age >= self._limit

    def state_dict(self) -> dict[str, Any]:
        # `_over` itself, which a step replaces: what is stored must be what was.
        copies = {str(index): copy.state_dict() for index, copy in enumerate(self._copies)}
        return {"copies": copies, "over": self._over}

    def load_state_dict(self, state: Any) -> None:
        for index, copy in enumerate(self._copies):
            copy.load_state_dict(state["copies"][str(index)])
        self._over = np.array(state["over"])


gymnasium.register("Mixed-v0", entry_point=cast(Any, Mixed), vector_entry_point=cast(Any, MixedVector))
