"""Checks `policy.json`: types and bounds of every field, as the file may come from someone else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from esper.envs.base import (
    LARGEST_BOUND,
    ActionBounds,
    Actions,
    ContinuousActions,
    DiscreteActions,
    Images,
    MultiDiscreteActions,
    Observations,
    Vectors,
)
from esper.envs.config import EnvConfig
from esper.settings.options import ConfigError
from esper.simic.config import NetworkConfig
from esper.simic.nets.activations import ACTIVATIONS
from esper.storage.trust import unnamed_import

# Above any real policy: larger sizes, or more layers, would only cost time before the tensors do not fit.
MAX_SIZE = 2**24
MAX_COUNT = 1000
_HIGHEST = 255  # of images, which are uint8


def read_observations(stored: Any) -> Observations:
    """The observations that the policy takes.

    Raises:
        ConfigError: naming the field.
    """
    fields = _fields("observations", stored, {"vectors": {"size"}, "images": {"shape", "highest"}})
    if fields["kind"] == "vectors":
        return Vectors(size=_whole("observations.size", fields["size"]))
    channels, height, width = _wholes("observations.shape", fields["shape"], 3)
    if channels * height * width > MAX_SIZE:
        raise ConfigError("observations.shape", fields["shape"], f"must be {MAX_SIZE:,} numbers at most")
    highest = _whole("observations.highest", fields["highest"], _HIGHEST)
    return Images(shape=(channels, height, width), highest=highest)


def read_actions(stored: Any) -> Actions:
    """The actions that the policy returns.

    Raises:
        ConfigError: naming the field.
    """
    if isinstance(stored, dict) and stored.get("kind") == "continuous":
        stored = {"scaled_to": None, **stored}
    names = {"discrete": {"n"}, "multi_discrete": {"nvec"}, "continuous": {"size", "scaled_to"}}
    fields = _fields("actions", stored, names)
    match fields["kind"]:
        case "discrete":
            return DiscreteActions(n=_whole("actions.n", fields["n"]))
        case "multi_discrete":
            nvec = _wholes("actions.nvec", fields["nvec"])
            if sum(nvec) > MAX_SIZE:
                raise ConfigError("actions.nvec", f"{len(nvec)} choices", f"must be {MAX_SIZE:,} values at most")
            return MultiDiscreteActions(nvec=nvec)
    size = _whole("actions.size", fields["size"])
    return ContinuousActions(size=size, scaled_to=_read_bounds("actions.scaled_to", fields["scaled_to"], size))


def read_network(stored: Any) -> NetworkConfig:
    """The settings of the network.

    Raises:
        ConfigError: naming the field.
    """
    names = (field.name for field in dataclasses.fields(NetworkConfig))
    settings = _known("network", stored, {*names, *NetworkConfig.aliases})
    for name in ("hidden_sizes", "actor_hidden_sizes", "critic_hidden_sizes"):
        if settings.get(name) not in (None, []):
            _wholes(f"network.{name}", settings[name])
    for name in ("rnn_size", "lstm_size"):
        if settings.get(name) is not None:
            _whole(f"network.{name}", settings[name])
    return NetworkConfig(**settings)


def read_environment(metadata: Mapping[str, Any]) -> EnvConfig:
    """The environment of the policy.

    Raises:
        ConfigError: naming the field.
    """
    return EnvConfig(
        env=metadata.get("env"),  # type: ignore[arg-type]
        env_kwargs=metadata.get("env_kwargs"),  # type: ignore[arg-type]
        vector=metadata.get("vector", "auto"),
        max_episode_steps=metadata.get("max_episode_steps"),
    )


def read_flag(metadata: Mapping[str, Any], name: str) -> bool:
    """True or false; false if it is missing.

    Raises:
        ConfigError: for anything else.
    """
    value = metadata.get(name, False)
    if type(value) is not bool:
        raise ConfigError(name, _short(value), "must be true or false")
    return value


def read_count(metadata: Mapping[str, Any], name: str) -> int:
    """A whole number, at least 0; 0 if it is missing.

    Raises:
        ConfigError: for anything else.
    """
    value = metadata.get(name, 0)
    if type(value) is not int or not 0 <= value < 2**63:
        raise ConfigError(name, _short(value), "must be a whole number, at least 0")
    return value


def refused_name(metadata: Mapping[str, Any], given: Mapping[str, Any], *, trust: bool) -> str | None:
    """Why a policy is not loaded: it does not fit what was `given`, or would import what was not given.

    What was given as an object, not by name, is used in place of the name.
    """
    network = metadata.get("network")
    found = {**metadata, "encoder": network.get("encoder") if isinstance(network, dict) else None}
    found = {name: value for name, value in found.items() if isinstance(given.get(name), str | None)}
    for name, value in given.items():
        if isinstance(value, str) and found.get(name) != value:
            return f"its {name} is {_short(found.get(name))}, not {value!r}"
    return None if trust else unnamed_import(found, given)


def wrong_factory(metadata: Mapping[str, Any], factory: object) -> str | None:
    """Why a policy cannot have the network of `factory`, or needs one; None if it fits."""
    name = metadata.get("network_from")
    if name is not None and factory is None:
        return f"its network was given in Python, by {_short(name)}: give the same factory, network="
    if name is None and factory is not None:
        return "its network is made from its settings: leave network= out"
    return None


def wrong_activation(metadata: Mapping[str, Any], activation: object) -> str | None:
    """Why a policy cannot have `activation`; None if it fits. One of another name may be the same, moved."""
    network = metadata.get("network")
    name = network.get("activation") if isinstance(network, dict) else None
    if activation is None or name not in ACTIVATIONS:
        return None
    return f"its activation is {name}: leave activation= out"


def _fields(what: str, stored: Any, names: Mapping[str, set[str]]) -> dict[str, Any]:
    """The fields in `stored`, which must be the `names` of its kind."""
    fields = _known(what, stored, set().union({"kind"}, *names.values()))
    kind = fields.get("kind")
    if not isinstance(kind, str) or kind not in names:
        raise ConfigError(f"{what}.kind", _short(kind), f"must be one of {', '.join(names)}")
    if wrong := sorted(names[kind] ^ (fields.keys() - {"kind"})):
        raise ConfigError(f"{what}.{wrong[0]}", _short(fields.get(wrong[0])), f"{kind} have {', '.join(names[kind])}")
    return fields


def _known(what: str, stored: Any, names: set[str]) -> dict[str, Any]:
    if not isinstance(stored, dict):
        raise ConfigError(what, _short(stored), "must be a mapping")
    if unknown := sorted(stored.keys() - names):
        raise ConfigError(what, _short(unknown[0]), f"must be of {', '.join(sorted(names))}")
    return stored


def _read_bounds(name: str, stored: Any, size: int) -> ActionBounds | None:
    if stored is None:
        return None
    known = _known(name, stored, {"low", "high"})
    low, high = (_bounds(f"{name}.{side}", known.get(side), size) for side in ("low", "high"))
    if any(lowest > highest for lowest, highest in zip(low, high, strict=True)):
        raise ConfigError(name, _short(stored), "has a lower bound above its upper bound")
    return ActionBounds(low=low, high=high)


def _bounds(name: str, value: Any, size: int) -> tuple[float, ...]:
    numbers = isinstance(value, list) and all(type(each) is float and abs(each) < LARGEST_BOUND for each in value)
    if not numbers or len(value) != size:
        allowed = f"must be a list of {size} numbers, each nearer to 0 than {LARGEST_BOUND:g}"
        raise ConfigError(name, _short(value), allowed)
    return tuple(value)


def _wholes(name: str, value: Any, count: int | None = None) -> tuple[int, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_COUNT or len(value) != (count or len(value)):
        raise ConfigError(name, _short(value), f"must be a list of {count or f'1 to {MAX_COUNT:,}'} whole numbers")
    return tuple(_whole(name, each) for each in value)


def _whole(name: str, value: Any, most: int = MAX_SIZE) -> int:
    if type(value) is not int or not 1 <= value <= most:
        raise ConfigError(name, _short(value), f"must be a whole number from 1 to {most:,}")
    return value


def _short(value: Any) -> str:
    return f"{value!r:.60}"
