"""The same on a GPU: no synchronisation before the one read of an update, and the CPU's numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import probes
from esper.envs.base import ContinuousActions
from esper.envs.config import EnvConfig
from esper.envs.make import make_env
from esper.runs.checkpoint.config import CheckpointConfig
from esper.runs.config import RunConfig
from esper.runs.layers import Layer
from esper.runs.run import resume_run, run
from esper.schedules import LimitConfig
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig, ScheduleConfig
from esper.simic.collect import Collector
from esper.simic.losses import Minibatch
from esper.simic.rollout import Rollout
from esper.simic.vectorized import Training
from esper.storage.store import load_pair
from esper.telemetry.events import UpdateCompleted
from synchronisation import synchronisation

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
ENGINES = ["off", "torch", "graphs"]


@pytest.fixture(autouse=True)
def _compiles_anew() -> None:
    """Older versions of torch count recompilations of a function over all tests."""
    torch._dynamo.reset()


def make_agent(env: Any, compile: str, *, device: str = "cuda", debug: bool = False, **changes: Any) -> PPOAgent:
    network, precision = {"hidden_sizes": (8,)} | changes.pop("network", {}), changes.pop("precision", "float32")
    runtime = RuntimeConfig(device=device, compile=compile, precision=precision)  # type: ignore[arg-type]
    settings = {"num_envs": env.spec.num_envs, "num_steps": 16} | changes
    return PPOAgent(PPOConfig(**settings, network=NetworkConfig(**network), runtime=runtime), env.spec, debug=debug)


def collected(agent: PPOAgent, env: Any) -> Rollout:
    rollout, size = agent.allocate_rollout(), agent.network.state_size
    memory = torch.zeros(env.spec.num_envs, size, device=agent.device) if size else None
    Collector(env, 0, recurrent_state=memory).collect(agent.network, rollout, agent.generators["actions"])
    return rollout


def on_card(rollout: Rollout) -> Rollout:
    names = ("obs", "actions", "rewards", "terminated", "truncated", "final_obs", "masks", "recurrent_state")
    fields = {name: getattr(rollout, name) for name in names}
    moved: dict[str, Any] = {name: None if field is None else field.to("cuda") for name, field in fields.items()}
    return dataclasses.replace(rollout, **moved)


@pytest.mark.parametrize("compile", ENGINES)
def test_the_epochs_run_without_a_synchronisation(compile: str) -> None:
    env = probes.RewardByObservation()
    agent = make_agent(env, compile, policy_lr=ScheduleConfig(decay="cosine"), target_kl=LimitConfig(peak=0.05))
    rollout = collected(agent, env)
    agent.update(rollout)
    with agent.updater.torch_settings():
        batch = agent.updater.prepare(rollout)
        with synchronisation("error"):
            agent.updater.set_rates(agent.schedules.at(1))
            agent.updater.optimize(batch, agent.updater.draw_orders(agent.generators["minibatches"]))


@pytest.mark.parametrize("compile", ENGINES)
def test_a_rollout_and_its_update_run_without_a_synchronisation(compile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    env = make_env("torch/CartPole-v1", num_envs=64)
    agent = make_agent(env, compile, normalize_rewards=True, network={"normalize_observations": True})
    training = Training(agent, env, env_seed=1)
    training.update()
    read, reads = torch.Tensor.tolist, []

    def tolist(tensor: torch.Tensor) -> Any:
        torch.cuda.set_sync_debug_mode("default")
        reads.append(tensor)
        return read(tensor)

    monkeypatch.setattr(torch.Tensor, "tolist", tolist)
    with synchronisation("error"):
        event = training.update()
    assert len(reads) == 1
    assert isinstance(event, UpdateCompleted)
    training.load_state_dict(training.state_dict(), env_seed=1)
    assert isinstance(training.update(), UpdateCompleted)


class Cut(probes.Cue):
    """Steps that reset, and what is seen of them is ignored."""

    def __init__(self) -> None:
        super().__init__(resets_in_a_step=True)


class Numbers(probes.RewardByObservation):
    actions = ContinuousActions(size=2)


@pytest.mark.parametrize(
    ("probe", "compile", "changes"),
    [
        (probes.EndlessReward, "off", {}),
        (Numbers, "off", {"network": {"shared_trunk": True, "layer_norm": True}}),
        (probes.Trapdoors, "off", {}),
        (probes.RewardByEachChoice, "off", {"max_grad_norm_over": "group"}),
        (probes.RewardByObservation, "torch", {"debug": True}),
        (probes.RewardByImage, "torch", {"network": {"encoder": "small"}}),
        (Cut, "off", {}),
        (Cut, "graphs", {"network": {"rnn": "lstm"}}),
        (probes.Cue, "graphs", {"network": {"rnn": "gru"}, "debug": True}),
        (probes.EndlessReward, "off", {"network": {"rnn": "lstm"}}),
    ],
    ids=lambda each: each.__name__ if isinstance(each, type) else None,
)
def test_updates_equal_the_cpus(probe: Callable[[], probes.Probe], compile: str, changes: dict[str, Any]) -> None:
    """In one minibatch: a GPU draws other orders."""
    env = probe()
    ours, theirs = (
        make_agent(env, kind, device=device, num_minibatches=1, **changes)
        for kind, device in (("off", "cpu"), (compile, "cuda"))
    )
    for _ in range(3):
        rollout = collected(ours, env)
        expected, found = ours.update(rollout), theirs.update(on_card(rollout))
        assert found.fault is None
        assert found.metrics == pytest.approx(expected.metrics, rel=1e-2, abs=1e-4)
        if expected.minibatches is not None and found.minibatches is not None:
            for name, column in expected.minibatches.items():
                assert found.minibatches[name] == pytest.approx(column, rel=1e-2, abs=1e-4), name
    state = [tensor.cpu() for tensor in theirs.optimizer.tensors()]
    torch.testing.assert_close(state, list(ours.optimizer.tensors()), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_other_precisions_round(precision: str) -> None:
    env = probes.RewardByImage()
    network = {"encoder": "small", "hidden_sizes": (64,)}
    exact = make_agent(env, "off", network=network)
    rounded = make_agent(env, "off", network=network, precision=precision)
    rollout = collected(exact, env)
    results = [agent.update(rollout) for agent in (exact, rounded)]
    assert results[0].metrics["value_loss"] == pytest.approx(results[1].metrics["value_loss"], rel=0.05)


def test_what_a_host_environment_answered_arrives() -> None:
    rollouts = []
    for device in ("cpu", "cuda"):
        env = probes.EndlessReward()
        rollout = collected(make_agent(env, "off", device=device), env)
        rollouts.append([tensor.cpu() for tensor in rollout.tensors() if tensor is not rollout.actions])
    # Actions, whose noise is another on a GPU, have no effect in this environment.
    assert all(ours.equal(theirs) for ours, theirs in zip(*rollouts, strict=True))


@pytest.mark.parametrize("compile", ["torch", "graphs"])
def test_a_replayed_graph_sees_new_rates_and_equals_the_cpu(compile: str) -> None:
    states = []
    for device, engine in (("cuda", compile), ("cpu", "off")):
        agent = make_agent(
            probes.RewardByObservation(),
            engine,
            device=device,
            total_timesteps=10 * probes.NUM_ENVS * 16,
            policy_lr=ScheduleConfig(decay="linear", warmup_steps=2),
        )
        generator, batches = torch.Generator().manual_seed(0), []
        for _ in range(5):
            obs, log_probs, values, advantages, returns = torch.randn(5, agent.config.batch_size, generator=generator)
            actions = torch.randint(2, (agent.config.batch_size,), generator=generator)
            batches.append(Minibatch(obs[:, None], actions, 0.1 * log_probs - 0.7, values, advantages, returns))
        metrics = torch.zeros(16, len(agent.updater.metric_names), device=agent.device)
        for update, batch in enumerate(batches):
            agent.updater.set_rates(agent.schedules.at(update))
            indices = torch.randperm(agent.config.batch_size, generator=generator).repeat(4).view(16, -1)
            on_device = Minibatch(*(field.to(agent.device) for field in batch.tensors()))
            with agent.updater.torch_settings():
                agent.updater.engine.optimize(on_device, indices.to(agent.device), metrics)
        states.append([metrics.cpu(), *(tensor.cpu() for tensor in agent.optimizer.tensors())])
    torch.testing.assert_close(states[0], states[1], rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("compile", ENGINES)
def test_the_second_card(compile: str) -> None:
    env = make_env("torch/CartPole-v1", num_envs=16)
    training = Training(make_agent(env, compile, device="cuda:1"), env, env_seed=1)
    for _ in range(3):
        assert isinstance(training.update(), UpdateCompleted)
    assert {tensor.device for tensor in training.agent.optimizer.tensors()} == {torch.device("cuda:1")}
    assert torch.cuda.current_device() == 0


def weights(folder: Path) -> dict[str, Tensor]:
    return load_pair(folder / "policy", root=folder)[0]


@pytest.mark.parametrize("compile", ENGINES)
def test_a_resumed_run_ends_as_one_left_alone_with_a_checkpoint_after_each_update(compile: str, tmp_path: Path) -> None:
    def config(name: str, updates: int) -> RunConfig:
        return RunConfig(
            run_dir=tmp_path / name,
            environment=EnvConfig(env="torch/CartPole-v1"),
            checkpoints=CheckpointConfig(checkpoint_every=1),
            ppo=PPOConfig(
                num_envs=16,
                num_steps=16,
                total_timesteps=updates * 16 * 16,
                network=NetworkConfig(hidden_sizes=(8,)),
                runtime=RuntimeConfig(device="cuda", compile=compile),  # type: ignore[arg-type]
            ),
            picture=False,
            quiet=True,
        )

    run(config("whole", 6))
    run(config("cut", 3))
    resume_run(tmp_path / "cut", [Layer(source="here", values={"total_timesteps": 6 * 16 * 16})])
    whole, cut = (weights(tmp_path / name) for name in ("whole", "cut"))
    assert all(tensor.equal(cut[name]) for name, tensor in whole.items())
