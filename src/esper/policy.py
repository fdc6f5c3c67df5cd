"""A trained policy on disk: what `esper evaluate` needs to act again, and nothing more."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from esper import __version__
from esper.checkpoint.store import StoreError, load_pair, save_pair
from esper.checkpoint.tree import TreeError, check_form
from esper.envs.base import (
    Actions,
    ContinuousActions,
    DiscreteActions,
    Images,
    MultiDiscreteActions,
    Observations,
    Vectors,
)
from esper.envs.config import EnvConfig
from esper.options import ConfigError
from esper.simic.config import NetworkConfig
from esper.simic.networks import ActorCritic
from esper.simic.ppo import PPOAgent

T = TypeVar("T")

_NAME = "policy"
_FORMAT = 2
_OBSERVATIONS: dict[str, type[Observations]] = {"vectors": Vectors, "images": Images}
_ACTIONS: dict[str, type[Actions]] = {
    "discrete": DiscreteActions,
    "multi_discrete": MultiDiscreteActions,
    "continuous": ContinuousActions,
}


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A network in evaluation: its normalization statistics do not change. `masked`: it was told what is allowed."""

    network: ActorCritic
    environment: EnvConfig
    masked: bool = False


def save_policy(folder: Path, agent: PPOAgent, environment: EnvConfig) -> None:
    """Write `policy.safetensors` and `policy.json` into `folder`."""
    metadata = {
        "format": _FORMAT,
        "esper": __version__,
        "env": environment.env,
        "env_kwargs": environment.env_kwargs,
        "vector": environment.vector,
        "observations": _stored(agent.spec.observations, _OBSERVATIONS),
        "actions": _stored(agent.spec.actions, _ACTIONS),
        "masked": agent.spec.masked,
        "network": dataclasses.asdict(agent.config.network),
        "updates": agent.train_steps,
    }
    save_pair(folder, _NAME, agent.network.state_dict(), metadata)


def load_policy(folder: Path) -> Policy:
    """The policy in run folder `folder`, on the CPU.

    Raises:
        StoreError: naming the file and what is wrong with it.
    """
    tensors, metadata = load_pair(folder, _NAME)
    path = folder / f"{_NAME}.json"
    if metadata.get("format") == 1:  # only vectors then
        observations = {"kind": "vectors", "size": metadata.get("observation_size")}
        metadata = {**metadata, "format": _FORMAT, "observations": observations}
    if metadata.get("format") != _FORMAT:
        raise StoreError(f"{path}: format {metadata.get('format')!r} is not the {_FORMAT} that this version reads")
    try:
        # On the meta device nothing is allocated: sizes in a broken file cannot fill the memory.
        with torch.device("meta"):
            network = ActorCritic(
                _read("observations", metadata["observations"], _OBSERVATIONS),
                _read("actions", metadata["actions"], _ACTIONS),
                NetworkConfig(**metadata["network"]),
            )
        environment = EnvConfig(
            env=metadata["env"], env_kwargs=metadata["env_kwargs"], vector=metadata.get("vector", "auto")
        )
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise StoreError(f"{path}: {type(error).__name__}: {error}") from None
    try:
        check_form(tensors, network.state_dict(), finite=True)
    except TreeError as error:
        raise StoreError(f"{folder / _NAME}.safetensors: {error}") from None
    network.load_state_dict(tensors, assign=True)
    return Policy(network=network.eval(), environment=environment, masked=bool(metadata.get("masked")))


def _stored(sizes: Any, kinds: dict[str, type[Any]]) -> dict[str, Any]:
    (kind,) = (name for name, kind in kinds.items() if isinstance(sizes, kind))
    return {"kind": kind, **dataclasses.asdict(sizes)}


def _read(what: str, stored: dict[str, Any], kinds: dict[str, type[T]]) -> T:
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
    kind = fields.pop("kind")
    if kind not in kinds:
        raise ConfigError(f"{what}.kind", kind, f"must be one of {', '.join(kinds)}")
    return kinds[kind](**fields)
