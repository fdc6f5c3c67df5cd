"""GAE against numbers worked out by hand: gamma 0.5, lambda 0.5, so the recursion's factor is 0.25."""

import pytest
import torch

from esper.simic.advantages import compute_gae

REWARDS, VALUES = [1.0, 2.0, 3.0], [0.5, 1.0, 2.0]
NEXT_VALUES = [1.0, 2.0, 4.0]


def gae(
    terminated: list[bool], truncated: list[bool], next_values: list[float] = NEXT_VALUES
) -> tuple[list[float], list[float]]:
    columns = [torch.tensor(column).unsqueeze(1) for column in (REWARDS, VALUES, next_values, terminated, truncated)]
    advantages, returns = compute_gae(*columns, gamma=0.5, gae_lambda=0.5)
    return advantages.squeeze(1).tolist(), returns.squeeze(1).tolist()


NO = [False, False, False]
MIDDLE = [False, True, False]


def test_without_an_end() -> None:
    # deltas: 1 + 0.5*1 - 0.5 = 1; 2 + 0.5*2 - 1 = 2; 3 + 0.5*4 - 2 = 3
    # A2 = 3; A1 = 2 + 0.25*3 = 2.75; A0 = 1 + 0.25*2.75 = 1.6875
    assert gae(NO, NO) == ([1.6875, 2.75, 3.0], [2.1875, 3.75, 5.0])


def test_termination_has_no_value_after_it_and_cuts_the_recursion() -> None:
    # delta1 = 2 + 0 - 1 = 1 and A1 = 1; A0 = 1 + 0.25*1 = 1.25
    assert gae(MIDDLE, NO)[0] == [1.25, 1.0, 3.0]


def test_truncation_keeps_the_value_of_the_final_observation_and_cuts_the_recursion() -> None:
    # The final observation is worth 6: delta1 = 2 + 0.5*6 - 1 = 4 = A1; A0 = 1 + 0.25*4 = 2
    assert gae(NO, MIDDLE, next_values=[1.0, 6.0, 4.0])[0] == [2.0, 4.0, 3.0]


def test_termination_wins_when_both_are_set() -> None:
    assert gae(MIDDLE, MIDDLE) == gae(MIDDLE, NO)


def test_environments_do_not_mix() -> None:
    rewards = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    zeros, no = torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.bool)
    advantages, _ = compute_gae(rewards, zeros, zeros, no, no, gamma=0.5, gae_lambda=0.5)
    assert advantages.tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_what_no_value_fits_after_a_termination_does_not_matter() -> None:
    assert gae(MIDDLE, NO, next_values=[1.0, float("nan"), 4.0]) == gae(MIDDLE, NO)


def test_computes_in_the_precision_of_the_values() -> None:
    # One step of double precision: 1 + 0.1*0.3 - 0.2 = 0.83, and the one before: 0.83 + 0.1*0.7*0.83 = 0.8881.
    column = torch.ones(2, 1, dtype=torch.float64)
    no = torch.zeros(2, 1, dtype=torch.bool)
    advantages, returns = compute_gae(column, 0.2 * column, 0.3 * column, no, no, gamma=0.1, gae_lambda=0.7)
    assert advantages.dtype == returns.dtype == torch.float64
    assert advantages.flatten().tolist() == pytest.approx([0.8881, 0.83], rel=1e-13)


def test_the_two_factors_are_the_discount_and_lambda() -> None:
    # deltas: 1 + 0.5*2 - 0 = 2, twice; A1 = 2, A0 = 2 + 0.5*0.75*2 = 2.75. At lambda 0, A0 is its delta alone.
    column, no = torch.ones(2, 1), torch.zeros(2, 1, dtype=torch.bool)
    for gae_lambda, expected in ((0.75, [2.75, 2.0]), (0.0, [2.0, 2.0])):
        advantages, _ = compute_gae(column, 0 * column, 2 * column, no, no, gamma=0.5, gae_lambda=gae_lambda)
        assert advantages.flatten().tolist() == expected
