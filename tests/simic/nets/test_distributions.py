"""Distributions against torch.distributions, and their samples against their probabilities."""

import math

import pytest
import torch
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent, Normal

from esper.simic.nets.distributions import Categorical, DiagGaussian, MultiCategorical, masked


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_categorical_agrees_with_torch() -> None:
    logits = torch.randn(5, 3, generator=generator())
    ours, theirs = Categorical(logits), TorchCategorical(logits=logits)
    actions = torch.tensor([0, 1, 2, 0, 1])
    torch.testing.assert_close(ours.log_prob(actions), theirs.log_prob(actions))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    assert ours.mode().equal(logits.argmax(-1))


def test_gaussian_agrees_with_torch() -> None:
    mean, log_std = torch.randn(5, 3, generator=generator()), torch.tensor([-1.0, 0.0, 0.5])
    ours, theirs = DiagGaussian(mean, log_std), Independent(Normal(mean, log_std.exp()), 1)
    actions = torch.randn(5, 3, generator=generator())
    torch.testing.assert_close(ours.log_prob(actions), theirs.log_prob(actions))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    assert ours.mode() is mean


def test_categorical_samples_have_the_right_frequencies() -> None:
    probabilities = torch.tensor([0.1, 0.2, 0.7])
    noise = Categorical.noise((100_000, 3), generator())
    samples = Categorical(probabilities.log().expand(100_000, 3)).sample(noise)
    frequencies = torch.bincount(samples, minlength=3) / 100_000
    # Four standard errors of a frequency near 0.5: 4 * 0.5 / sqrt(100000) = 0.0063.
    torch.testing.assert_close(frequencies, probabilities, atol=0.0063, rtol=0)


class TestSeveralChoices:
    def test_add_up(self) -> None:
        """A choice of two with probabilities 1/4 and 3/4, then one of three with 1/2, 1/8 and 3/8."""
        policy = MultiCategorical(torch.tensor([[1.0, 3, 4, 1, 3]]).log() + 7, (2, 3))
        assert policy.log_prob(torch.tensor([[1, 0]])).item() == pytest.approx(math.log(3 / 4 * 1 / 2), rel=1e-5)
        assert policy.log_prob(torch.tensor([[0, 2]])).item() == pytest.approx(math.log(1 / 4 * 3 / 8), rel=1e-5)
        # -(1/4 ln 1/4 + 3/4 ln 3/4) - (1/2 ln 1/2 + 1/8 ln 1/8 + 3/8 ln 3/8) = 0.562335 + 0.974315
        assert policy.entropy().item() == pytest.approx(1.536650, rel=1e-5)
        assert policy.mode().tolist() == [[1, 0]]

    @pytest.mark.parametrize("nvec", [(2, 3), (3, 3), (1, 4, 2), (5,)])
    def test_are_categoricals_side_by_side(self, nvec: tuple[int, ...]) -> None:
        logits, noise = torch.randn(2, 7, 11, sum(nvec), generator=generator())
        ours = MultiCategorical(logits, nvec)
        theirs = [TorchCategorical(logits=part) for part in logits.split(nvec, -1)]
        actions = ours.sample(noise)
        assert actions.shape == (7, 11, len(nvec))
        for choice, (part, size) in enumerate(zip((logits + noise).split(nvec, -1), nvec, strict=True)):
            assert actions[..., choice].equal(part.argmax(-1))
            assert actions[..., choice].max() < size
        expected = sum(part.log_prob(actions[..., choice]) for choice, part in enumerate(theirs))
        torch.testing.assert_close(ours.log_prob(actions), expected)
        torch.testing.assert_close(ours.entropy(), sum(part.entropy() for part in theirs))

    def test_are_drawn_each_by_itself(self) -> None:
        probabilities = torch.tensor([0.2, 0.8, 0.5, 0.4, 0.1])
        noise = Categorical.noise((100_000, 5), generator())
        samples = MultiCategorical(probabilities.log().expand(100_000, 5), (2, 3)).sample(noise)
        together = torch.bincount(samples[:, 0] * 3 + samples[:, 1], minlength=6) / 100_000
        torch.testing.assert_close(together, torch.tensor([0.1, 0.08, 0.02, 0.4, 0.32, 0.08]), atol=0.0063, rtol=0)

    def test_gradients_are_finite_where_choices_differ_in_number(self) -> None:
        logits = torch.randn(4, 5, generator=generator(), requires_grad=True)
        policy = MultiCategorical(logits, (2, 3))
        (policy.log_prob(torch.ones(4, 2, dtype=torch.int64)) + policy.entropy()).sum().backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
        assert logits.grad.ne(0).all()


