"""A network from Python: a user's modules in place of encoder, hidden layers and heads."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, TypeAlias, cast

import torch
from torch import Tensor, nn

from esper.envs.base import EnvSpec, Images
from esper.settings.options import ConfigError
from esper.settings.values import spelled
from esper.simic.nets.config import NetworkConfig
from esper.simic.nets.encoders import drawn_from

_PARTS = ("trunk", "actor", "critic")


class Network(Protocol):
    """What a factory returns, as a `torch.nn.Module`.

    `actor` maps features [N, ...] to the outputs [N, A] of the policy, `critic` to values [N, 1]. The features are the
    observations [N, *shape], images divided by their highest value, or what an optional module `trunk` makes of them.
    Outputs are logits of choices, or means of a continuous action. All parameters are in one of these modules: `actor`
    learns at the rate of the policy, `critic` at that of the value, `trunk` at that of `shared_lr`. They initialise
    themselves, with the agent's seed in force; those that require no gradient stay.
    """

    actor: nn.Module
    critic: nn.Module


# The modules that they return have the form of `Network`.
NetworkFactory: TypeAlias = Callable[[EnvSpec], nn.Module] | Callable[[EnvSpec, NetworkConfig], nn.Module]


class Layers(NamedTuple):
    """The modules of a network; without a trunk it is empty."""

    trunk: nn.Sequential
    actor: nn.Sequential
    critic: nn.Sequential


class Pixels(nn.Module):
    """Divides images by their highest value, unless they have been normalized."""

    def __init__(self, images: Images) -> None:
        super().__init__()
        self._highest = images.highest

    def forward(self, obs: Tensor) -> Tensor:
        return obs.float() / self._highest if obs.dtype == torch.uint8 else obs


def make_layers(
    factory: NetworkFactory, spec: EnvSpec, config: NetworkConfig, generator: torch.Generator | None
) -> Layers:
    """The layers that `factory` makes for `spec`, tried on observations.

    Raises:
        ConfigError: naming what the network lacks, or returns in a wrong shape.
    """
    name = spelled(factory)
    if isinstance(factory, nn.Module) or not callable(factory):
        raise ConfigError("network", name, "must be a factory: a class or a function that takes the spec")
    if config.rnn is not None:
        raise ConfigError("rnn", config.rnn, "has no effect on a network from Python; leave it out")
    with drawn_from(generator):
        made = _call(factory, spec, config)
        if not isinstance(made, nn.Module):
            raise ConfigError("network", name, f"must return a torch.nn.Module, not {type(made).__name__}")
        for part in ("actor", "critic"):
            if not isinstance(getattr(made, part, None), nn.Module):
                raise ConfigError("network", name, f"its {type(made).__name__} needs a module {part!r}")
        _check_parameters(name, made)
        before = [Pixels(spec.observations)] if isinstance(spec.observations, Images) else []
        trunk, network = getattr(made, "trunk", None), cast(Network, made)
        layers = Layers(
            nn.Sequential(*before, *([] if trunk is None else [trunk])),
            nn.Sequential(network.actor),
            nn.Sequential(network.critic),
        )
        _try(name, layers, spec)
    return layers


def _call(factory: NetworkFactory, spec: EnvSpec, config: NetworkConfig) -> object:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [
        parameter
        for parameter in inspect.signature(factory).parameters.values()
        if parameter.kind in kinds and parameter.default is inspect.Parameter.empty
    ]
    return factory(spec, config) if len(needed) > 1 else factory(spec)  # type: ignore[call-arg]


def _check_parameters(name: str, made: nn.Module) -> None:
    """Each parameter in one part, in float32; some of actor and critic can learn."""
    owners: dict[str, str] = {}
    for parameter_name, parameter in made.named_parameters(remove_duplicate=False):
        part = parameter_name.split(".")[0]
        if part not in _PARTS:
            raise ConfigError("network", name, f"its parameter {parameter_name} is in none of {', '.join(_PARTS)}")
        if parameter.dtype != torch.float32:
            raise ConfigError("network", name, f"its parameter {parameter_name} is {parameter.dtype}, not float32")
    for part in _PARTS:
        for parameter in _parameters(made, part):
            other = owners.setdefault(str(id(parameter)), part)
            if other != part:
                raise ConfigError("network", name, f"{other} and {part} share a parameter, which belongs in trunk")
        if part != "trunk" and not any(parameter.requires_grad for parameter in _parameters(made, part)):
            raise ConfigError("network", name, f"its {part} has no parameter to learn")


def _parameters(made: nn.Module, part: str) -> Iterator[nn.Parameter]:
    module = getattr(made, part, None)
    return iter(()) if module is None else module.parameters()


@torch.no_grad()
def _try(name: str, layers: Layers, spec: EnvSpec) -> None:
    """Refuse layers that do not map observations to outputs and values, or that change as they do."""
    obs = torch.zeros(2, *spec.observations.shape)
    buffers = {key: buffer.clone() for layer in layers for key, buffer in layer.named_buffers()}
    taken = list(obs.shape[1:])
    try:
        features = layers.trunk(obs)
        found = {"actor": layers.actor(features), "critic": layers.critic(features)}
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise ConfigError("network", name, f"fails on observations [N, {_sizes(taken)}]: {reason}") from None
    for part, size in (("actor", spec.actions.outputs), ("critic", 1)):
        value = found[part]
        shape = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        if shape != [2, size]:
            allowed = f"its {part} must return [N, {size}] for observations [N, {_sizes(taken)}]; with N = 2 it returns"
            raise ConfigError("network", name, f"{allowed} {shape}")
    for key, buffer in ((key, buffer) for layer in layers for key, buffer in layer.named_buffers()):
        if not torch.equal(buffers[key], buffer):
            raise ConfigError("network", name, f"changes its buffer {key} when it is called, as BatchNorm does")


def _sizes(sizes: list[int]) -> str:
    return ", ".join(map(str, sizes))
