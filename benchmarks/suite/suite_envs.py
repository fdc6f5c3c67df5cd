"""Variants of Gymnasium's environments that trainers stumble over, for the development suite of general settings.

PYTHONPATH=benchmarks/suite esper ppo --env suite_envs:CartPole-x1000-v1
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import TransformObservation, TransformReward

# Factors and offsets for four numbers, as of positions in millimetres beside speeds in kilometres an hour.
_FACTORS = np.array([1_000.0, 3.6, 0.01, 1.0])
_OFFSETS = np.array([5_000.0, -20.0, 1.0, 300.0])


def _rewards(env_id: str, factor: float) -> Callable[..., gym.Env[Any, Any]]:
    def make(**kwargs: Any) -> gym.Env[Any, Any]:
        return TransformReward(gym.make(env_id, **kwargs), lambda reward: factor * float(reward))

    return make


def _observations(env_id: str) -> Callable[..., gym.Env[Any, Any]]:
    def make(**kwargs: Any) -> gym.Env[Any, Any]:
        env = gym.make(env_id, **kwargs)
        size = env.observation_space.shape[0]  # type: ignore[index]
        factors, offsets = np.resize(_FACTORS, size), np.resize(_OFFSETS, size)
        space = gym.spaces.Box(-np.inf, np.inf, (size,), np.float64)
        return TransformObservation(env, lambda observation: observation * factors + offsets, space)

    return make


class _Upright(gym.RewardWrapper[Any, Any]):
    """Pendulum that is rewarded only near the top."""

    def reward(self, reward: Any) -> float:
        angle = self.unwrapped.state[0]  # type: ignore[attr-defined]
        return float(np.cos(angle) > 0.95)


def _sparse(**kwargs: Any) -> gym.Env[Any, Any]:
    return _Upright(gym.make("Pendulum-v1", **kwargs))


def _without_limit(**kwargs: Any) -> gym.Env[Any, Any]:
    return gym.make("Acrobot-v1", max_episode_steps=-1, **kwargs)


gym.register("CartPole-x1000-v1", _rewards("CartPole-v1", 1e3))
gym.register("CartPole-x0.001-v1", _rewards("CartPole-v1", 1e-3))
gym.register("CartPole-units-v1", _observations("CartPole-v1"))
gym.register("Acrobot-endless-v1", _without_limit)
gym.register("Pendulum-x1000-v1", _rewards("Pendulum-v1", 1e3))
gym.register("Pendulum-units-v1", _observations("Pendulum-v1"))
gym.register("Pendulum-sparse-v1", _sparse)
gym.register("Hopper-x0.001-v1", _rewards("Hopper-v5", 1e-3))
gym.register("HalfCheetah-units-v1", _observations("HalfCheetah-v5"))
