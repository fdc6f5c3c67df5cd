"""Data and blueprints for tests of `esper/Growth-v0`."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from esper.envs.growth.weights import Layout, Tensors, Weight


def pairs() -> tuple[Any, ...]:
    """8x8 images of two dots, four pixels apart, side by side or one above the other.

    A 3x3 convolution never sees both dots, so a host of one block knows no more than chance. After pooling the dots are
    two pixels apart, and a 3x3 convolution between them sees both.
    """
    generator = np.random.default_rng(0)
    classes = generator.integers(0, 2, 768)
    images = np.zeros((768, 1, 8, 8), dtype=np.float32)
    for image, upright in zip(images[:, 0], classes, strict=True):
        first, other = generator.integers(1, 3), generator.integers(1, 7)
        picture = image.T if upright else image
        picture[other, first] = picture[other, first + 4] = 1.0
    return images[256:], classes[256:], images[:256], classes[:256]


def bright() -> tuple[Any, ...]:
    """4x4 images of noise, brighter in the second class."""
    generator = np.random.default_rng(0)
    classes = generator.integers(0, 2, 192)
    images = generator.standard_normal((192, 1, 4, 4)).astype(np.float32)
    images += classes[:, None, None, None]
    return images[64:], classes[64:], images[:64], classes[:64]


def flat() -> tuple[Any, ...]:
    x, y, *others = bright()
    return x[:, 0], y, *others


def short() -> tuple[Any, ...]:
    x, y, *others = bright()
    return x, y[:-1], *others


def three_arrays() -> tuple[Any, ...]:
    return bright()[:3]


def halves() -> tuple[Any, ...]:
    x, y, *others = bright()
    return x, y + 0.5, *others


class Spoiler:
    """Its input times a number, about 1, in training; the negative of it in validation."""

    def layout(self, channels: int) -> Layout:
        return {"factor": Weight((channels,), mean=1.0)}

    def __call__(self, x: Tensor, weights: Tensors, *, training: bool) -> Tensor:
        return (1 if training else -1) * x * weights["factor"].flatten()[:, None, None]


class Mirror:
    """Its input times a number, which begins as 3."""

    def layout(self, channels: int) -> Layout:
        return {"factor": Weight((1,), mean=3.0)}

    def __call__(self, x: Tensor, weights: Tensors, *, training: bool) -> Tensor:
        factor = weights["factor"]
        return x * factor.expand(-1, x.shape[1] // len(factor)).reshape(-1, 1, 1)


spoiler, mirror = Spoiler(), Mirror()
