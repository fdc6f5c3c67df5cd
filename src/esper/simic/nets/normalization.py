"""Running statistics, as module buffers so that every checkpoint has them. Only `update` changes them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from esper.simic.scan import decayed_sums

_EPSILON = 1e-8
# Numbers per chunk: a rollout of images would need eight times its size in float64.
_LARGEST = 2**24


class RunningMoments(nn.Module):
    """Mean and variance of everything seen, in float64 (Chan et al. 1979, parallel update)."""

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("var", torch.ones(shape, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def update(self, batch: Tensor) -> None:
        """Add `batch` [M, *shape]."""
        for part in torch.split(batch, max(1, _LARGEST // self.mean.numel())):
            self._update(part.double())

    def _update(self, batch: Tensor) -> None:
        rows = batch.shape[0]
        var, mean = torch.var_mean(batch, dim=0, correction=0)
        total = self.count + rows
        delta = mean - self.mean
        # Before the first batch the count is 0, so the initial variance of 1 has no weight.
        spread = self.var * self.count + var * rows + delta * delta * self.count * rows / total
        self.mean.add_(delta * (rows / total))
        self.var.copy_(spread / total)
        self.count.copy_(total)

    def statistics(self) -> tuple[Tensor, Tensor, Tensor]:
        """Copies of mean, variance and count, for `restore`."""
        return self.mean.clone(), self.var.clone(), self.count.clone()

    def restore(self, statistics: tuple[Tensor, Tensor, Tensor]) -> None:
        """Undo every update since `statistics` were read."""
        for tensor, saved in zip((self.mean, self.var, self.count), statistics, strict=True):
            tensor.copy_(saved)

    def deviation(self) -> Tensor:
        """float32 standard deviation, never 0."""
        return (self.var + _EPSILON).sqrt().float()


class ObservationNormalizer(RunningMoments):
    """Scales observations [..., *shape] to zero mean and unit deviation, clipped at `limit`; images pixel by pixel."""

    limit = 10.0

    def __init__(self, shape: tuple[int, ...], first_scale: float = 1.0) -> None:
        super().__init__(shape)
        # The divisor for the first rollout.
        self.var.fill_(first_scale**2)

    def forward(self, obs: Tensor) -> Tensor:
        return ((obs - self.mean.float()) / self.deviation()).clamp(-self.limit, self.limit)


class RewardScaler(RunningMoments):
    """Divides rewards by the running deviation of the discounted return (Engstrom et al. 2020, arXiv 2005.12729)."""

    limit = 10.0
    discounted: Tensor

    def __init__(self, num_envs: int, gamma: float) -> None:
        super().__init__(())
        self.gamma = gamma
        self.register_buffer("discounted", torch.zeros(num_envs, dtype=torch.float64))

    def forget_episodes(self) -> None:
        """Reset the discounted return of every environment."""
        self.discounted.zero_()

    def forward(self, rewards: Tensor, done: Tensor, live: Tensor | None = None) -> Tensor:
        """Add a rollout's `rewards` and `done` [T, N], then scale the rewards by the new deviation.

        `live` are the indices of the steps, in the flattened rollout, that count; None means all. A reward that is not
        finite counts as 0 in the discounted return, which would otherwise stay so until the episode ends.
        """
        terms, decays = rewards.double(), self.gamma * (~done).double()
        terms = torch.where(terms.isfinite(), terms, 0.0)
        terms[0] += self.gamma * self.discounted
        # From past to future, so reversed; each step adds the decayed sum of the step before.
        discounted = decayed_sums(terms.flip(0), decays.roll(1, 0).flip(0)).flip(0)
        # A return beyond float32 would not recover within the episode, either.
        too_large = ~discounted[-1].float().isfinite()
        self.discounted.copy_(discounted[-1].masked_fill(done[-1] | too_large, 0.0))
        returns = discounted.flatten()
        self.update(returns if live is None else returns[live])
        return (rewards / self.deviation()).clamp(-self.limit, self.limit)
