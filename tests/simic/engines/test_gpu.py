"""The same on a GPU: no synchronisation before the one read of an update."""

from __future__ import annotations

import pytest
import torch

import probes
from esper.envs.make import make_env
from esper.schedules import LimitConfig
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig, ScheduleConfig
from esper.simic.collect import Collector
from esper.simic.losses import Minibatch
from esper.simic.vectorized import Training
from esper.telemetry.events import UpdateCompleted

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
        target_kl=LimitConfig(peak=0.05),
        network=NetworkConfig(hidden_sizes=(8,)),
        runtime=RuntimeConfig(device="cuda", compile=compile),  # type: ignore[arg-type]
    )
    agent = PPOAgent(config, env.spec)
    rollout = agent.allocate_rollout()
    Collector(env, 0).collect(agent.network, rollout, agent.generators["actions"])
    agent.update(rollout)
    batch = agent.updater.prepare(rollout)
    torch.cuda.set_sync_debug_mode("error")
    try:
        agent.updater.set_rates(agent.schedules.at(1))
        agent.updater.optimize(batch, agent.generators["minibatches"])
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("compile", ["off", "torch"])
def test_a_rollout_and_its_update_run_without_a_synchronisation(compile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    env = make_env("torch/CartPole-v1", num_envs=64)
    config = PPOConfig(
        num_envs=64,
        num_steps=16,
        normalize_rewards=True,
        network=NetworkConfig(hidden_sizes=(8,), normalize_observations=True),
        runtime=RuntimeConfig(device="cuda", compile=compile),  # type: ignore[arg-type]
    )
    training = Training(PPOAgent(config, env.spec), env, env_seed=1)
    training.update()
    read, reads = torch.Tensor.tolist, []

    def tolist(tensor: torch.Tensor) -> list[float]:
        torch.cuda.set_sync_debug_mode("default")
        reads.append(tensor)
        return read(tensor)

    monkeypatch.setattr(torch.Tensor, "tolist", tolist)
    torch.cuda.set_sync_debug_mode("error")
    try:
        event = training.update()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(reads) == 1
    assert isinstance(event, UpdateCompleted)
    training.load_state_dict(training.state_dict(), env_seed=1)
    assert isinstance(training.update(), UpdateCompleted)


def test_what_a_host_environment_answered_arrives() -> None:
    rollouts = []
    for device in ("cpu", "cuda"):
        env = probes.EndlessReward()
        config = PPOConfig(num_envs=probes.NUM_ENVS, num_steps=16, runtime=RuntimeConfig(device=device, compile="off"))
        agent = PPOAgent(config, env.spec)
        rollout = agent.allocate_rollout()
        Collector(env, 0).collect(agent.network, rollout, agent.generators["actions"])
        rollouts.append([tensor.cpu() for tensor in rollout.tensors() if tensor is not rollout.actions])
    # Actions, whose noise is another on a GPU, have no effect in this environment.
    assert all(ours.equal(theirs) for ours, theirs in zip(*rollouts, strict=True))


def test_a_replayed_graph_sees_new_rates_and_equals_the_cpu() -> None:
    states = []
    for runtime in (RuntimeConfig(device="cuda", compile="torch"), RuntimeConfig(compile="off")):
        config = PPOConfig(
            num_envs=probes.NUM_ENVS,
            num_steps=16,
            total_timesteps=10 * probes.NUM_ENVS * 16,
            policy_lr=ScheduleConfig(decay="linear", warmup_steps=2),
            network=NetworkConfig(hidden_sizes=(8,)),
            runtime=runtime,
        )
        agent = PPOAgent(config, probes.RewardByObservation().spec)
        generator, batches = torch.Generator().manual_seed(0), []
        for _ in range(5):
            obs, log_probs, values, advantages, returns = torch.randn(5, config.batch_size, generator=generator)
            actions = torch.randint(2, (config.batch_size,), generator=generator)
            batches.append(Minibatch(obs[:, None], actions, 0.1 * log_probs - 0.7, values, advantages, returns))
        metrics = torch.zeros(16, len(agent.updater.metric_names), device=agent.device)
        for update, batch in enumerate(batches):
            agent.updater.set_rates(agent.schedules.at(update))
            indices = torch.randperm(config.batch_size, generator=generator).repeat(4).view(16, -1)
            on_device = Minibatch(*(field.to(agent.device) for field in batch.tensors()))
            agent.updater.engine.optimize(on_device, indices.to(agent.device), metrics)
        states.append([metrics.cpu(), *(tensor.cpu() for tensor in agent.optimizer.tensors())])
    torch.testing.assert_close(states[0], states[1], rtol=1e-3, atol=1e-5)
