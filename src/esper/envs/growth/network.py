"""The forward pass of N hosts with what is planted in their slots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from esper.envs.growth.blueprints import Blueprint
from esper.envs.growth.layers import convolved, linear, normalized, pooled
from esper.envs.growth.weights import Layout, Tensors, Weight, batch_norm, convolution


def host_layout(channels: Sequence[int], image_channels: int, classes: int) -> Layout:
    """Blocks of a 3x3 convolution, batch norm, ReLU and pooling; then the mean of the pixels, and a linear layer."""
    layout: dict[str, Weight] = {}
    for block, (inputs, outputs) in enumerate(zip((image_channels, *channels), channels, strict=False)):
        layout[f"{block}.kernels"] = convolution(outputs, inputs, 3)
        layout |= batch_norm(f"{block}.norm", outputs)
    layout["head"] = Weight((classes, channels[-1]), std=math.sqrt(1 / channels[-1]))
    layout["bias"] = Weight((classes,))
    return layout


@dataclass(frozen=True)
class Seeds:
    """Seeds of one blueprint in one slot, in K of the N hosts.

    `rows` [K] are their hosts, int64; `alpha` [K, 1, 1, 1] is their share; `training` [K, 1, 1, 1] marks those whose
    forward pass is the host's while gradients reach them, None if there are none.
    """

    blueprint: Blueprint
    weights: Tensors
    rows: Tensor
    alpha: Tensor
    training: Tensor | None


class Passed(NamedTuple):
    """Outputs [N, B, classes], and the features before each slot."""

    logits: Tensor
    before: list[Tensor]


@dataclass(frozen=True)
class Network:
    """N hosts of `blocks` blocks with `weights`, each [N, ...], and for each slot the seeds in it."""

    weights: Tensors
    blocks: int
    slots: Sequence[Sequence[Seeds]]

    def __call__(self, images: Tensor, *, training: bool) -> Passed:
        """`images` are [B, N * C, H, W], or [B, C, H, W] for all hosts."""
        before: list[Tensor] = []
        # Pooling and batch norm go along channels then: a third faster on a CPU.
        features = images.contiguous(memory_format=torch.channels_last)
        for block in range(self.blocks):
            before.append(self._block(block, features, training=training))
            features = self._slot(block, before[-1], training=training)
        return Passed(self._head(features), before)

    def without(self, slot: int, before: Tensor) -> Tensor:
        """Outputs [N, B, classes] from the features `before` a slot, with all its seeds left out; not in training."""
        features = before
        for block in range(slot + 1, self.blocks):
            features = self._slot(block, self._block(block, features, training=False), training=False)
        return self._head(features)

    def _block(self, block: int, features: Tensor, *, training: bool) -> Tensor:
        convolutions = convolved(features, self.weights[f"{block}.kernels"])
        # Of a quarter of the pixels, which is the same as before pooling.
        return pooled(normalized(convolutions, self.weights, f"{block}.norm", training=training)).relu()

    def _slot(self, slot: int, features: Tensor, *, training: bool) -> Tensor:
        hosts = self.weights["head"].shape[0]
        for seeds in self.slots[slot]:
            by_host = features.unflatten(1, (hosts, -1))
            grown = planted(seeds, by_host[:, seeds.rows], training=training)
            features = by_host.index_copy(1, seeds.rows, grown).flatten(1, 2)
        return features

    def _head(self, features: Tensor) -> Tensor:
        return linear(features.mean((2, 3)), self.weights["head"], self.weights["bias"])


def planted(seeds: Seeds, features: Tensor, *, training: bool) -> Tensor:
    """`features` [B, K, C, H, W] of K hosts after their `seeds`.

    A training seed sees its input detached, and adds itself less itself, detached: the sum is the host's features to
    the bit, and its gradient with respect to the seed is that of a seed with the share 1.
    """
    seen = features if seeds.training is None else torch.where(seeds.training, features.detach(), features)
    grown = seeds.blueprint(seen.flatten(1, 2), seeds.weights, training=training).view_as(features)
    blended = torch.lerp(features, grown, seeds.alpha)
    return blended if seeds.training is None else blended + seeds.training * (grown - grown.detach())
