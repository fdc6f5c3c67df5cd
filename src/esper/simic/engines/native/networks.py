"""The layers of a network as the kernels are given them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from torch import nn

from esper.simic.engines.native import layout
from esper.simic.nets.actor_critic import ActorCritic
from esper.simic.nets.recurrent import Gru, Lstm, Recurrent

LAYERS: Mapping[type[nn.Module], str] = {
    nn.Linear: "linear",
    nn.LayerNorm: "layer_norm",
    Lstm: "lstm",
    Gru: "gru",
}
ACTIVATIONS: Mapping[type[nn.Module], str] = {
    nn.Tanh: "tanh",
    nn.ReLU: "relu",
    nn.ELU: "elu",
    nn.GELU: "gelu",
    nn.SiLU: "silu",
}


def irregular(network: ActorCritic) -> str | None:
    """Known layers in places or of forms that the kernels do not know, or None."""
    for name in ("trunk", "actor", "critic"):
        layers = getattr(network, name)
        for below, layer in itertools.pairwise((None, *layers)):
            if type(layer) in ACTIVATIONS and (type(below) not in LAYERS or isinstance(below, Recurrent)):
                return "activations that follow no layer with weights"
            if str(layer) != str(_plain(layer)):
                return f"{layer}"
        if name != "trunk" and type(layers[-1]) is not nn.Linear:
            return f"an {name} that does not end in a linear layer"
    return None


def network_configs(network: ActorCritic, offsets: Mapping[str, int]) -> tuple[layout.NetworkConfig, ...]:
    """Actor, critic and trunk, in the order of `layout.GROUPS`; `offsets` are those of their parameters."""
    return tuple(_network_config(name, getattr(network, name), offsets) for name in ("actor", "critic", "trunk"))


def _network_config(name: str, modules: nn.Sequential, offsets: Mapping[str, int]) -> layout.NetworkConfig:
    layers: list[layout.LayerConfig] = []
    for index, module in enumerate(modules):
        if type(module) in ACTIVATIONS:
            layers[-1].activation = layout.ACTIVATIONS.index(ACTIVATIONS[type(module)])
            continue
        # Their other parameters follow in the vector.
        first, _ = next(module.named_parameters())
        inputs, outputs = _widths(module)
        layers.append(
            layout.LayerConfig(
                kind=layout.LAYERS.index(LAYERS[type(module)]),
                inputs=inputs,
                outputs=outputs,
                activation=layout.ACTIVATIONS.index("identity"),
                first=offsets[f"{name}.{index}.{first}"],
            )
        )
    return layout.NetworkConfig(count=len(layers), layers=(layout.LayerConfig * len(layers))(*layers))


def _widths(layer: nn.Module) -> tuple[int, int]:
    if isinstance(layer, Recurrent):
        return layer.before, layer.size
    if isinstance(layer, nn.LayerNorm):
        (width,) = layer.normalized_shape
        return width, width
    assert isinstance(layer, nn.Linear)
    return layer.in_features, layer.out_features


def _plain(layer: nn.Module) -> nn.Module:
    """A layer like this one, whose form is the only one that the kernels know."""
    if type(layer) not in LAYERS:
        return type(layer)()
    inputs, outputs = _widths(layer)
    if isinstance(layer, Recurrent):
        return type(layer)(inputs, outputs)
    return nn.Linear(inputs, outputs, device="meta") if isinstance(layer, nn.Linear) else nn.LayerNorm(outputs)
