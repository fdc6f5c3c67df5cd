"""MinAtar's Seaquest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from esper.envs.base import DiscreteActions, Images
from esper.envs.device.minatar.game import CELLS, SIZE, Fields, Game, Numbers, Turn, at, constants, whole

_ROWS, _AIR, _CABINS = 8, 200, 6
_SPAWN_INTERVAL, _DIVER_INTERVAL, _RELOAD, _DIVER_PAUSE, _ENEMY_RELOAD = 20, 30, 5, 5, 10
# A further shot, diver or enemy would come after the first has left: a shot every 5 steps crosses the grid in 9, a
# diver every 30 steps in 60, an enemy every step in 30.
_SHOTS, _DIVERS, _ENEMIES = 2, 2, 30


class Shots(NamedTuple):
    """Of the player, in the order of coming, as divers and enemies: -1 to the left, 1 to the right, 0 for none."""

    heading: Tensor
    row: Tensor
    column: Tensor


class Divers(NamedTuple):
    """With the steps until they move."""

    heading: Tensor
    row: Tensor
    column: Tensor
    timer: Tensor


class Enemies(NamedTuple):
    """Fish and submarines, with the steps until they move, whether they are submarines, and until these shoot."""

    heading: Tensor
    row: Tensor
    column: Tensor
    timer: Tensor
    is_sub: Tensor
    reload: Tensor


Things = TypeVar("Things", Shots, Divers, Enemies)


class Seaquest(Game):
    """Oxygen, divers aboard, player, whether it faces right, steps between enemies, until an enemy, until a diver,
    until the player can shoot; where enemies' bullets go left, and right; `Shots`, `Divers`, `Enemies`.

    With all cabins full, surfacing leaves one diver less than none, and one less each time that the player surfaces
    then. The player is at the surface in row 0.
    """

    observations = Images(shape=(10, SIZE, SIZE), highest=1)
    actions = DiscreteActions(n=6)
    plays = 5
    fields = (
        Numbers(-1, _AIR),
        Numbers(-(2**20), _CABINS),
        Numbers(0, SIZE - 1),
        Numbers(0, _ROWS),
        Numbers(0, 1),
        Numbers(1, _SPAWN_INTERVAL),
        Numbers(0, _SPAWN_INTERVAL),
        Numbers(0, _DIVER_INTERVAL),
        Numbers(0, _RELOAD),
        *(Numbers(0, 1, CELLS),) * 2,
        *(Numbers(-1, 1, _SHOTS), Numbers(0, _ROWS, _SHOTS), Numbers(0, SIZE - 1, _SHOTS)),
        *(Numbers(-1, 1, _DIVERS), Numbers(0, _ROWS, _DIVERS), Numbers(0, SIZE - 1, _DIVERS)),
        Numbers(0, _DIVER_PAUSE, _DIVERS),
        *(Numbers(-1, 1, _ENEMIES), Numbers(0, _ROWS, _ENEMIES), Numbers(0, SIZE - 1, _ENEMIES)),
        *(Numbers(0, 5, _ENEMIES), Numbers(0, 1, _ENEMIES), Numbers(0, _ENEMY_RELOAD, _ENEMIES)),
    )

    def start(self, uniform: Tensor) -> Fields:
        timers = (_SPAWN_INTERVAL, _SPAWN_INTERVAL, _DIVER_INTERVAL, 0)
        numbers = constants(uniform, _AIR, 0, 5, 0, 0, *timers)
        return *numbers, *(uniform.new_zeros(len(uniform), field.size) for field in self.fields[len(numbers) :])

    def play(self, fields: Fields, action: Tensor, uniform: Tensor) -> Turn:
        (oxygen, aboard, x, y, right, interval, spawn_timer, diver_timer, reload), *bullets = fields[:9], *fields[9:11]
        shots, divers, enemies = _things(fields)
        spawns, dives, row_before = spawn_timer == 0, diver_timer == 0, y
        enemies = _spawn(enemies, spawns, _pause(interval), uniform[:, :3])
        divers = _joined(divers, dives, *_coming(uniform[:, 3:]), torch.full_like(x, _DIVER_PAUSE))
        fires = (action == 5) & (reload == 0)
        shots = _joined(shots, fires, 2 * right - 1, y, x)
        x = (x - (action == 1).to(x) + (action == 3).to(x)).clamp(0, SIZE - 1)
        y = (y - (action == 2).to(x) + (action == 4).to(x)).clamp(0, _ROWS)
        right = torch.where(action == 3, 1.0, torch.where(action == 1, 0.0, right))

        shots = _moved(shots, shots.heading != 0)
        shots, enemies, kills = _strike(shots, enemies, enemies.heading != 0, reversed(range(_SHOTS)))
        divers, aboard = _collect(divers, x, y, aboard)
        before, enemies = enemies, _turn(enemies, _pause(interval))
        moves = before.timer == 0
        met = _meets(before, x, y) | moves & _meets(enemies, x, y)
        bullets, hit = _shoot(bullets, before, enemies, at(y, x))
        shots, enemies, more_kills = _strike(shots, enemies, moves & ~_meets(enemies, x, y), range(_SHOTS))

        surfaces, full = (y == 0) & (row_before > 0), aboard == _CABINS
        lost = met.any(-1, keepdim=True) | hit | (oxygen <= 0) | surfaces & (aboard == 0)
        surfaces &= aboard != 0
        reward = kills + more_kills + torch.where(surfaces & full, (oxygen / 20).floor(), 0.0)
        oxygen = torch.where(surfaces, _AIR, oxygen - (y > 0).to(x))
        aboard = torch.where(surfaces, torch.where(full, 0.0, aboard) - 1, aboard)
        timers = (
            torch.where(spawns, interval, spawn_timer),
            torch.where(dives, _DIVER_INTERVAL, diver_timer),
            torch.where(fires, _RELOAD, reload),
        )
        interval = torch.where(surfaces, (interval - 1).clamp(1), interval)
        numbers = oxygen, aboard, x, y, right, interval, *((timer - 1).clamp(0) for timer in timers)
        kept = (*numbers, *bullets, *_swept(shots), *_swept(divers), *_swept(enemies))
        return Turn(kept, reward, lost)

    def channels(self, fields: Fields) -> tuple[Tensor, ...]:
        oxygen, aboard, x, y, right, *_ = fields
        shots, divers, enemies = _things(fields)
        cells = torch.arange(CELLS, device=x.device)
        gauge, column = cells // SIZE == SIZE - 1, cells % SIZE
        fish, subs = (torch.where(enemies.is_sub == sub, enemies.heading, 0.0) for sub in (0, 1))
        behind = _cells(*enemies[:3], offset=-1) | _cells(*divers[:3], offset=-1)
        return (
            at(y, x),
            at(y, x + 1 - 2 * right),
            _cells(*shots),
            behind,
            (fields[9] > 0) | (fields[10] > 0),
            _cells(fish, *enemies[1:3]),
            _cells(subs, *enemies[1:3]),
            gauge & (column < (oxygen / 20).floor()),
            gauge & (column >= SIZE - 1 - aboard) & (column < SIZE - 1),
            _cells(*divers[:3]),
        )


def _things(fields: Fields) -> tuple[Shots, Divers, Enemies]:
    return Shots(*fields[11:14]), Divers(*fields[14:18]), Enemies(*fields[18:])


def _pause(interval: Tensor) -> Tensor:
    """Between moves of enemies: 5 steps, one less after every second surfacing, at least 2."""
    return (((interval + 1) / 2).floor() - 5).clamp(2)


def _coming(uniform: Tensor) -> Fields:
    """Heading, row and column of who comes in from a side."""
    left = uniform[:, :1] < 1 / 2
    row = 1 + whole(uniform[:, 1:], _ROWS)
    return torch.where(left, 1.0, -1.0), row, torch.where(left, 0.0, SIZE - 1)


def _spawn(enemies: Enemies, spawns: Tensor, pause: Tensor, uniform: Tensor) -> Enemies:
    heading, row, column = _coming(uniform[:, ::2])
    blocked = ((enemies.heading == -heading) & (enemies.row == row)).any(-1, keepdim=True)
    is_sub = (uniform[:, 1:2] < 1 / 3).to(pause)
    return _joined(enemies, spawns & ~blocked, heading, row, column, pause, is_sub, is_sub * _ENEMY_RELOAD)


def _joined(things: Things, joins: Tensor, *new: Tensor) -> Things:
    """With the fields of a new one at the end."""
    later = (torch.cat((field[:, 1:], value), -1) for field, value in zip(things, new, strict=True))
    return type(things)(*(torch.where(joins, *both) for both in zip(later, things, strict=True)))


def _moved(things: Things, moves: Tensor) -> Things:
    column = torch.where(moves, things.column + things.heading, things.column)
    inside = (column >= 0) & (column < SIZE)
    return things._replace(column=column, heading=torch.where(inside, things.heading, 0.0))


def _meets(things: Divers | Enemies, x: Tensor, y: Tensor) -> Tensor:
    return (things.heading != 0) & (things.row == y) & (things.column == x)


def _strike(shots: Shots, enemies: Enemies, exposed: Tensor, order: Iterable[int]) -> tuple[Shots, Enemies, Tensor]:
    """Each shot strikes the first fish in its cell, or else the first submarine; also returns how many are struck."""
    kills = torch.zeros_like(shots.heading[:, :1])
    for i in order:
        heading, row, column = (field[:, i : i + 1] for field in shots)
        here = exposed & _meets(enemies, column, row) & (heading != 0)
        fish = here & (enemies.is_sub == 0)
        target = torch.where(fish.any(-1, keepdim=True), fish, here)
        target = target & (target.cumsum(-1) == 1)
        hit = target.any(-1, keepdim=True)
        enemies = enemies._replace(heading=torch.where(target, 0.0, enemies.heading))
        left = torch.arange(_SHOTS, device=hit.device) != i
        shots = shots._replace(heading=torch.where(left | ~hit, shots.heading, 0.0))
        kills = kills + hit.to(kills)
    return shots, enemies, kills


def _collect(divers: Divers, x: Tensor, y: Tensor, aboard: Tensor) -> tuple[Divers, Tensor]:
    """Divers who meet the player before or after their move come aboard, the last first, while there is a cabin."""
    moves = divers.timer == 0
    moved = _moved(divers, moves)
    reached = _meets(divers, x, y) | _meets(moved, x, y)
    picked = reached & (aboard + reached.flip(-1).cumsum(-1).flip(-1) <= _CABINS)
    moved = moved._replace(
        heading=torch.where(picked, 0.0, moved.heading), timer=torch.where(moves, _DIVER_PAUSE, divers.timer - 1)
    )
    return moved, aboard + picked.sum(-1, keepdim=True)


def _turn(enemies: Enemies, pause: Tensor) -> Enemies:
    moves = enemies.timer == 0
    reload = torch.where(enemies.reload == 0, _ENEMY_RELOAD, enemies.reload - 1)
    return _moved(enemies, moves)._replace(
        timer=torch.where(moves, pause, enemies.timer - 1),
        reload=torch.where(enemies.is_sub > 0, reload, enemies.reload),
    )


def _shoot(bullets: list[Tensor], before: Enemies, after: Enemies, here: Tensor) -> tuple[list[Tensor], Tensor]:
    """Submarines shoot from where they are after their move, also who leaves or is struck there; bullets move.

    Also returns whether one is in the cell of the player, before or after.
    """
    shoots = (before.heading != 0) & (before.is_sub > 0) & (before.reload == 0)
    new = (_cells(shoots & (before.heading == side), before.row, after.column) for side in (-1, 1))
    left, right = (there | (old > 0) for there, old in zip(new, bullets, strict=True))
    grids = (there.view(-1, SIZE, SIZE) for there in (left, right))
    moved = [pad(grid, sides).flatten(1) for grid, sides in zip(grids, ((-1, 1), (1, -1)), strict=True)]
    return moved, (here & (left | right | moved[0] | moved[1])).any(-1, keepdim=True)


def _swept(things: Things) -> Things:
    """Who has gone leaves nothing behind."""
    return type(things)(*(torch.where(things.heading != 0, field, 0.0) for field in things))


def _cells(heading: Tensor, row: Tensor, column: Tensor, offset: int = 0) -> Tensor:
    """Which cells [N, 100] have one of [N, slots] where `heading` is not 0, so many columns ahead of it."""
    column = column + offset * heading
    there = (heading != 0) & (column >= 0) & (column < SIZE)
    index = torch.where(there, row * SIZE + column, CELLS).long()
    return there.new_zeros(len(there), CELLS + 1).scatter(1, index, True)[:, :CELLS]
