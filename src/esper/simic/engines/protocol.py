"""What an engine computes for PPO, and what it is made for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from esper.envs.base import DeviceEnv
from esper.simic.collect import Act
from esper.simic.config import PPOConfig
from esper.simic.device_collect import Fill
from esper.simic.feedback import Feedback
from esper.simic.losses import Coefficients, LossTerm, Minibatch
from esper.simic.nets.actor_critic import ActorCritic
from esper.simic.optimizers import Optimizer
from esper.simic.rollout import Rollout

# What the device computes of an update on a rollout, with minibatches of rows [S, B]: all that the host reads of it.
Update: TypeAlias = Callable[[Rollout, Tensor], Tensor]


class SkipState(NamedTuple):
    """0-d tensors of an update, 1 when it begins.

    `stepping` becomes 0 with the first step that is skipped: all later ones are. `finite` becomes 0 if that was because
    something was not finite.
    """

    stepping: Tensor
    finite: Tensor


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What an engine computes with. The tensors are written in place and never replaced.

    With `debug` metrics have the columns of `RATIO_QUANTILES` too.
    """

    network: ActorCritic
    optimizer: Optimizer
    coefficients: Coefficients
    skip: SkipState
    feedback: Feedback
    reward_statistics: tuple[Tensor, ...]
    config: PPOConfig
    given_terms: tuple[LossTerm, ...] = ()
    debug: bool = False

    @property
    def device(self) -> torch.device:
        return self.optimizer.device


class Engine(Protocol):
    """The arithmetic of PPO on one network. Observations are as `normalize` has them, but for the actor's."""

    def normalize(self, rollout: Rollout) -> Rollout:
        """`rollout` with its observations as the layers read them, or as they are where that is left to the engine."""
        ...

    def optimize(self, batch: Minibatch, indices: Tensor, metrics: Tensor) -> None:
        """A step on each minibatch, the rows `indices` [S, B] of `batch`, in turn.

        Fills `metrics` [S, columns]: `COLUMNS` of the loss, the gradient norm of each parameter group before
        clipping, whether the optimizer stepped, the given loss terms, and for debugging `RATIO_QUANTILES`. A step that
        is skipped changes nothing but the state of skipping, and factors of the feedback by minibatch. If anything was
        not finite, also of the parameters afterwards, all that the optimizer and the feedback change is put back.
        """
        ...

    def whole_update(self, update: Update, rollout: Rollout, orders: Tensor) -> Tensor:
        """What `update` makes of `rollout` and `orders`, maybe as one graph. It calls this engine's other methods."""
        ...

    def evaluate(self, obs: Tensor, actions: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Log probabilities of `actions` among what `masks` allow, and values, each [M], for `obs` [M, D]."""
        ...

    def evaluate_rollout(self, rollout: Rollout) -> tuple[Tensor, Tensor, Tensor]:
        """Log probabilities of its actions, values, and values of the states that steps led to, each [T, N].

        After truncation that is the final observation, for a recurrent network with the recurrent state of the step.
        """
        ...

    def inputs_are_finite(self, rollout: Rollout) -> Tensor:
        """Whether everything that an update on `rollout` learns from is finite (0-d bool, on its device)."""
        ...

    def advantages(
        self, rewards: Tensor, values: Tensor, next_values: Tensor, terminated: Tensor, truncated: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Advantages and returns, as `compute_gae`; all [T, N]."""
        ...

    def explained_variance(self, returns: Tensor, values: Tensor) -> Tensor:
        """As in `esper.simic.metrics`, of tensors of one shape; 0-d."""
        ...

    def actor(self, network: ActorCritic) -> Act:
        """The policy of its network as it is now."""
        ...

    def fill(self, env: DeviceEnv) -> Fill | None:
        """What fills rollouts in `env`; None where it is stepped on the host."""
        ...
