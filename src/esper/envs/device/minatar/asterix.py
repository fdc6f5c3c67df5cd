"""MinAtar's Asterix."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from esper.envs.base import DiscreteActions, Images
from esper.envs.device.minatar.game import SIZE, Fields, Game, Numbers, Turn, at, constants, whole

_LANES, _RAMP_INTERVAL, _SPAWN_SPEED, _MOVE_SPEED = 8, 100, 10, 5


class Asterix(Game):
    """Player, speed and timer of what spawns and of what moves, until it becomes harder, whether moves become faster
    then; of each lane: whether something is in it, its column, whether it goes right, whether it is gold.
    """

    observations = Images(shape=(4, SIZE, SIZE), highest=1)
    actions = DiscreteActions(n=5)
    plays = 3
    fields = (
        Numbers(0, SIZE - 1),
        Numbers(1, _LANES),
        Numbers(1, _SPAWN_SPEED),
        Numbers(0, _SPAWN_SPEED),
        Numbers(1, _MOVE_SPEED),
        Numbers(0, _MOVE_SPEED),
        Numbers(-1, _RAMP_INTERVAL),
        Numbers(0, 1),
        Numbers(0, 1, _LANES),
        Numbers(0, SIZE - 1, _LANES),
        *(Numbers(0, 1, _LANES),) * 2,
    )

    def start(self, uniform: Tensor) -> Fields:
        speeds = (_SPAWN_SPEED, _SPAWN_SPEED, _MOVE_SPEED, _MOVE_SPEED)
        numbers = constants(uniform, 5, 5, *speeds, _RAMP_INTERVAL, 0)
        return *numbers, *(uniform.new_zeros(len(uniform), _LANES),) * 4

    def play(self, fields: Fields, action: Tensor, uniform: Tensor) -> Turn:
        x, y, spawn_speed, spawn_timer, move_speed, move_timer, ramp_timer, odd, *lanes = fields
        spawns, moves = spawn_timer == 0, move_timer == 0
        there, column, right, gold = _spawn(spawns, lanes, uniform)
        x = (x - (action == 1).to(x) + (action == 3).to(x)).clamp(0, SIZE - 1)
        y = (y - (action == 2).to(x) + (action == 4).to(x)).clamp(1, _LANES)
        lane = torch.arange(1, _LANES + 1, device=x.device) == y

        met = there & lane & (column == x)
        there = there & ~(met & gold)
        column = column + torch.where(moves, torch.where(right, 1.0, -1.0), 0.0)
        there = there & (column >= 0) & (column < SIZE)
        met_after = moves & there & lane & (column == x)
        there = there & ~(met_after & gold)
        reward = ((met & gold) | (met_after & gold)).any(-1, keepdim=True)
        lost = ((met | met_after) & ~gold).any(-1, keepdim=True)

        spawn_timer = torch.where(spawns, spawn_speed, spawn_timer) - 1
        move_timer = torch.where(moves, move_speed, move_timer) - 1
        ramping = (spawn_speed > 1) | (move_speed > 1)
        harder = ramping & (ramp_timer < 0)
        ramp_timer = torch.where(harder, _RAMP_INTERVAL, ramp_timer - (ramping & ~harder).to(x))
        move_speed = torch.where(harder & (odd > 0), (move_speed - 1).clamp(1), move_speed)
        spawn_speed = torch.where(harder, (spawn_speed - 1).clamp(1), spawn_speed)
        odd = torch.where(harder, 1 - odd, odd)
        kept = (there, torch.where(there, column, 0.0), there & right, there & gold)
        return Turn((x, y, spawn_speed, spawn_timer, move_speed, move_timer, ramp_timer, odd, *kept), reward, lost)

    def channels(self, fields: Fields) -> tuple[Tensor, ...]:
        x, y, *_, there, column, right, gold = fields
        cells = _cells(column, there > 0)
        gold_cells = _cells(column, (there > 0) & (gold > 0))
        trail = _cells(column - 2 * right + 1, there > 0)
        return at(y, x), cells & ~gold_cells, trail, gold_cells


def _spawn(spawns: Tensor, lanes: list[Tensor], uniform: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What is in the lanes: there, column, right, gold, with something new in one that is free."""
    there, column, right, gold = lanes
    free = there == 0
    chosen = whole(uniform[:, 2:], free.sum(-1, keepdim=True))
    new = spawns & free & (free.cumsum(-1) - 1 == chosen)
    from_left, is_gold = uniform[:, :1] < 1 / 2, uniform[:, 1:2] < 1 / 3
    column = torch.where(new, torch.where(from_left, 0.0, SIZE - 1), column)
    return new | ~free, column, torch.where(new, from_left, right > 0), torch.where(new, is_gold, gold > 0)


def _cells(column: Tensor, there: Tensor) -> Tensor:
    """[N, 100], from what is there in each lane and within the grid."""
    there = there & (column >= 0) & (column < SIZE)
    rows = one_hot(column.clamp(0, SIZE - 1).long(), SIZE).bool() & there[:, :, None]
    return pad(rows.flatten(1), (SIZE, SIZE))
