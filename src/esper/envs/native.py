"""Checks what other vector environments return against Gymnasium's rules, and flattens it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.spaces.utils import flatten
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from esper.envs.actions import actions_of, check_mask
from esper.envs.base import BoolArray
from esper.envs.masks import INFOS, LOOKS_LIKE_ONE, NAME
from esper.envs.observations import flatten_batch
from esper.envs.rules import RESET, STEP, BrokenRule, as_numbers, conformed, parts, shown
from esper.settings.options import ConfigError


def resets_in_a_step(env: gymnasium.vector.VectorEnv[Any, Any, Any]) -> bool:
    """Whether `env` uses an extra step to reset, or resets in the step that ends an episode.

    Raises:
        ConfigError: for another autoreset mode, or none.
    """
    mode = env.metadata.get("autoreset_mode")
    if mode not in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
        allowed = "must reset by itself: metadata['autoreset_mode'] must be NEXT_STEP or SAME_STEP, not"
        raise ConfigError("env", env.spec.id if env.spec else type(env.unwrapped).__name__, f"{allowed} {mode}")
    return bool(mode is AutoresetMode.NEXT_STEP)


class Native:
    """Converts what `env`, a native vector environment, returns.

    Observations become arrays [N, ...]; of infos only what is used is read. What does not fit is a `BrokenRule`.
    """

    def __init__(self, env: gymnasium.vector.VectorEnv[Any, Any, Any]) -> None:
        self._space, self._num_envs = env.single_observation_space, env.num_envs
        self._actions = env.single_action_space
        self._all, self._rows = batch_space(self._space, self._num_envs), (self._num_envs,)
        # The fast path: dtypes and shapes that need no conversion.
        plain = type(self._space) is Box
        self._shape: Any = self._all.shape if plain else None
        self._dtype: Any = self._all.dtype if plain else None
        self._masks: str | None = None
        self._asked = False  # whether masks were looked for; never if the actions cannot have any

    def reset(self, outcome: Any) -> tuple[NDArray[Any], Any]:
        """Observations, and infos unchanged."""
        obs, info = parts(outcome, "reset", RESET)
        return self._flat(obs, "reset"), info

    def step(self, outcome: Any) -> tuple[NDArray[Any], NDArray[np.float64], BoolArray, BoolArray, Any]:
        """The same for a step."""
        if type(outcome) is not tuple or len(outcome) != 5:
            outcome = parts(outcome, "step", STEP)
        obs, reward, terminated, truncated, info = outcome
        # Each dtype exists once, and `is` is faster than `==`.
        if type(obs) is not np.ndarray or obs.dtype is not self._dtype or obs.shape != self._shape:
            obs = self._flat(obs, "step")
        reward = self._numbers(reward, "reward").astype(np.float64, copy=False)
        return obs, reward, self._flags(terminated, "terminated"), self._flags(truncated, "truncated"), info

    def finals(self, info: Any, done: BoolArray) -> NDArray[Any]:
        """The final observations [K, ...] of the K environments that are `done`.

        Infos have them in Gymnasium's format, an array of objects that are None where no episode ended, or as one
        batch.
        """
        finals, there = self._by_env(info, "final_obs")
        if finals is None:
            # Its name before Gymnasium 1.0.
            finals, there = self._by_env(info, "final_observation")
        if finals is None:
            raise BrokenRule("step returned no final_obs in info where an episode ended; Gymnasium requires it")
        if missing := np.flatnonzero(done & ~there).tolist():
            raise BrokenRule(f"step returned no final_obs of environment {missing[0]}, where an episode ended")
        if not isinstance(finals, np.ndarray) or finals.dtype != object:
            return self._flat(finals, "in final_obs, step")[done]
        if finals.shape != done.shape:
            raise BrokenRule(f"step returned {shown(finals)} as final_obs; Gymnasium requires [{self._num_envs}]")
        return np.stack([self._final(finals[index], index) for index in np.flatnonzero(done).tolist()])

    def find_masks(self, info: Any) -> tuple[bool, list[str]]:
        """Whether `info`, of a first reset, has action masks, and which names look like masks but are not.

        From here on `masks` requires what was found, or `refuse_masks` none.
        """
        self._asked = True
        for name in INFOS:
            if self._masks is None and self._by_env(info, name)[0] is not None:
                self._masks = name
                try:
                    self.masks(info, np.zeros(self._num_envs, dtype=np.bool_))
                except BrokenRule:
                    if name == NAME:
                        raise
                    self._masks = None
        names = info if isinstance(info, dict) else {name for each in info for name in each} if info else ()
        odd = [name for name in names if LOOKS_LIKE_ONE.search(str(name)) and not str(name).startswith("_")]
        return self._masks is not None, [f"info[{name!r}]" for name in odd if name != self._masks]

    def masks(self, info: Any, over: BoolArray) -> BoolArray:
        """The masks [N, M], as booleans: all true where an episode is `over`, as the next step resets."""
        actions = actions_of(self._actions)
        found = np.ones((self._num_envs, actions.outputs), dtype=np.bool_)
        masks, there = self._by_env(info, self._masks or NAME)
        for index in np.flatnonzero(~over):
            if masks is None or not there[index] or masks[index] is None:
                raise BrokenRule(f"environment {index} gave no action mask; the first reset came with one")
            try:
                found[index] = check_mask(masks[index], actions)
            except ValueError as error:
                raise BrokenRule(f"the action mask of environment {index} {error}") from None
        return found

    def refuse_masks(self, info: Any) -> None:
        """Refuse a mask that comes after a first reset without one."""
        if not self._asked:
            return
        masks, there = self._by_env(info, NAME)
        if masks is not None and there.any():
            index = int(np.argmax(there))
            raise BrokenRule(f"environment {index} gave an action mask; the first reset came without one")

    def _by_env(self, info: Any, name: str) -> tuple[Any, BoolArray]:
        """The values under `name` in `info`, for all environments, or None; and [N], which of them have one.

        Gymnasium's `DictInfoToList` makes infos a list; else "_name" marks the environments that have a value.
        """
        everywhere = np.ones(self._num_envs, dtype=np.bool_)
        if isinstance(info, dict):
            there = np.asarray(info.get(f"_{name}", everywhere))
            return info.get(name), there if there.shape == everywhere.shape else everywhere
        if not isinstance(info, list | tuple) or len(info) != self._num_envs:
            return None, everywhere
        values = np.full(self._num_envs, None, dtype=object)
        for index, each in enumerate(info):
            values[index] = each.get(name) if isinstance(each, dict) else None
        there = np.array([value is not None for value in values])
        return values if there.any() else None, there

    def _flat(self, obs: Any, call: str) -> NDArray[Any]:
        obs = conformed(self._all, obs, f"{call} returned a batch of observations that")
        return obs if isinstance(self._space, Box) else flatten_batch(self._space, obs)

    def _final(self, final: Any, index: int) -> NDArray[Any]:
        final = conformed(self._space, final, f"in final_obs[{index}], step returned a value that")
        return np.asarray(final if isinstance(self._space, Box) else flatten(self._space, final))

    def _numbers(self, values: Any, name: str) -> NDArray[Any]:
        array = as_numbers(values)
        if array is None or array.shape != self._rows:
            raise BrokenRule(f"step returned {shown(values)} as {name}; Gymnasium requires [{self._num_envs}]")
        return array

    def _flags(self, values: Any, name: str) -> BoolArray:
        array = self._numbers(values, name)
        if array.dtype == np.bool_:
            return array
        if not ((array == 0) | (array == 1)).all():
            raise BrokenRule(f"step returned numbers other than 0 and 1 as {name}; Gymnasium requires booleans")
        return array.astype(np.bool_)
