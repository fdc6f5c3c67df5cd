"""Named parameters of N networks, each a tensor with the networks in its first dimension."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Tensors: TypeAlias = dict[str, Tensor]


@dataclass(frozen=True)
class Weight:
    """A parameter of one network: its shape, and how it begins.

    Normal numbers with this standard deviation around `mean`. Not `trained`: running statistics.
    """

    shape: tuple[int, ...]
    std: float = 0.0
    mean: float = 0.0
    trained: bool = True

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def draw(self, generator: np.random.Generator) -> NDArray[np.float32]:
        if not self.std:
            return np.full(self.shape, self.mean, dtype=np.float32)
        return self.mean + self.std * generator.standard_normal(self.shape, dtype=np.float32)


Layout: TypeAlias = Mapping[str, Weight]


def convolution(outputs: int, inputs: int, kernel: int) -> Weight:
    """Kernels [outputs, inputs, kernel, kernel], by He et al. 2015."""
    return Weight((outputs, inputs, kernel, kernel), std=math.sqrt(2 / (inputs * kernel**2)))


def batch_norm(name: str, channels: int) -> dict[str, Weight]:
    """The weights of `esper.envs.growth.layers.normalized` for `name`."""
    shape = (channels,)
    return {
        f"{name}.scale": Weight(shape, mean=1.0),
        f"{name}.shift": Weight(shape),
        f"{name}.mean": Weight(shape, trained=False),
        f"{name}.var": Weight(shape, mean=1.0, trained=False),
    }


def count(layout: Layout) -> int:
    """The number of trained parameters of one network."""
    return sum(weight.size for weight in layout.values() if weight.trained)


class Stack:
    """The weights of `layout` for `num_envs` networks, with SGD's momentum of those that are trained."""

    def __init__(self, layout: Layout, num_envs: int, device: torch.device) -> None:
        self.layout = layout
        self.weights: Tensors = {
            name: torch.zeros(num_envs, *weight.shape, device=device) for name, weight in layout.items()
        }
        self.momentum: Tensors = {
            name: torch.zeros_like(self.weights[name]) for name, weight in layout.items() if weight.trained
        }

    def begin(self, index: int, generator: np.random.Generator) -> None:
        """Draw the weights of network `index`."""
        for name, weight in self.layout.items():
            self.weights[name][index] = torch.from_numpy(weight.draw(generator))
        for momentum in self.momentum.values():
            momentum[index] = 0.0

    def taken(self, rows: Tensor) -> tuple[Tensors, Tensors]:
        """Copies of weights and momentum of the networks `rows`."""
        return _rows(self.weights, rows), _rows(self.momentum, rows)

    def put(self, rows: Tensor, weights: Tensors, momentum: Tensors) -> None:
        """Store them."""
        for ours, theirs in ((self.weights, weights), (self.momentum, momentum)):
            for name, tensor in theirs.items():
                ours[name][rows] = tensor.detach()

    def gradient_size(self, rows: Tensor) -> Tensor:
        """[R], the root mean square of the momentum of the networks `rows`."""
        squares = [tensor[rows].flatten(1).square().sum(1) for tensor in self.momentum.values()]
        return (torch.stack(squares).sum(0) / count(self.layout)).sqrt()

    def state_dict(self) -> dict[str, NDArray[np.float32]]:
        return {
            f"{kind}.{name}": tensor.cpu().numpy().copy()
            for kind, tensors in (("weight", self.weights), ("momentum", self.momentum))
            for name, tensor in tensors.items()
        }

    def load_state_dict(self, state: Mapping[str, NDArray[np.float32]]) -> None:
        """Restore `state`.

        Raises:
            ValueError: when its names or shapes are others.
        """
        kinds = {"weight": self.weights, "momentum": self.momentum}
        ours = {f"{kind}.{name}": tensor for kind, tensors in kinds.items() for name, tensor in tensors.items()}
        found = {name: np.asarray(array) for name, array in state.items()}
        if {name: array.shape for name, array in found.items()} != {name: tuple(t.shape) for name, t in ours.items()}:
            raise ValueError(f"weights {', '.join(found):.200} are not those of these networks, or of another size")
        for name, tensor in ours.items():
            tensor.copy_(torch.tensor(found[name], device=tensor.device))


def _rows(tensors: Tensors, rows: Tensor) -> Tensors:
    return {name: tensor[rows] for name, tensor in tensors.items()}
