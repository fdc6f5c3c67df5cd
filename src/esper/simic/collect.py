"""Filling a rollout: the policy acts, the environments answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from esper.envs.base import StateTree, VectorEnv
from esper.simic.networks import ActorCritic
from esper.simic.rollout import Rollout


class Act(Protocol):
    """Acts on a step of all copies."""

    def __call__(self, obs: Tensor, noise: Tensor, actions: Tensor, masks: Tensor | None = None) -> object:
        """Write `actions`, for raw observations [N, D], noise [N, A], and masks [N, M] where there are any.

        The noise is on the device of the policy, the others are on the host.
        """
        ...


def act_in_torch(network: ActorCritic) -> Act:
    """The policy of `network` as it is when it acts."""

    def act(obs: Tensor, noise: Tensor, actions: Tensor, masks: Tensor | None = None) -> None:
        device = noise.device
        actions.copy_(network.act(obs.to(device), noise, None if masks is None else masks.to(device)))

    return act


class Collector:
    """Steps `env`, which is on the host, rollout after rollout, with the policy that `actor` makes of a network."""

    def __init__(self, env: VectorEnv, seed: int, actor: Callable[[ActorCritic], Act] = act_in_torch) -> None:
        self._env, self._actor = env, actor
        self._staging: Rollout | None = None
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Begin every episode anew."""
        self._obs, self._masks = self._env.reset(seed), self._env.action_masks
        self.step = 0  # of the rollout that is being, or was last, collected

    @torch.no_grad()
    def collect(self, network: ActorCritic, rollout: Rollout, generator: torch.Generator) -> None:
        """Fill `rollout`. Everything is written through NumPy, several times faster than an operation of torch."""
        host, act = self._on_host(rollout), self._actor(network)
        num_steps = len(rollout.rewards)
        noise = network.noise(rollout.rewards.shape, generator)
        obs, actions, rewards, terminated, truncated, final_obs, *masks = (field.numpy() for field in host.tensors())
        rollout.ignored.fill(False)
        inputs = [host.obs[:-1], noise, host.actions] + ([] if host.masks is None else [host.masks])
        for step, rows in enumerate(zip(*inputs, strict=True)):
            self.step = step
            obs[step] = self._obs
            for mask in masks:
                mask[step] = self._masks
            act(*rows)
            outcome = self._env.step(actions[step])
            self._obs, rewards[step], terminated[step], truncated[step], last, ignored = outcome
            self._masks = self._env.action_masks
            if last is not None:
                final_obs[step] = last
            if ignored is not None:
                rollout.ignored[step] = ignored
        obs[num_steps] = self._obs
        if host is not rollout:
            # The host does not wait; it will have, for the update that follows, when it comes to write here again.
            for ours, theirs in zip(host.tensors(), rollout.tensors(), strict=True):
                theirs.copy_(ours, non_blocking=True)

    def state_dict(self) -> StateTree:
        """What to act on next."""
        return {"obs": self._obs.copy(), **({} if self._masks is None else {"action_masks": self._masks.copy()})}

    def load_state_dict(self, state: StateTree) -> None:
        self._obs = np.array(state["obs"])
        self._masks = np.array(state["action_masks"]) if "action_masks" in state else None

    def _on_host(self, rollout: Rollout) -> Rollout:
        """`rollout` itself, or page-locked memory of its form when it is on a GPU."""
        if rollout.obs.device.type == "cpu":
            return rollout
        if self._staging is None:
            self._staging = Rollout.allocate(self._env.spec, len(rollout.rewards), torch.device("cpu"), pinned=True)
        return self._staging
