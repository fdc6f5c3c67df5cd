"""EnvPool's environments: the same tasks as Gymnasium's, with ends and resets where the learner looks for them."""

from __future__ import annotations

import sys
from typing import Any

import gymnasium
import numpy as np
import pytest

from esper.envs.base import ContinuousActions, DiscreteActions, Step, Vectors
from esper.envs.families.envpool import EnvPoolVectorEnv
from esper.envs.make import make_env
from esper.settings.options import ConfigError
from esper.simic import PPOAgent, PPOConfig, RuntimeConfig, ScheduleConfig, train_ppo_vectorized
from esper.telemetry.events import UpdateCompleted


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(ConfigError, match=r"needs the extra 'envpool': pip install 'esper-simic\[envpool\]'"):
        make_env("CartPole-v1", num_envs=1, vector="envpool")


def make(env: str, num_envs: int = 1, **kwargs: Any) -> EnvPoolVectorEnv:
    pytest.importorskip("envpool")
    made = make_env(env, num_envs=num_envs, vector="envpool", env_kwargs=kwargs)
    assert isinstance(made, EnvPoolVectorEnv)
    return made


def balance(obs: Any) -> Any:
    """Actions that keep CartPole's pole up for more than 500 steps."""
    return (obs @ np.array([0.1, 0.5, 3.0, 1.0]) > 0).astype(np.int64)


def trajectory(env: EnvPoolVectorEnv, seed: int, steps: int = 60) -> list[Any]:
    generator = np.random.default_rng(0)
    outcomes = [env.reset(seed).tolist()]
    for _ in range(steps):
        if isinstance(env.spec.actions, DiscreteActions):
            actions: Any = generator.integers(env.spec.actions.n, size=env.spec.num_envs)
        else:
            assert isinstance(env.spec.actions, ContinuousActions)
            actions = generator.normal(size=(env.spec.num_envs, env.spec.actions.size)).astype(np.float32)
        outcomes += [[None if part is None else part.tolist() for part in env.step(actions)]]
    return outcomes


class TestAgreesWithGymnasium:
    """The same step from the same state."""

    def test_cartpole(self) -> None:
        ours, theirs = make("CartPole-v1"), gymnasium.make("CartPole-v1").unwrapped
        obs = ours.reset(0)
        for _ in range(100):
            theirs.reset()
            theirs.state = obs[0].astype(np.float64)  # type: ignore[attr-defined]
            step = ours.step(np.array([1]))
            expected, reward, terminated, _, _ = theirs.step(np.int64(1))
            np.testing.assert_allclose(step.obs[0], expected, atol=1e-5)
            assert (step.reward[0], step.terminated[0]) == (reward, terminated)
            obs = step.obs
            if terminated:
                return
        pytest.fail("the pole never fell")

    def test_half_cheetah(self) -> None:
        pytest.importorskip("mujoco")
        from gymnasium.envs.mujoco.half_cheetah_v4 import HalfCheetahEnv

        ours, theirs = make("HalfCheetah-v4", num_envs=2), HalfCheetahEnv()
        assert ours.spec.actions == ContinuousActions(size=6)
        obs, generator = ours.reset(0), np.random.default_rng(0)
        for _ in range(20):
            theirs.reset()
            # The position along the track is not observed, and nothing depends on it.
            theirs.set_state(np.array([0, *obs[1, :8]]), obs[1, 8:])
            actions = generator.uniform(-1, 1, size=(2, 6)).astype(np.float32)
            step = ours.step(actions)
            expected, reward, *_ = theirs.step(actions[1])
            np.testing.assert_allclose(step.obs[1], expected, atol=1e-4)
            assert step.reward[1] == pytest.approx(reward, abs=1e-5)
            obs = step.obs
        assert obs.dtype == np.float32


class TestEnds:
    def test_a_fall_terminates_and_the_next_step_only_resets(self) -> None:
        env = make("CartPole-v1", num_envs=2)
        obs = env.reset(0)
        steps: list[Step] = []
        while not steps or steps[-1].ignored is None:
            # Copy 0 is pushed over; copy 1 is balanced.
            steps.append(env.step(np.array([1, balance(obs)[1]])))
            obs = steps[-1].obs
        *_, before, last, resetting = steps
        assert before.final_obs is None
        assert last.final_obs is not None
        assert last.terminated.tolist() == [True, False]
        assert not last.truncated.any()
        # The end as it was: beyond 12 degrees, and not the reset that follows.
        assert abs(last.final_obs[0, 2]) > np.deg2rad(12) > abs(before.obs[0, 2])
        assert resetting.ignored is not None
        assert resetting.ignored.tolist() == [True, False]
        assert resetting.reward.tolist() == [0.0, 1.0]
        assert abs(resetting.obs[0]).max() <= 0.05
        assert env.step(np.array([1, 0])).ignored is None

    def test_the_time_limit_truncates(self) -> None:
        env = make("CartPole-v1")
        obs = env.reset(0)
        for _ in range(499):
            step = env.step(balance(obs))
            obs = step.obs
            assert not (step.terminated | step.truncated).any()
        step = env.step(balance(obs))
        assert (step.terminated[0], step.truncated[0]) == (False, True)
        assert step.final_obs is not None
        # One Euler step of 0.02 s on from the observation before.
        assert step.final_obs[0, 0] == pytest.approx(obs[0, 0] + 0.02 * obs[0, 1], abs=1e-6)
        step = env.step(balance(obs))
        assert step.ignored is not None
        assert step.ignored.tolist() == [True]

    def test_a_reset_forgets_a_pending_one(self) -> None:
        env = make("CartPole-v1", max_episode_steps=1)
        env.reset(0)
        assert env.step(np.array([0])).truncated.all()
        env.reset(0)
        assert env.step(np.array([0])).ignored is None

    def test_arrays_outlive_later_steps(self) -> None:
        env = make("CartPole-v1")
        env.reset(0)
        first = env.step(np.array([0]))
        kept = first.obs.copy()
        for _ in range(50):
            env.step(np.array([0]))
        np.testing.assert_array_equal(first.obs, kept)


