"""A policy that acts in an environment."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray

from esper.envs.actions import same_actions
from esper.envs.base import BoolArray, ObsArray, Step, VectorEnv
from esper.settings.options import ConfigError
from esper.simic.nets.actor_critic import ActorCritic
from esper.simic.steps import checked_obs, checked_step
from esper.system.seeding import GlobalGenerators, integer_seed
from esper.system.torch_defaults import torch_defaults

# The use of the generator from which actions are sampled.
SAMPLING = "evaluation actions"


def evaluation_generators(seed: int) -> GlobalGenerators:
    """The state of the global generators in evaluations; `in_place` seeds those of the process with it."""
    return GlobalGenerators(integer_seed(seed, "evaluation"))


@torch_defaults()
def act(
    network: ActorCritic,
    obs: ObsArray,
    masks: BoolArray | None = None,
    state: torch.Tensor | None = None,
    noise: torch.Tensor | None = None,
) -> NDArray[Any]:
    """`network.act` on arrays, on the device of `network`: the learner's actions for N observations.

    `state` [N, S], if there is one, is updated in place.
    """
    device = next(network.parameters()).device
    allowed = None if masks is None else torch.from_numpy(masks).to(device)
    noise = None if noise is None else noise.to(device)
    actions: NDArray[Any] = network.act(torch.from_numpy(obs).to(device), noise, allowed, state).cpu().numpy()
    return actions


@torch_defaults()
def first_state(network: ActorCritic, count: int) -> torch.Tensor | None:
    """The recurrent state [N, S] of `count` beginning episodes; None without recurrent layers."""
    device = next(network.parameters()).device
    return torch.zeros((count, network.state_size), device=device) if network.state_size else None


class Player:
    """`network` in `env`, from a reset on, with its recurrent state.

    Raises:
        ConfigError: when the environment takes other actions than those of the policy.
    """

    def __init__(self, network: ActorCritic, env: VectorEnv, seed: int, start: str = "evaluation") -> None:
        if not same_actions(network.actions, env.spec.actions):
            raise ConfigError("actions", network.actions, f"the policy's; the environment takes {env.spec.actions}")
        self._network, self._env = network, env
        self._obs = checked_obs(env.spec, env.reset(integer_seed(seed, start)))
        self._state = first_state(network, env.spec.num_envs)

    def step(self, noise: torch.Tensor | None = None) -> Step:
        """Act and step; actions are sampled if there is `noise`."""
        actions = act(self._network, self._obs, self._env.action_masks, self._state, noise)
        step = checked_step(self._env.spec, self._env.step(actions))
        self._obs = step.obs
        if self._state is not None:
            self._state[torch.from_numpy(step.begins).to(self._state.device)] = 0.0
        return step
