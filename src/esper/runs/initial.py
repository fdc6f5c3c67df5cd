"""What a run begins with: the weights of another run, of one of its checkpoints, or of a policy."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from esper.policies.policy import POLICY, Policy, read_policy
from esper.runs.checkpoint.folder import checkpoints_in
from esper.runs.config import RunConfig
from esper.runs.folder import CHECKPOINTS
from esper.runs.initial_config import InitialConfig
from esper.runs.resume.point import ResumeError, find_resume_point, is_checkpoint
from esper.settings.options import ConfigError
from esper.settings.values import spelled
from esper.simic.nets.actor_critic import ActorCritic
from esper.simic.ppo import PPOAgent
from esper.storage import files
from esper.storage.store import StoreError
from esper.storage.tree import TreeError, check_form

_log = logging.getLogger(__name__)

_NORMALIZER, _REWARDS = "normalizer.", "reward_scaler."
# Running statistics; `discounted` is about the episodes of the other run.
_STATISTICS = ("mean", "var", "count")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where weights are from: `name` in messages, and what is there; `updates` of training."""

    name: str
    updates: int
    network: Mapping[str, Tensor]
    activation: object
    reward_scaler: Mapping[str, Tensor] | None = None
    optimizer: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What a run began with: the names of the tensors that were taken, and why others are new, or were left out."""

    source: str
    updates: int
    taken: tuple[str, ...]
    new: Mapping[str, str]
    skipped: Mapping[str, str]

    def lines(self) -> Iterator[str]:
        """A line for each tensor."""
        yield f"begins with the policy of {self.source}, {self.updates:,} updates old:"
        yield from (f"  taken    {name}" for name in self.taken)
        yield from (f"  new      {name}: {why}" for name, why in self.new.items())
        yield from (f"  skipped  {name}: {why}" for name, why in self.skipped.items())

    def recorded(self) -> dict[str, Any]:
        """As in the record."""
        return {
            "source": self.source,
            "updates": self.updates,
            "taken": list(self.taken),
            "new": dict(self.new),
            "skipped": dict(self.skipped),
        }


def begin_with(config: RunConfig, agent: PPOAgent) -> Begun | None:
    """Write what `config.initial` names into the new `agent`, in place, and log it; None where it names nothing.

    Raises:
        ConfigError: for files that cannot be read, nothing in which is executed, and for what does not fit, with each
            tensor.
    """
    initial = config.initial
    if initial.init_from is None:
        return None
    source = _read(initial)
    _check_activation(source, agent)
    begun = _fit(source, initial, agent)
    if initial.init_what == "optimizer":
        _load_optimizer(source, begun, agent)
    network = {name: source.network[name] for name in begun.taken if not name.startswith(_REWARDS)}
    _check(source, network, agent.network.state_dict())
    agent.network.load_state_dict({**agent.network.state_dict(), **network})
    if source.reward_scaler is not None and _REWARDS + "mean" in begun.taken:
        statistics = {name: source.reward_scaler[name] for name in _STATISTICS}
        _check(source, statistics, agent.reward_scaler.state_dict())
        agent.reward_scaler.load_state_dict({**agent.reward_scaler.state_dict(), **statistics})
    for line in begun.lines():
        _log.info("%s", line)
    return begun


def _read(initial: InitialConfig) -> Source:
    if initial.given is not None:
        return _of_policy(initial.given)
    path = Path(str(initial.init_from))
    if initial.was_given:
        raise ConfigError("init_from", str(path), "was passed from Python, where it must be passed again")
    try:
        has_checkpoints = is_checkpoint(path) or checkpoints_in(path / CHECKPOINTS)
        return _of_run(path) if has_checkpoints or not files.is_there(path / f"{POLICY}.json") else _of_files(path)
    except (StoreError, ResumeError) as error:
        raise ConfigError("init_from", str(path), str(error).removeprefix(f"{path}: ")) from None


def _of_policy(policy: Policy) -> Source:
    network = policy.network
    return Source(
        name=str(InitialConfig.PASSED),
        updates=policy.updates,
        network=network.state_dict(),
        activation=None if network.is_given else spelled(network.config.activation),
    )


def _of_files(folder: Path) -> Source:
    tensors, metadata = read_policy(folder)
    network, updates = metadata.get("network"), metadata.get("updates", 0)
    made_from_settings = isinstance(network, dict) and metadata.get("network_from") is None
    return Source(
        name=str(folder),
        updates=updates if type(updates) is int else 0,
        network=tensors,
        activation=network.get("activation") if made_from_settings and isinstance(network, dict) else None,
    )


def _of_run(path: Path) -> Source:
    point = find_resume_point(path)
    if point.state is None:
        raise ConfigError("init_from", str(path), "has no checkpoint and no policy yet")
    agent = point.state["training"]["agent"]
    ppo = point.config.ppo
    return Source(
        name=str(point.source),
        updates=agent["train_steps"],
        network=agent["network"],
        activation=None if point.config.parts.network else spelled(ppo.network.activation),
        reward_scaler=agent["reward_scaler"] if ppo.normalize_rewards else None,
        optimizer=agent["optimizer"],
    )


def _check_activation(source: Source, agent: PPOAgent) -> None:
    """Refuse weights that another activation follows: no shape would show it."""
    ours = spelled(agent.config.network.activation)
    if source.activation is not None and not agent.network.is_given and source.activation != ours:
        allowed = f"the weights of {source.name} are of {source.activation!s:.60}; give it as activation, too"
        raise ConfigError("activation", ours, allowed)


def _fit(source: Source, initial: InitialConfig, agent: PPOAgent) -> Begun:
    """What of `source` is taken.

    Raises:
        ConfigError: naming each tensor that does not fit, with both shapes.
    """
    ours, theirs = agent.network.state_dict(), source.network
    heads = _heads(agent.network, {*ours, *theirs})
    normalizer = [name for name in (*ours, *theirs) if name.startswith(_NORMALIZER)]
    left: dict[str, str] = {}
    if any(_shape(theirs, name) != _shape(ours, name) for name in heads):
        left |= {name: f"{_shape(theirs, name)} there, {_shape(ours, name)} here: other actions" for name in heads}
    if initial.init_what == "weights":
        left |= dict.fromkeys(normalizer, "init_what is weights")
    wrong = [
        f"\n  {name}: {_shape(theirs, name)} there, {_shape(ours, name)} here"
        for name in dict.fromkeys((*ours, *theirs))
        if name not in left and _shape(ours, name) != _shape(theirs, name)
    ]
    if wrong:
        hint = _HINT if any(name in line for line in wrong for name in normalizer) else ""
        raise ConfigError("init_from", source.name, f"does not fit this network:{''.join(wrong)}{hint}")
    taken = [name for name in ours if name not in left]
    new = {name: why for name, why in left.items() if name in ours}
    skipped = {name: why for name, why in left.items() if name not in ours}
    rewards = [_REWARDS + name for name in _STATISTICS] if agent.config.normalize_rewards else []
    if initial.init_what == "weights":
        new |= dict.fromkeys(rewards, "init_what is weights")
    elif source.reward_scaler is None:
        new |= dict.fromkeys(rewards, "there are none there")
    else:
        taken += rewards
    return Begun(source=source.name, updates=source.updates, taken=tuple(taken), new=new, skipped=skipped)


_HINT = (
    "\nits normalizer has the statistics of its observations: give the same normalize_observations, or init_what "
    "weights to leave it out"
)


def _heads(network: ActorCritic, names: set[str]) -> list[str]:
    """Of `names` those of the policy's last layer; a network from Python has no layer that is known to be that."""
    last = f"actor.{len(network.actor) - 1}."
    return [] if network.is_given else sorted(name for name in names if name.startswith(last) or name == "log_std")


def _shape(tensors: Mapping[str, Tensor], name: str) -> str:
    return str(list(tensors[name].shape)) if name in tensors else "none"


def _load_optimizer(source: Source, begun: Begun, agent: PPOAgent) -> None:
    if source.optimizer is None:
        allowed = f"needs a run or a checkpoint; {source.name} is a policy, which has no state of an optimizer"
        raise ConfigError("init_what", "optimizer", allowed)
    if heads := [name for name in begun.new if not name.startswith((_NORMALIZER, _REWARDS))]:
        raise ConfigError("init_what", "optimizer", f"has no state for what is new: {', '.join(heads)}")
    try:
        check_form(source.optimizer, agent.optimizer.state_form(), finite=True, path="optimizer")
        agent.optimizer.load_state_dict(source.optimizer)
    except (ValueError, LookupError, TypeError, RuntimeError) as error:
        raise ConfigError("init_what", "optimizer", f"{source.name}: {error}") from None


def _check(source: Source, tensors: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> None:
    """Refuse values that are not finite, or of another type."""
    try:
        check_form(tensors, {name: ours[name] for name in tensors}, finite=True)
    except TreeError as error:
        raise ConfigError("init_from", source.name, str(error)) from None
