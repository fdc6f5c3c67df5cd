"""Storage for one rollout: T steps of N environments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from esper.envs.base import BoolArray, ContinuousActions, EnvSpec, Images, MultiDiscreteActions
from esper.settings.options import ConfigError


@dataclass(kw_only=True)
class Rollout:
    """Tensors on one device: `obs` [T+1, N, D], `actions` [T, N] or [T, N, A], `rewards` [T, N], all float32 but for
    int64 choices, [T, N] or [T, N, K], and uint8 images [T+1, N, C, H, W]; `terminated` and `truncated` [T, N], bool.

    `final_obs` [T, N, ...] holds the last observation of an episode where it was truncated and not terminated, and
    anything elsewhere. `ignored` [T, N] marks steps that an environment used to reset: no transition to learn from. It
    is on the host, where `sample_indices` must know of such steps without waiting for the device.

    `masks` [T, N, M], bool, are the actions that were allowed, where the environment tells.

    `memory` [N, S] is what a policy that has one remembered before the first step, and `begins` [T+1, N], on the host,
    says which observations begin an episode, at which it forgets. `recurrent_resets` [T, N], on the host, are the steps
    in an episode after which it was not finite any more: it forgets, and nothing can be learned from the rollout.

    `successes` are of the episodes that ended in it, where the environment tells: 1 for a success, 0 for none.
    """

    obs: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    final_obs: Tensor
    masks: Tensor | None
    memory: Tensor | None
    begins: BoolArray
    recurrent_resets: BoolArray
    ignored: BoolArray
    successes: list[float]

    @staticmethod
    def allocate(
        spec: EnvSpec, num_steps: int, device: torch.device, *, memory_size: int = 0, pinned: bool = False
    ) -> Rollout:
        """Zeros; `pinned` in host memory that a GPU can copy from by itself."""

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device, pin_memory=pinned)

        shape, one = (num_steps, spec.num_envs), spec.observations.shape
        pixels = torch.uint8 if isinstance(spec.observations, Images) else torch.float32
        match spec.actions:
            case ContinuousActions(size=numbers):
                actions = zeros(*shape, numbers)
            case MultiDiscreteActions(nvec=nvec):
                actions = zeros(*shape, len(nvec), dtype=torch.int64)
            case _:
                actions = zeros(*shape, dtype=torch.int64)
        return Rollout(
            obs=zeros(num_steps + 1, spec.num_envs, *one, dtype=pixels),
            actions=actions,
            rewards=zeros(*shape),
            terminated=zeros(*shape, dtype=torch.bool),
            truncated=zeros(*shape, dtype=torch.bool),
            final_obs=zeros(*shape, *one, dtype=pixels),
            masks=zeros(*shape, spec.actions.outputs, dtype=torch.bool) if spec.masked else None,
            memory=zeros(spec.num_envs, memory_size) if memory_size else None,
            begins=np.zeros((num_steps + 1, spec.num_envs), dtype=np.bool_),
            recurrent_resets=np.zeros(shape, dtype=np.bool_),
            ignored=np.zeros(shape, dtype=np.bool_),
            successes=[],
        )

    def tensors(self) -> tuple[Tensor, ...]:
        """What steps write on the device, in the order of the fields; masks only where there are any."""
        masks = () if self.masks is None else (self.masks,)
        return (self.obs, self.actions, self.rewards, self.terminated, self.truncated, self.final_obs, *masks)

    def without_ignored(self) -> Rollout:
        """The same with zeros in ignored rows, each the end of an episode: nothing that was there reaches a result."""
        if not self.ignored.any():
            return self
        ignored = torch.from_numpy(self.ignored).to(self.rewards.device, non_blocking=True)
        # Other dtypes have no number that could do harm.
        obs = self.obs
        if obs.is_floating_point():
            obs = torch.cat((_blank(obs[:-1], ignored), obs[-1:]))
        actions = _blank(self.actions, ignored) if self.actions.is_floating_point() else self.actions
        rewards, terminated = _blank(self.rewards, ignored), self.terminated | ignored
        return replace(self, obs=obs, actions=actions, rewards=rewards, terminated=terminated)

    def normalized(self, normalize: Callable[[Tensor], Tensor]) -> Rollout:
        """The same with its observations as the layers of a network read them."""
        return replace(self, obs=normalize(self.obs), final_obs=normalize(self.final_obs))

    def live_indices(self) -> Tensor | None:
        """Rows of the flattened rollout that are not ignored, on its device; None when all are live."""
        if not self.ignored.any():
            return None
        return torch.from_numpy(np.flatnonzero(~self.ignored)).to(self.rewards.device, non_blocking=True)

    def sample_indices(self, generator: np.random.Generator) -> Tensor | None:
        """Rows of the flattened rollout to learn from, as many as it has; None when they are just all rows.

        An ignored row is replaced by a random other one, so that minibatches keep their size and nothing recompiles.
        """
        if not self.ignored.any():
            return None
        ignored = self.ignored.ravel()
        if ignored.all():
            # Only a rollout of one step can be all resets: no copy resets twice in a row.
            raise ConfigError("num_steps", 1, "must be at least 2 where environments spend a step on resetting")
        indices = np.arange(ignored.size)
        indices[ignored] = generator.choice(indices[~ignored], size=int(ignored.sum()))
        return torch.from_numpy(indices)


def _blank(field: Tensor, rows: Tensor) -> Tensor:
    """`field` [T, N, ...] with 0 in `rows` [T, N]."""
    return field.masked_fill(rows.view(*rows.shape, *(1,) * (field.ndim - rows.ndim)), 0)
