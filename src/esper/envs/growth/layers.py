"""Layers of K networks in one operation. Features are [B, K * C, H, W], each network's channels side by side."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from esper.envs.growth.weights import Tensors

# Of the running statistics of a batch norm.
_UPDATE = 0.1


def convolved(x: Tensor, kernels: Tensor) -> Tensor:
    """3x3 or 1x1 convolutions by `kernels` [K, O, C, k, k], without a change of height and width.

    `x` may also be [B, C, H, W], the same for all networks.
    """
    networks, _, channels, size, _ = kernels.shape
    groups = 1 if x.shape[1] == channels else networks
    return F.conv2d(x, kernels.flatten(0, 1), padding=size // 2, groups=groups)


def convolved_by_channel(x: Tensor, kernels: Tensor) -> Tensor:
    """Each channel by its own of `kernels` [K, C, 1, k, k]."""
    return F.conv2d(x, kernels.flatten(0, 1), padding=kernels.shape[-1] // 2, groups=x.shape[1])


def normalized(x: Tensor, weights: Tensors, name: str, *, training: bool) -> Tensor:
    """Batch norm of each channel, by the batch in `training`, else by running statistics, which training updates."""
    scale, shift, mean, var = (weights[f"{name}.{part}"].flatten() for part in ("scale", "shift", "mean", "var"))
    return F.batch_norm(x, mean, var, scale, shift, training=training, momentum=_UPDATE)


def pooled(x: Tensor) -> Tensor:
    """The maximum of each 2x2 pixels."""
    return F.max_pool2d(x, 2)


def linear(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`features` [B, K * C] by `weight` [K, O, C], and `bias` [K, O]: [K, B, O]."""
    networks, _, channels = weight.shape
    by_network = features.view(-1, networks, channels).transpose(0, 1)
    outputs = torch.bmm(by_network, weight.transpose(1, 2))
    return outputs if bias is None else outputs + bias[:, None]
