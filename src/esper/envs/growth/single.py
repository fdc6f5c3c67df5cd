"""`esper/Growth-v0` as a Gymnasium environment: one host."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, MultiDiscrete
from numpy.typing import NDArray

from esper.envs.base import FloatArray, StateTree
from esper.envs.growth.observation import LIMIT
from esper.envs.growth.settings import config_of
from esper.envs.growth.stages import Host
from esper.envs.growth.vector import GrowthVectorEnv


class GrowthEnv(gymnasium.Env[FloatArray, NDArray[np.int64]]):
    """One host; `settings` are those of `GrowthConfig`.

    The info has "action_mask", and after a step "accuracy", "diverged" and "reward", its terms by name; at an end
    "is_success", False where the host diverged.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, **settings: Any) -> None:
        self.render_mode = render_mode
        self._env = GrowthVectorEnv(config_of(settings), 1)
        self.observation_space = Box(-LIMIT, LIMIT, self._env.spec.observations.shape, np.float32)
        self.action_space = MultiDiscrete(list(map(len, self._env.config.choices)))
        self._begun = False
        self._seen: list[Host] = []

    @property
    def host(self) -> Host:
        """The host that the next action meets."""
        return self._env.hosts[0]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None or not self._begun:
            self._env.reset(int(self.np_random.integers(2**31)))
        elif self.host.epoch:  # else the last step began this episode
            self._env.begin([0])
        self._begun, self._seen = True, [self.host]
        return self._env.observe()[0], {"action_mask": self._env.action_masks[0]}

    def step(self, action: NDArray[np.int64]) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, final_obs, *_ = self._env.step(np.asarray(action)[None])
        (epoch,) = self._env.epochs
        self._seen.append(epoch.after)
        info = {
            "action_mask": self._env.action_masks[0],
            "accuracy": epoch.after.val_accuracy,
            "diverged": epoch.after.diverged,
            "reward": epoch.reward.terms,
        }
        if terminated[0] or truncated[0]:
            info["is_success"] = not epoch.after.diverged
        seen = obs if final_obs is None else final_obs
        return seen[0].astype(np.float32), float(reward[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> NDArray[np.uint8]:
        """The episode so far, as `episode_picture`; after a load from the epoch that was loaded."""
        from esper.envs.growth.picture import episode_picture

        return episode_picture(self._seen, self._env.config)

    def state_dict(self) -> StateTree:
        return {"begun": self._begun, "own": self.np_random.bit_generator.state, "env": self._env.state_dict()}

    def load_state_dict(self, state: StateTree) -> None:
        self._env.load_state_dict(state["env"])
        self.np_random.bit_generator.state = state["own"]
        self._begun, self._seen = bool(state["begun"]), [self.host]
