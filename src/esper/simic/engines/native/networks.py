"""The layers of a network as the kernels are given them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from esper.envs.base import Images
from esper.simic.engines.native import layout
from esper.simic.nets.actor_critic import ActorCritic
from esper.simic.nets.encoders import Encoder
from esper.simic.nets.recurrent import Gru, Lstm, Recurrent

LAYERS: Mapping[type[nn.Module], str] = {
    nn.Linear: "linear",
    nn.LayerNorm: "layer_norm",
    Lstm: "lstm",
    Gru: "gru",
}
ENCODER_LAYERS: Mapping[type[nn.Module], str] = {nn.Conv2d: "convolution"}
ACTIVATIONS: Mapping[type[nn.Module], str] = {
    nn.Tanh: "tanh",
    nn.ReLU: "relu",
    nn.ELU: "elu",
    nn.GELU: "gelu",
    nn.SiLU: "silu",
}
# Pixels a side: a block of 64 larger images does not fit the cache, and was not measured to be faster than torch.
_LARGEST = 35
# Filters of a convolution fill vectors of the processor, of 16 numbers at most.
_FILTERS = 16


@dataclass(frozen=True)
class _Images:
    """What a layer reads: so many channels of images; of vectors there is one."""

    channels: int = 1
    height: int = 0
    width: int = 0

    def after(self, layer: nn.Module) -> _Images:
        if not isinstance(layer, nn.Conv2d):
            return _Images()
        (kernel, _), (stride, _) = layer.kernel_size, layer.stride
        return _Images(layer.out_channels, (self.height - kernel) // stride + 1, (self.width - kernel) // stride + 1)


def irregular(network: ActorCritic) -> str | None:
    """Known layers in places or of forms that the kernels do not know, or None."""
    if _begins_with_images(network) and max(network.observations.shape[1:]) > _LARGEST:
        return f"convolutions of images of more than {_LARGEST} pixels a side"
    for name in ("trunk", "actor", "critic"):
        layers = [layer for _, layer in _layers(network, name)]
        for below, layer in zip((None, *layers), layers, strict=False):
            if type(layer) in ACTIVATIONS and (not _has_weights(below) or isinstance(below, Recurrent)):
                return "activations that follow no layer with weights"
            if str(layer) != str(_plain(layer)):
                return f"{layer}"
            if isinstance(layer, nn.Conv2d) and layer.out_channels % _FILTERS:
                return f"{layer.out_channels} filters of a convolution, which are no multiple of {_FILTERS}"
        if name != "trunk" and type(layers[-1]) is not nn.Linear:
            return f"an {name} that does not end in a linear layer"
    return None


def network_configs(network: ActorCritic, offsets: Mapping[str, int]) -> tuple[layout.NetworkConfig, ...]:
    """Actor, critic and trunk, in the order of `layout.GROUPS`; `offsets` are those of their parameters."""
    observations = network.observations
    images = _Images(*observations.shape) if _begins_with_images(network) else _Images()
    trunk, features = _network_config(network, "trunk", images, offsets)
    (actor, _), (critic, _) = (_network_config(network, name, features, offsets) for name in ("actor", "critic"))
    return actor, critic, trunk


def byte_values(network: ActorCritic) -> Tensor | None:
    """What each byte of an observation counts as, [256]; None where they are floats, or normalized place by place."""
    observations, normalizer = network.observations, network.normalizer
    if not isinstance(observations, Images) or network.config.normalize_observations:
        return None
    values = torch.arange(256, dtype=torch.float32)
    if normalizer is None:
        return values / observations.highest
    # Statistics of another run, which this one began with, may be of each place.
    if normalizer.mean.any() or (normalizer.var != normalizer.var.flatten()[0]).any():
        return None
    return (values / normalizer.deviation().flatten()[0]).clamp(-normalizer.limit, normalizer.limit)


def _begins_with_images(network: ActorCritic) -> bool:
    return isinstance(next(iter((*network.trunk, *network.actor))), Encoder)


def _layers(network: ActorCritic, name: str) -> Iterator[tuple[str, nn.Module]]:
    """The layers of trunk, actor or critic, and of its encoder, with their names."""
    for index, module in enumerate(getattr(network, name)):
        if not isinstance(module, Encoder):
            yield f"{name}.{index}", module
            continue
        assert isinstance(module.layers, nn.Sequential)
        # The encoder itself flattens what comes out.
        inner = ((place, layer) for place, layer in enumerate(module.layers) if type(layer) is not nn.Flatten)
        yield from ((f"{name}.{index}.layers.{place}", layer) for place, layer in inner)


def _network_config(
    network: ActorCritic, name: str, images: _Images, offsets: Mapping[str, int]
) -> tuple[layout.NetworkConfig, _Images]:
    """Trunk, actor or critic, which reads `images`, and what it makes of them."""
    layers: list[layout.LayerConfig] = []
    for path, module in _layers(network, name):
        if type(module) in ACTIVATIONS:
            layers[-1].activation = layout.ACTIVATIONS.index(ACTIVATIONS[type(module)])
            continue
        # Their other parameters follow in the vector.
        first, _ = next(module.named_parameters())
        described = layout.LayerConfig(
            kind=layout.LAYERS.index({**LAYERS, **ENCODER_LAYERS}[type(module)]),
            activation=layout.ACTIVATIONS.index("identity"),
            first=offsets[f"{path}.{first}"],
            channels=images.channels,
        )
        after = images.after(module)
        if isinstance(module, nn.Conv2d):
            described.inputs = images.channels * images.height * images.width
            described.outputs = after.channels * after.height * after.width
            described.width, described.kernel, described.stride = images.width, module.kernel_size[0], module.stride[0]
        else:
            described.inputs, described.outputs = _widths(module)
        layers.append(described)
        images = after
    return layout.NetworkConfig(count=len(layers), layers=(layout.LayerConfig * len(layers))(*layers)), images


def _has_weights(layer: nn.Module | None) -> bool:
    return type(layer) in LAYERS or type(layer) in ENCODER_LAYERS


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
    if not _has_weights(layer):
        return type(layer)()
    if isinstance(layer, nn.Conv2d):
        (kernel, _), (stride, _) = layer.kernel_size, layer.stride
        return nn.Conv2d(layer.in_channels, layer.out_channels, kernel, stride, device="meta")
    inputs, outputs = _widths(layer)
    if isinstance(layer, Recurrent):
        return type(layer)(inputs, outputs)
    return nn.Linear(inputs, outputs, device="meta") if isinstance(layer, nn.Linear) else nn.LayerNorm(outputs)
