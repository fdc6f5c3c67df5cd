"""The PPO loss, a pure function of one minibatch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from esper.simic.config import PPOConfig
from esper.simic.nets.actor_critic import Evaluation

RATIO_METRICS = ("approx_kl", "clip_fraction", "ratio_mean", "ratio_deviation_sq", "ratio_min", "ratio_max")


class Minibatch(NamedTuple):
    """Transitions [B, ...]: what was seen and done, what the old network said of it, and what was allowed.

    For a recurrent policy they are sequences [B, T, ...], `recurrent_state` [B, S] is from before them, and `begins`
    [B, T] says where it is empty. There may be `selected` [B, T], the steps of its own sequence that a row is about,
    but for what is seen, done and allowed.
    """

    obs: Tensor
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    masks: Tensor | None = None
    recurrent_state: Tensor | None = None
    begins: Tensor | None = None
    selected: Tensor | None = None

    def tensors(self) -> tuple[Tensor, ...]:
        """The fields that there are."""
        return tuple(field for field in self if field is not None)

    def map(self, change: Callable[[Tensor], Tensor]) -> Minibatch:
        """The same with each tensor changed."""
        return Minibatch._make(None if field is None else change(field) for field in self)


class Coefficients(NamedTuple):
    """0-d tensors by setting, so that a schedule can change them without recompiling.

    The config says whether there is a `value_clip_coef` and a `target_kl`; where there is none nothing reads it.
    """

    clip_coef: Tensor
    entropy_coef: Tensor
    value_coef: Tensor
    value_clip_coef: Tensor
    target_kl: Tensor

    @classmethod
    def allocate(cls, device: torch.device) -> Coefficients:
        return cls(*(torch.zeros((), device=device) for _ in cls._fields))

    def set(self, values: Mapping[str, float]) -> None:
        """Write `values` into their tensors, in place."""
        for name, value in values.items():
            getattr(self, name).fill_(value)


class Inputs(NamedTuple):
    """What terms of the loss are computed from; the importance `ratio` [B] and its `deviation` from 1."""

    evaluation: Evaluation
    minibatch: Minibatch
    ratio: Tensor
    deviation: Tensor
    coefficients: Coefficients
    config: PPOConfig


class LossTerm(NamedTuple):
    """A summand of the loss: the mean over a minibatch, 0-d, times its coefficient, 1 where there is none."""

    name: str
    mean: Callable[[Inputs], Tensor]
    coefficient: Callable[[Inputs], float | Tensor] | None = None

    def weighted(self, mean: Tensor, inputs: Inputs) -> Tensor:
        return mean if self.coefficient is None else self.coefficient(inputs) * mean


# What the names of metrics of terms from Python begin with.
GIVEN = "loss_term/"


def ppo_loss(
    evaluation: Evaluation,
    minibatch: Minibatch,
    coefficients: Coefficients,
    config: PPOConfig,
    given: Sequence[LossTerm] = (),
) -> tuple[Tensor, dict[str, Tensor]]:
    """Clipped objective, value loss and entropy bonus (Schulman et al. 2017, arXiv 1707.06347, eq. 7 and 9).

    To these the `given` terms are added. Metrics, each 0-d, are by name; those are recorded that are columns of what
    `UpdateCompleted` declares, and the given terms, as `loss_term/NAME`.

    `value_loss` is half the mean squared error. `approx_kl` is the estimator E[(r - 1) - log r], unbiased and never
    negative (Schulman 2020, "Approximating KL divergence", k3).
    """
    log_ratio = evaluation.log_prob - minibatch.log_probs
    ratio = log_ratio.exp()
    deviation = ratio - 1
    inputs = Inputs(evaluation, minibatch, ratio, deviation, coefficients, config)
    terms = [*((term.name, term) for term in LOSS_TERMS), *((f"{GIVEN}{term.name}", term) for term in given)]
    means = {name: term.mean(inputs) for name, term in terms}
    first, *others = (term.weighted(means[name], inputs) for name, term in terms)
    loss = sum(others, start=first)
    metrics = {
        "loss": loss,
        **means,
        **ratio_metrics(log_ratio, ratio, coefficients),
    }
    return loss, {column: metric.detach() for column, metric in metrics.items()}


def ratio_metrics(log_ratio: Tensor, ratio: Tensor, coefficients: Coefficients) -> dict[str, Tensor]:
    """How far a policy is from the old one, by its importance `ratio` for samples of the old one; each 0-d.

    Of the names in `RATIO_METRICS`.
    """
    deviation = ratio - 1
    numbers = (
        (deviation - log_ratio).mean(),
        (deviation.abs() > coefficients.clip_coef).float().mean(),
        ratio.mean(),
        (deviation * deviation).mean(),
        ratio.min(),
        ratio.max(),
    )
    return dict(zip(RATIO_METRICS, numbers, strict=True))


def _policy_loss(inputs: Inputs) -> Tensor:
    advantages, ratio, clip = inputs.minibatch.advantages, inputs.ratio, inputs.coefficients.clip_coef
    if inputs.config.normalize_advantages:
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    clipped = inputs.deviation.clamp(-clip, clip) + 1
    return -torch.min(advantages * ratio, advantages * clipped).mean()


def _value_loss(inputs: Inputs) -> Tensor:
    values, minibatch = inputs.evaluation.value, inputs.minibatch
    errors = (values - minibatch.returns) ** 2
    if not inputs.config.value_clip_coef.is_off:
        clip = inputs.coefficients.value_clip_coef
        near = minibatch.values + (values - minibatch.values).clamp(-clip, clip)
        errors = torch.max(errors, (near - minibatch.returns) ** 2)
    return 0.5 * errors.mean()


def _entropy(inputs: Inputs) -> Tensor:
    return inputs.evaluation.entropy.mean()


# Kernels compute with those that they know alone; others are torch's.
LOSS_TERMS = (
    LossTerm("policy_loss", _policy_loss),
    LossTerm("value_loss", _value_loss, lambda inputs: inputs.coefficients.value_coef),
    LossTerm("entropy", _entropy, lambda inputs: -inputs.coefficients.entropy_coef),
)
