"""What the games have in common: whole numbers as states, sticky actions, a grid of 10x10 cells."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, NamedTuple, TypeAlias

import torch
from torch import Tensor

from esper.envs.device.dynamics import Dynamics, Outcome

STICKY_ACTION_PROB = 0.1
# A game ends only when the player loses; this limit ends the others.
MAX_EPISODE_STEPS = 10_000
SIZE = 10
CELLS = SIZE * SIZE

# Parts of states, [N, size] each.
Fields: TypeAlias = tuple[Tensor, ...]


class Numbers(NamedTuple):
    """`size` whole numbers of a state, each from `low` to `high`."""

    low: int
    high: int
    size: int = 1


class Turn(NamedTuple):
    """What a step makes of a game: its fields, rewards [N, 1], and whether it is lost [N, 1]."""

    fields: Fields
    reward: Tensor
    lost: Tensor


class Game(Dynamics):
    """A state is the last action, which the next game inherits, and the numbers of `fields`, in order.

    A game draws `plays` numbers in a step. Cells are numbered row by row.
    """

    fields: ClassVar[tuple[Numbers, ...]]
    plays: ClassVar[int] = 0
    begin_draws = 0
    max_episode_steps = MAX_EPISODE_STEPS

    def __init_subclass__(cls) -> None:
        cls.state_size = 1 + sum(field.size for field in cls.fields)
        cls.step_draws = 1 + cls.plays

    @abstractmethod
    def start(self, uniform: Tensor) -> Fields:
        """The fields when a game starts, from `uniform` [N, begin_draws]."""

    @abstractmethod
    def play(self, fields: Fields, action: Tensor, uniform: Tensor) -> Turn:
        """A step after `action` [N, 1], with `uniform` [N, plays]."""

    @abstractmethod
    def channels(self, fields: Fields) -> tuple[Tensor, ...]:
        """Which cells [N, 100] have an object, for each kind of object."""

    def begin(self, state: Tensor, uniform: Tensor) -> Tensor:
        return torch.cat((state[:, :1], *self.start(uniform)), -1)

    def step(self, state: Tensor, action: Tensor, uniform: Tensor) -> Outcome:
        last_action, *fields = self._split(state)
        sticks = uniform[:, :1] < STICKY_ACTION_PROB
        action = torch.where(sticks, last_action, action[:, None].to(state.dtype))
        turn = self.play(tuple(fields), action, uniform[:, 1:])
        moved = torch.cat((action, *(field.to(state.dtype) for field in turn.fields)), -1)
        return Outcome(moved, turn.reward.squeeze(-1).to(state.dtype), turn.lost.squeeze(-1))

    def observe(self, state: Tensor) -> Tensor:
        _, *fields = self._split(state)
        channels = torch.stack(self.channels(tuple(fields)), 1)
        return channels.to(torch.uint8).view(len(state), -1, SIZE, SIZE)

    def is_possible(self, state: Tensor) -> bool:
        whole = bool((state == state.round()).all())
        actions = Numbers(0, self.actions.outputs - 1)
        parts = zip((actions, *self.fields), self._split(state), strict=True)
        return whole and all(bool(((part >= low) & (part <= high)).all()) for (low, high, _), part in parts)

    def _split(self, state: Tensor) -> tuple[Tensor, ...]:
        parts: tuple[Tensor, ...] = state.split([1, *(field.size for field in self.fields)], -1)
        return parts


def whole(uniform: Tensor, count: int | Tensor) -> Tensor:
    """Whole numbers from 0 to below `count`."""
    return (uniform * count).floor()


def at(row: Tensor | int, column: Tensor) -> Tensor:
    """The cells [N, 100] in `row` and `column` [N, 1]; none outside of the grid."""
    cells = torch.arange(CELLS, device=column.device)
    return (cells == row * SIZE + column) & (column >= 0) & (column < SIZE)


def constants(uniform: Tensor, *values: int) -> Fields:
    """Fields with the same number in every environment."""
    return tuple(uniform.new_full((len(uniform), 1), value) for value in values)