class TestMasked:
    LOGITS = torch.tensor([[1.0, 5, 3]]).log()
    ALLOWED = torch.tensor([[True, False, True]])

    def test_probabilities_are_those_among_the_allowed(self) -> None:
        """Of the weights 1, 5 and 3 the middle one is not allowed: 1/4 and 3/4 are left."""
        policy = Categorical(masked(self.LOGITS, self.ALLOWED))
        assert policy.log_prob(torch.tensor([0])).item() == pytest.approx(math.log(1 / 4), rel=1e-5)
        assert policy.log_prob(torch.tensor([2])).item() == pytest.approx(math.log(3 / 4), rel=1e-5)
        # -(1/4 ln 1/4 + 3/4 ln 3/4)
        assert policy.entropy().item() == pytest.approx(0.562335, rel=1e-5)
        assert policy.mode().item() == 2

    def test_of_several_choices_each_has_its_own(self) -> None:
        logits = torch.tensor([[2.0, 6, 1, 5, 3]]).log()
        policy = MultiCategorical(masked(logits, torch.tensor([[True, True, True, False, True]])), (2, 3))
        assert policy.log_prob(torch.tensor([[1, 2]])).item() == pytest.approx(math.log(3 / 4 * 3 / 4), rel=1e-5)
        assert policy.entropy().item() == pytest.approx(2 * 0.562335, rel=1e-5)
        assert policy.mode().tolist() == [[1, 2]]

    def test_nothing_else_is_sampled(self) -> None:
        logits = torch.tensor([-80.0, 80.0, -80.0]).expand(10_000, 3)
        samples = Categorical(masked(logits, self.ALLOWED)).sample(Categorical.noise((10_000, 3), generator()))
        assert set(samples.tolist()) == {0, 2}

    def test_the_others_have_no_gradient(self) -> None:
        logits = self.LOGITS.clone().requires_grad_()
        policy = Categorical(masked(logits, self.ALLOWED))
        policy.log_prob(torch.tensor([0])).sum().backward()
        assert logits.grad is not None
        # One minus its probability, and minus the other's.
        assert logits.grad[0].tolist() == pytest.approx([3 / 4, 0.0, -3 / 4])
        logits.grad = None
        policy = Categorical(masked(logits, self.ALLOWED))
        policy.entropy().sum().backward()
        assert logits.grad is not None
        assert logits.grad[0].isfinite().all()
        assert logits.grad[0, 1] == 0

    def test_one_that_is_allowed_alone_is_certain(self) -> None:
        logits = torch.tensor([[-50.0, 50.0]], requires_grad=True)
        policy = Categorical(masked(logits, torch.tensor([[True, False]])))
        (policy.log_prob(torch.tensor([0])) + policy.entropy()).sum().backward()
        assert policy.log_prob(torch.tensor([0])).item() == policy.entropy().item() == 0.0
        assert logits.grad is not None
        assert logits.grad.tolist() == [[0.0, 0.0]]


def test_gaussian_samples_have_the_right_moments() -> None:
    noise = DiagGaussian.noise((100_000, 1), generator())
    samples = DiagGaussian(torch.full((100_000, 1), 3.0), torch.tensor([2.0]).log()).sample(noise)
    assert abs(samples.mean().item() - 3.0) < 4 * 2 / 100_000**0.5
    assert abs(samples.std().item() - 2.0) < 4 * 2 / 200_000**0.5
