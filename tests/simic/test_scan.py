"""The recurrence along time: worked out by hand, and held to its definition at every length."""

import pytest
import torch

from esper.simic.scan import decayed_sums


def test_by_hand() -> None:
    # s3 = 4; s2 = 3 + 0.5*4 = 5; s1 = 2 + 0*5 = 2; s0 = 1 + 0.25*2 = 1.5. Nothing comes after the last decay.
    terms, decays = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.25, 0.0, 0.5, 9.0])
    assert decayed_sums(terms, decays).tolist() == [1.5, 2.0, 5.0, 4.0]


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 100])
def test_each_sum_is_its_term_and_the_decayed_sum_after_it(length: int) -> None:
    generator = torch.Generator().manual_seed(length)
    terms = torch.randn(length, 2, 3, generator=generator, dtype=torch.float64)
    decays = torch.rand(length, 2, 3, generator=generator, dtype=torch.float64)
    sums = decayed_sums(terms, decays)
    assert sums.shape == terms.shape
    assert sums[-1].equal(terms[-1])
    torch.testing.assert_close(sums[:-1], terms[:-1] + decays[:-1] * sums[1:], rtol=1e-12, atol=1e-12)


def test_changes_neither_of_its_arguments() -> None:
    terms, decays = torch.ones(5), torch.full((5,), 0.5)
    decayed_sums(terms, decays)
    assert terms.tolist() == [1.0] * 5
    assert decays.tolist() == [0.5] * 5
