"""What a caller set in torch changes nothing here, and stays."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import esper
from esper import PPOAgent, PPOConfig, load_policy, make_env, train_ppo_vectorized
from esper.policies.evaluate import evaluate
from esper.policies.export import export_policy
from esper.simic.config import RuntimeConfig
from esper.system.torch_defaults import torch_defaults


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


# The meta device has no numbers: what lands there is lost.
CALLERS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "another device": lambda: default_device("meta"),
    "another device in a block": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
}


def trained(env: str, compile: Any) -> torch.Tensor:
    environments = make_env(env, num_envs=4)
    runtime = RuntimeConfig(compile=compile)
    agent = PPOAgent(PPOConfig(total_timesteps=128, num_envs=4, num_steps=16, runtime=runtime), environments.spec)
    train_ppo_vectorized(agent, environments)
    assert all(parameter.dtype == torch.float32 for parameter in agent.network.parameters())
    return torch.cat([parameter.detach().flatten() for parameter in agent.network.parameters()])


@pytest.mark.parametrize("compile", ["off", "native"])
@pytest.mark.parametrize("env", ["Pendulum-v1", "torch/Pendulum-v1"])
def test_training_is_the_same_whatever_the_caller_set(env: str, compile: str) -> None:
    usual = trained(env, compile)
    for name, caller in CALLERS.items():
        with caller():
            assert torch.equal(trained(env, compile), usual), name


def test_an_agent_made_in_inference_mode_learns_outside() -> None:
    environments = make_env("CartPole-v1", num_envs=4)
    config = PPOConfig(total_timesteps=64, num_envs=4, num_steps=16, runtime=RuntimeConfig(compile="off"))
    with torch.inference_mode():
        agent = PPOAgent(config, environments.spec)
        rollout = agent.allocate_rollout()
    assert agent.update(rollout).fault is None
    train_ppo_vectorized(agent, environments)


@pytest.mark.parametrize("caller", CALLERS)
def test_runs_and_policies_are_the_same_whatever_the_caller_set(caller: str, tmp_path: Path) -> None:
    def scores(folder: Path) -> list[Any]:
        settings: dict[str, Any] = {"num_envs": 4, "num_steps": 16, "rnn": "lstm", "preset": "none", "compile": "off"}
        run = esper.train("CartPoleNoVel-v1", total_timesteps=64, run_dir=folder, quiet=True, picture=False, **settings)
        run.resume(total_timesteps=128, schedule="extend", quiet=True)
        policy = load_policy(folder)
        export_policy(policy, folder / "policy.pt2")
        observations = np.zeros((3, 2), np.float32)
        actions, state = policy.predict(observations, deterministic=False)
        _, state = policy.predict(observations, state)
        assert state is not None
        return [actions.tolist(), state.tolist(), evaluate(policy, episodes=2, seed=0).returns]

    usual = scores(tmp_path / "usual")
    with CALLERS[caller]():
        assert scores(tmp_path / "other") == usual


def test_the_caller_keeps_what_it_set() -> None:
    with default_dtype(torch.float64), default_device("meta"), torch.autocast("cpu"), torch.inference_mode():
        with torch_defaults():
            assert (torch.ones(1).dtype, torch.ones(1).device.type) == (torch.float32, "cpu")
            assert not torch.is_autocast_enabled("cpu")
            assert not torch.is_inference_mode_enabled()
            assert not torch.is_grad_enabled()
        assert (torch.ones(1).dtype, torch.ones(1).device.type) == (torch.float64, "meta")
        assert torch.is_autocast_enabled("cpu")
        assert torch.is_inference_mode_enabled()


def test_environments_keep_what_the_caller_set() -> None:
    seen = []

    class Dtypes(gymnasium.Env[Any, Any]):
        observation_space = gymnasium.spaces.Box(-1, 1, (1,))
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            seen.append(torch.ones(1).dtype)
            return np.zeros(1, np.float32), {}

        def step(self, action: Any) -> Any:
            seen.append(torch.ones(1).dtype)
            return np.zeros(1, np.float32), 0.0, True, False, {}

    with default_dtype(torch.float64):
        environments = make_env(Dtypes, num_envs=2)
        agent = PPOAgent(PPOConfig(total_timesteps=32, num_envs=2, num_steps=16), environments.spec)
        train_ppo_vectorized(agent, environments)
    assert set(seen) == {torch.float64}
