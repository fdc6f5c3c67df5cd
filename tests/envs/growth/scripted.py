"""Stands in for the environment: hosts whose accuracies are given, and seeds that move on by the gates' own rules."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esper.envs.base import EnvSpec, MultiDiscreteActions, Step, Vectors
from esper.envs.growth.config import GrowthConfig
from esper.envs.growth.masks import action_mask, effective
from esper.envs.growth.reward import reward_of
from esper.envs.growth.stages import LIVE, Action, Host, Slot, act, advance, measured
from esper.envs.growth.vector import Epoch

# What a live seed of each blueprint adds to the accuracy, in points.
WORTH = (4.0, -3.0, 2.0, 0.3)


class ScriptedEnv:
    """Accuracy rises to 60 in five epochs and stays there but for what seeds are worth, times alpha."""

    def __init__(self, config: GrowthConfig, num_envs: int) -> None:
        self.config = config
        actions = MultiDiscreteActions(nvec=tuple(map(len, config.choices)))
        self.spec = EnvSpec(num_envs=num_envs, observations=Vectors(size=3), actions=actions, masked=True)
        self.hosts: tuple[Host, ...] = ()
        self.epochs: tuple[Epoch, ...] = ()
        self.closed = False

    @property
    def action_masks(self) -> Any:
        return np.stack([action_mask(host, self.config) for host in self.hosts])

    def reset(self, seed: int) -> NDArray[np.float32]:
        self.hosts = tuple(self._begin() for _ in range(self.spec.num_envs))
        return self._obs()

    def step(self, actions: NDArray[Any]) -> Step:
        pairs = zip(self.hosts, actions, strict=True)
        self.epochs = tuple(self._epoch(host, Action.of(tuple(action))) for host, action in pairs)
        self.hosts = tuple(self._begin() if epoch.ended else epoch.after for epoch in self.epochs)
        ended = np.array([epoch.ended for epoch in self.epochs])
        return Step(
            obs=self._obs(),
            reward=np.array([epoch.reward.total for epoch in self.epochs]),
            terminated=ended,
            truncated=np.zeros_like(ended),
            final_obs=self._obs(),
            ignored=None,
        )

    def close(self) -> None:
        self.closed = True

    def _begin(self) -> Host:
        numbers: dict[str, Any] = {"val_losses": (2.3,), "val_accuracies": (10.0,), "parameters": 6_400}
        slots = (Slot(),) * len(self.config.slots)
        return Host(epoch=0, train_loss=0.0, train_accuracy=0.0, slots=slots, **numbers)

    def _epoch(self, host: Host, chosen: Action) -> Epoch:
        done = effective(chosen, host, self.config)
        slots = list(host.slots)
        slots[done.slot] = act(slots[done.slot], done, host.val_accuracy, self.config)
        worth = [WORTH[slot.blueprint - 1] * slot.alpha if slot.stage in LIVE else 0.0 for slot in slots]
        # Half a point in three epochs, so that gates open on a plateau.
        accuracy = min(10.0 * (host.epoch + 2), 60.0) + 0.2 * host.epoch + sum(worth)
        after = dataclasses.replace(
            host,
            epoch=host.epoch + 1,
            val_losses=(*host.val_losses, 1.0 if host.epoch > 1 else 1.5),
            val_accuracies=(*host.val_accuracies, accuracy),
            seed_parameters=sum(100 * slot.blueprint for slot in slots if slot.blueprint),
            slots=tuple(
                advance(measured(slot, accuracy, points if slot.stage in LIVE else None, 1.0), accuracy, self.config)
                for slot, points in zip(slots, worth, strict=True)
            ),
        )
        ended = after.epoch == self.config.epochs
        reward = reward_of(host, done, after, ended=ended, config=self.config)
        return Epoch(before=host, chosen=chosen, done=done, after=after, reward=reward, ended=ended)

    def _obs(self) -> NDArray[np.float32]:
        return np.array([[host.epoch, host.val_loss, host.val_accuracy] for host in self.hosts], dtype=np.float32)
