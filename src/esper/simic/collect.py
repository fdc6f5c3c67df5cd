"""Collects rollouts: the policy acts, the environments step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from esper.envs.base import BoolArray, Images, StateTree, VectorEnv
from esper.simic.nets.actor_critic import ActorCritic
from esper.simic.rollout import Rollout, on_device
from esper.simic.state import StateForm, array
from esper.simic.steps import checked_obs, checked_step
from esper.system.torch_defaults import torch_defaults


class Act(Protocol):
    """The policy for one step of all environments."""

    def __call__(
        self,
        obs: Tensor,
        noise: Tensor,
        actions: Tensor,
        masks: Tensor | None = None,
        recurrent_state: Tensor | None = None,
    ) -> object:
        """Write `actions` for raw observations [N, ...], noise [N, A], and masks [N, M] if there are any.

        `recurrent_state` [N, S], if the policy has one, is updated in place. It and the noise are on the device of the
        policy, the others are on the host.
        """
        ...


def act_in_torch(network: ActorCritic) -> Act:
    """The policy of `network` with its current parameters."""

    @torch_defaults()
    def act(
        obs: Tensor, noise: Tensor, actions: Tensor, masks: Tensor | None = None, recurrent_state: Tensor | None = None
    ) -> None:
        device = noise.device
        # Not blocking: whoever reads the actions waits for them.
        allowed = None if masks is None else masks.to(device, non_blocking=True)
        actions.copy_(network.act(obs.to(device, non_blocking=True), noise, allowed, recurrent_state))

    return act


class Collector:
    """Collects rollouts from `env`, on the host, with the policy that `actor` makes of a network.

    `recurrent_state` [N, S] is the policy's, on its device; None for a policy without one.
    """

    def __init__(
        self,
        env: VectorEnv,
        seed: int,
        actor: Callable[[ActorCritic], Act] = act_in_torch,
        *,
        recurrent_state: Tensor | None = None,
    ) -> None:
        self._env, self._actor, self._recurrent_state = env, actor, recurrent_state
        self._staging: Rollout | None = None
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Reset every environment."""
        self._obs = checked_obs(self._env.spec, self._env.reset(seed))
        self._masks = self._env.action_masks
        if self._recurrent_state is not None:
            self._recurrent_state.zero_()
        self._begins = np.ones(self._env.spec.num_envs, dtype=np.bool_)
        self.step = 0  # of the current or latest rollout

    @torch.no_grad()
    def collect(self, network: ActorCritic, rollout: Rollout, generator: torch.Generator) -> None:
        """Fill `rollout`. Steps are written through NumPy, several times faster than torch operations."""
        host, act = self._on_host(rollout), self._actor(network)
        num_steps, spec = len(rollout.rewards), self._env.spec
        noise = network.noise(rollout.rewards.shape, generator)
        obs, actions, rewards, terminated, truncated, final_obs, *masks = (field.numpy() for field in host.tensors())
        rollout.ignored.fill(False)
        rollout.successes.clear()
        given = np.empty(rewards.shape)
        recurrent_state = self._begin_with(rollout)
        allowed = num_steps * [None] if host.masks is None else host.masks
        for step, row in enumerate(zip(host.obs[:-1], noise, host.actions, allowed, strict=True)):
            self.step = step
            obs[step] = self._obs
            for mask in masks:
                mask[step] = self._masks
            if recurrent_state is not None:
                rollout.begins[step] = self._begins
                recurrent_state.masked_fill_(on_device(self._begins, recurrent_state.device)[:, None], 0.0)
            act(*row, recurrent_state)
            # A copy: an environment may write into it.
            outcome = checked_step(spec, self._env.step(actions[step].copy()))
            self._obs, given[step], terminated[step], truncated[step], last, ignored, success = outcome
            self._masks = self._env.action_masks
            if last is not None:
                final_obs[step] = last
            if ignored is not None:
                rollout.ignored[step] = ignored
            if success is not None:
                rollout.successes += success[~np.isnan(success)].tolist()
            if recurrent_state is not None:
                lost = _reset_lost(recurrent_state)
                rollout.recurrent_resets[step] = lost & ~outcome.begins
                self._begins = outcome.begins | lost
        obs[num_steps], rollout.begins[num_steps] = self._obs, self._begins
        with np.errstate(over="ignore"):  # a reward beyond float32 becomes infinite, which the learner reports
            rewards[:] = given
        if host is not rollout:
            # Not blocking: the host waits for the update before it writes here again.
            for ours, theirs in zip(host.tensors(), rollout.tensors(), strict=True):
                theirs.copy_(ours, non_blocking=True)

    def _begin_with(self, rollout: Rollout) -> Tensor | None:
        """The recurrent state, or None; `rollout` gets a copy."""
        if rollout.recurrent_state is not None:
            assert self._recurrent_state is not None
            rollout.recurrent_state.copy_(self._recurrent_state)
        return self._recurrent_state

    def state_dict(self) -> StateTree:
        """The observations, masks and recurrent state of the next step."""
        masks = {} if self._masks is None else {"action_masks": self._masks.copy()}
        recurrent = (
            {}
            if self._recurrent_state is None
            else {"memory": self._recurrent_state.clone(), "begins": self._begins.copy()}
        )
        return {"obs": self._obs.copy(), **masks, **recurrent}

    def state_form(self) -> StateForm:
        """The form of `state_dict`."""
        spec = self._env.spec
        pixels = torch.uint8 if isinstance(spec.observations, Images) else torch.float32
        form = {"obs": array(spec.num_envs, *spec.observations.shape, dtype=pixels)}
        if spec.masked:
            form["action_masks"] = array(spec.num_envs, spec.actions.outputs, dtype=torch.bool)
        if self._recurrent_state is not None:
            form["memory"] = array(*self._recurrent_state.shape)
            form["begins"] = array(spec.num_envs, dtype=torch.bool)
        return form

    def load_state_dict(self, state: StateTree) -> None:
        self._obs = np.array(state["obs"])
        self._masks = np.array(state["action_masks"]) if self._env.spec.masked else None
        if self._recurrent_state is not None:
            self._recurrent_state.copy_(torch.as_tensor(state["memory"], device="cpu"))
            self._begins = np.array(state["begins"])

    def _on_host(self, rollout: Rollout) -> Rollout:
        """`rollout` itself, or page-locked host memory of the same form if it is on a GPU."""
        if rollout.obs.device.type == "cpu":
            return rollout
        if self._staging is None:
            self._staging = Rollout.allocate(self._env.spec, len(rollout.rewards), torch.device("cpu"), pinned=True)
        return self._staging


def _reset_lost(recurrent_state: Tensor) -> BoolArray:
    """Zero rows [N, S] that are not finite, as they would stay so until the episode ends; returns which [N]."""
    # A sum takes a fifth of the time of `isfinite` on each number, and no recurrent state is near float32's limit.
    if math.isfinite(recurrent_state.sum()):
        return np.zeros(len(recurrent_state), dtype=np.bool_)
    lost: BoolArray = (~recurrent_state.sum(1).isfinite()).cpu().numpy()
    recurrent_state.masked_fill_(on_device(lost, recurrent_state.device)[:, None], 0.0)
    return lost
