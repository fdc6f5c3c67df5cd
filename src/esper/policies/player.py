"""A policy that acts in an environment."""

from __future__ import annotations

import numpy as np
import torch

from esper.envs.base import Actions, Step, VectorEnv, scaled_to
from esper.settings.options import ConfigError
from esper.simic.nets.actor_critic import ActorCritic
from esper.system.seeding import GlobalGenerators, integer_seed


def evaluation_generators(seed: int) -> GlobalGenerators:
    """The state of the global generators in evaluations; `in_place` seeds those of the process with it."""
    return GlobalGenerators(integer_seed(seed, "evaluation"))


class Player:
    """`network` in `env`, from a reset on, with its recurrent state.

    Raises:
        ConfigError: when the environment takes other actions than those of the policy.
    """

    def __init__(self, network: ActorCritic, env: VectorEnv, seed: int, start: str = "evaluation") -> None:
        if not _same_actions(network.actions, env.spec.actions):
            raise ConfigError("actions", network.actions, f"the policy's; the environment takes {env.spec.actions}")
        self._network, self._env = network, env
        self._obs = env.reset(integer_seed(seed, start))
        self._device = next(network.parameters()).device
        size = network.state_size
        self._state = torch.zeros((env.spec.num_envs, size), device=self._device) if size else None

    def step(self, noise: torch.Tensor | None = None) -> Step:
        """Act and step; actions are sampled if there is `noise`."""
        masks = None if self._env.action_masks is None else torch.from_numpy(self._env.action_masks).to(self._device)
        noise = None if noise is None else noise.to(self._device)
        actions = self._network.act(torch.from_numpy(self._obs).to(self._device), noise, masks, self._state)
        step = self._env.step(actions.cpu().numpy())
        self._obs = step.obs
        if self._state is not None:
            self._state[torch.from_numpy(step.begins).to(self._device)] = 0.0
        return step


def _same_actions(ours: Actions, theirs: Actions) -> bool:
    """Whether actions are equal up to the dtype of bounds: EnvPool has some in float64, Gymnasium in float32."""
    bounds, others = scaled_to(ours), scaled_to(theirs)
    if bounds is None or others is None or len(bounds.low) != len(others.low):
        return ours == theirs
    pairs = ((bounds.low, others.low), (bounds.high, others.high))
    return all(np.array_equal(*np.array(pair, dtype=np.float32)) for pair in pairs)
