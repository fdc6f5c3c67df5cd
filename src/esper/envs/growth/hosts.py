"""N hosts on a device, trained and measured together."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from esper.envs.base import StateTree
from esper.envs.growth.blueprints import blueprints_of
from esper.envs.growth.config import GrowthConfig
from esper.envs.growth.data import load
from esper.envs.growth.network import Network, Seeds, host_layout
from esper.envs.growth.stages import LIVE, PLANTED, Slot, Stage
from esper.envs.growth.weights import Stack, Tensors, count
from esper.settings.options import ConfigError

_LEARNS = LIVE | {Stage.TRAINING}
Slots = Sequence[Sequence[Slot]]  # for each host, those of its slots


class Trained(NamedTuple):
    """Means over the steps of an epoch, [N] each: cross-entropy, and accuracy in percent.

    `gradient_ratios` [N, S] are those of the seeds that learned, 0 elsewhere.
    """

    loss: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    gradient_ratios: NDArray[np.float64]


class Validated(NamedTuple):
    """Cross-entropy and accuracy [N] on the images of validation; `contributions` [N, S], NaN where no seed is live."""

    loss: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    contributions: NDArray[np.float64]


class _Group(NamedTuple):
    """The hosts `rows` [K] with a seed of this blueprint, numbered from 0, in this slot."""

    slot: int
    blueprint: int
    rows: Tensor


class Hosts:
    """The weights of N hosts and of all that is, or was, in their slots."""

    def __init__(self, config: GrowthConfig, num_envs: int) -> None:
        self._config, self._num_envs = config, num_envs
        self._device = _device(config.device)
        self._data = load(config, self._device)
        self._blueprints = blueprints_of(config.blueprints)
        host = host_layout(config.channels, self._data.x_train.shape[1], self._data.classes)
        self._hosts = Stack(host, num_envs, self._device)
        self._seeds = [
            [Stack(blueprint.layout(channels), num_envs, self._device) for blueprint in self._blueprints]
            for channels in config.channels
        ]
        self.parameters = count(host)

    def seed_parameters(self, slots: Sequence[Slot]) -> int:
        """Those of what is planted in the `slots` of a host."""
        return sum(
            count(self._seeds[index][slot.blueprint - 1].layout)
            for index, slot in enumerate(slots)
            if slot.stage in PLANTED
        )

    def begin(self, index: int, generator: np.random.Generator) -> None:
        """Draw the weights of a new host."""
        self._hosts.begin(index, generator)

    def plant(self, index: int, slot: int, blueprint: int, generator: np.random.Generator) -> None:
        """Draw the weights of a seed; `blueprint` is numbered from 1."""
        self._seeds[slot][blueprint - 1].begin(index, generator)

    def draw_order(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """[steps, B], the images of an epoch: each once before one is taken again."""
        size = self._config.epoch_steps * self._config.batch_size
        images = len(self._data.x_train)
        passes = [generator.permutation(images) for _ in range(-(-size // images))]
        return np.concatenate(passes)[:size].reshape(self._config.epoch_steps, self._config.batch_size)

    def train(self, slots: Slots, orders: Sequence[NDArray[np.int64]]) -> Trained:
        """One epoch of all hosts, each on the images of its order [steps, B]."""
        order = torch.from_numpy(np.stack(orders, axis=-1)).to(self._device)  # [steps, B, N]
        groups = self._groups(slots, _LEARNS)
        taken = [self._stack(group).taken(group.rows) for group in groups]
        # Not copies: the optimizer steps write into them.
        weights = {name: tensor.detach() for name, tensor in self._hosts.weights.items()}
        optimizer = _optimizer([(weights, self._hosts.momentum), *taken], self._config)
        network = self._network(weights, [self._seeds_of(*each, slots) for each in zip(groups, taken, strict=True)])
        with torch.enable_grad():
            loss, accuracy = self._epoch(network, optimizer, order)
        for group, each in zip(groups, taken, strict=True):
            self._stack(group).put(group.rows, *each)
        return Trained(_on_host(loss), _on_host(accuracy), self._gradient_ratios(groups))

    def _epoch(self, network: Network, optimizer: torch.optim.SGD, order: Tensor) -> tuple[Tensor, Tensor]:
        loss, accuracy = (torch.zeros(self._num_envs, device=self._device) for _ in range(2))
        for chosen in order:
            targets = self._data.y_train[chosen].T
            logits = network(self._data.x_train[chosen].flatten(1, 2), training=True).logits
            losses = _cross_entropies(logits, targets)
            optimizer.zero_grad()
            losses.sum().backward()
            optimizer.step()
            loss += losses.detach()
            accuracy += _accuracies(logits, targets)
        return loss / len(order), accuracy / len(order)

    @torch.no_grad()
    def validate(self, slots: Slots) -> Validated:
        """All hosts on all images of validation; those with live seeds also without each of these."""
        targets = self._data.y_val.expand(self._num_envs, -1)
        groups = self._groups(slots, LIVE)
        seeds = [self._seeds_of(group, self._stack(group).taken(group.rows), slots) for group in groups]
        network = self._network(self._hosts.weights, seeds)
        logits, before = network(self._data.x_val, training=False)
        accuracy = _accuracies(logits, targets)
        contributions = torch.full((self._num_envs, len(before)), torch.nan, device=self._device)
        for slot in sorted({group.slot for group in groups}):
            rows = torch.cat([group.rows for group in groups if group.slot == slot])
            without = _accuracies(network.without(slot, before[slot]), targets)
            contributions[rows, slot] = (accuracy - without)[rows]
        return Validated(_on_host(_cross_entropies(logits, targets)), _on_host(accuracy), _on_host(contributions))

    def _groups(self, slots: Slots, stages: Collection[Stage]) -> list[_Group]:
        """Hosts with a seed of the same blueprint in the same slot, in one of the `stages`."""
        found: dict[tuple[int, int], list[int]] = {}
        for index, row in enumerate(slots):
            for number, slot in enumerate(row):
                if slot.stage in stages:
                    found.setdefault((number, slot.blueprint - 1), []).append(index)
        return [_Group(*key, torch.tensor(rows, device=self._device)) for key, rows in sorted(found.items())]

    def _stack(self, group: _Group) -> Stack:
        return self._seeds[group.slot][group.blueprint]

    def _seeds_of(self, group: _Group, taken: tuple[Tensors, Tensors], slots: Slots) -> tuple[int, Seeds]:
        those = [slots[row][group.slot] for row in group.rows.tolist()]
        training = [slot.stage is Stage.TRAINING for slot in those]
        shape = (len(those), 1, 1, 1)
        return group.slot, Seeds(
            blueprint=self._blueprints[group.blueprint],
            weights=taken[0],
            rows=group.rows,
            alpha=torch.tensor([slot.alpha for slot in those], device=self._device).view(shape),
            training=torch.tensor(training, device=self._device).view(shape) if any(training) else None,
        )

    def _network(self, weights: Tensors, seeds: Sequence[tuple[int, Seeds]]) -> Network:
        blocks = len(self._config.channels)
        return Network(weights, blocks, [[each for slot, each in seeds if slot == block] for block in range(blocks)])

    def _gradient_ratios(self, groups: Sequence[_Group]) -> NDArray[np.float64]:
        ratios = torch.zeros(self._num_envs, len(self._config.channels), device=self._device)
        for group in groups:
            of_host = self._hosts.gradient_size(group.rows)
            ratios[group.rows, group.slot] = self._stack(group).gradient_size(group.rows) / of_host
        return _on_host(ratios)

    def state_dict(self) -> StateTree:
        return {name: stack.state_dict() for name, stack in self._stacks().items()}

    def load_state_dict(self, state: StateTree) -> None:
        """Restore `state`.

        Raises:
            ValueError: when it is not of such hosts.
        """
        stacks = self._stacks()
        if set(state) != set(stacks):
            raise ValueError(f"weights of {', '.join(map(str, state)):.200} are not those of {', '.join(stacks)}")
        for name, stack in stacks.items():
            stack.load_state_dict(state[name])

    def _stacks(self) -> dict[str, Stack]:
        seeds = {
            f"seeds.{slot}.{number}": stack
            for slot, stacks in enumerate(self._seeds)
            for number, stack in enumerate(stacks)
        }
        return {"hosts": self._hosts, **seeds}


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise ConfigError("device", name, f"cannot be used here: {str(error).splitlines()[0]}") from None
    return device


def _optimizer(stacks: Sequence[tuple[Tensors, Tensors]], config: GrowthConfig) -> torch.optim.SGD:
    """SGD of weights, whose momentum is given and written to; marks those that have one as parameters."""
    buffers = {weights[name].requires_grad_(): each for weights, momentum in stacks for name, each in momentum.items()}
    optimizer = torch.optim.SGD(list(buffers), lr=config.host_lr, momentum=config.host_momentum, foreach=True)
    for parameter, buffer in buffers.items():
        optimizer.state[parameter]["momentum_buffer"] = buffer
    return optimizer


def _cross_entropies(logits: Tensor, targets: Tensor) -> Tensor:
    """[N], means over the images; logits [N, B, classes], targets [N, B]."""
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return losses.view(targets.shape).mean(1)


def _accuracies(logits: Tensor, targets: Tensor) -> Tensor:
    """[N], percent."""
    return 100 * (logits.argmax(-1) == targets).float().mean(1)


def _on_host(numbers: Tensor) -> NDArray[np.float64]:
    return numbers.cpu().numpy().astype(np.float64)
