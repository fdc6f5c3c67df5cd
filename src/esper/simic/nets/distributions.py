"""Action distributions. Sampling takes its noise as an argument, so it is a pure function of seeded noise."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad


class Distribution(Protocol):
    """A batch of action distributions."""

    def sample(self, noise: Tensor) -> Tensor:
        """Actions [...], [..., K] or [..., A] from `noise` [..., A] drawn by this class's `noise`."""
        ...

    def mode(self) -> Tensor: ...

    def log_prob(self, actions: Tensor) -> Tensor:
        """[...]: the log density of `actions`, summed over choices or dimensions."""
        ...

    def entropy(self) -> Tensor:
        """[...], in nats."""
        ...


class Categorical(NamedTuple):
    """Over `logits` [..., A]."""

    logits: Tensor

    @staticmethod
    def noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Standard Gumbel variates: the argmax of logits + noise is a sample (the Gumbel-max trick)."""
        exponential = torch.empty(shape, dtype=torch.float32, device=generator.device).exponential_(generator=generator)
        return -exponential.log()

    def sample(self, noise: Tensor) -> Tensor:
        return (self.logits + noise).argmax(-1)

    def mode(self) -> Tensor:
        return self.logits.argmax(-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        return self.logits.log_softmax(-1).gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        log_probs = self.logits.log_softmax(-1)
        return -(log_probs.exp() * log_probs).sum(-1)


# The logit of a masked action. An infinite one would make the entropy 0 * inf, NaN.
_NEVER = torch.finfo(torch.float32).min


def masked(logits: Tensor, allowed: Tensor) -> Tensor:
    """`logits` of a policy that chooses only `allowed` actions, a bool for each; the others get no gradient."""
    return torch.where(allowed, logits, _NEVER)


class MultiCategorical(NamedTuple):
    """Independent choices, the k-th over `nvec[k]` of the `logits` [..., sum(nvec)], in turn. Actions are [..., K]."""

    logits: Tensor
    nvec: tuple[int, ...]

    def sample(self, noise: Tensor) -> Tensor:
        return self._choices().sample(self._rows(noise, 0.0))

    def mode(self) -> Tensor:
        return self._choices().mode()

    def log_prob(self, actions: Tensor) -> Tensor:
        return self._choices().log_prob(actions).sum(-1)

    def entropy(self) -> Tensor:
        return self._choices().entropy().sum(-1)

    def _choices(self) -> Categorical:
        return Categorical(self._rows(self.logits, _NEVER))

    def _rows(self, flat: Tensor, fill: float) -> Tensor:
        """[..., K, max(nvec)], padded with `fill`."""
        width = max(self.nvec)
        if min(self.nvec) == width:
            return flat.reshape(*flat.shape[:-1], -1, width)
        rows = torch.split(flat, list(self.nvec), -1)
        return torch.stack([pad(row, (0, width - row.shape[-1]), value=fill) for row in rows], -2)


class DiagGaussian(NamedTuple):
    """Independent normals with `mean` [..., A] and `log_std` [A]."""

    mean: Tensor
    log_std: Tensor

    @staticmethod
    def noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=generator.device).normal_(generator=generator)

    def sample(self, noise: Tensor) -> Tensor:
        return self.mean + self.log_std.exp() * noise

    def mode(self) -> Tensor:
        return self.mean

    def log_prob(self, actions: Tensor) -> Tensor:
        scaled = (actions - self.mean) * (-self.log_std).exp()
        return (-0.5 * scaled * scaled - self.log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> Tensor:
        per_dimension = self.log_std + 0.5 * (1 + math.log(2 * math.pi))
        return per_dimension.sum(-1).expand(self.mean.shape[:-1])
