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
    with pytest.raises(ConfigError, match="activation = gelo: must be one of tanh, relu, elu, gelu, silu; did"):
        NetworkConfig(activation="gelo")
