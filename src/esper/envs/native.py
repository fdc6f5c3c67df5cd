"""What vector environments of others return: held to Gymnasium's rules, and flattened."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Space
from gymnasium.spaces.utils import flatten
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from esper.envs.base import BoolArray
from esper.envs.observations import flatten_batch
from esper.envs.rules import RESET, STEP, BrokenRule, as_numbers, conformed, parts, shown


class Native:
    """Takes what an environment that steps all its copies at once returns for `num_envs` observations in `space`.

    Observations become arrays [N, ...], infos what is used of them. What cannot is a `BrokenRule`.
    """

    def __init__(self, space: Space[Any], num_envs: int, *, next_step: bool) -> None:
        self._space, self._num_envs, self._next_step = space, num_envs, next_step
        self._all = batch_space(space, num_envs)

    def reset(self, outcome: Any) -> tuple[NDArray[Any], dict[str, Any]]:
        """Observations, and infos with "action_mask" where there is one."""
        obs, info = parts(outcome, "reset", RESET)
        info = info if isinstance(info, dict) else {}
        return self._flat(obs, "reset"), {name: info[name] for name in ("action_mask",) if name in info}

    def step(self, outcome: Any) -> tuple[NDArray[Any], NDArray[np.float64], BoolArray, BoolArray, dict[str, Any]]:
        """The same of a step; infos have "final_obs" [N] where an episode ended, unless `next_step`."""
        obs, reward, terminated, truncated, info = parts(outcome, "step", STEP)
        reward = self._numbers(reward, "reward").astype(np.float64, copy=False)
        terminated, truncated = self._flags(terminated, "terminated"), self._flags(truncated, "truncated")
        obs, done = self._flat(obs, "step"), terminated | truncated
        used = {} if self._next_step or not done.any() else {"final_obs": self._finals(info, done)}
        return obs, reward, terminated, truncated, used

    def _flat(self, obs: Any, call: str) -> NDArray[Any]:
        obs = conformed(self._all, obs, f"{call} returned a batch of observations that")
        return obs if isinstance(self._space, Box) else flatten_batch(self._space, obs)

    def _finals(self, info: Any, done: BoolArray) -> NDArray[Any]:
        """As Gymnasium has them, an array of objects, None where no episode ended; or a batch as observations are."""
        finals = info.get("final_obs") if isinstance(info, dict) else None
        if finals is None:
            raise BrokenRule("step returned no final_obs in info where an episode ended; Gymnasium asks for it")
        if not isinstance(finals, np.ndarray) or finals.dtype != object:
            return self._flat(finals, "in final_obs, step")
        if finals.shape != done.shape:
            raise BrokenRule(f"step returned {shown(finals)} as final_obs; Gymnasium asks for [{self._num_envs}]")
        kept = np.full(self._num_envs, None, dtype=object)
        for copy in np.flatnonzero(done):
            final = conformed(self._space, finals[copy], f"in final_obs, at {copy}, step returned what")
            kept[copy] = np.array(final) if isinstance(self._space, Box) else flatten(self._space, final)
        return kept

    def _numbers(self, values: Any, name: str) -> NDArray[Any]:
        array = as_numbers(values)
        if array is None or array.shape != (self._num_envs,):
            raise BrokenRule(f"step returned {shown(values)} as {name}; Gymnasium asks for [{self._num_envs}]")
        return array

    def _flags(self, values: Any, name: str) -> BoolArray:
        array = self._numbers(values, name)
        if array.dtype == np.bool_:
            return array
        if not ((array == 0) | (array == 1)).all():
            raise BrokenRule(f"step returned numbers other than 0 and 1 as {name}; Gymnasium asks for booleans")
        return array.astype(np.bool_)
