"""Gymnasium environments as the learner sees them: every autoreset mode, every space, true episode ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from esper.envs.base import ContinuousActions, DiscreteActions, Images, MultiDiscreteActions, Step, Vectors
from esper.envs.gym import GymnasiumVectorEnv
from esper.envs.make import make_env
from esper.envs.subenvs import SubEnv
from esper.settings.options import ConfigError
from esper.simic.collect import Collector
from esper.simic.config import NetworkConfig
from esper.simic.episodes import EpisodeLog, Episodes, Outcomes
from esper.simic.nets.actor_critic import ActorCritic
from esper.simic.rollout import Rollout
from esper.system.seeding import device_generator

CPU = torch.device("cpu")


class Counter(gymnasium.Env[Any, Any]):
    """Observation: steps in this episode. Reward: 10 + steps. Ends after `length`, by `terminated` or truncation."""

    def __init__(
        self,
        length: int = 3,
        terminates: bool = False,
        action_space: spaces.Space[Any] | None = None,
        observation_space: spaces.Space[Any] | None = None,
    ) -> None:
        self.length, self.terminates = length, terminates
        self.action_space = spaces.Discrete(2) if action_space is None else action_space
        self.observation_space = observation_space or spaces.Box(0, 100, (1,))
        self.taken: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._obs(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.taken.append(action)
        over = self.steps == self.length
        return self._obs(), 10.0 + self.steps, over and self.terminates, over and not self.terminates, {}

    def _obs(self) -> Any:
        if len(self.observation_space.shape or ()) == 3:
            image: Any = np.zeros(self.observation_space.shape or (), dtype=self.observation_space.dtype)
            image[(1, 0, 4) if image.shape[0] < image.shape[2] else (0, 4, 1)] = self.steps
            return image
        return np.array([self.steps], dtype=np.float32)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    gymnasium.register("Counter-v0", entry_point=cast(Any, Counter))
    yield
    del gymnasium.registry["Counter-v0"]


def counters(mode: AutoresetMode, lengths: tuple[int, ...] = (3, 2), **kwargs: Any) -> GymnasiumVectorEnv:
    makers = [lambda length=length: SubEnv(Counter(length=length, **kwargs)) for length in lengths]
    return GymnasiumVectorEnv(SyncVectorEnv(makers, autoreset_mode=mode))


def copied(step: Step) -> Step:
    return Step(*(None if field is None else field.copy() for field in step))  # type: ignore[arg-type]


class TestAutoreset:
    def test_same_step_gives_the_reset_observation_and_the_final_one(self) -> None:
        env = counters(AutoresetMode.SAME_STEP)
        env.reset(0)
        steps = [copied(env.step(np.zeros(2, dtype=np.int64))) for _ in range(3)]
        # Copy 1 ends in its second step: it is back at 0, and its final observation was 2.
        assert [step.obs.ravel().tolist() for step in steps] == [[1, 1], [2, 0], [0, 1]]
        assert steps[0].final_obs is None
        assert steps[1].final_obs is not None
        assert steps[1].final_obs[1] == 2
        assert steps[1].truncated.tolist() == [False, True]
        assert steps[2].final_obs is not None
        assert steps[2].final_obs[0] == 3
        assert all(step.ignored is None for step in steps)

    def test_next_step_marks_the_step_that_only_reset(self) -> None:
        env = counters(AutoresetMode.NEXT_STEP)
        env.reset(0)
        steps = [copied(env.step(np.zeros(2, dtype=np.int64))) for _ in range(4)]
        assert [step.obs.ravel().tolist() for step in steps] == [[1, 1], [2, 2], [3, 0], [0, 1]]
        assert steps[1].final_obs is not None
        assert steps[1].final_obs[1] == 2
        ignored = [None if step.ignored is None else step.ignored.tolist() for step in steps]
        assert ignored == [None, None, [False, True], [True, False]]

    def test_a_reset_forgets_a_pending_one(self) -> None:
        env = counters(AutoresetMode.NEXT_STEP, lengths=(1,))
        env.reset(0)
        env.step(np.zeros(1, dtype=np.int64))
        env.reset(0)
        assert env.step(np.zeros(1, dtype=np.int64)).ignored is None


def collect(env: GymnasiumVectorEnv, num_steps: int) -> tuple[Rollout, Episodes]:
    network = ActorCritic(env.spec.observations, env.spec.actions, NetworkConfig(hidden_sizes=(4,)))
    rollout = Rollout.allocate(env.spec, num_steps, CPU)
    Collector(env, seed=0).collect(network, rollout, device_generator(0, "actions", CPU))
    return rollout, EpisodeLog(env.spec.num_envs).finished(Outcomes(rollout))


class TestCollect:
    @pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
    def test_episodes_have_their_true_return_and_length(self, mode: AutoresetMode) -> None:
        _, episodes = collect(counters(mode, lengths=(3,)), 7)
        # 11 + 12 + 13, twice: a step spent on a reset counts for nothing.
        assert episodes == ([36.0, 36.0], [3, 3], [True, True])

    def test_same_step_rollout(self) -> None:
        rollout, _ = collect(counters(AutoresetMode.SAME_STEP, lengths=(2,)), 4)
        assert rollout.obs.ravel().tolist() == [0, 1, 0, 1, 0]
        assert rollout.rewards.ravel().tolist() == [11, 12, 11, 12]
        assert rollout.truncated.ravel().tolist() == [False, True, False, True]
        assert rollout.final_obs[rollout.truncated].ravel().tolist() == [2, 2]
        assert rollout.sample_indices(np.random.default_rng(0)) is None

    def test_next_step_rollout_learns_from_no_reset(self) -> None:
        rollout, _ = collect(counters(AutoresetMode.NEXT_STEP, lengths=(2,)), 6)
        assert rollout.obs.ravel().tolist() == [0, 1, 2, 0, 1, 2, 0]
        assert rollout.ignored.ravel().tolist() == [False, False, True] * 2
        indices = rollout.sample_indices(np.random.default_rng(0))
        assert indices is not None
        assert len(indices) == 6
        assert set(indices.tolist()) <= {0, 1, 3, 4}
        assert {0, 1, 3, 4} <= set(indices.tolist())

    def test_a_rollout_of_nothing_but_resets_is_refused(self) -> None:
        env = counters(AutoresetMode.NEXT_STEP, lengths=(1,))
        network = ActorCritic(Vectors(size=1), env.spec.actions, NetworkConfig(hidden_sizes=(4,)))
        collector, rollout = Collector(env, seed=0), Rollout.allocate(env.spec, 1, CPU)
        for _ in range(2):
            collector.collect(network, rollout, device_generator(0, "actions", CPU))
        with pytest.raises(ConfigError, match="num_steps = 1: must be at least 2"):
            rollout.sample_indices(np.random.default_rng(0))

    def test_a_termination_is_no_truncation(self) -> None:
        rollout, _ = collect(counters(AutoresetMode.SAME_STEP, lengths=(2,), terminates=True), 4)
        assert not rollout.truncated.any()
        assert rollout.terminated.ravel().tolist() == [False, True, False, True]

    def test_an_episode_goes_on_in_the_next_rollout(self) -> None:
        env = counters(AutoresetMode.SAME_STEP, lengths=(3,))
        network = ActorCritic(Vectors(size=1), env.spec.actions, NetworkConfig(hidden_sizes=(4,)))
        collector, rollout = Collector(env, seed=0), Rollout.allocate(env.spec, 2, CPU)
        generator, log = device_generator(0, "actions", CPU), EpisodeLog(1)
        collector.collect(network, rollout, generator)
        assert log.finished(Outcomes(rollout)) == ([], [], [])
        collector.collect(network, rollout, generator)
        assert log.finished(Outcomes(rollout)) == ([36.0], [3], [True])
        assert rollout.obs.ravel().tolist() == [2, 0, 1]

    def test_a_rollout_on_another_device_is_filled_from_its_stand_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        env = counters(AutoresetMode.SAME_STEP, lengths=(2,))
        stand_in = Rollout.allocate(env.spec, 4, CPU)
        monkeypatch.setattr(Collector, "_on_host", lambda self, rollout: stand_in)
        rollout, _ = collect(env, 4)
        assert rollout.obs.ravel().tolist() == [0, 1, 0, 1, 0]
        assert all(a.equal(b) for a, b in zip(rollout.tensors(), stand_in.tensors(), strict=True))


class TestNativeCartPole:
    def test_native_and_sync_tell_the_same_story(self) -> None:
        """The same actions from the same state: the native version differs only by its extra reset steps."""
        native, sync = (make_env("CartPole-v1", num_envs=1, vector=vector) for vector in ("native", "sync"))
        native.reset(0)
        obs = sync.reset(0)
        native._env.state = sync._env.envs[0].unwrapped.state[:, None].copy()  # type: ignore[attr-defined]
        for _ in range(200):
            actions = (obs[:, 2] > -0.1).astype(np.int64)
            ours, theirs = copied(native.step(actions)), copied(sync.step(actions))
            np.testing.assert_allclose(
                ours.obs if ours.final_obs is None else ours.final_obs,
                theirs.obs if theirs.final_obs is None else theirs.final_obs,
                rtol=1e-4,
                atol=1e-5,
            )
            assert ours.terminated == theirs.terminated
            obs = theirs.obs
            if ours.terminated.any():
                return
        pytest.fail("the pole never fell")

    def test_auto_takes_the_native_version(self) -> None:
        assert isinstance(
            make_env("CartPole-v1", num_envs=2)._env,  # type: ignore[attr-defined]
            CartPoleVectorEnv,
        )


class TestAsync:
    def test_steps_as_sync_does(self) -> None:
        both = [make_env("Acrobot-v1", num_envs=2, vector=vector) for vector in ("sync", "async")]
        observations = [[env.reset(3).copy()] for env in both]
        for env, seen in zip(both, observations, strict=True):
            seen += [env.step(np.array([0, 2])).obs.copy() for _ in range(5)]
            env.close()
        first, second = observations
        np.testing.assert_array_equal(first, second)


def test_an_environment_that_a_module_registers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry_point = "gymnasium.envs.classic_control:PendulumEnv"
    (tmp_path / "my_envs.py").write_text(
        f'import gymnasium\ngymnasium.register("Mine-v0", entry_point="{entry_point}")'
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))
    monkeypatch.delitem(sys.modules, "my_envs", raising=False)
    assert make_env("my_envs:Mine-v0", num_envs=2).spec.observations == Vectors(size=3)
    with pytest.raises(ConfigError, match="no_envs cannot be imported: No module named 'no_envs'"):
        make_env("no_envs:Mine-v0", num_envs=2)


class TestSpaces:
    def make(self, **kwargs: Any) -> GymnasiumVectorEnv:
        env = make_env("Counter-v0", num_envs=2, env_kwargs=kwargs)
        assert isinstance(env, GymnasiumVectorEnv)
        return env

    def taken(self, env: GymnasiumVectorEnv) -> list[Any]:
        return [copy.unwrapped.taken[-1] for copy in env._env.envs]  # type: ignore[attr-defined]

    def test_discrete_actions_that_do_not_start_at_zero(self) -> None:
        env = self.make(action_space=spaces.Discrete(3, start=5))
        assert env.spec.actions == DiscreteActions(n=3)
        env.reset(0)
        env.step(np.array([0, 2]))
        assert self.taken(env) == [5, 7]

    def test_box_actions_are_clipped_and_shaped(self) -> None:
        env = self.make(action_space=spaces.Box(-1, 2, (3, 2)))
        assert env.spec.actions == ContinuousActions(size=6)
        env.reset(0)
        env.step(np.array([[-5, 0.5, 0, 1, 3, 2], [5, 1.5, 1, -1, 0, -2]], dtype=np.float32))
        assert [action.tolist() for action in self.taken(env)] == [
            [[-1, 0.5], [0, 1], [2, 2]],
            [[2, 1.5], [1, -1], [0, -1]],
        ]

    @pytest.mark.parametrize(
        ("space", "nvec", "actions", "taken"),
        [
            (spaces.MultiDiscrete([3, 2]), (3, 2), [2, 1], [2, 1]),
            (spaces.MultiDiscrete([3, 2], start=[5, -1]), (3, 2), [2, 1], [7, 0]),
            (
                spaces.MultiDiscrete(np.array([[1, 2, 3], [4, 5, 6]]), start=np.array([[0, 0, 0], [10, 20, 30]])),
                (1, 2, 3, 4, 5, 6),
                [0, 1, 2, 3, 4, 5],
                [[0, 1, 2], [13, 24, 35]],
            ),
            (spaces.MultiBinary(3), (2, 2, 2), [1, 0, 1], [1, 0, 1]),
            (spaces.MultiBinary([2, 2]), (2, 2, 2, 2), [1, 0, 0, 1], [[1, 0], [0, 1]]),
        ],
    )
    @pytest.mark.parametrize("vector", ["sync", "async"])
    def test_several_choices(self, space: Any, nvec: Any, actions: Any, taken: Any, vector: Any) -> None:
        env = make_env("Counter-v0", num_envs=2, env_kwargs={"action_space": space}, vector=vector)
        assert env.spec.actions == MultiDiscreteActions(nvec=nvec)
        env.reset(0)
        zeros = [0] * len(nvec)
        env.step(np.array([zeros, actions]))
        first, second = (copy[-1] for copy in env._env.get_attr("taken"))  # type: ignore[attr-defined]
        assert second.tolist() == taken
        assert first in space
        assert second in space
        env.close()

    @pytest.mark.parametrize(
        ("env", "size"),
        [("FrozenLake-v1", 16), ("Blackjack-v1", 32 + 11 + 2), ("CartPole-v1", 4)],
        ids=["discrete is one-hot", "tuples are joined", "box"],
    )
    def test_observations_become_vectors(self, env: str, size: int) -> None:
        made = make_env(env, num_envs=3, vector="sync")
        assert made.spec.observations == Vectors(size=size)
        obs = made.reset(0)
        assert obs.shape == (3, size)
        assert obs.dtype == np.float32

    @pytest.mark.parametrize("vector", ["sync", "async"])
    @pytest.mark.parametrize(
        ("shape", "dtype", "seen", "highest"),
        [
            ((5, 6, 3), np.uint8, (3, 5, 6), 255),
            ((3, 5, 6), np.uint8, (3, 5, 6), 255),
            ((5, 5, 2), np.bool_, (2, 5, 5), 1),
        ],
        ids=["channels last", "channels first", "booleans"],
    )
    def test_images_stay_images(self, shape: Any, dtype: Any, seen: Any, highest: int, vector: Any) -> None:
        kwargs = {"observation_space": spaces.Box(0, highest, shape, dtype=dtype), "length": 2}
        env = make_env("Counter-v0", num_envs=2, env_kwargs=kwargs, vector=vector)
        assert env.spec.observations == Images(shape=seen, highest=highest)
        first, *steps = env.reset(0), *(env.step(np.zeros(2, dtype=np.int64)) for _ in range(2))
        last = steps[-1].final_obs
        assert last is not None
        assert first.dtype == last.dtype == np.uint8
        assert first.shape == last.shape == (2, *seen)
        # Counter paints its steps into channel 1, row 0, and into column 4 of it, wherever channels are.
        assert last[0].nonzero()[0].tolist() == [1]
        assert last[0, 1, 0, 4] == min(2, highest)
        assert not steps[-1].obs.any()
        env.close()

    @pytest.mark.parametrize(
        ("space", "message"),
        [
            (spaces.Text(3), "action space that is not supported; Discrete, MultiDiscrete, MultiBinary and Box of"),
            (spaces.Box(0, 9, (2,), dtype=np.int64), "action space that is not supported"),
        ],
    )
    def test_unsupported_actions(self, space: spaces.Space[Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            self.make(action_space=space)

    def test_unsupported_observations(self) -> None:
        with pytest.raises(ConfigError, match="cannot become a vector"):
            self.make(observation_space=spaces.Sequence(spaces.Discrete(2)))


class TestBadInput:
    @pytest.mark.parametrize(
        ("env", "message"),
        [
            ("CartPole-v2", "did you mean 'CartPole-v1'"),
            ("CartPol-v1", "did you mean 'CartPole-v1'"),
            ("nothing like it", "is no Gymnasium environment"),
            ("no_such_module:Env-v0", "no_such_module cannot be imported"),
        ],
    )
    def test_unknown_environment(self, env: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            make_env(env, num_envs=1)

    def test_a_missing_extra_is_named_with_the_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_box2d(*args: Any, **kwargs: Any) -> None:
            raise gymnasium.error.DependencyNotInstalled("Box2D is not installed")

        monkeypatch.setattr(gymnasium, "make", no_box2d)
        with pytest.raises(ConfigError, match=r"needs the extra 'box2d': pip install 'esper-simic\[box2d\]'"):
            make_env("LunarLander-v3", num_envs=1)

    def test_atari_without_its_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "ale_py", None)
        with pytest.raises(ConfigError, match="needs the extra 'atari'"):
            make_env("ALE/Pong-v5", num_envs=1)

    def test_arguments_the_environment_does_not_take(self) -> None:
        with pytest.raises(ConfigError, match=r"env_kwargs.*refuses them.*gravity_of_mars"):
            make_env("Acrobot-v1", num_envs=1, env_kwargs={"gravity_of_mars": True})

    def test_native_where_there_is_none(self) -> None:
        with pytest.raises(ConfigError, match="has no vector version"):
            make_env("Acrobot-v1", num_envs=1, vector="native")
