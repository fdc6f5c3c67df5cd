"""MinAtar's SpaceInvaders."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from esper.envs.base import DiscreteActions, Images
from esper.envs.device.minatar.game import CELLS, SIZE, Fields, Game, Numbers, Turn, at, constants

_COOL_DOWN, _BOMB_INTERVAL, _SLOWEST, _FASTEST = 5, 10, 12, 6


class SpaceInvaders(Game):
    """Cannon, whether aliens go right, steps between their moves, until the next one, until a bomb, until the cannon
    has cooled down; where shots, bombs and aliens are.
    """

    observations = Images(shape=(6, SIZE, SIZE), highest=1)
    actions = DiscreteActions(n=4)
    fields = (
        Numbers(0, SIZE - 1),
        Numbers(0, 1),
        Numbers(_FASTEST, _SLOWEST),
        Numbers(0, _SLOWEST),
        Numbers(0, _BOMB_INTERVAL),
        Numbers(0, _COOL_DOWN),
        *(Numbers(0, 1, CELLS),) * 3,
    )

    def start(self, uniform: Tensor) -> Fields:
        numbers = constants(uniform, 5, 0, _SLOWEST, _SLOWEST, _BOMB_INTERVAL, 0)
        empty = uniform.new_zeros(len(uniform), CELLS)
        return *numbers, empty, empty, empty + _wave(uniform.device)

    def play(self, fields: Fields, action: Tensor, uniform: Tensor) -> Turn:
        cannon, right, interval, move_timer, bomb_timer, cool_down, shots, bombs, aliens = fields
        fires = (action == 3) & (cool_down == 0)
        shots = torch.where(fires & at(SIZE - 1, cannon), 1.0, shots)
        cool_down = torch.where(fires, _COOL_DOWN, cool_down)
        cannon = (cannon - (action == 1).to(cannon) + (action == 2).to(cannon)).clamp(0, SIZE - 1)
        shots, bombs = pad(shots[:, SIZE:], (0, SIZE)), pad(bombs[:, :-SIZE], (SIZE, 0))
        here = at(SIZE - 1, cannon)
        lost = _any(here & ((bombs > 0) | (aliens > 0)))

        moves = move_timer == 0
        move_timer = torch.where(moves, torch.minimum(aliens.sum(-1, keepdim=True), interval), move_timer)
        grid = aliens.view(-1, SIZE, SIZE)
        turns = moves & torch.where(right > 0, _any(grid[:, :, -1] > 0), _any(grid[:, :, 0] > 0))
        lost |= turns & _any(grid[:, -1] > 0)
        ahead = torch.where(right[:, :, None] > 0, grid.roll(1, 2), grid.roll(-1, 2))
        moved = torch.where(turns[:, :, None], grid.roll(1, 1), ahead).flatten(1)
        aliens = torch.where(moves, moved, aliens)
        right = torch.where(turns, 1 - right, right)
        lost |= moves & _any(here & (aliens > 0))

        drops = bomb_timer == 0
        bomb_timer = torch.where(drops, _BOMB_INTERVAL, bomb_timer)
        bombs = torch.where(drops & _nearest(aliens, cannon), 1.0, bombs)
        kills = (aliens > 0) & (shots > 0)
        aliens, shots = torch.where(kills, 0.0, aliens), torch.where(kills, 0.0, shots)
        cleared = (aliens == 0).all(-1, keepdim=True)
        interval = torch.where(cleared, (interval - 1).clamp(_FASTEST), interval)
        aliens = torch.where(cleared, _wave(aliens.device), aliens)
        timers = move_timer - 1, bomb_timer - 1, (cool_down - 1).clamp(0)
        return Turn((cannon, right, interval, *timers, shots, bombs, aliens), kills.sum(-1, keepdim=True), lost)

    def channels(self, fields: Fields) -> tuple[Tensor, ...]:
        cannon, right, *_, shots, bombs, aliens = fields
        there = aliens > 0
        return at(SIZE - 1, cannon), there, there & (right == 0), there & (right > 0), shots > 0, bombs > 0


def _any(cells: Tensor) -> Tensor:
    return cells.any(-1, keepdim=True)


def _wave(device: torch.device) -> Tensor:
    """Four rows of six aliens [100]."""
    cells = torch.arange(CELLS, device=device)
    return ((cells < 4 * SIZE) & (cells % SIZE >= 2) & (cells % SIZE < 8)).float()


def _nearest(aliens: Tensor, cannon: Tensor) -> Tensor:
    """The cell of the lowest alien in the column nearest to the cannon, left of two."""
    cells = torch.arange(CELLS, device=aliens.device)
    # Below CELLS * SIZE; lower is nearer.
    order = ((cells % SIZE - cannon).abs() * SIZE + cells % SIZE) * SIZE + SIZE - 1 - cells // SIZE
    order = torch.where(aliens > 0, order, torch.inf)
    return (order == order.amin(-1, keepdim=True)) & (aliens > 0)
