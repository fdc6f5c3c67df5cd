"""What is kept of an environment is what it said then, whatever it does with its memory; and no info is in the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete

from esper.envs.base import VectorEnv
from esper.envs.make import make_env
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig
from esper.simic.collect import Collector

LENGTH = 10
SHARED = np.zeros((4, 1), dtype=np.float32)


class Reuses(gymnasium.Env[Any, Any]):
    """Observation t after t steps, reward t in the step from t, cut after step 10. What it gives is its own memory."""

    action_space = Discrete(2)

    def __init__(self, memory: str = "array") -> None:
        shape = {"nested": (1, 1), "image": (5, 5, 1)}.get(memory, (1,))
        self.observation_space: Any = Box(0, 20, shape, np.uint8 if memory == "image" else np.float32)
        self.buffer = SHARED[0] if memory == "shared" else np.zeros(shape, self.observation_space.dtype)
        self.view, self.whole = memory == "view", self.buffer
        if memory == "dict":
            self.observation_space, self.whole = Dict(a=self.observation_space), {"a": self.buffer}

    def give(self) -> Any:
        self.buffer[:] = self.t
        return self.buffer[:] if self.view else self.whole

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.t = 0
        return self.give(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return self.give(), float(self.t - 1), False, self.t == LENGTH, {}


class Steady(gymnasium.Env[Any, Any]):
    """Infos of every kind, unlike those of other copies and of other steps."""

    action_space, observation_space = Discrete(2), Box(0, 1, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), self.info()

    def step(self, action: Any) -> Any:
        self.t += 1
        return np.zeros(1, np.float32), 1.0, self.t % 4 == 0, False, self.info()

    def info(self) -> dict[str, Any]:
        kinds: list[Any] = [None, 1, "one", 2.5, {"deep": {"er": None}}, [1, [2]], object(), lambda: 0, np.float32(3)]
        k = int(self.np_random.integers(1, 5))
        return {
            "path": np.arange(k),
            "kind": kinds[int(self.np_random.integers(len(kinds)))],
            "only": kinds,
            "huge": np.zeros(10**5 * k),
            f"name {k}": {"nested": np.zeros((k, k))},
            "nested": {"a": k} if k % 2 else k,
            5: "no text",  # type: ignore[dict-item]
            "final_obs": "mine",
            "final_info": k,
        }


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    kinds: tuple[Any, ...] = (Reuses, Steady)
    for kind in kinds:
        gymnasium.register(f"{kind.__name__}-v0", entry_point=kind)
    yield
    for kind in kinds:
        del gymnasium.registry[f"{kind.__name__}-v0"]


def agent_for(
    env: VectorEnv, num_steps: int, hidden_sizes: tuple[int, ...] = (4,), engine: Any = "off", **changes: Any
) -> PPOAgent:
    sizes: Any = {"num_envs": env.spec.num_envs, "num_steps": num_steps, "total_timesteps": 10**4}
    network = NetworkConfig(hidden_sizes=hidden_sizes)
    return PPOAgent(PPOConfig(**sizes, network=network, runtime=RuntimeConfig(compile=engine), **changes), env.spec)


@pytest.mark.parametrize("vector", ["sync", "async"])
@pytest.mark.parametrize("memory", ["array", "view", "shared", "nested", "image", "dict"])
def test_a_rollout_has_what_was_observed_then(memory: str, vector: Any) -> None:
    env = make_env("Reuses-v0", num_envs=2, env_kwargs={"memory": memory}, vector=vector)
    agent = agent_for(env, 24)
    rollout = agent.allocate_rollout()
    Collector(env, seed=0).collect(agent.network, rollout, agent.generators["actions"])
    env.close()
    assert rollout.obs[:, 0].flatten(1)[:, 0].tolist() == [*range(10), *range(10), *range(5)]
    assert rollout.obs[:, 1].equal(rollout.obs[:, 0])
    assert rollout.rewards[:, 1].tolist() == [*range(10), *range(10), *range(4)]
    assert rollout.truncated[:, 1].nonzero().ravel().tolist() == [9, 19]
    assert rollout.final_obs[rollout.truncated].unique().tolist() == [10]


def test_copies_that_share_one_array_do_not_see_each_others() -> None:
    env = make_env("Reuses-v0", num_envs=2, env_kwargs={"memory": "shared"}, vector="sync")
    env.reset(0)
    first, _ = (copy.unwrapped for copy in env._env.envs)  # type: ignore[attr-defined]
    first.t = 6
    assert env.step(np.zeros(2, np.int64)).obs.ravel().tolist() == [7, 1]
    first.t = 9
    step = env.step(np.zeros(2, np.int64))
    assert step.obs.ravel().tolist() == [0, 2]
    assert step.final_obs is not None
    assert step.final_obs.ravel().tolist() == [10, 2]


@pytest.mark.parametrize("engine", ["off", "native"])
@pytest.mark.parametrize("vector", ["sync", "async"])
def test_a_cut_episode_is_valued_by_its_true_last_observation(vector: Any, engine: str) -> None:
    """With V(s) = 10 s, gamma 0.9 and lambda 0 the target of t = 9 is 9 + 0.9 * 10 * 10 = 99; by a reset, 9."""
    env = make_env("Reuses-v0", num_envs=1, vector=vector)
    agent = agent_for(env, 20, hidden_sizes=(), engine=engine)
    linear: Any = agent.network.critic[-1]
    with torch.no_grad():
        linear.weight.zero_()[0, 0] = 10
        linear.bias.zero_()
    rollout = agent.allocate_rollout()
    Collector(env, seed=0).collect(agent.network, rollout, agent.generators["actions"])
    env.close()
    with torch.no_grad():
        targets = rollout.rewards + 0.9 * agent.updater.engine.evaluate_rollout(rollout)[2]
    torch.testing.assert_close(targets[9].item(), 99.0)
    torch.testing.assert_close(targets[:9].ravel(), torch.tensor([t + 9.0 * (t + 1) for t in range(9)]))


@pytest.mark.parametrize("vector", ["sync", "async"])
def test_infos_that_nobody_uses_are_left_where_they_are(vector: Any) -> None:
    env = make_env("Steady-v0", num_envs=3, vector=vector)
    env.reset(0)
    for t in range(1, 20):
        step = env.step(np.zeros(3, np.int64))
        assert step.terminated.all() == (t % 4 == 0)
        assert (step.final_obs is not None) == (t % 4 == 0)
    env.close()
