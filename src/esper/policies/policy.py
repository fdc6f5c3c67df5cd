"""A trained policy on disk: only what is needed to act."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from esper import __version__
from esper.envs.base import (
    Actions,
    ContinuousActions,
    DiscreteActions,
    EnvSpec,
    Images,
    MultiDiscreteActions,
    Observations,
    Vectors,
    scaled_to,
)
from esper.envs.config import EnvConfig
from esper.policies.schema import (
    read_actions,
    read_environment,
    read_flag,
    read_network,
    read_observations,
    refused_name,
    wrong_factory,
)
from esper.settings.options import ConfigError
from esper.settings.values import spelled
from esper.simic.nets.actor_critic import ActorCritic
from esper.simic.nets.given import NetworkFactory, make_layers
from esper.simic.ppo import PPOAgent
from esper.storage import files
from esper.storage.store import StoreError, load_pair, save_pair
from esper.storage.tree import TreeError, check_form

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
    """A network for evaluation: its normalization statistics are fixed. `masked`: it was trained with action masks."""

    network: ActorCritic
    environment: EnvConfig
    masked: bool = False


def save_policy(folder: Path, agent: PPOAgent, environment: EnvConfig) -> None:
    """Write `policy.safetensors` and `policy.json` into `folder`, a run's or its `best`."""
    metadata = {
        "format": _FORMAT,
        "esper": __version__,
        "env": environment.env,
        "env_kwargs": environment.env_kwargs,
        "vector": environment.vector,
        "max_episode_steps": environment.max_episode_steps,
        "observations": _stored(agent.spec.observations, _OBSERVATIONS),
        "actions": _stored(agent.spec.actions, _ACTIONS),
        "masked": agent.spec.masked,
        "network": {name: spelled(value) for name, value in dataclasses.asdict(agent.config.network).items()},
        "updates": agent.train_steps,
    }
    if agent.network_factory is not None:
        metadata["network_from"] = spelled(agent.network_factory)
    save_pair(folder / _NAME, agent.network.state_dict(), metadata, root=_root(folder))


def load_policy(
    folder: str | Path,
    *,
    env: str | None = None,
    encoder: str | Callable[..., Any] | None = None,
    network: NetworkFactory | None = None,
    trust: bool = False,
) -> Policy:
    """The policy in `folder`, a run's or its `best`, on the CPU.

    An environment or encoder `module:name` imports that module, and the files may come from someone else: pass the same
    name as `env` or `encoder`, or `trust` every name in the files. A network from Python needs the
    `network` factory that made it.

    Raises:
        StoreError: naming the file and what is wrong with it.
    """
    folder = Path(folder)
    tensors, metadata = load_pair(folder / _NAME, root=_root(folder))
    path = folder / f"{_NAME}.json"
    if metadata.get("format") == 1:  # only vectors then
        observations = {"kind": "vectors", "size": metadata.get("observation_size")}
        metadata = {**metadata, "format": _FORMAT, "observations": observations}
    if metadata.get("format") != _FORMAT:
        raise StoreError(f"{path}: format {metadata.get('format')!r:.60} is not the {_FORMAT} that this version reads")
    if reason := refused_name(metadata, {"env": env, "encoder": spelled(encoder)}, trust=trust):
        raise StoreError(f"{path}: {reason}")
    if reason := wrong_factory(metadata, network):
        raise StoreError(f"{path}: {reason}")
    try:
        masked = read_flag(metadata, "masked")
        made = _network(metadata, encoder, network, masked=masked)
        environment = dataclasses.replace(
            read_environment(metadata), scale_actions="on" if scaled_to(made.actions) else "off"
        )
    except ConfigError as error:
        raise StoreError(f"{path}: {error}") from None
    # A network can be impossible although each of its sizes is not.
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise StoreError(f"{path}: {type(error).__name__}: {error!s:.300}") from None
    try:
        check_form(tensors, made.state_dict(), finite=True)
    except TreeError as error:
        raise StoreError(f"{folder / _NAME}.safetensors: {error}") from None
    made.load_state_dict(tensors, assign=True)
    return Policy(network=made.eval(), environment=environment, masked=masked)


def _network(
    metadata: Mapping[str, Any],
    encoder: str | Callable[..., Any] | None,
    factory: NetworkFactory | None,
    *,
    masked: bool,
) -> ActorCritic:
    """The network that `metadata` describe, without its numbers."""
    # The meta device allocates nothing: sizes in a broken file cannot fill the memory.
    with torch.device("meta"):
        observations, actions = read_observations(metadata.get("observations")), read_actions(metadata.get("actions"))
        config = read_network(metadata.get("network"))
        config = config if encoder is None else dataclasses.replace(config, encoder=encoder)
        if factory is None:
            return ActorCritic(observations, actions, config)
    spec = EnvSpec(num_envs=1, observations=observations, actions=actions, masked=masked)
    return ActorCritic(observations, actions, config, None, make_layers(factory, spec, config, None))


def _stored(sizes: Any, kinds: dict[str, type[Any]]) -> dict[str, Any]:
    (kind,) = (name for name, kind in kinds.items() if isinstance(sizes, kind))
    fields = {name: value for name, value in dataclasses.asdict(sizes).items() if value is not None}
    return {"kind": kind, **fields}


def _root(folder: Path) -> Path:
    """The run's folder if `folder` is its `best`, else `folder`."""
    in_run = folder.name == "best" and files.is_there(folder.parent / "events.jsonl")
    return folder.parent if in_run else folder
