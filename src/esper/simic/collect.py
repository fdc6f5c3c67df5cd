"""Filling a rollout: the policy acts, the environments answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from esper.envs.base import BoolArray, Images, StateTree, VectorEnv
from esper.simic.nets.actor_critic import ActorCritic
from esper.simic.rollout import Rollout
from esper.simic.state import StateForm, array


class Act(Protocol):
    """Acts on a step of all copies."""

    def __call__(
        self, obs: Tensor, noise: Tensor, actions: Tensor, masks: Tensor | None = None, memory: Tensor | None = None
    ) -> object:
        """Write `actions`, for raw observations [N, ...], noise [N, A], and masks [N, M] where there are any.

        `memory` [N, S], where the policy has one, becomes that after these observations. It and the noise are on the
        device of the policy, the others are on the host.
        """
        ...


def act_in_torch(network: ActorCritic) -> Act:
    """The policy of `network` as it is when it acts."""

    def act(
        obs: Tensor, noise: Tensor, actions: Tensor, masks: Tensor | None = None, memory: Tensor | None = None
    ) -> None:
        device = noise.device
        actions.copy_(network.act(obs.to(device), noise, None if masks is None else masks.to(device), memory))

    return act


class Collector:
    """Steps `env`, which is on the host, rollout after rollout, with the policy that `actor` makes of a network.

    `memory` [N, S] is where the policy's recurrent state is kept, on its device; None for a policy without one.
    """

    def __init__(
        self,
        env: VectorEnv,
        seed: int,
        actor: Callable[[ActorCritic], Act] = act_in_torch,
        *,
        memory: Tensor | None = None,
    ) -> None:
        self._env, self._actor, self._memory = env, actor, memory
        self._staging: Rollout | None = None
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Begin every episode anew."""
        self._obs, self._masks = self._env.reset(seed), self._env.action_masks
        if self._memory is not None:
            self._memory.zero_()
        self._begins = np.ones(self._env.spec.num_envs, dtype=np.bool_)
        self.step = 0  # of the rollout that is being, or was last, collected

    @torch.no_grad()
    def collect(self, network: ActorCritic, rollout: Rollout, generator: torch.Generator) -> None:
        """Fill `rollout`. Everything is written through NumPy, several times faster than an operation of torch."""
        host, act = self._on_host(rollout), self._actor(network)
        num_steps = len(rollout.rewards)
        noise = network.noise(rollout.rewards.shape, generator)
        obs, actions, rewards, terminated, truncated, final_obs, *masks = (field.numpy() for field in host.tensors())
        rollout.ignored.fill(False)
        rollout.successes.clear()
        given = np.empty(rewards.shape)
        memory = self._begin_with(rollout)
        allowed = num_steps * [None] if host.masks is None else host.masks
        for step, row in enumerate(zip(host.obs[:-1], noise, host.actions, allowed, strict=True)):
            self.step = step
            obs[step] = self._obs
            for mask in masks:
                mask[step] = self._masks
            if memory is not None:
                rollout.begins[step] = self._begins
                memory[torch.from_numpy(self._begins).to(memory.device)] = 0.0
            act(*row, memory)
            outcome = self._env.step(actions[step])
            self._obs, given[step], terminated[step], truncated[step], last, ignored, success = outcome
            self._masks = self._env.action_masks
            if last is not None:
                final_obs[step] = last
            if ignored is not None:
                rollout.ignored[step] = ignored
            if success is not None:
                rollout.successes += success[~np.isnan(success)].tolist()
            if memory is not None:
                lost = _reset_lost(memory)
                rollout.recurrent_resets[step] = lost & ~outcome.begins
                self._begins = outcome.begins | lost
        obs[num_steps], rollout.begins[num_steps] = self._obs, self._begins
        with np.errstate(over="ignore"):  # beyond float32 a reward is infinite, and found as such
            rewards[:] = given
        if host is not rollout:
            # The host does not wait; it will have, for the update that follows, when it comes to write here again.
            for ours, theirs in zip(host.tensors(), rollout.tensors(), strict=True):
                theirs.copy_(ours, non_blocking=True)

    def _begin_with(self, rollout: Rollout) -> Tensor | None:
        """What the policy remembers, if it can; `rollout` gets a copy."""
        if rollout.memory is not None:
            assert self._memory is not None
            rollout.memory.copy_(self._memory)
        return self._memory

    def state_dict(self) -> StateTree:
        """What to act on next."""
        masks = {} if self._masks is None else {"action_masks": self._masks.copy()}
        remembered = {} if self._memory is None else {"memory": self._memory.clone(), "begins": self._begins.copy()}
        return {"obs": self._obs.copy(), **masks, **remembered}

    def state_form(self) -> StateForm:
        """What `state_dict` holds."""
        spec = self._env.spec
        pixels = torch.uint8 if isinstance(spec.observations, Images) else torch.float32
        form = {"obs": array(spec.num_envs, *spec.observations.shape, dtype=pixels)}
        if spec.masked:
            form["action_masks"] = array(spec.num_envs, spec.actions.outputs, dtype=torch.bool)
        if self._memory is not None:
            form["memory"] = array(*self._memory.shape)
            form["begins"] = array(spec.num_envs, dtype=torch.bool)
        return form

    def load_state_dict(self, state: StateTree) -> None:
        self._obs = np.array(state["obs"])
        self._masks = np.array(state["action_masks"]) if self._env.spec.masked else None
        if self._memory is not None:
            self._memory.copy_(torch.as_tensor(state["memory"]))
            self._begins = np.array(state["begins"])

    def _on_host(self, rollout: Rollout) -> Rollout:
        """`rollout` itself, or page-locked memory of its form when it is on a GPU."""
        if rollout.obs.device.type == "cpu":
            return rollout
        if self._staging is None:
            self._staging = Rollout.allocate(self._env.spec, len(rollout.rewards), torch.device("cpu"), pinned=True)
        return self._staging


def _reset_lost(memory: Tensor) -> BoolArray:
    """Zero rows of `memory` [N, S] that are not finite, as they would stay until the episode ends; gives which [N]."""
    # A sum takes a fifth of the time of a look at each number, and no recurrent state is near float32's limit.
    lost: BoolArray = (~memory.sum(1).isfinite()).cpu().numpy()
    if lost.any():
        memory[torch.from_numpy(lost).to(memory.device)] = 0.0
    return lost
