"""Distributions against torch.distributions, and their samples against their probabilities."""

import torch
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent, Normal

from esper.simic.distributions import Categorical, DiagGaussian


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


def test_gaussian_samples_have_the_right_moments() -> None:
    noise = DiagGaussian.noise((100_000, 1), generator())
    samples = DiagGaussian(torch.full((100_000, 1), 3.0), torch.tensor([2.0]).log()).sample(noise)
    assert abs(samples.mean().item() - 3.0) < 4 * 2 / 100_000**0.5
    assert abs(samples.std().item() - 2.0) < 4 * 2 / 200_000**0.5