class TestSeeds:
    @pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1", "HalfCheetah-v4"])
    def test_decide_everything(self, env: str) -> None:
        one = trajectory(make(env, num_envs=5), seed=3)
        assert trajectory(make(env, num_envs=5), seed=3) == one
        assert trajectory(make(env, num_envs=5, num_threads=1), seed=3) == one
        assert trajectory(make(env, num_envs=5), seed=4)[0] != one[0]

    def test_of_a_second_reset_count_too(self) -> None:
        env = make("CartPole-v1", num_envs=3)
        one, other = trajectory(env, seed=3), trajectory(env, seed=4)
        assert trajectory(env, seed=3) == one != other

    def test_next_to_each_other_share_no_episodes(self) -> None:
        env = make("CartPole-v1", num_envs=4)
        starts = np.concatenate([env.reset(seed) for seed in (0, 1, 2**40)])
        assert len(np.unique(starts, axis=0)) == 12


class TestSpaces:
    def test_continuous_actions_are_clipped(self) -> None:
        rewards = []
        for action in (5.0, 2.0):
            env = make("Pendulum-v1", num_envs=2)
            env.reset(0)
            rewards += [env.step(np.array([[action], [-action]], dtype=np.float32)).reward.tolist()]
        assert rewards[0] == rewards[1]

    @pytest.mark.parametrize(
        ("env", "size"),
        [("FrozenLake-v1", 16), ("CheetahRun-v1", 8 + 9), ("TSP-v1", 40 + 21 + 20 + 20)],
        ids=["discrete is one-hot", "dictionaries are joined", "discrete in a dictionary, from -1"],
    )
    def test_observations_become_vectors(self, env: str, size: int) -> None:
        made = make(env, num_envs=3)
        assert made.spec.observations == Vectors(size=size)
        obs = made.reset(0)
        assert obs.shape == (3, size)
        assert obs.dtype == np.float32

    def test_a_discrete_observation_is_where_it_is(self) -> None:
        env = make("CliffWalking-v0", num_envs=2)
        # The start is the lower left of 4 rows of 12; action 0 goes up.
        assert env.reset(0).argmax(axis=1).tolist() == [36, 36]
        assert env.step(np.array([0, 3])).obs.argmax(axis=1).tolist() == [24, 36]


class TestBadInput:
    @pytest.mark.parametrize(
        ("env", "kwargs", "message"),
        [
            ("CartPol-v1", {}, "env = CartPol-v1: is no EnvPool environment; did you mean 'CartPole-v1'"),
            ("Pong-v5", {}, r"env = Pong-v5: observations are images \(4, 84, 84\)"),
            ("Go9x9-v1", {}, "env = Go9x9-v1: has several players"),
            ("BinPack-v2", {}, "action space that is not supported"),
            ("CartPole-v1", {"gravity": 1}, "CartPole-v1 refuses them: TypeError: .* unexpected .* 'gravity'"),
            ("CartPole-v1", {"max_episode_steps": "x"}, "CartPole-v1 refuses them: TypeError: .* incompatible"),
            ("CartPole-v1", {"seed": 1, "batch_size": 2}, "env_kwargs = .* batch_size, seed: decided by the run"),
            ("CartPole-v1", {"num_threads": -1}, "env_kwargs = .* num_threads must be a whole number, at least 1"),
            ("HalfCheetah-v4", {"xml_file": "no.xml"}, "HalfCheetah-v4 refuses them: RuntimeError: .*no.xml"),
            ("torch/CartPole-v1", {}, "steps all environments in one tensor; use auto"),
        ],
    )
    def test_is_one_message(self, env: str, kwargs: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message) as error:
            make(env, **kwargs)
        assert "\n" not in str(error.value)

    def test_more_threads_than_copies_are_not_started(self) -> None:
        assert make("CartPole-v1", num_threads=10**9).reset(0).shape == (1, 4)

    def test_auto_is_never_envpool(self) -> None:
        with pytest.raises(ConfigError, match="is no Gymnasium environment"):
            make_env("CheetahRun-v1", num_envs=1)


def test_training_learns() -> None:
    rate = ScheduleConfig(peak=2.5e-3)
    config = PPOConfig(total_timesteps=24_000, policy_lr=rate, value_lr=rate, runtime=RuntimeConfig(compile="off"))
    env = make("CartPole-v1", num_envs=config.num_envs)
    events: list[UpdateCompleted] = []
    train_ppo_vectorized(PPOAgent(config, env.spec, seed=1), env, on_event=events.append)  # type: ignore[arg-type]
    returns = [event.episode_return_mean for event in events if event.episode_return_mean is not None]
    assert returns[0] < 40
    assert max(returns[-5:]) > 100
