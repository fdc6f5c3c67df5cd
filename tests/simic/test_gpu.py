"""The same on a GPU: no synchronisation inside the update."""

from __future__ import annotations

import pytest
import torch

import probes
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig, ScheduleConfig
from esper.simic.collect import Collector

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("compile", ["off", "torch"])
def test_the_epochs_run_without_a_synchronisation(compile: str) -> None:
    env = probes.RewardByObservation()
    config = PPOConfig(
        num_envs=probes.NUM_ENVS,
        num_steps=16,
        policy_lr=ScheduleConfig(decay="cosine"),
        target_kl=0.05,
        network=NetworkConfig(hidden_sizes=(8,)),
        runtime=RuntimeConfig(device="cuda", compile=compile),  # type: ignore[arg-type]
    )
    agent = PPOAgent(config, env.spec)
    rollout = agent.allocate_rollout()
    Collector(env, 0).collect(agent.network, rollout, agent.generators["actions"])
    agent.update(rollout)
    batch = agent._prepare(rollout)
    torch.cuda.set_sync_debug_mode("error")
    try:
        agent._apply(agent.schedules.at(1))
        agent.optimization.run(batch, agent.generators["minibatches"])
    finally:
        torch.cuda.set_sync_debug_mode("default")
