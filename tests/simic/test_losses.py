"""The PPO loss on a minibatch of two, worked out by hand."""

import math

import pytest
import torch

from esper.simic.config import PPOConfig
from esper.simic.losses import Coefficients, LossMetrics, Minibatch, ppo_loss
from esper.simic.networks import Evaluation


def loss(ratios: list[float], advantages: list[float], **changes: object) -> tuple[float, LossMetrics]:
    """Values 2 and 4, returns 1 and 2, old values 1.5 and 3.5; entropy 0.7; clip 0.2, entropy coefficient 0.1."""
    config = PPOConfig(**({"normalize_advantages": False} | changes))  # type: ignore[arg-type]
    zeros = torch.zeros(2)
    minibatch = Minibatch(
        obs=zeros,
        actions=zeros,
        log_probs=zeros,
        values=torch.tensor([1.5, 3.5]),
        advantages=torch.tensor(advantages),
        returns=torch.tensor([1.0, 2.0]),
    )
    evaluation = Evaluation(torch.tensor(ratios).log(), torch.tensor([0.7, 0.7]), torch.tensor([2.0, 4.0]))
    total, metrics = ppo_loss(evaluation, minibatch, Coefficients(torch.tensor(0.2), torch.tensor(0.1)), config)
    return total.item(), metrics


def test_clips_only_what_would_gain() -> None:
    # Gains are capped: ratio 1.5 with advantage 1 counts 1.2, ratio 0.5 with advantage -1 counts -0.8.
    assert loss([1.5, 0.5], [1.0, -1.0])[1].policy_loss.item() == pytest.approx(-(1.2 - 0.8) / 2)
    # Losses are not: ratio 0.5 with advantage 1 counts 0.5, ratio 1.5 with advantage -1 counts -1.5.
    assert loss([0.5, 1.5], [1.0, -1.0])[1].policy_loss.item() == pytest.approx(-(0.5 - 1.5) / 2)


def test_value_loss_is_half_the_mean_squared_error() -> None:
    # Errors 2 - 1 and 4 - 2: (1 + 4) / 2 / 2.
    assert loss([1.0, 1.0], [0.0, 0.0])[1].value_loss.item() == pytest.approx(1.25)


def test_value_clipping_takes_the_larger_error() -> None:
    # Moves of 0.5 are cut to 0.25: 1.75 and 3.75, whose errors 0.75 and 1.75 are smaller, so nothing changes.
    assert loss([1.0, 1.0], [0.0, 0.0], value_clip_coef=0.25)[1].value_loss.item() == pytest.approx(1.25)
    # The other way round the clipped error is the larger one and the value gets no credit for its move.
    config = PPOConfig(value_clip_coef=0.25, normalize_advantages=False)
    zero = torch.zeros(1)
    minibatch = Minibatch(zero, zero, zero, torch.tensor([3.0]), zero, torch.tensor([1.0]))
    evaluation = Evaluation(zero, zero, torch.tensor([2.0]))
    _, metrics = ppo_loss(evaluation, minibatch, Coefficients(torch.tensor(0.2), torch.tensor(0.0)), config)
    assert metrics.value_loss.item() == pytest.approx((2.75 - 1.0) ** 2 / 2)


def test_the_sum_of_all_terms() -> None:
    # Policy 0, value 0.5 * 1.25, entropy 0.1 * 0.7.
    assert loss([1.0, 1.0], [0.0, 0.0])[0] == pytest.approx(0.5 * 1.25 - 0.07)


def test_advantages_are_standardised_in_the_minibatch() -> None:
    # 3 and 1: mean 2, deviation sqrt(2) (one degree of freedom), so +-1/sqrt(2); with ratios 1 and 0.9:
    # -(1/sqrt(2) - 0.9/sqrt(2)) / 2.
    metrics = loss([1.0, 0.9], [3.0, 1.0], normalize_advantages=True)[1]
    assert metrics.policy_loss.item() == pytest.approx(-0.1 / math.sqrt(2) / 2, rel=1e-4)


def test_statistics_of_the_ratio() -> None:
    metrics = loss([1.5, 0.9], [1.0, 1.0])[1]
    assert metrics.clip_fraction.item() == 0.5
    assert metrics.ratio_mean.item() == pytest.approx(1.2)
    assert metrics.ratio_deviation_sq.item() == pytest.approx((0.25 + 0.01) / 2)
    assert (metrics.ratio_min.item(), metrics.ratio_max.item()) == pytest.approx((0.9, 1.5))
    # E[(r - 1) - log r]
    assert metrics.approx_kl.item() == pytest.approx((0.5 - math.log(1.5) - 0.1 - math.log(0.9)) / 2, rel=1e-4)
