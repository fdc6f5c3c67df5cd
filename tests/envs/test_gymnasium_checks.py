"""Gymnasium's own checks, of single copies as they are wrapped, and of vector environments as they are made."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers import PassiveEnvChecker

from esper.envs.make import make_env

# Vectors, whole numbers and tuples that are flattened, masks in infos, actions that are choices or numbers; and what
# is put around them: hidden velocities, one-hot views.
IDS = (
    *("CartPole-v1", "Pendulum-v1", "MountainCarContinuous-v0", "Taxi-v4", "FrozenLake-v1", "Blackjack-v1"),
    *("CartPoleNoVel-v1", "MinAtar/Breakout-v1", "MiniGrid-Empty-5x5-v0"),
)
MODES = ("sync", "async", "native")
NUM_ENVS = 3


def made(env: str, vector: Any = "sync", **kwargs: Any) -> Any:
    """Gymnasium's vector environment in what `make_env` gives."""
    if env.startswith(("MinAtar", "MiniGrid")):
        pytest.importorskip(env.partition("-")[0].partition("/")[0].lower())
    if vector == "native" and gymnasium.spec(env).vector_entry_point is None:
        pytest.skip("it has no vector version")
    return make_env(env, num_envs=NUM_ENVS, vector=vector, env_kwargs=kwargs)._env  # type: ignore[attr-defined]


# It would rather have an environment without wrappers; these wrappers are what is to be checked. The bounds are those
# of the environments themselves.
@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version:UserWarning")
@pytest.mark.filterwarnings("ignore:.*(A Box observation space m..imum value|For Box action spaces):UserWarning")
@pytest.mark.parametrize("env", IDS)
def test_a_copy_passes_the_checker(env: str) -> None:
    copies = made(env)
    check_env(copies.envs[1], skip_render_check=True, skip_close_check=True)
    copies.close()


@pytest.mark.parametrize("env", IDS)
def test_a_copy_passes_the_passive_checker_for_an_episode(env: str) -> None:
    copies = made(env)
    copy = PassiveEnvChecker(copies.envs[1])
    copy.action_space.seed(1)
    for seed in (1, None):
        copy.reset(seed=seed)
        for _ in range(100):
            _, _, terminated, truncated, _ = copy.step(copy.action_space.sample())
            if terminated or truncated:
                break
    copies.close()


@pytest.mark.parametrize("vector", MODES)
@pytest.mark.parametrize("env", IDS)
def test_a_vector_environment_is_one_of_gymnasium(env: str, vector: Any) -> None:
    copies = made(env, vector)
    assert copies.num_envs == NUM_ENVS
    assert copies.observation_space == batch_space(copies.single_observation_space, NUM_ENVS)
    assert copies.action_space == batch_space(copies.single_action_space, NUM_ENVS)
    copies.action_space.seed(1)
    obs, info = copies.reset(seed=1)
    assert obs in copies.observation_space
    assert isinstance(info, dict)
    for _ in range(30):
        obs, reward, terminated, truncated, info = copies.step(copies.action_space.sample())
        assert obs in copies.observation_space
        assert np.asarray(reward).shape == terminated.shape == truncated.shape == (NUM_ENVS,)
        assert terminated.dtype == truncated.dtype == np.bool_
        assert np.issubdtype(np.asarray(reward).dtype, np.number)
        assert isinstance(info, dict)
    copies.close()


@pytest.mark.parametrize("vector", ["sync", "async"])
def test_a_seed_is_that_of_the_copies_one_after_the_other(vector: Any) -> None:
    copies = made("CartPole-v1", vector)
    together, _ = copies.reset(seed=5)
    one_by_one, _ = copies.reset(seed=[5, 6, 7])
    np.testing.assert_array_equal(together, one_by_one)
    np.testing.assert_array_equal(together[1], gymnasium.make("CartPole-v1").reset(seed=6)[0])
    copies.close()


@pytest.mark.parametrize("vector", ["sync", "async"])
def test_an_episode_ends_and_begins_in_the_same_step(vector: Any) -> None:
    copies = made("CartPole-v1", vector)
    assert copies.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    copies.reset(seed=5)
    alone = gymnasium.make("CartPole-v1")
    alone.reset(seed=5)
    ended = False
    while not ended:
        obs, _, terminated, _, info = copies.step(np.ones(NUM_ENVS, np.int64))
        last, _, ended, *_ = alone.step(1)
        assert terminated[0] == ended
    begun, _ = alone.reset()
    np.testing.assert_array_equal(info["final_obs"][0], last)
    np.testing.assert_array_equal(obs[0], begun)
    assert info["_final_obs"][0]
    copies.close()
