"""Storage for one rollout: T steps of N environments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from esper.envs.base import BoolArray, DiscreteActions, EnvSpec, FloatArray
from esper.options import ConfigError


class FinalObservations(NamedTuple):
    """Last observations of episodes that were truncated in step `step`, for the environments `envs`."""

    step: int
    envs: np.ndarray
    obs: FloatArray


@dataclass(kw_only=True)
class Rollout:
    """`obs` [T+1, N, D] and `actions` [T, N] or [T, N, A] on the learner's device; outcomes [T, N] on the host.

    `ignored` marks steps that an environment used to reset: no transition to learn from.
    """

    obs: Tensor
    actions: Tensor
    rewards: np.ndarray
    terminated: BoolArray
    truncated: BoolArray
    ignored: BoolArray
    final_obs: list[FinalObservations] = field(default_factory=list)

    @staticmethod
    def allocate(spec: EnvSpec, num_steps: int, device: torch.device) -> Rollout:
        shape = (num_steps, spec.num_envs)
        discrete = isinstance(spec.actions, DiscreteActions)
        action_shape = shape if isinstance(spec.actions, DiscreteActions) else (*shape, spec.actions.size)
        return Rollout(
            obs=torch.zeros((num_steps + 1, spec.num_envs, spec.observation_size), device=device),
            actions=torch.zeros(action_shape, dtype=torch.int64 if discrete else torch.float32, device=device),
            rewards=np.zeros(shape),
            terminated=np.zeros(shape, dtype=np.bool_),
            truncated=np.zeros(shape, dtype=np.bool_),
            ignored=np.zeros(shape, dtype=np.bool_),
        )

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
