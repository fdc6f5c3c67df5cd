"""Hidden layers: what is in them, and in which order."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from esper.envs.base import DiscreteActions, Vectors
from esper.settings.options import ConfigError
from esper.simic import NetworkConfig
from esper.simic.nets.actor_critic import ActorCritic


def network(**settings: Any) -> ActorCritic:
    config = NetworkConfig(**({"hidden_sizes": (1,)} | settings))
    return ActorCritic(Vectors(size=1), DiscreteActions(n=2), config, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("tanh", (math.tanh(-1), math.tanh(2))),
        ("relu", (0, 2)),
        ("elu", (math.exp(-1) - 1, 2)),
        # x times the normal distribution's share below x, and x times the logistic function of x.
        ("gelu", (-1 * 0.1586553, 2 * 0.9772499)),
        ("silu", (-1 / (1 + math.e), 2 / (1 + math.exp(-2)))),
    ],
)
def test_activations(name: str, outputs: tuple[float, float]) -> None:
    critic = network(activation=name).critic
    for layer in critic:
        if isinstance(layer, nn.Linear):
            layer.weight.data.fill_(1.0)
            layer.bias.data.zero_()
    assert critic(torch.tensor([[-1.0], [2.0]])).flatten().tolist() == pytest.approx(outputs, rel=1e-5)


def test_an_unknown_activation_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"activation = gelo: must be one of tanh, relu, elu, gelu, silu or a.*; did"):
        NetworkConfig(activation="gelo")


def kinds(layers: nn.Sequential) -> list[str]:
    return [type(layer).__name__ for layer in layers]


def test_layer_normalization_is_before_each_activation() -> None:
    made = network(hidden_sizes=(3, 2), layer_norm=True, lstm_size=2)
    hidden = ["Linear", "LayerNorm", "Tanh"] * 2
    assert kinds(made.actor) == kinds(made.critic) == [*hidden, "Lstm", "Linear"]
    assert kinds(network(hidden_sizes=(3,), layer_norm=True, shared_trunk=True).trunk) == [
        "Linear",
        "LayerNorm",
        "Tanh",
    ]


def test_layer_normalization_of_two_units() -> None:
    critic = network(hidden_sizes=(2,), layer_norm=True, activation="relu").critic
    first, last = critic[0], critic[-1]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    first.weight.data.copy_(torch.tensor([[3.0], [-1.0]]))
    last.weight.data.copy_(torch.tensor([[1.0, 10.0]]))
    # The units are 6 and -2: mean 2, deviation 4, so 1 and -1, of which relu leaves 1.
    assert critic(torch.tensor([[2.0]])).item() == pytest.approx(1.0, rel=1e-5)


def test_initial_weights_are_those_of_the_network_without_layer_normalization() -> None:
    plain, normalized = network(hidden_sizes=(4, 4)), network(hidden_sizes=(4, 4), layer_norm=True)
    linear = [[layer.weight for layer in made.actor if isinstance(layer, nn.Linear)] for made in (plain, normalized)]
    assert all(ours.equal(theirs) for ours, theirs in zip(*linear, strict=True))


@pytest.mark.parametrize(
    ("settings", "actor", "critic"),
    [
        ({}, [7], [7]),
        ({"actor_hidden_sizes": (3, 4)}, [3, 4], [7]),
        ({"critic_hidden_sizes": (3, 4)}, [7], [3, 4]),
        ({"actor_hidden_sizes": (), "critic_hidden_sizes": (5,)}, [], [5]),
    ],
)
def test_hidden_sizes(settings: dict[str, Any], actor: list[int], critic: list[int]) -> None:
    made = network(hidden_sizes=(7,), **settings)
    assert widths(made.actor) == [*actor, 2]
    assert widths(made.critic) == [*critic, 1]


def widths(layers: nn.Sequential) -> list[int]:
    return [layer.out_features for layer in layers if isinstance(layer, nn.Linear)]


@pytest.mark.parametrize("name", ["actor_hidden_sizes", "critic_hidden_sizes"])
def test_sizes_apart_need_networks_apart(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} = 8,8: is for networks apart; with shared_trunk hidden_sizes"):
        NetworkConfig(shared_trunk=True, **{name: (8, 8)})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"{name} = 8,0: must be at least 1"):
        NetworkConfig(**{name: (8, 0)})  # type: ignore[arg-type]
