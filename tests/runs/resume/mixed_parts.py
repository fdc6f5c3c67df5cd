"""Parts of the learner that are passed from Python, each small, for every environment that `mixed_env` has."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn

from esper.envs.base import EnvSpec
from esper.simic.losses import Inputs


class Own(nn.Module):
    """A network with a trunk."""

    def __init__(self, spec: EnvSpec) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(spec.observations.shape), 5), nn.Mish())
        self.actor = nn.Linear(5, spec.actions.outputs)
        self.critic = nn.Linear(5, 1)


def encoder(shape: tuple[int, ...]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 5), nn.Tanh())


def near(inputs: Inputs) -> Tensor:
    """How far ratios are from 1."""
    return inputs.deviation.square().mean()


PARTS: dict[str, dict[str, Any]] = {
    "ours": {},
    "network": {"network": Own},
    "encoder": {"encoder": encoder},
    "activation": {"activation": nn.Mish},
    "loss term": {"loss_terms": {"near": (near, 0.1)}},
    "optimizer": {"optimizer": functools.partial(torch.optim.RMSprop, momentum=0.5)},
}
