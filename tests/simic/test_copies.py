"""Copies of an agent learn as it does; parameters that were replaced are noticed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import probes
from esper.schedules import ScheduleConfig
from esper.settings.options import ConfigError
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig
from esper.simic.rates import Horizon
from esper.simic.vectorized import Training

WAYS: dict[str, Callable[[PPOAgent], PPOAgent]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda agent: pickle.loads(pickle.dumps(agent)),
}


def agent(compile: Any = "off", **parts: Any) -> PPOAgent:
    config = PPOConfig(
        num_envs=probes.NUM_ENVS,
        num_steps=8,
        total_timesteps=probes.NUM_ENVS * 8 * 20,
        policy_lr=ScheduleConfig(peak=1e-2, decay="linear"),
        network=NetworkConfig(hidden_sizes=(4,)),
        runtime=RuntimeConfig(compile=compile),
    )
    return PPOAgent(config, probes.RewardByObservation().spec, seed=3, **parts)


def learned(agent: PPOAgent) -> tuple[torch.Tensor, Any]:
    training = Training(agent, probes.RewardByObservation(), env_seed=1)
    rates = [training.update().lr for _ in range(3)]  # type: ignore[union-attr]
    return torch.cat([parameter.detach().flatten() for parameter in agent.network.parameters()]), rates


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("parts", [{}, {"compile": "native"}, {"optimizer": torch.optim.AdamW}])
def test_a_copy_learns_as_the_agent_does_and_by_itself(way: str, parts: Any) -> None:
    first = agent(**parts)
    first.set_horizon(Horizon(start=1, updates=30))
    first.train_steps = 2
    learned(first)
    second = WAYS[way](first)
    before = second.state_dict()
    expected, rates = learned(first)
    assert all(torch.equal(second.state_dict()["network"][name], each) for name, each in before["network"].items())
    found, its_rates = learned(second)
    assert torch.equal(found, expected)
    assert its_rates == rates
    assert second.train_steps == first.train_steps


def replaced_numbers(network: nn.Module) -> None:
    nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(network.parameters()) * 2, network.parameters())


@pytest.mark.parametrize(
    "replace",
    [
        replaced_numbers,
        lambda network: network.double(),
        lambda network: network.load_state_dict(copy.deepcopy(network.state_dict()), assign=True),
    ],
)
def test_parameters_that_were_replaced_are_named(replace: Callable[[nn.Module], object]) -> None:
    """They would act, and never learn: the optimizer writes into its own."""
    ours = agent()
    replace(ours.network)
    rollout = ours.allocate_rollout()
    with pytest.raises(ValueError, match=r"^parameter actor\.0\.weight was replaced by another tensor; write into it"):
        ours.update(rollout)


def test_parameters_may_be_written_in_place() -> None:
    ours = agent()
    ours.network.load_state_dict(copy.deepcopy(ours.network.state_dict()))
    with torch.no_grad():
        for parameter in ours.network.parameters():
            parameter.mul_(2)
    assert ours.update(ours.allocate_rollout()).fault is None


@pytest.mark.parametrize("seed", [-1, "a", 1.5, None, True])
def test_a_seed_is_a_whole_number(seed: Any) -> None:
    ours = agent()
    with pytest.raises(ConfigError, match=r"^seed = "):
        PPOAgent(ours.config, ours.spec, seed=seed)
    with pytest.raises(ConfigError, match=r"^env_seed = "):
        Training(ours, probes.RewardByObservation(), env_seed=seed)
