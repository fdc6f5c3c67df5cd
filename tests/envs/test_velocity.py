"""Environments without velocities show what the others show, but for the velocities."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from esper.envs.base import Vectors
from esper.envs.make import make_env

# What of the original is left.
SHOWN = {
    "CartPoleNoVel-v1": ("CartPole-v1", [0, 2]),
    "MountainCarNoVel-v0": ("MountainCar-v0", [0]),
    "PendulumNoVel-v1": ("Pendulum-v1", [0, 1]),
    "AcrobotNoVel-v1": ("Acrobot-v1", [0, 1, 2, 3]),
}


@pytest.mark.parametrize("env", SHOWN)
def test_shows_positions_alone(env: str) -> None:
    original, shown = SHOWN[env]
    made = make_env(env, num_envs=1)
    plain = gymnasium.make(original)
    assert made.spec.observations == Vectors(size=len(shown))
    seed = 3
    obs, _ = plain.reset(seed=seed)
    seen = made.reset(seed)
    for _ in range(8):
        assert seen[0].tolist() == obs[shown].tolist()
        action = plain.action_space.sample()
        obs, reward, *_ = plain.step(action)
        step = made.step(np.array([action]))
        seen = step.obs
        assert step.reward[0] == reward


def test_keeps_time_limit_and_state() -> None:
    env = make_env("CartPoleNoVel-v1", num_envs=2)
    first = env.reset(0)
    state = env.state_dict()
    assert state is not None
    steps = [env.step(np.array([1, 0])).obs.copy() for _ in range(5)]
    assert steps[-1].tolist() != first.tolist()
    env.load_state_dict(state)
    assert [env.step(np.array([1, 0])).obs.tolist() for _ in range(5)] == [step.tolist() for step in steps]
    mountain = make_env("MountainCarNoVel-v0", num_envs=1)
    mountain.reset(0)
    cut = [bool(mountain.step(np.array([1])).truncated[0]) for _ in range(200)]
    assert cut == [False] * 199 + [True]
