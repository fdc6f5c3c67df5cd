"""The state of a run, as one tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from esper.envs.config import EnvConfig
from esper.envs.make import make_env
from esper.runs.config import RunConfig
from esper.runs.state import capture_run
from esper.simic import PPOAgent, PPOConfig, RuntimeConfig
from esper.simic.vectorized import Training


def tensors(tree: Mapping[str, Any]) -> Iterator[Tensor]:
    for value in tree.values():
        if isinstance(value, Mapping):
            yield from tensors(value)
        elif isinstance(value, Tensor):
            yield value


def on_card(tree: Any) -> Any:
    """`tree` with tensors of a card that is pretended, without numbers."""
    if isinstance(tree, Mapping):
        return {name: on_card(value) for name, value in tree.items()}
    return torch.empty_like(tree, device="cuda:1") if isinstance(tree, Tensor) else tree


def test_is_on_the_host_before_another_thread_writes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ppo = PPOConfig(num_envs=2, num_steps=8, runtime=RuntimeConfig(compile="off"))
    config = RunConfig(environment=EnvConfig(env="torch/CartPole-v1"), ppo=ppo)
    env = make_env("torch/CartPole-v1", num_envs=2)
    training = Training(PPOAgent(ppo, env.spec), env, env_seed=1)
    state = dict(training.state_dict())
    with FakeTensorMode(allow_non_fake_inputs=True):
        state["agent"] = on_card(state["agent"])
        assert {tensor.device.type for tensor in tensors(state["agent"]["network"])} == {"cuda"}
        monkeypatch.setattr(training, "state_dict", lambda: state)
        captured = capture_run(config, training, 0)
        assert {tensor.device.type for tensor in tensors(captured)} == {"cpu"}
