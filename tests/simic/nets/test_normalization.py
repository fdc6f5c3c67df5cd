"""Running statistics against statistics of everything at once."""

import pytest
import torch

from esper.simic.nets import normalization
from esper.simic.nets.normalization import ObservationNormalizer, RewardScaler


@pytest.mark.parametrize("at_once", [normalization._LARGEST, 6])
def test_moments_over_batches_are_moments_of_all(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normalization, "_LARGEST", at_once)
    rows = torch.randn(100, 3, generator=torch.Generator().manual_seed(0)) * 5 + 1000
    normalizer = ObservationNormalizer((3,))
    for batch in rows.split([1, 40, 59]):
        normalizer.update(batch)
    torch.testing.assert_close(normalizer.mean, rows.double().mean(0))
    torch.testing.assert_close(normalizer.var, rows.double().var(0, correction=0))
    assert normalizer.count.item() == 100


def test_normalizing_changes_no_statistics() -> None:
    normalizer = ObservationNormalizer((1,))
    normalizer.update(torch.tensor([[1.0], [3.0]]))
    before = {name: tensor.clone() for name, tensor in normalizer.state_dict().items()}
    # Mean 2, deviation 1.
    assert normalizer(torch.tensor([[4.0], [-100.0]])).flatten().tolist() == pytest.approx([2.0, -10.0], abs=1e-6)
    assert all(before[name].equal(tensor) for name, tensor in normalizer.state_dict().items())


def test_rewards_are_divided_by_the_deviation_of_the_discounted_return() -> None:
    scaler = RewardScaler(num_envs=1, gamma=0.5)
    rewards = torch.tensor([[1.0], [1.0], [1.0]])
    done = torch.tensor([[False], [True], [False]])
    # Discounted returns so far: 1, 1.5, then afresh 1. Mean 7/6, variance (1 + 2.25 + 1)/3 - 49/36 = 1/18.
    scaled = scaler(rewards, done)
    assert scaler.var.item() == pytest.approx(1 / 18)
    assert scaled.flatten().tolist() == pytest.approx([18**0.5] * 3, rel=1e-5)


def test_the_discounted_return_goes_on_in_the_next_rollout() -> None:
    whole, halves = RewardScaler(1, 0.9), RewardScaler(1, 0.9)
    rewards, done = torch.tensor([[1.0], [2.0], [3.0], [4.0]]), torch.zeros(4, 1, dtype=torch.bool)
    whole(rewards, done)
    halves(rewards[:2], done[:2])
    halves(rewards[2:], done[2:])
    torch.testing.assert_close(whole.var, halves.var)


def test_steps_that_only_reset_are_no_returns() -> None:
    scaler = RewardScaler(num_envs=1, gamma=0.99)
    rewards, done = torch.tensor([[1.0], [1.0], [0.0]]), torch.tensor([[False], [True], [True]])
    scaler(rewards, done, live=torch.tensor([0, 1]))
    # Of 1 and 1.99: half their distance. With the 0 it would be 0.812.
    assert scaler.var.sqrt().item() == pytest.approx(0.495)
    assert scaler.count.item() == 2


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_reward_that_is_not_finite_is_none_in_the_discounted_return(bad: float) -> None:
    scaler = RewardScaler(num_envs=1, gamma=0.5)
    statistics = scaler.statistics()
    scaler(torch.tensor([[1.0], [bad], [4.0]]), torch.zeros(3, 1, dtype=torch.bool))
    # 1, 0.5, 4.25.
    assert scaler.discounted.tolist() == [4.25]
    scaler.restore(statistics)
    assert (scaler.mean.item(), scaler.var.item(), scaler.count.item()) == (0.0, 1.0, 0.0)
    assert scaler.discounted.tolist() == [4.25]


def test_a_return_that_float32_cannot_hold_is_forgotten() -> None:
    """Its deviation is infinite, so that the update is refused; the next one must not be."""
    scaler, yes = RewardScaler(2, 0.99), torch.zeros(3, 2, dtype=torch.bool)
    before = scaler.statistics()
    scaler(torch.tensor([[3e38, 1.0]]).repeat(3, 1), yes)
    assert not scaler.deviation().isfinite()
    # 1 + 0.99 + 0.9801 of the other environment goes on.
    assert scaler.discounted.tolist() == pytest.approx([0.0, 2.9701])
    scaler.restore(before)
    scaler(torch.ones(1, 2), yes[:1])
    assert scaler.deviation().isfinite()
