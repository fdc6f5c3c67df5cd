"""How large observations and actions are, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from esper.envs.actions import actions_of, bounds_of
from esper.envs.base import ActionBounds, ContinuousActions, EnvSpec, Images, Vectors
from esper.envs.make import make_env
from esper.simic.extents import action_extent, observation_max
from esper.simic.rollout import Rollout

CPU = torch.device("cpu")


def rollout(actions: list[list[float]] | None = None) -> Rollout:
    """One environment; a step for each of `actions`."""
    actions = actions or [[0.0]]
    spec = EnvSpec(num_envs=1, observations=Vectors(size=2), actions=ContinuousActions(size=len(actions[0])))
    made = Rollout.allocate(spec, len(actions), CPU)
    made.actions.copy_(torch.tensor(actions)[:, None])
    return made


def test_the_largest_observation_may_be_negative_and_is_one_that_was_acted_on() -> None:
    made = rollout()
    made.obs[0, 0, 1], made.obs[1, 0, 0] = -7.0, 100.0
    assert observation_max(made) == 7.0


def test_images_have_no_largest_observation() -> None:
    spec = EnvSpec(num_envs=1, observations=Images(shape=(1, 8, 8)), actions=ContinuousActions(size=1))
    assert observation_max(Rollout.allocate(spec, 2, CPU)) is None


@pytest.mark.parametrize(
    ("actions", "low", "high", "extent"),
    [
        ([[0.0], [0.0]], (-1.0,), (1.0,), 0.0),
        ([[5.0], [-1.0]], (-1.0,), (1.0,), 1.0),  # clipped
        # Half and all of the way from 10 to 14: the root of (0.25 + 1) / 2.
        ([[12.0], [14.0]], (6.0,), (14.0,), math.sqrt(0.625)),
        # Each number by its own bounds: 1 and 0.1, the root of (1 + 0.01) / 2.
        ([[2.0, 2.0]], (-2.0, -20.0), (2.0, 20.0), math.sqrt(0.505)),
        ([[1.0, 9.0]], (-1.0, 3.0), (1.0, 3.0), 1.0),  # the second number cannot vary
    ],
)
def test_extent_of_actions(
    actions: list[list[float]], low: tuple[float, ...], high: tuple[float, ...], extent: float
) -> None:
    assert action_extent(rollout(actions), ActionBounds(low=low, high=high)) == pytest.approx(extent)


def test_without_bounds_that_matter_there_is_no_extent() -> None:
    assert action_extent(rollout(), None) is None
    assert action_extent(rollout(), ActionBounds(low=(2.0,), high=(2.0,))) is None


class TestBounds:
    @pytest.mark.parametrize(
        ("scaled", "bounds"),
        [("off", ActionBounds(low=(-3.0, 0.0), high=(3.0, 8.0))), ("on", ActionBounds(low=(-1, -1), high=(1, 1)))],
    )
    def test_are_in_the_units_of_the_learner(self, scaled: str, bounds: ActionBounds) -> None:
        space = Box(np.array([-3, 0], dtype=np.float32), np.array([3, 8], dtype=np.float32))
        assert bounds_of(space, actions_of(space, scaled)) == bounds  # type: ignore[arg-type]

    def test_there_are_none_of_choices_or_where_one_is_infinite(self) -> None:
        for space in (Discrete(3), Box(0.0, np.inf, (1,))):
            assert bounds_of(space, actions_of(space)) is None

    def test_an_environment_as_tensors_has_those_of_gymnasium(self) -> None:
        ours, theirs = (make_env(f"{prefix}Pendulum-v1", num_envs=1) for prefix in ("torch/", ""))
        assert ours.spec.action_bounds == theirs.spec.action_bounds == ActionBounds(low=(-2.0,), high=(2.0,))
