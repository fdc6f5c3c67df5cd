"""A trained policy on disk: only what is needed to act."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from esper import __version__
from esper.envs.actions import same_actions
from esper.envs.adapter import Adapter
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
from esper.envs.families import family_of
from esper.envs.given import Given, adapter_of_given, recorded_name
from esper.envs.rules import BrokenRule, shown
from esper.policies.inputs import read_masks, read_state
from esper.policies.player import SAMPLING, act
from esper.policies.schema import (
    read_actions,
    read_count,
    read_environment,
    read_flag,
    read_network,
    read_observations,
    refused_name,
    wrong_activation,
    wrong_factory,
)
from esper.settings.options import ConfigError
from esper.settings.values import Bounds, as_path, checked, spelled
from esper.simic.nets.actor_critic import ActorCritic
from esper.simic.nets.given import NetworkFactory, make_layers
from esper.simic.ppo import PPOAgent
from esper.storage import files
from esper.storage.store import StoreError, load_pair, save_pair
from esper.storage.tree import TreeError, check_form
from esper.system.seeding import device_generator
from esper.system.torch_defaults import torch_defaults

POLICY = "policy"  # of its files, without their endings
_FORMAT = 2
_GIVE_ENV = "load_policy takes an environment in its place, as env"
_OBSERVATIONS: dict[str, type[Observations]] = {"vectors": Vectors, "images": Images}
_ACTIONS: dict[str, type[Actions]] = {
    "discrete": DiscreteActions,
    "multi_discrete": MultiDiscreteActions,
    "continuous": ContinuousActions,
}


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A network for evaluation: its normalization statistics are fixed. `masked`: it was trained with action masks.

    `adapter` has the spaces of an environment that was given; by default those of `environment` are read when they are
    needed. `stored` is the environment in its file, if another one was given. `updates` is how many updates it was
    trained for. Can be pickled and copied.
    """

    network: ActorCritic
    environment: EnvConfig
    masked: bool = False
    adapter: Adapter | None = None
    stored: EnvConfig | None = None
    updates: int = 0
    network_from: str | None = None

    @torch.no_grad()
    def predict(
        self,
        observation: Any,
        state: NDArray[Any] | None = None,
        mask: Any = None,
        deterministic: bool = True,
        *,
        episode_start: Any = None,
    ) -> tuple[Any, NDArray[np.float32] | None]:
        """Actions for one observation, or for a batch of them, and the next recurrent state.

        `observation` is as the environment gives it, or a batch of N as a Gymnasium vector environment gives it: each
        array in it [N, ...]. Actions are elements of the environment's action space, in its dtype and range: one, or an
        array [N, ...]. They are the most likely ones, or with `deterministic=False` sampled, from a generator that
        `seed` seeds.

        A recurrent policy takes the `state` of the step before, [S] or [N, S], and returns the next one; None begins
        episodes, and so does a row where `episode_start` is true. Without recurrent layers the state is None.

        `mask` marks the allowed actions, [M] or [N, M], booleans or 0 and 1, M for the values of all choices; a policy
        that was trained with masks needs it, unless it is in the observation.

        Raises:
            ConfigError: naming the argument that does not fit, or "env" for an environment that cannot be made.
        """
        adapter = self._adapter
        try:
            obs, own_masks, many = adapter.to_learner(observation)
        except BrokenRule as error:
            raise ConfigError("observation", shown(observation), str(error)) from None
        count = len(obs) if many else None
        masks = read_masks(own_masks if mask is None else mask, self.network.actions, count, needed=self.masked)
        memory = read_state(state, episode_start, self.network, count)
        noise = None if deterministic else self.network.noise((len(obs),), self._generator)
        actions = adapter.to_environment(act(self.network, obs, masks, memory, noise))
        after = None if memory is None else memory.cpu().numpy()
        return (actions, after) if many else (actions[0], None if after is None else after[0])

    def seed(self, seed: int) -> None:
        """Seed the generator of sampled actions, which begins with seed 0; those of `evaluate` are the same.

        Raises:
            ConfigError: for a seed that is no whole number of at least 0.
        """
        seed = checked("seed", seed, int, Bounds(minimum=0))
        self._generator.manual_seed(_generator(seed).initial_seed())

    def save(self, folder: str | Path) -> None:
        """Write the policy into `folder`, which is made if it is missing, for `load_policy`.

        Raises:
            OSError: when it cannot be written.
        """
        folder = Path(folder)
        files.make_named_folder(folder)
        _save(folder, self)

    @functools.cached_property
    def _adapter(self) -> Adapter:
        if self.adapter is not None:
            return self.adapter
        config = self.environment
        try:
            return _fitting(self, lambda: family_of(config).make_adapter(config))
        except ConfigError as error:
            raise ConfigError(error.name, error.value, f"{error.allowed}; or {_GIVE_ENV}") from error

    @functools.cached_property
    def _generator(self) -> torch.Generator:
        return _generator(0)


