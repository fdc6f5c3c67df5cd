"""MinAtar's Freeway."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from esper.envs.base import DiscreteActions, Images
from esper.envs.device.minatar.game import SIZE, Fields, Game, Numbers, Turn, at, constants, whole

_LANES, _COLUMN, _SPEEDS, _PAUSE, _TIME_LIMIT = 8, 4, 5, 3, 2500


class Freeway(Game):
    """Chicken, until it moves, until the game ends; of each car: its column, until it moves, its speed."""

    observations = Images(shape=(7, SIZE, SIZE), highest=1)
    actions = DiscreteActions(n=3)
    plays = begin_draws = 2 * _LANES
    fields = (
        Numbers(0, SIZE - 1),
        Numbers(0, _PAUSE),
        Numbers(-1, _TIME_LIMIT),
        Numbers(0, SIZE - 1, _LANES),
        Numbers(0, _SPEEDS, _LANES),
        Numbers(-_SPEEDS, _SPEEDS, _LANES),
    )

    def start(self, uniform: Tensor) -> Fields:
        speed = _speeds(uniform)
        return *constants(uniform, SIZE - 1, _PAUSE, _TIME_LIMIT), torch.zeros_like(speed), speed.abs(), speed

    def play(self, fields: Fields, action: Tensor, uniform: Tensor) -> Turn:
        row, pause, time_left, column, timer, speed = fields
        walks = (action > 0) & (pause == 0)
        pause = torch.where(walks, _PAUSE, pause)
        row = torch.where(walks, row + 2 * action - 3, row).clamp(0, SIZE - 1)
        across = row == 0
        new = _speeds(uniform)
        speed, timer = torch.where(across, new, speed), torch.where(across, new.abs(), timer)
        row = torch.where(across, SIZE - 1, row)

        drives = timer == 0
        timer = torch.where(drives, speed.abs(), timer - 1)
        before, column = column, torch.where(drives, (column + _direction(speed)) % SIZE, column)
        lane = torch.arange(1, _LANES + 1, device=row.device) == row
        hit = (lane & ((before == _COLUMN) | (column == _COLUMN))).any(-1, keepdim=True)
        row = torch.where(hit, SIZE - 1, row)
        time_left = time_left - 1
        return Turn((row, (pause - 1).clamp(0), time_left, column, timer, speed), across, time_left < 0)

    def channels(self, fields: Fields) -> tuple[Tensor, ...]:
        row, _, _, column, _, speed = fields
        trail = (column - _direction(speed)) % SIZE
        trails = (_cells(trail, speed.abs() == number) for number in range(1, _SPEEDS + 1))
        return at(row, torch.full_like(row, _COLUMN)), _cells(column, torch.ones_like(column)), *trails


def _speeds(uniform: Tensor) -> Tensor:
    """[N, 8], positive to the right."""
    speeds, sides = uniform.split(_LANES, -1)
    return (1 + whole(speeds, _SPEEDS)) * torch.where(sides < 0.5, -1.0, 1.0)


def _direction(speed: Tensor) -> Tensor:
    return torch.where(speed > 0, 1.0, -1.0)


def _cells(column: Tensor, there: Tensor) -> Tensor:
    """[N, 100], from what is there in each lane."""
    rows = one_hot(column.long(), SIZE).bool() & (there > 0)[:, :, None]
    return pad(rows.flatten(1), (SIZE, SIZE))
