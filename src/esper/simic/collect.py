"""Filling a rollout: the policy acts, the environments answer."""

from __future__ import annotations

import numpy as np
import torch

from esper.envs.base import StateTree, VectorEnv
from esper.simic.networks import ActorCritic
from esper.simic.rollout import Rollout


class Collector:
    """Steps `env`, which is on the host, with a policy, rollout after rollout."""

    def __init__(self, env: VectorEnv, seed: int) -> None:
        self._env = env
        self._staging: Rollout | None = None
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Begin every episode anew."""
        self._obs = self._env.reset(seed)
        self.step = 0  # of the rollout that is being, or was last, collected

    @torch.no_grad()
    def collect(self, network: ActorCritic, rollout: Rollout, generator: torch.Generator) -> None:
        """Fill `rollout`. Everything is written through NumPy, several times faster than an operation of torch."""
        device, host = rollout.obs.device, self._on_host(rollout)
        num_steps = len(rollout.rewards)
        noise = network.noise(rollout.rewards.shape, generator)
        obs, actions, rewards, terminated, truncated, final_obs = (field.numpy() for field in host.tensors())
        rollout.ignored.fill(False)
        for step, (step_obs, step_noise) in enumerate(zip(host.obs[:-1], noise, strict=True)):
            self.step = step
            obs[step] = self._obs
            actions[step] = network.act(step_obs.to(device), step_noise).cpu().numpy()
            outcome = self._env.step(actions[step])
            self._obs, rewards[step], terminated[step], truncated[step], last, ignored = outcome
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
        return {"obs": self._obs.copy()}

    def load_state_dict(self, state: StateTree) -> None:
        self._obs = np.array(state["obs"])

    def _on_host(self, rollout: Rollout) -> Rollout:
        """`rollout` itself, or page-locked memory of its form when it is on a GPU."""
        if rollout.obs.device.type == "cpu":
            return rollout
        if self._staging is None:
            self._staging = Rollout.allocate(self._env.spec, len(rollout.rewards), torch.device("cpu"), pinned=True)
        return self._staging
