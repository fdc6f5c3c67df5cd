"""Encoders turn observations into features before the hidden layers: convolutions, or a user's module."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from esper.envs.base import Images, Observations
from esper.settings.options import ConfigError
from esper.system.errors import describe_with_place

# Smaller images leave no input for the Nature network's last convolution.
_SMALLEST_NATURE = 36


class Encoder(nn.Module):
    """`layers` on observations [..., *shape] in one batch; [..., F].

    Images, uint8 unless they have been normalized, are divided by their highest value first. `custom` layers are a
    user's and already initialised.
    """

    def __init__(self, layers: nn.Module, observations: Observations, *, custom: bool = False) -> None:
        super().__init__()
        self.layers, self.custom = layers, custom
        self._shape = observations.shape
        self._highest = observations.highest if isinstance(observations, Images) else 1

    def forward(self, obs: Tensor) -> Tensor:
        leading = obs.shape[: -len(self._shape)]
        batch = obs.reshape(-1, *self._shape)
        if batch.dtype == torch.uint8:
            batch = batch.float() / self._highest
        features: Tensor = self.layers(batch).flatten(1)
        return features.view(*leading, features.shape[1])

    @torch.no_grad()
    def count_features(self) -> int:
        """The number of features of one observation."""
        return int(self(torch.zeros(1, *self._shape)).shape[-1])


def make_encoder(
    name: str | Callable[..., Any], observations: Observations, generator: torch.Generator | None
) -> Encoder | None:
    """The encoder called `name`, or made by it, for `observations`; None if they are flattened for the hidden layers.

    Raises:
        ConfigError: for a name that is unknown, or what does not fit.
    """
    if not isinstance(name, str):
        return _custom(name, name, observations, generator)
    if name.startswith("<"):
        raise ConfigError("encoder", name, "was given in Python, where it must be given again: encoder=...")
    if name == "auto":
        name = _default(observations)
    images = isinstance(observations, Images)
    if name == "flatten" or (name == "none" and not images):
        return None
    if ":" in name:
        return _custom(name, _load(name), observations, generator)
    if name == "none":
        raise ConfigError("encoder", name, "is for vectors; images without an encoder need flatten")
    if name not in _LAYERS:
        raise ConfigError("encoder", name, f"must be auto, none, flatten, {', '.join(_LAYERS)} or module:callable")
    if not images:
        raise ConfigError("encoder", name, f"is for images; these observations are {observations}")
    if name == "nature" and min(observations.shape[1:]) < _SMALLEST_NATURE:
        size = "x".join(map(str, observations.shape[1:]))
        raise ConfigError("encoder", name, f"needs images of at least {_SMALLEST_NATURE} pixels, not {size}; use small")
    return Encoder(_LAYERS[name](observations.shape[0]), observations)


def _default(observations: Observations) -> str:
    if not isinstance(observations, Images):
        return "none"
    return "nature" if min(observations.shape[1:]) >= _SMALLEST_NATURE else "small"


def _load(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    try:
        factory: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise ConfigError("encoder", name, f"cannot be loaded: {error or type(error).__name__}") from error
    return factory


def _custom(
    name: object, factory: Callable[..., Any], observations: Observations, generator: torch.Generator | None
) -> Encoder:
    """The encoder that `factory` makes for observations of a shape, seeded by `generator`."""
    if isinstance(factory, nn.Module):
        raise ConfigError("encoder", name, "must be what makes a module: a callable that gets an observation's shape")
    with drawn_from(generator):
        try:
            made = factory(observations.shape)
        except Exception as error:
            allowed = f"raises when it is called with {observations.shape}: {describe_with_place(error)}"
            raise ConfigError("encoder", name, allowed) from error
    if not isinstance(made, nn.Module):
        raise ConfigError("encoder", name, f"must return a torch.nn.Module, not {type(made).__name__}")
    encoder = Encoder(made, observations, custom=True)
    try:
        encoder.count_features()
    except Exception as error:
        allowed = f"fails on observations {list(observations.shape)}: {error or type(error).__name__}"
        raise ConfigError("encoder", name, allowed) from error
    return encoder


@contextlib.contextmanager
def drawn_from(generator: torch.Generator | None) -> Iterator[None]:
    """Seeds torch's global generator by `generator` for what a user's module draws; afterwards it is as before."""
    with torch.random.fork_rng(devices=[]):
        if generator is not None:
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        yield


def _nature(channels: int) -> nn.Module:
    """The convolutions of Mnih et al. 2015 (Nature 518)."""
    layers = (_convolution(channels, 32, 8, 4), _convolution(32, 64, 4, 2), _convolution(64, 64, 3, 1))
    return nn.Sequential(*(module for layer in layers for module in (layer, nn.ReLU())), nn.Flatten())


def _small(channels: int) -> nn.Module:
    """One convolution for images of about ten pixels, as in MinAtar (Young and Tian 2019, arXiv 1903.03176)."""
    return nn.Sequential(_convolution(channels, 16, 3, 1), nn.ReLU(), nn.Flatten())


def _impala(channels: int) -> nn.Module:
    """Three stages of pooling and residual blocks (Espeholt et al. 2018, arXiv 1802.01561, figure 3)."""
    layers: list[nn.Module] = []
    for depth in (16, 32, 32):
        layers += [_convolution(channels, depth, 3, 1, padding=1), nn.MaxPool2d(3, stride=2, padding=1)]
        layers += [_Residual(depth), _Residual(depth)]
        channels = depth
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten())


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels, 3, 1, padding=1)
        self.second = _convolution(channels, channels, 3, 1, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        change: Tensor = self.second(self.first(images.relu()).relu())
        return images + change


_LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "small": _small,
    "nature": _nature,
    "impala": _impala,
}


def _convolution(before: int, after: int, kernel: int, stride: int, padding: int = 0) -> nn.Module:
    # As for linear layers: its own initialisation would use torch's global generator.
    layer = nn.Conv2d(before, after, kernel, stride, padding, device="meta")
    layer.weight = nn.Parameter(torch.empty(after, before, kernel, kernel))
    layer.bias = nn.Parameter(torch.empty(after))
    return layer