def _fitting(policy: Policy, make: Callable[[], Adapter]) -> Adapter:
    """The adapter that `make` makes.

    Raises:
        ConfigError: named "env", when it does not fit `policy`; also as `make`.
    """
    name, network = policy.environment.env, policy.network
    acts = f"those of the policy are {network.actions}"
    try:
        adapter = make()
    except ConfigError as error:
        if error.name != "scale_actions":
            raise
        raise ConfigError("env", name, f"has actions that cannot be scaled; {acts}") from None
    if adapter.observations != network.observations:
        found = f"has observations {adapter.observations}; those of the policy are {network.observations}"
        raise ConfigError("env", name, found)
    if not same_actions(adapter.actions, network.actions):
        raise ConfigError("env", name, f"has actions {adapter.actions}; {acts}")
    return adapter


def _generator(seed: int) -> torch.Generator:
    return device_generator(seed, SAMPLING, torch.device("cpu"))


def save_policy(folder: str | Path, agent: PPOAgent, environment: EnvConfig) -> None:
    """Write `policy.safetensors` and `policy.json` into `folder`, a run's or its `best`."""
    policy = Policy(
        network=agent.network,
        environment=environment,
        masked=agent.spec.masked,
        updates=agent.train_steps,
        network_from=None if agent.network_factory is None else spelled(agent.network_factory),
    )
    _save(Path(folder), policy)


def _save(folder: Path, policy: Policy) -> None:
    environment, network = policy.stored or policy.environment, policy.network
    metadata = {
        "format": _FORMAT,
        "esper": __version__,
        "env": environment.env,
        "env_kwargs": environment.env_kwargs,
        "vector": environment.vector,
        "max_episode_steps": environment.max_episode_steps,
        "observations": _stored(network.observations, _OBSERVATIONS),
        "actions": _stored(network.actions, _ACTIONS),
        "masked": policy.masked,
        "network": {name: spelled(value) for name, value in dataclasses.asdict(network.config).items()},
        "updates": policy.updates,
    }
    if policy.network_from is not None:
        metadata["network_from"] = policy.network_from
    save_pair(folder / POLICY, network.state_dict(), metadata, root=_root(folder))


