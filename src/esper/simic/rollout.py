"""Storage for one rollout: T steps of N environments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from esper.envs.base import BoolArray, ContinuousActions, EnvSpec, Images, MultiDiscreteActions
from esper.settings.options import ConfigError
from esper.system.torch_defaults import torch_defaults


@dataclass(kw_only=True)
class Rollout:
    """Tensors on one device: `obs` [T+1, N, D], `actions` [T, N] or [T, N, A], `rewards` [T, N], all float32 but for
    int64 choices, [T, N] or [T, N, K], and uint8 images [T+1, N, C, H, W]; `terminated` and `truncated` [T, N], bool.

    `final_obs` [T, N, ...] has the last observation of an episode where it was truncated and not terminated; other rows
    are arbitrary. `ignored` [T, N] marks steps that an environment used to reset: no transition to learn from. It is on
    the host, so that `sample_indices` does not wait for the device.

    `masks` [T, N, M], bool, are the actions that were allowed, if the environment reports them.

    `recurrent_state` [N, S], of a recurrent policy, is that before the first step. `begins` [T+1, N], on the host,
    marks observations that begin an episode, where it is reset. `recurrent_resets` [T, N], on the host, marks steps
    within an episode after which it was not finite: it is reset, and nothing can be learned from the rollout.

    `successes` has 1 (success) or 0 for the episodes that ended in it, if the environment reports it.
    """

    obs: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    final_obs: Tensor
    masks: Tensor | None
    recurrent_state: Tensor | None
    begins: BoolArray
    recurrent_resets: BoolArray
    ignored: BoolArray
    successes: list[float]

    @staticmethod
    @torch_defaults()
    def allocate(
        spec: EnvSpec, num_steps: int, device: torch.device, *, state_size: int = 0, pinned: bool = False
    ) -> Rollout:
        """A rollout of zeros; `pinned` in page-locked host memory."""

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
            recurrent_state=zeros(spec.num_envs, state_size) if state_size else None,
            begins=np.zeros((num_steps + 1, spec.num_envs), dtype=np.bool_),
            recurrent_resets=np.zeros(shape, dtype=np.bool_),
            ignored=np.zeros(shape, dtype=np.bool_),
            successes=[],
        )

    def tensors(self) -> tuple[Tensor, ...]:
        """The fields that steps write on the device, in order; masks only if there are any."""
        masks = () if self.masks is None else (self.masks,)
        return (self.obs, self.actions, self.rewards, self.terminated, self.truncated, self.final_obs, *masks)

    def copied(self) -> Rollout:
        """The same with copies of `tensors`."""
        obs, actions, rewards, terminated, truncated, final_obs, *masks = (field.clone() for field in self.tensors())
        return replace(
            self,
            obs=obs,
            actions=actions,
            rewards=rewards,
            terminated=terminated,
            truncated=truncated,
            final_obs=final_obs,
            masks=masks[0] if masks else None,
        )

    def without_ignored(self) -> Rollout:
        """The same with zeros in ignored rows, each terminated, so that they affect no result."""
        if not self.ignored.any():
            return self
        ignored = on_device(self.ignored, self.rewards.device)
        # Other dtypes have no NaN or infinity.
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
        """Rows of the flattened rollout that are not ignored, on its device; None if none is ignored."""
        if not self.ignored.any():
            return None
        return on_device(np.flatnonzero(~self.ignored), self.rewards.device)

    def sample_indices(self, generator: np.random.Generator) -> Tensor | None:
        """Rows of the flattened rollout to learn from, as many as it has, on its device; None if no row is ignored.

        A random other row replaces an ignored one, so that minibatches keep their size and nothing is recompiled.
        """
        if not self.ignored.any():
            return None
        ignored = self.ignored.ravel()
        if ignored.all():
            # Only a rollout of one step can be all resets: no environment resets twice in a row.
            raise ConfigError("num_steps", 1, "must be at least 2 where environments use a step to reset")
        indices = np.arange(ignored.size)
        indices[ignored] = generator.choice(indices[~ignored], size=int(ignored.sum()))
        return on_device(indices, self.rewards.device)


def on_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """`array` itself where `device` is the CPU, else a copy there, for which the host does not wait."""
    tensor = torch.from_numpy(array)
    # From pageable memory the host waits until it is staged.
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def selects_rows(tensor: Tensor) -> bool:
    """Whether rows of `tensor` are selected by a mask without waiting: on a GPU the host waits for their number."""
    return tensor.device.type == "cpu"


def at_rows(rows: Tensor, compute: Callable[..., Tensor], *inputs: Tensor, elsewhere: Tensor) -> Tensor:
    """What `compute` makes of `inputs` [T, N, ...] in `rows` [T, N], bool, and `elsewhere` [T, N] in the others."""
    if selects_rows(elsewhere):
        result = elsewhere.clone()
        result[rows] = compute(*(field[rows] for field in inputs))
        return result
    return torch.where(rows, compute(*(field.flatten(0, 1) for field in inputs)).view(elsewhere.shape), elsewhere)


def _blank(field: Tensor, rows: Tensor) -> Tensor:
    """`field` [T, N, ...] with 0 in `rows` [T, N]."""
    return field.masked_fill(rows.view(*rows.shape, *(1,) * (field.ndim - rows.ndim)), 0)
