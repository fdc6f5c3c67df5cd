"""`esper/Growth-v0` as a `VectorEnv`: the hosts of all environments are trained together."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esper.envs.base import BoolArray, EnvSpec, FloatArray, MultiDiscreteActions, StateTree, Step, Vectors
from esper.envs.growth import state
from esper.envs.growth.config import GrowthConfig
from esper.envs.growth.hosts import Hosts, Validated
from esper.envs.growth.masks import action_mask, effective
from esper.envs.growth.observation import names, observation
from esper.envs.growth.reward import Reward, reward_of
from esper.envs.growth.stages import Action, Host, Operation, Slot, act, advance, measured
from esper.system.torch_defaults import torch_defaults

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One step of one environment: the host `before` it, what was `chosen` and `done`, the host `after` it.

    `done` is `chosen`, or waiting where that could not be done. `after` is the host at the end of the step, also where
    the episode `ended` with it and the environment began another one.
    """

    before: Host
    chosen: Action
    done: Action
    after: Host
    reward: Reward
    ended: bool


class GrowthVectorEnv:
    """N hosts, each in an episode of its own.

    An action [4] is slot, blueprint, blend, operation; `Action.numbers` makes one. An episode terminates after
    `config.epochs` epochs, or when its host diverges, which is no success; `max_episode_steps` truncates it before.
    `hosts` are those that the next actions meet; `epochs` are the latest steps, none before the first. All random
    numbers are drawn on the host by a generator for each environment, so that devices see the same ones.
    """

    @torch_defaults()
    def __init__(self, config: GrowthConfig, num_envs: int, max_episode_steps: int | None = None) -> None:
        self.config = config
        self._limit = max_episode_steps or config.epochs
        self._grown = Hosts(config, num_envs)
        self.spec = EnvSpec(
            num_envs=num_envs,
            observations=Vectors(size=len(names(config))),
            actions=MultiDiscreteActions(nvec=tuple(map(len, config.choices))),
            masked=True,
            max_episode_steps=min(self._limit, config.epochs),
        )
        self.reset(0)

    @property
    def action_masks(self) -> BoolArray:
        return np.stack([action_mask(host, self.config) for host in self.hosts])

    @torch_defaults()
    def reset(self, seed: int) -> FloatArray:
        seeds = np.random.SeedSequence(seed).spawn(self.spec.num_envs)
        self._generators = [np.random.default_rng(each) for each in seeds]
        self.hosts: tuple[Host, ...] = ()
        self.epochs: tuple[Epoch, ...] = ()
        self.begin(range(self.spec.num_envs))
        return self.observe()

    def observe(self) -> FloatArray:
        """[N, D], the observations of the hosts."""
        return self._observations(self.hosts)

    def begin(self, indices: Sequence[int]) -> None:
        """Begin a new episode in these environments, with a new host."""
        for index in indices:
            self._grown.begin(index, self._generators[index])
        empty = (Slot(),) * len(self.config.channels)
        # The others are measured, too, and this is not used.
        found = self._grown.validate([empty] * self.spec.num_envs)
        new = [
            Host(
                epoch=0,
                train_loss=0.0,
                train_accuracy=0.0,
                val_losses=(float(loss),),
                val_accuracies=(float(accuracy),),
                slots=empty,
                parameters=self._grown.parameters,
            )
            for loss, accuracy in zip(found.loss, found.accuracy, strict=True)
        ]
        self.hosts = tuple(new[i] if i in indices else self.hosts[i] for i in range(self.spec.num_envs))

    @torch_defaults()
    def step(self, actions: NDArray[np.generic]) -> Step:
        self.epochs = self._advance([Action.of(tuple(row)) for row in actions.tolist()])
        after = tuple(epoch.after for epoch in self.epochs)
        terminated = np.array([epoch.ended for epoch in self.epochs])
        truncated = ~terminated & np.array([host.epoch >= self._limit for host in after])
        self.hosts, final_obs = after, None
        if len(ended := np.flatnonzero(terminated | truncated)):
            final_obs = self._observations(after)
            self.begin(ended.tolist())
        return Step(
            obs=self.observe(),
            reward=np.array([epoch.reward.total for epoch in self.epochs]),
            terminated=terminated,
            truncated=truncated,
            final_obs=final_obs,
            ignored=None,
            success=np.where(terminated | truncated, [not host.diverged for host in after], np.nan),
        )

    def _advance(self, chosen: Sequence[Action]) -> tuple[Epoch, ...]:
        """One epoch of all hosts."""
        done = [effective(action, host, self.config) for action, host in zip(chosen, self.hosts, strict=True)]
        slots = [
            self._acted(index, action, host) for index, (action, host) in enumerate(zip(done, self.hosts, strict=True))
        ]
        trained = self._grown.train(slots, [self._grown.draw_order(generator) for generator in self._generators])
        validated = self._grown.validate(slots)
        epochs = []
        for index, (before, action) in enumerate(zip(self.hosts, done, strict=True)):
            after = dataclasses.replace(
                before,
                epoch=before.epoch + 1,
                train_loss=float(trained.loss[index]),
                train_accuracy=float(trained.accuracy[index]),
                val_losses=(*before.val_losses, float(validated.loss[index])),
                val_accuracies=(*before.val_accuracies, float(validated.accuracy[index])),
                slots=self._measured(slots[index], trained.gradient_ratios[index], validated, index),
                seed_parameters=self._grown.seed_parameters(slots[index]),
                diverged=not np.isfinite([trained.loss[index], validated.loss[index]]).all(),
            )
            if after.diverged:
                _log.warning("environment %d: its host diverged in epoch %d; the episode ends", index, after.epoch)
            ended = after.diverged or after.epoch >= self.config.epochs
            reward = reward_of(before, action, after, ended=ended, config=self.config)
            epochs.append(
                Epoch(before=before, chosen=chosen[index], done=action, after=after, reward=reward, ended=ended)
            )
        return tuple(epochs)

    def _acted(self, index: int, action: Action, host: Host) -> tuple[Slot, ...]:
        """The slots of a host after `action`, which draws the weights of a new seed."""
        if action.operation is Operation.GERMINATE:
            self._grown.plant(index, action.slot, action.blueprint, self._generators[index])
        slots = list(host.slots)
        slots[action.slot] = act(slots[action.slot], action, host.val_accuracy, self.config)
        return tuple(slots)

    def _measured(
        self, slots: Sequence[Slot], ratios: NDArray[np.float64], validated: Validated, index: int
    ) -> tuple[Slot, ...]:
        """The slots at the end of the epoch, each in its next stage where the gate is open."""
        accuracy, contributions = float(validated.accuracy[index]), validated.contributions[index].tolist()
        found = []
        for slot, ratio, contribution in zip(slots, ratios.tolist(), contributions, strict=True):
            known = None if np.isnan(contribution) else contribution
            found.append(advance(measured(slot, accuracy, known, ratio), accuracy, self.config))
        return tuple(found)

    def _observations(self, hosts: Sequence[Host]) -> FloatArray:
        return np.stack([observation(host, self.config) for host in hosts])

    def state_dict(self) -> StateTree:
        generators = {str(index): each.bit_generator.state for index, each in enumerate(self._generators)}
        hosts = {str(index): state.encoded(host) for index, host in enumerate(self.hosts)}
        return {"weights": self._grown.state_dict(), "hosts": hosts, "generators": generators}

    def load_state_dict(self, state_: StateTree) -> None:
        names_ = {str(index) for index in range(self.spec.num_envs)}
        if set(state_) != {"weights", "hosts", "generators"} or set(state_["hosts"]) != names_:
            raise ValueError(f"is no state of {self.spec.num_envs} hosts")
        self._grown.load_state_dict(state_["weights"])
        hosts: Any = [state.decoded(state_["hosts"][str(index)]) for index in range(self.spec.num_envs)]
        if any(len(host.slots) != len(self.config.channels) for host in hosts):
            raise ValueError(f"is no state of hosts with {len(self.config.channels)} slots")
        for index, generator in enumerate(self._generators):
            generator.bit_generator.state = state_["generators"][str(index)]
        self.hosts, self.epochs = tuple(hosts), ()

    def close(self) -> None: ...
