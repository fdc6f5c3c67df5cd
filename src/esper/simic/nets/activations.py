"""Activations of hidden layers, by name. Does not import torch, so the command line starts quickly."""

from __future__ import annotations

from collections.abc import Mapping

# Each is "module:class" of a `torch.nn.Module` without constructor arguments.
ACTIVATIONS: Mapping[str, str] = {
    "tanh": "torch.nn:Tanh",
    "relu": "torch.nn:ReLU",
    "elu": "torch.nn:ELU",
    "gelu": "torch.nn:GELU",
    "silu": "torch.nn:SiLU",
}
