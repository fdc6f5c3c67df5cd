"""A network from Python trains, is saved and goes on as one from settings; a wrong one is refused by name."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import probes
from esper.envs.base import Actions, ContinuousActions, DiscreteActions, EnvSpec, Images, Observations, Vectors
from esper.envs.config import EnvConfig
from esper.policies.export import export_policy
from esper.policies.policy import load_policy, save_policy
from esper.settings.options import ConfigError
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig, ScheduleConfig
from esper.simic.engines.native.engine import NativeEngine
from esper.simic.vectorized import Training
from esper.storage.store import StoreError


class Mine(nn.Module):
    """A trunk with a skip connection, and two heads."""

    def __init__(self, spec: EnvSpec) -> None:
        super().__init__()
        size = spec.observations.shape[0]
        self.trunk = Skip(size)
        self.actor = nn.Linear(size, spec.actions.outputs)
        self.critic = nn.Sequential(nn.Linear(size, 3), nn.Tanh(), nn.Linear(3, 1))


class Skip(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.layer = nn.Linear(size, size)

    def forward(self, obs: Tensor) -> Tensor:
        return obs + torch.tanh(self.layer(obs))


class Apart(nn.Module):
    """Widths from the settings, no trunk, and a first layer that stays."""

    def __init__(self, spec: EnvSpec, config: NetworkConfig) -> None:
        super().__init__()
        size, (width,) = spec.observations.shape[0], config.hidden_sizes
        self.actor = nn.Sequential(nn.Linear(size, width), nn.Linear(width, spec.actions.outputs))
        self.critic = nn.Linear(size, 1)
        self.actor[0].requires_grad_(False)


def config(**changes: Any) -> PPOConfig:
    settings: dict[str, Any] = {
        "num_envs": probes.NUM_ENVS,
        "num_steps": 8,
        "num_minibatches": 2,
        "total_timesteps": 6 * probes.NUM_ENVS * 8,
        "policy_lr": ScheduleConfig(peak=1e-2),
        "value_lr": ScheduleConfig(peak=1e-2),
        "network": NetworkConfig(hidden_sizes=(5,), normalize_observations=True),
    }
    return PPOConfig(**(settings | changes))


def training(network: Any, seed: int = 1) -> Training:
    env = probes.RewardByObservation()
    return Training(PPOAgent(config(), env.spec, seed=seed, network=network), env, env_seed=1)


@pytest.mark.parametrize(("network", "groups"), [(Mine, ("policy", "value", "shared")), (Apart, ("policy", "value"))])
def test_is_trained_in_torch_and_goes_on_where_it_was(network: Any, groups: tuple[str, ...]) -> None:
    whole, first, second = (training(network, seed) for seed in (1, 1, 2))
    agent = whole.agent
    assert agent.optimizer.group_names == groups
    assert agent.updater.engine_name == "eager"
    assert NativeEngine.missing(agent.updater.workload) == "a network from Python"
    before = {name: parameter.clone() for name, parameter in agent.network.named_parameters()}
    for _ in range(6):
        whole.update()
    moved = {name for name, parameter in agent.network.named_parameters() if not parameter.equal(before[name])}
    assert moved == {name for name, parameter in agent.network.named_parameters() if parameter.requires_grad}
    for _ in range(3):
        first.update()
    second.load_state_dict(first.state_dict(), env_seed=1)
    for _ in range(3):
        second.update()
    for name, tensor in agent.network.state_dict().items():
        assert tensor.equal(second.agent.network.state_dict()[name]), name


def test_computes_what_the_same_layers_compute_from_settings() -> None:
    usual = dataclasses.replace(config(), runtime=RuntimeConfig(compile="off"))
    env = probes.RewardByObservation()
    ours = Training(PPOAgent(usual, env.spec), env, env_seed=1)
    layers = copy.deepcopy(ours.agent.network)
    # The first of the same noise and minibatches.
    theirs = training(lambda spec: layers)
    for _ in range(3):
        ours.update()
        theirs.update()
    pairs = zip(ours.agent.optimizer.tensors(), theirs.agent.optimizer.tensors(), strict=True)
    assert all(mine.equal(other) for mine, other in pairs)


def test_its_weights_are_drawn_from_the_seed_alone() -> None:
    first = training(Mine).agent.network.state_dict()
    torch.rand(1)
    assert all(tensor.equal(first[name]) for name, tensor in training(Mine).agent.network.state_dict().items())
    assert not training(Mine, seed=2).agent.network.state_dict()["actor.0.weight"].equal(first["actor.0.weight"])


def test_a_state_of_another_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the state is of another network; give the same settings, and network= if"):
        training(None).agent.load_state_dict(training(Mine).agent.state_dict())


def test_images_are_divided_by_their_highest_value() -> None:
    class Flat(nn.Module):
        def __init__(self, spec: EnvSpec) -> None:
            super().__init__()
            self.trunk, self.actor, self.critic = nn.Flatten(), nn.Linear(8, 3), nn.Linear(8, 1)

    made = agent(Flat, observations=Images(shape=(2, 2, 2), highest=5)).network
    made.critic[0].weight.data.fill_(1.0)  # type: ignore[operator]
    made.critic[0].bias.data.zero_()  # type: ignore[operator]
    # 8 pixels of 5 / 5.
    assert made.value(torch.full((1, 2, 2, 2), 5, dtype=torch.uint8)).item() == 8


def agent(
    network: Any, *, observations: Observations | None = None, actions: Actions | None = None, **settings: Any
) -> PPOAgent:
    settings = {"runtime": RuntimeConfig(compile="off"), "network": NetworkConfig(), **settings}
    spec = EnvSpec(num_envs=2, observations=observations or Vectors(size=4), actions=actions or DiscreteActions(n=3))
    return PPOAgent(PPOConfig(num_envs=2, **settings), spec, network=network)


@pytest.mark.parametrize("actions", [DiscreteActions(n=3), ContinuousActions(size=2)])
def test_its_policy_is_saved_loaded_and_exported(tmp_path: Path, actions: Actions) -> None:
    trained = agent(Mine, actions=actions)
    save_policy(tmp_path, trained, EnvConfig())
    policy = load_policy(tmp_path, network=Mine)
    obs = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    assert policy.network.act(obs).equal(trained.network.act(obs))
    export_policy(policy, tmp_path / "policy.pt2")
    exported = torch.export.load(tmp_path / "policy.pt2").module()
    torch.testing.assert_close(exported(obs), trained.network.act(obs).detach())
    with pytest.raises(StoreError, match=r"its network was given in Python, by '.*test_given_network:Mine'"):
        load_policy(tmp_path)
    with pytest.raises(StoreError, match=r"policy.safetensors: "):
        load_policy(tmp_path, network=apart(3))
    save_policy(tmp_path, agent(None), EnvConfig())
    with pytest.raises(StoreError, match="its network is made from its settings: leave network= out"):
        load_policy(tmp_path, network=Mine)


def apart(width: int) -> Callable[[EnvSpec], nn.Module]:
    return lambda spec: Apart(spec, NetworkConfig(hidden_sizes=(width,)))


def parts(change: Callable[[Any], object]) -> Callable[[EnvSpec], nn.Module]:
    """A factory of `Mine` with a `change`."""

    def make(spec: EnvSpec) -> nn.Module:
        made = Mine(spec)
        change(made)
        return made

    return make


def test_a_network_that_cannot_be_used_is_refused_with_the_reason() -> None:
    wrong: list[tuple[Any, str]] = [
        (Mine(EnvSpec(num_envs=1, observations=Vectors(size=4), actions=DiscreteActions(n=3))), "must be a factory"),
        (lambda spec: None, "must return a torch.nn.Module, not NoneType"),
        (lambda spec: nn.Linear(4, 3), "its Linear needs a module 'actor'"),
        (parts(lambda made: delattr(made, "critic")), "its Mine needs a module 'critic'"),
        (
            parts(lambda made: setattr(made, "actor", nn.Linear(4, 2))),
            r"its actor must return \[N, 3\] for observations \[N, 4\]; with N = 2 it returns \[2, 2\]",
        ),
        (
            parts(lambda made: setattr(made, "critic", nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)))),
            r"its critic must return \[N, 1\] for observations \[N, 4\]; with N = 2 it returns \[2\]",
        ),
        (parts(lambda made: setattr(made, "actor", nn.Linear(5, 3))), r"fails on observations \[N, 4\]: mat1 and mat2"),
        (parts(lambda made: setattr(made, "other", nn.Linear(1, 1))), "its parameter other.weight is in none of trunk"),
        (parts(lambda made: made.critic.double()), "its parameter critic.0.weight is torch.float64, not float32"),
        (parts(lambda made: made.actor.requires_grad_(False)), "its actor has no parameter to learn"),
        (
            parts(lambda made: setattr(made, "actor", share(made))),
            "actor and critic share a parameter, which belongs in trunk",
        ),
        (
            parts(lambda made: setattr(made, "trunk", nn.BatchNorm1d(4))),
            "changes its buffer 0.running_var when it is called, as BatchNorm does",
        ),
    ]
    for factory, message in wrong:
        with pytest.raises(ConfigError, match=message) as refused:
            agent(factory)
        assert refused.value.name == "network"
    with pytest.raises(ConfigError, match="rnn = lstm: has no effect on a network from Python; leave it out"):
        PPOAgent(config(network=NetworkConfig(lstm_size=4)), probes.Probe().spec, network=Mine)


def share(made: Any) -> nn.Module:
    return nn.Sequential(made.critic, nn.Linear(1, 3))
