"""`is_success` in the infos of an episode's end, through every way of stepping, into the record."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode

from esper.envs.base import Step
from esper.envs.families.envpool import EnvPoolVectorEnv
from esper.envs.gym import GymnasiumVectorEnv
from esper.envs.make import make_env
from esper.policies.evaluate import run_episodes
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig, train_ppo_vectorized
from esper.telemetry.events import UpdateCompleted

# Of each episode's end in turn, and what is to come of them; None: nothing is told.
TOLD = [True, 0, np.True_, 0.0, np.array([1.0]), None]
KNOWN = [1, 0, 1, 0, 1, None]


class Tells(gymnasium.Env[Any, Any]):
    """Episodes of 2 steps; at their ends `is_success` is what `TOLD` has next, before it is True."""

    observation_space = Box(-1, 1, (1,))
    action_space = Discrete(2)

    def __init__(self, told: Any = TOLD, masked: bool = False, silent_copies: bool = False) -> None:
        self.told, self.masked, self.silent, self.episodes = told, masked, silent_copies, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            # By Gymnasium each copy's seed is one more than that of the one before.
            self.silent = self.silent and seed % 2 == 1
        self.age = 0
        return np.zeros(1, np.float32), self._info(True)

    def step(self, action: Any) -> Any:
        self.age += 1
        over = self.age == 2
        told = self.told[self.episodes % len(self.told)] if over else True
        self.episodes += over
        return np.zeros(1, np.float32), 1.0, over, False, self._info(told)

    def _info(self, told: Any) -> dict[str, Any]:
        mask = {"action_mask": np.ones(2, np.int8)} if self.masked else {}
        return mask if told is None or self.silent else {**mask, "is_success": told}


class Together(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """Episodes of 2 steps; copy 0 succeeds, copy 1 does not, of copy 2 nothing is told."""

    metadata = {}  # noqa: RUF012
    told: Any = (np.array([1.0, 0.0, 1.0]), np.array([True, True, False]))

    def __init__(self, mode: AutoresetMode) -> None:
        self.metadata = {"autoreset_mode": mode}
        self.num_envs, self._same = 3, mode is AutoresetMode.SAME_STEP
        self.single_observation_space, self.single_action_space = Tells.observation_space, Tells.action_space

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.age = 0
        return np.zeros((3, 1), np.float32), {}

    def step(self, actions: Any) -> Any:
        self.age = (self.age + 1) % (2 if self._same else 3)
        over = np.full(3, self.age == (0 if self._same else 2))
        obs, (values, which) = np.zeros((3, 1), np.float32), self.told
        told = {"is_success": values, "_is_success": which & over} if over.any() else {}
        if self._same and over.any():
            finals = np.array([None, *np.zeros((3, 1), np.float32)], dtype=object)[1:]
            told = {"final_info": told, "_final_info": over, "final_obs": finals}
        return obs, np.ones(3), over, np.zeros(3, np.bool_), told


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    gymnasium.register("Tells-v0", entry_point=cast(Any, Tells))
    yield
    del gymnasium.registry["Tells-v0"]


def steps(env: Any, count: int, seed: int = 0) -> list[Step]:
    env.reset(seed)
    found = [env.step(np.zeros(env.spec.num_envs, np.int64)) for _ in range(count)]
    env.close()
    return found


def listed(step: Step) -> list[float | None] | None:
    return None if step.success is None else [None if np.isnan(value) else value for value in step.success.tolist()]


@pytest.mark.parametrize("vector", ["sync", "async"])
@pytest.mark.parametrize("masked", [False, True])
def test_copies(vector: Any, masked: bool) -> None:
    found = steps(make_env("Tells-v0", num_envs=2, vector=vector, env_kwargs={"masked": masked}), 12)
    assert [listed(step) for step in found[::2]] == [None] * 6
    assert [listed(step) for step in found[1::2]] == [None if known is None else [known] * 2 for known in KNOWN]


@pytest.mark.parametrize("vector", ["sync", "async"])
def test_copies_of_which_only_some_tell(vector: Any) -> None:
    made = make_env("Tells-v0", num_envs=2, vector=vector, env_kwargs={"told": [True], "silent_copies": True})
    assert [listed(step) for step in steps(made, 2)] == [None, [1, None]]


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_a_vector_version(mode: AutoresetMode) -> None:
    assert [listed(step) for step in steps(GymnasiumVectorEnv(Together(mode)), 3)] == [None, [1, 0, None], None]


class Odd:
    def __array__(self, *arguments: Any, **more: Any) -> Any:
        raise RuntimeError("no array")


@pytest.mark.parametrize("wrong", ["yes", [1, 0], 2, np.nan, {"goal": True}, Odd()])
def test_what_cannot_be_used_is_left_out_and_said_once(wrong: Any, caplog: pytest.LogCaptureFixture) -> None:
    found = steps(make_env("Tells-v0", num_envs=2, vector="sync", env_kwargs={"told": [wrong]}), 8)
    together = Together(AutoresetMode.NEXT_STEP)
    together.told = (wrong, np.ones(3, np.bool_))
    found += steps(GymnasiumVectorEnv(together), 8)
    assert [step.success for step in found] == [None] * 16
    says = "info['is_success'] is ignored where it is not True, False, 1 or 0"
    assert [record.getMessage() for record in caplog.records] == [says] * 2


def test_a_pool() -> None:
    """By what stands in for EnvPool."""
    ended = np.array([True, False])
    info = {"elapsed_step": np.array([5, 5]), "is_success": np.array([1, 1])}
    outcome = (np.zeros((2, 1), np.float32), np.ones(2), ended, np.zeros(2, np.bool_), info)
    spaces = {"observation_space": Tells.observation_space, "action_space": Tells.action_space}
    pool = SimpleNamespace(**spaces, config={}, num_envs=2, step=lambda actions: outcome)
    assert listed(EnvPoolVectorEnv(lambda seed: pool).step(np.zeros(2, np.int64))) == [1, None]


def agent_for(env: Any, **network: Any) -> PPOAgent:
    config = PPOConfig(
        num_envs=env.spec.num_envs,
        num_steps=6,
        num_minibatches=1,
        total_timesteps=6 * env.spec.num_envs * 2,
        network=NetworkConfig(hidden_sizes=(4,), **network),
        runtime=RuntimeConfig(compile="off"),
    )
    return PPOAgent(config, env.spec)


@pytest.mark.parametrize("lstm", [None, 2])
def test_the_share_of_an_update_and_of_an_evaluation(lstm: int | None) -> None:
    """Each rollout of 6 steps has 3 episodes of each copy: of the first 1, 0, 1 are told, of the second 0, 1, none."""
    env = make_env("Tells-v0", num_envs=2, vector="sync")
    updates: list[UpdateCompleted] = []
    agent = agent_for(env, lstm_size=lstm)
    train_ppo_vectorized(agent, env, on_update=updates.append)
    assert [update.success_rate for update in updates] == pytest.approx([2 / 3, 1 / 2])
    assert run_episodes(agent.network, env, episodes=10, seed=0).successes == [1, 1, 0, 0, 1, 1, 0, 0, 1, 1]


def test_no_share_where_nothing_is_told() -> None:
    env = make_env("Tells-v0", num_envs=2, vector="sync", env_kwargs={"told": [None]})
    updates: list[UpdateCompleted] = []
    train_ppo_vectorized(agent_for(env), env, on_update=updates.append)
    assert [(update.episodes, update.success_rate) for update in updates] == [(6, None)] * 2
