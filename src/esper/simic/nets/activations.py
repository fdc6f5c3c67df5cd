"""Activations of hidden layers, by name. Free of torch, so that the command line knows them at once."""

from __future__ import annotations

from collections.abc import Mapping

# Each as "module:class" of a `torch.nn.Module` that is made without arguments.
ACTIVATIONS: Mapping[str, str] = {
    "tanh": "torch.nn:Tanh",
    "relu": "torch.nn:ReLU",
}
