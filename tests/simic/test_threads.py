"""Torch has the threads of an agent while the agent computes, and its own before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

import probes
from esper.envs.base import EnvError, Step
from esper.envs.config import EnvConfig
from esper.policies.evaluate import evaluate
from esper.policies.policy import Policy
from esper.runs.config import RunConfig
from esper.runs.layers import Layer, resolve
from esper.runs.run import RunError, resume_run, run
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig, train_ppo_vectorized
from esper.simic.vectorized import Training

# What torch has before, which no agent here computes with.
OWN = 3


@pytest.fixture(autouse=True)
def own() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(OWN)
    yield
    assert torch.get_num_threads() == OWN
    torch.set_num_threads(before)


class Observed(probes.ConstantReward):
    """Calls `look` in each step."""

    def __init__(self, look: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.look = look
        self.seen: list[int] = []

    def step(self, actions: NDArray[Any]) -> Step:
        self.seen.append(torch.get_num_threads())
        self.look()
        return super().step(actions)


def make_agent(threads: int | None, engine: str = "off", updates: int = 2) -> PPOAgent:
    config = PPOConfig(
        num_envs=probes.NUM_ENVS,
        num_steps=4,
        update_epochs=1,
        num_minibatches=1,
        total_timesteps=updates * 4 * probes.NUM_ENVS,
        network=NetworkConfig(hidden_sizes=(8,)),
        runtime=RuntimeConfig(compile=engine, threads=threads),  # type: ignore[arg-type]
    )
    return PPOAgent(config, probes.ConstantReward().spec, seed=1)


def watch(agent: PPOAgent, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads that torch has at each call of the learner's `optimize`."""
    seen: list[int] = []
    optimize = agent.updater.engine.optimize

    def watched(*args: Any) -> None:
        seen.append(torch.get_num_threads())
        optimize(*args)

    monkeypatch.setattr(agent.updater.engine, "optimize", watched)
    return seen


# The kernels start threads of their own.
@pytest.mark.parametrize(("engine", "threads", "expected"), [("off", 1, 1), ("off", 2, 2), ("native", 2, 1)])
def test_training_has_the_agents_and_callbacks_have_their_own(
    engine: str, threads: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, env, outside = make_agent(threads, engine), Observed(), list[int]()
    updates = watch(agent, monkeypatch)
    train_ppo_vectorized(agent, env, on_event=lambda event: outside.append(torch.get_num_threads()))
    assert env.seen == 8 * [expected]
    assert updates == 2 * [expected]
    assert outside == 2 * [OWN]


def test_an_update_by_itself_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make_agent(2)
    updates = watch(agent, monkeypatch)
    rollout = agent.allocate_rollout()
    for field in rollout.tensors():
        field.zero_()
    agent.update(rollout)
    assert updates == [2]


def test_small_agents_choose_one(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make_agent(None)
    updates = watch(agent, monkeypatch)
    Training(agent, Observed(), env_seed=1).update()
    assert updates == [1]


def test_an_agent_that_trains_within_anothers_step_gives_them_back() -> None:
    inner, inside = Observed(), make_agent(1, updates=20)
    outer = Observed(lambda: Training(inside, inner, env_seed=1).update())
    train_ppo_vectorized(make_agent(2), outer)
    assert outer.seen == 8 * [2]
    assert set(inner.seen) == {1}


def test_an_environment_that_changes_them_keeps_nothing() -> None:
    train_ppo_vectorized(make_agent(2), Observed(lambda: torch.set_num_threads(4)))
    assert torch.get_num_threads() == OWN


def test_they_are_given_back_on_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise EnvError("broken")

    with pytest.raises(EnvError):
        train_ppo_vectorized(make_agent(1), Observed(fail))
    assert torch.get_num_threads() == OWN
    agent = make_agent(1)
    monkeypatch.setattr(agent.updater.engine, "optimize", fail)
    with pytest.raises(EnvError):
        Training(agent, Observed(), env_seed=1).update()


def test_first_weights_do_not_depend_on_them() -> None:
    def weights(threads: int) -> dict[str, torch.Tensor]:
        torch.set_num_threads(threads)
        config = PPOConfig(num_envs=probes.NUM_ENVS, network=NetworkConfig(hidden_sizes=(256, 256)))
        return PPOAgent(config, probes.ConstantReward().spec, seed=1).network.state_dict()

    ones, twos = weights(1), weights(2)
    torch.set_num_threads(OWN)
    assert all(ones[name].equal(twos[name]) for name in ones)


class Counting(gymnasium.Env[Any, Any]):
    """Episodes of two steps; `seen` has the threads of each step and of each new environment; raises at `raises`."""

    observation_space = Box(-1, 1, (1,), np.float32)
    action_space = Discrete(2)
    seen: list[int] = []  # noqa: RUF012  one for all, as a run makes its own environments
    raises = 10**9

    def __init__(self) -> None:
        self.seen.append(torch.get_num_threads())

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.seen.append(torch.get_num_threads())
        self.steps += 1
        if len(self.seen) > self.raises:
            raise ValueError("broken")
        return np.zeros(1, np.float32), 1.0, self.steps == 2, False, {}


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Counting]]:
    monkeypatch.setattr(Counting, "seen", [])
    gymnasium.register("Counting-v0", entry_point=cast(Any, Counting))
    yield Counting
    del gymnasium.registry["Counting-v0"]


def config(run_dir: Path, **settings: Any) -> RunConfig:
    values: dict[str, Any] = {"env": "Counting-v0", "vector": "sync", "num_envs": 2, "num_steps": 4}
    values |= {"total_timesteps": 16, "num_minibatches": 1, "hidden_sizes": (8,), "compile": "off", "threads": 2}
    values |= {"eval_every": 1, "eval_episodes": 1, "tensorboard": False, "picture": False, "quiet": True}
    return resolve([Layer(source="test", values={**values, "run_dir": str(run_dir), **settings})]).config


def test_runs_their_evaluations_and_what_resumes_them_have_them(counting: type[Counting], tmp_path: Path) -> None:
    run(config(tmp_path / "run"))
    # Two rollouts of four steps of two copies, two evaluations of two steps; the environments of both are made with
    # them or with one.
    assert len(counting.seen) == 2 + 16 + 1 + 4
    assert counting.seen[:2] == [1, 1]
    assert set(counting.seen[2:]) == {2}
    assert torch.get_num_threads() == OWN
    counting.seen.clear()
    resume_run(tmp_path / "run", [Layer(source="test", values={"total_timesteps": 24, "threads": 4})])
    assert set(counting.seen[2:]) == {4}


def test_runs_that_fail_give_them_back(
    counting: type[Counting], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "raises", 15)
    with pytest.raises(RunError, match="broken"):
        run(config(tmp_path / "run"))


def test_evaluations_have_one(counting: type[Counting]) -> None:
    network = make_agent(2).network
    evaluate(Policy(network=network, environment=EnvConfig(env="Counting-v0")), episodes=1, seed=0)
    assert set(counting.seen) == {1}
