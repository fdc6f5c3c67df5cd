"""Episodes against a walk through the steps one by one."""

from __future__ import annotations

import numpy as np
import torch

from esper.envs.base import DiscreteActions, EnvSpec, Vectors
from esper.simic.episodes import EpisodeLog, Outcomes
from esper.simic.rollout import Rollout

NUM_ENVS, NUM_STEPS = 3, 6
SPEC = EnvSpec(num_envs=NUM_ENVS, observations=Vectors(size=1), actions=DiscreteActions(n=2))


Episode = tuple[float, int, bool]


def walk(rollouts: list[Rollout]) -> list[Episode]:
    """By environment within each rollout, as the log gives them."""
    found: list[Episode] = []
    totals, lengths = [0.0] * NUM_ENVS, [0] * NUM_ENVS
    for rollout in rollouts:
        for env in range(NUM_ENVS):
            for step in range(NUM_STEPS):
                if not rollout.ignored[step, env]:
                    totals[env] += rollout.rewards[step, env].item()
                    lengths[env] += 1
                if rollout.terminated[step, env] or rollout.truncated[step, env]:
                    cut = not rollout.terminated[step, env].item()
                    found.append((totals[env], lengths[env], cut))
                    totals[env], lengths[env] = 0.0, 0
    return found


def random_rollouts(number: int) -> list[Rollout]:
    rng, rollouts = np.random.default_rng(0), []
    for _ in range(number):
        rollout = Rollout.allocate(SPEC, NUM_STEPS, torch.device("cpu"))
        rollout.rewards.copy_(torch.from_numpy(rng.integers(-5, 5, size=(NUM_STEPS, NUM_ENVS))))
        for ends in (rollout.terminated, rollout.truncated):
            ends.copy_(torch.from_numpy(rng.random((NUM_STEPS, NUM_ENVS)) < 0.15))
        rollout.ignored[:] = rng.random((NUM_STEPS, NUM_ENVS)) < 0.2
        rollout.rewards[torch.from_numpy(rollout.ignored)] = torch.nan
        rollouts.append(rollout)
    return rollouts


def test_all_that_end_within_and_at_the_edges_of_rollouts() -> None:
    rollouts, log = random_rollouts(40), EpisodeLog(NUM_ENVS)
    found = [episode for rollout in rollouts for episode in zip(*log.finished(Outcomes(rollout)), strict=True)]
    assert found == walk(rollouts)
    assert len(found) > 100


def test_those_in_flight_go_on_in_another_log() -> None:
    rollouts, log, other = random_rollouts(2), EpisodeLog(NUM_ENVS), EpisodeLog(NUM_ENVS)
    log.finished(Outcomes(rollouts[0]))
    other.load_state_dict(log.state_dict())
    assert other.finished(Outcomes(rollouts[1])) == log.finished(Outcomes(rollouts[1]))


def test_a_reward_that_is_no_number_stays_in_its_episode() -> None:
    (rollout,) = random_rollouts(1)
    rollout.rewards.fill_(1.0)
    rollout.ignored[:] = False
    rollout.rewards[0, 0] = torch.nan
    rollout.terminated[1, 0] = True
    returns = EpisodeLog(NUM_ENVS).finished(Outcomes(rollout)).returns
    assert np.isnan(returns[0])
    assert np.isfinite(returns[1:]).all()
