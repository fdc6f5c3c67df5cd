"""The PPO loss on a minibatch of two, worked out by hand."""

import math

import pytest
import torch

from esper.schedules import LimitConfig
from esper.simic.config import PPOConfig
from esper.simic.losses import Coefficients, Minibatch, ppo_loss
from esper.simic.metrics import COLUMNS
from esper.simic.nets.actor_critic import Evaluation


def coefficients(**values: float) -> Coefficients:
    found = Coefficients.allocate(torch.device("cpu"))
    found.set({"clip_coef": 0.2, "value_coef": 0.5, **values})
    return found


def loss(ratios: list[float], advantages: list[float], **changes: object) -> tuple[float, dict[str, torch.Tensor]]:
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
    total, metrics = ppo_loss(evaluation, minibatch, coefficients(entropy_coef=0.1, value_clip_coef=0.25), config)
    return total.item(), metrics


def test_clips_only_what_would_gain() -> None:
    # Gains are capped: ratio 1.5 with advantage 1 counts 1.2, ratio 0.5 with advantage -1 counts -0.8.
    assert loss([1.5, 0.5], [1.0, -1.0])[1]["policy_loss"].item() == pytest.approx(-(1.2 - 0.8) / 2)
    # Losses are not: ratio 0.5 with advantage 1 counts 0.5, ratio 1.5 with advantage -1 counts -1.5.
    assert loss([0.5, 1.5], [1.0, -1.0])[1]["policy_loss"].item() == pytest.approx(-(0.5 - 1.5) / 2)


def test_value_loss_is_half_the_mean_squared_error() -> None:
    # Errors 2 - 1 and 4 - 2: (1 + 4) / 2 / 2.
    assert loss([1.0, 1.0], [0.0, 0.0])[1]["value_loss"].item() == pytest.approx(1.25)


def test_value_clipping_takes_the_larger_error() -> None:
    # Moves of 0.5 are cut to 0.25: 1.75 and 3.75, whose errors 0.75 and 1.75 are smaller, so nothing changes.
    assert loss([1.0, 1.0], [0.0, 0.0], value_clip_coef=0.25)[1]["value_loss"].item() == pytest.approx(1.25)
    # The other way round the clipped error is the larger one and the value gets no credit for its move.
    config = PPOConfig(value_clip_coef=LimitConfig(peak=0.25), normalize_advantages=False)
    zero = torch.zeros(1)
    minibatch = Minibatch(zero, zero, zero, torch.tensor([3.0]), zero, torch.tensor([1.0]))
    evaluation = Evaluation(zero, zero, torch.tensor([2.0]))
    _, metrics = ppo_loss(evaluation, minibatch, coefficients(value_clip_coef=0.25), config)
    assert metrics["value_loss"].item() == pytest.approx((2.75 - 1.0) ** 2 / 2)


def test_the_sum_of_all_terms() -> None:
    # Policy 0, value 0.5 * 1.25, entropy 0.1 * 0.7.
    assert loss([1.0, 1.0], [0.0, 0.0])[0] == pytest.approx(0.5 * 1.25 - 0.07)


def test_advantages_are_standardised_in_the_minibatch() -> None:
    # 3 and 1: mean 2, deviation sqrt(2) (one degree of freedom), so +-1/sqrt(2); with ratios 1 and 0.9:
    # -(1/sqrt(2) - 0.9/sqrt(2)) / 2.
    metrics = loss([1.0, 0.9], [3.0, 1.0], normalize_advantages=True)[1]
    assert metrics["policy_loss"].item() == pytest.approx(-0.1 / math.sqrt(2) / 2, rel=1e-4)


def test_statistics_of_the_ratio() -> None:
    metrics = loss([1.5, 0.9], [1.0, 1.0])[1]
    assert metrics["clip_fraction"].item() == 0.5
    assert metrics["ratio_mean"].item() == pytest.approx(1.2)
    assert metrics["ratio_deviation_sq"].item() == pytest.approx((0.25 + 0.01) / 2)
    assert (metrics["ratio_min"].item(), metrics["ratio_max"].item()) == pytest.approx((0.9, 1.5))
    # E[(r - 1) - log r]
    assert metrics["approx_kl"].item() == pytest.approx((0.5 - math.log(1.5) - 0.1 - math.log(0.9)) / 2, rel=1e-4)


def transitions(**fields: list[float]) -> tuple[Evaluation, Minibatch]:
    """What the old network said and what the new one says of as many transitions as given; zeros but for `fields`."""
    zeros = torch.zeros(len(next(iter(fields.values()))))
    given = {name: torch.tensor(numbers) for name, numbers in fields.items()}
    minibatch = Minibatch(
        *(zeros, zeros, given.get("old_log_probs", zeros), given.get("old_values", zeros)),
        *(given.get("advantages", zeros), given.get("returns", zeros)),
    )
    return Evaluation(given.get("log_probs", zeros), zeros, given.get("values", zeros)), minibatch


