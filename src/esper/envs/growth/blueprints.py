"""What can be planted into a slot: small modules that keep the shape of their input."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from esper.envs.growth.layers import convolved, convolved_by_channel, linear, normalized
from esper.envs.growth.outside import imported
from esper.envs.growth.weights import Layout, Tensors, Weight, batch_norm, convolution
from esper.settings.options import ConfigError, nearest


class Blueprint(Protocol):
    """A module as a function of its weights, for K networks at once."""

    def layout(self, channels: int) -> Layout:
        """The weights of one, for features of so many `channels`."""
        ...

    def __call__(self, x: Tensor, weights: Tensors, *, training: bool) -> Tensor:
        """`x` [B, K * C, H, W] by `weights`, each [K, ...], to the same shape; network k sees its own channels only."""
        ...


class Norm:
    """A step from its input towards the group norm of it; 33 parameters at 16 channels."""

    def layout(self, channels: int) -> Layout:
        return {
            "step": Weight((1,), mean=0.1),
            "scale": Weight((channels,), mean=1.0),
            "shift": Weight((channels,)),
        }

    def __call__(self, x: Tensor, weights: Tensors, *, training: bool) -> Tensor:
        scale, shift = weights["scale"], weights["shift"]
        networks, channels = scale.shape
        groups = networks * math.gcd(channels, 4)
        step = weights["step"].expand(networks, channels).reshape(-1, 1, 1)
        return torch.lerp(x, F.group_norm(x, groups, scale.flatten(), shift.flatten()), step)


class Attention:
    """Squeeze and excitation (Hu, Shen and Sun 2018): factors from 0 to 2 for the channels; 128 parameters at 16."""

    def layout(self, channels: int) -> Layout:
        hidden = max(1, channels // 4)
        return {
            "squeeze": Weight((hidden, channels), std=math.sqrt(2 / channels)),
            "excite": Weight((channels, hidden), std=math.sqrt(1 / hidden)),
        }

    def __call__(self, x: Tensor, weights: Tensors, *, training: bool) -> Tensor:
        hidden = linear(x.mean((2, 3)), weights["squeeze"]).relu()
        factors = 2 * torch.bmm(hidden, weights["excite"].transpose(1, 2)).sigmoid()  # [K, B, C]
        return x * factors.transpose(0, 1).flatten(1)[:, :, None, None]


class Depthwise:
    """Its input, and a depthwise and a pointwise convolution of it; 432 parameters at 16 channels."""

    def layout(self, channels: int) -> Layout:
        return {
            "depthwise": convolution(channels, 1, 3),
            "pointwise": convolution(channels, channels, 1),
            **batch_norm("norm", channels),
        }

    def __call__(self, x: Tensor, weights: Tensors, *, training: bool) -> Tensor:
        y = convolved(convolved_by_channel(x, weights["depthwise"]), weights["pointwise"])
        return x + normalized(y, weights, "norm", training=training).relu()


class Convolution:
    """Its input, and a 3x3 convolution of it; 2,336 parameters at 16 channels."""

    def layout(self, channels: int) -> Layout:
        return {"kernels": convolution(channels, channels, 3), **batch_norm("norm", channels)}

    def __call__(self, x: Tensor, weights: Tensors, *, training: bool) -> Tensor:
        y = normalized(convolved(x, weights["kernels"]), weights, "norm", training=training)
        return x + y.relu()


BLUEPRINTS: Mapping[str, Blueprint] = {
    "norm": Norm(),
    "attention": Attention(),
    "depthwise": Depthwise(),
    "conv": Convolution(),
}


def blueprints_of(names: Sequence[str]) -> tuple[Blueprint, ...]:
    """The blueprints called `names`; `module:name` is one from outside.

    Raises:
        ConfigError: for another name, or an object that is no blueprint.
    """
    return tuple(map(_blueprint, names))


def _blueprint(name: str) -> Blueprint:
    if ":" not in name:
        if name not in BLUEPRINTS:
            allowed = f"must be {', '.join(BLUEPRINTS)} or module:name{nearest(name, BLUEPRINTS)}"
            raise ConfigError("blueprints", name, allowed)
        return BLUEPRINTS[name]
    blueprint: Blueprint = imported("blueprints", name)
    if not callable(blueprint) or not callable(getattr(blueprint, "layout", None)):
        raise ConfigError("blueprints", name, "must be a Blueprint: callable, with a method layout")
    return blueprint