def load_policy(
    path: str | Path,
    *,
    encoder: str | Callable[..., Any] | None = None,
    activation: Callable[[], Any] | None = None,
    network: NetworkFactory | None = None,
    env: str | Given | None = None,
    trust: bool = False,
) -> Policy:
    """The policy in the folder `path`, a run's, its `best`, or one of `Policy.save`, on the CPU.

    An environment or encoder `module:name` imports that module, and the files may come from someone else: pass the same
    name as `env` or `encoder`, or `trust` every name in the files. A network from Python needs the
    `network` factory that made it.

    Or pass an object, which is used in place of the name. `env`: a class or another callable, which is called without
    arguments, an environment, or a vector environment, of which only the spaces are read. `encoder`: a callable that
    gets the shape of an observation and returns a module. `activation`: as that which the policy was trained with.

    Raises:
        StoreError: naming the file and what is wrong with it.
        ConfigError: for an environment that cannot be made or does not fit, or an encoder that does not fit.
    """
    folder, trust = as_path("path", path), checked("trust", trust, bool)
    tensors, metadata = read_policy(folder)
    file = folder / f"{POLICY}.json"
    if not isinstance(encoder, str) and not callable(encoder) and encoder is not None:
        raise ConfigError("encoder", shown(encoder), "must be module:callable, or a callable")
    if reason := refused_name(metadata, {"env": env, "encoder": encoder}, trust=trust):
        raise StoreError(f"{file}: {reason}")
    if reason := wrong_factory(metadata, network) or wrong_activation(metadata, activation):
        raise StoreError(f"{file}: {reason}")
    modules = {name: each for name, each in (("encoder", encoder), ("activation", activation)) if each is not None}
    policy = _read(file, metadata, modules, network)
    try:
        check_form(tensors, policy.network.state_dict(), finite=True)
    except TreeError as error:
        raise StoreError(f"{folder / POLICY}.safetensors: {error}") from None
    policy.network.load_state_dict(tensors, assign=True)
    if env is None or isinstance(env, str):
        return policy
    # Not the file's name: an evaluation would import what the user did not name.
    environment = dataclasses.replace(policy.environment, env=recorded_name(given := env))
    policy = dataclasses.replace(policy, environment=environment, stored=policy.environment)
    return dataclasses.replace(policy, adapter=_fitting(policy, lambda: adapter_of_given(given, environment)))


def read_policy(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the metadata of the policy in `folder`, as they are in its files.

    Raises:
        StoreError: naming the file and what is wrong with it.
    """
    tensors, metadata = load_pair(folder / POLICY, root=_root(folder))
    if metadata.get("format") == 1:  # only vectors then
        observations = {"kind": "vectors", "size": metadata.get("observation_size")}
        metadata = {**metadata, "format": _FORMAT, "observations": observations}
    if metadata.get("format") != _FORMAT:
        wrong = f"format {metadata.get('format')!r:.60} is not the {_FORMAT} that this version reads"
        raise StoreError(f"{folder / POLICY}.json: {wrong}")
    return tensors, metadata


def _read(
    file: Path,
    metadata: Mapping[str, Any],
    modules: Mapping[str, Any],
    factory: NetworkFactory | None,
) -> Policy:
    """The policy that `metadata` of `file` describe, without tensors.

    Raises:
        StoreError: naming the file and what is wrong with it.
    """
    try:
        masked, updates = read_flag(metadata, "masked"), read_count(metadata, "updates")
        network = _network(metadata, modules, factory, masked=masked)
        environment = dataclasses.replace(
            read_environment(metadata), scale_actions="on" if scaled_to(network.actions) else "off"
        )
        return Policy(
            network=network.eval(),
            environment=environment,
            masked=masked,
            updates=updates,
            network_from=metadata.get("network_from"),
        )
    except ConfigError as error:
        raise StoreError(f"{file}: {error}") from None
    # A network can be impossible although each of its sizes is not.
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise StoreError(f"{file}: {type(error).__name__}: {error!s:.300}") from error


@torch_defaults()
def _network(
    metadata: Mapping[str, Any],
    modules: Mapping[str, Any],
    factory: NetworkFactory | None,
    *,
    masked: bool,
) -> ActorCritic:
    """The network that `metadata` describe, without its numbers."""
    # The meta device allocates nothing: sizes in a broken file cannot fill the memory.
    with torch.device("meta"):
        observations, actions = read_observations(metadata.get("observations")), read_actions(metadata.get("actions"))
        config = read_network(metadata.get("network"))
        config = dataclasses.replace(config, **modules)
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