def metrics_of(
    evaluation: Evaluation, minibatch: Minibatch, clip: float = 0.2, **changes: object
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    config = PPOConfig(**({"normalize_advantages": False} | changes))  # type: ignore[arg-type]
    return ppo_loss(evaluation, minibatch, coefficients(clip_coef=clip, value_clip_coef=0.25), config)


def test_the_ratio_is_of_new_to_old_probability() -> None:
    # 0.55 / 0.5 = 1.1 and 0.2 / 0.25 = 0.8.
    new, old = [math.log(0.55), math.log(0.2)], [math.log(0.5), math.log(0.25)]
    metrics = metrics_of(*transitions(log_probs=new, old_log_probs=old, advantages=[1.0, 2.0]))[1]
    assert (metrics["ratio_min"].item(), metrics["ratio_max"].item()) == pytest.approx((0.8, 1.1))
    assert metrics["policy_loss"].item() == pytest.approx(-(1.1 * 1 + 0.8 * 2) / 2)


def test_advantages_that_hardly_differ_stay_small() -> None:
    # Deviation sqrt(2) 1e-8: 1 / (sqrt(2) + 1) = 0.4142 instead of 0.7071, times half the difference of the ratios.
    log_probs = [0.0, math.log(0.9)]
    near = metrics_of(*transitions(log_probs=log_probs, advantages=[1e-8, -1e-8]), normalize_advantages=True)[1]
    assert near["policy_loss"].item() == pytest.approx(-0.1 * 0.41421356 / 2, rel=1e-4)
    alike = metrics_of(*transitions(log_probs=log_probs, advantages=[3.0, 3.0]), normalize_advantages=True)[1]
    assert alike["policy_loss"].item() == 0.0


@pytest.mark.parametrize(
    ("value", "old", "target", "error"),
    [
        # Up by 1, cut to 0.25: 3.25 is further from 5 than 4 is.
        (4.0, 3.0, 5.0, 1.75),
        # Down by 1, cut to 0.25: 2.75 is further from 1 than 2 is.
        (2.0, 3.0, 1.0, 1.75),
        # Within 0.25, nothing is cut.
        (3.125, 3.0, 5.0, 1.875),
        (2.875, 3.0, 1.0, 1.875),
        # A move past the return counts in full.
        (5.0, 3.0, 3.5, 1.5),
    ],
)
def test_value_clipping_up_and_down(value: float, old: float, target: float, error: float) -> None:
    batch = transitions(values=[value], old_values=[old], returns=[target])
    assert metrics_of(*batch, value_clip_coef=0.25)[1]["value_loss"].item() == pytest.approx(error**2 / 2)


def test_where_nothing_moved_nothing_is_clipped() -> None:
    # Also where a schedule has brought the clipping down to 0.
    for moved, fraction in ((0.0, 0.0), (0.1, 0.5)):
        metrics = metrics_of(*transitions(log_probs=[moved, 0.0], advantages=[1.0, 1.0]), clip=0.0)[1]
        assert metrics["clip_fraction"].item() == fraction


def test_counts_clipped_ratios_on_both_sides() -> None:
    # 0.5 and 1.5 are further than 0.2 from 1; 0.9 and 1.1 are not.
    ratios = [math.log(ratio) for ratio in (0.5, 0.9, 1.1, 1.5)]
    assert metrics_of(*transitions(log_probs=ratios))[1]["clip_fraction"].item() == 0.5


def test_learns_from_the_loss_alone_and_only_where_nothing_was_clipped() -> None:
    # At ratio 1.5 a gain is capped, so its gradient is 0; at 1.1 it is -ratio / 2, of a mean over two.
    log_probs = torch.tensor([1.5, 1.1]).log().requires_grad_()
    evaluation, minibatch = transitions(advantages=[1.0, 1.0])
    loss, metrics = metrics_of(evaluation._replace(log_prob=log_probs), minibatch)
    assert not any(metric.requires_grad for metric in metrics.values())
    loss.backward()
    assert log_probs.grad is not None
    assert log_probs.grad.tolist() == pytest.approx([0.0, -0.55])


def test_a_minibatch_changes_each_field_that_it_has() -> None:
    _, minibatch = transitions(returns=[1.0, 2.0])
    whole = minibatch._replace(masks=torch.ones(2, 3), begins=torch.ones(2))
    assert len(minibatch.tensors()) == 6
    assert [tuple(tensor.shape) for tensor in whole.tensors()] == [(2,)] * 6 + [(2, 3), (2,)]
    doubled = whole.map(lambda tensor: 2 * tensor)
    assert doubled.returns.tolist() == [2.0, 4.0]
    assert doubled.masks is not None
    assert doubled.masks.tolist() == [[2.0] * 3] * 2
    assert doubled.recurrent_state is None
    assert doubled.selected is None


def test_the_loss_computes_each_metric_that_is_declared() -> None:
    assert set(loss([1.0], [1.0], normalize_advantages=False)[1]) == set(COLUMNS)
