"""MinAtar's Breakout."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from esper.envs.base import DiscreteActions, Images
from esper.envs.device.minatar.game import SIZE, Fields, Game, Numbers, Turn, at, constants, whole

_ROWS = 3


class Breakout(Game):
    """Paddle, ball, where the ball was, its direction, whether it struck a brick, and three rows of bricks.

    A ball strikes one brick in a row of steps within bricks.
    """

    observations = Images(shape=(4, SIZE, SIZE), highest=1)
    actions = DiscreteActions(n=3)
    begin_draws = 1
    fields = (
        *(Numbers(0, 9),) * 5,
        *(Numbers(-1, 1),) * 2,
        Numbers(0, 1),
        Numbers(0, 1, _ROWS * SIZE),
    )

    def start(self, uniform: Tensor) -> Fields:
        side = whole(uniform, 2)
        paddle, y, down, struck = constants(uniform, 4, 3, 1, 0)
        bricks = uniform.new_ones(len(uniform), _ROWS * SIZE)
        x = side * (SIZE - 1)
        return paddle, x, y, x, y, 1 - 2 * side, down, struck, bricks

    def play(self, fields: Fields, action: Tensor, uniform: Tensor) -> Turn:
        paddle, x, y, _, _, right, down, struck, bricks = fields
        paddle = (paddle - (action == 1).to(x) + (action == 2).to(x)).clamp(0, SIZE - 1)
        new_x, new_y = x + right, y + down
        right = torch.where((new_x < 0) | (new_x >= SIZE), -right, right)
        new_x = new_x.clamp(0, SIZE - 1)
        # Bricks begin in row 1.
        target = torch.arange(bricks.shape[1], device=x.device) == (new_y - 1) * SIZE + new_x
        hits = (target & (bricks > 0)).any(-1, keepdim=True)
        breaks = hits & (struck == 0)
        bottom = new_y == SIZE - 1
        corner = bottom & (x != paddle) & (new_x == paddle)
        bounces = (new_y < 0) | breaks | bottom & (x == paddle) | corner
        lost = bottom & ~bounces
        bricks = torch.where(target & breaks, 0.0, bricks)
        bricks = torch.where(bottom & (bricks == 0).all(-1, keepdim=True), 1.0, bricks)
        right, down = torch.where(corner, -right, right), torch.where(bounces, -down, down)
        # A bounce leaves the ball in its row.
        moved = (paddle, new_x, torch.where(bounces, y, new_y), x, y, right, down, hits, bricks)
        return Turn(moved, breaks, lost)

    def channels(self, fields: Fields) -> tuple[Tensor, ...]:
        paddle, x, y, last_x, last_y, _, _, _, bricks = fields
        return at(SIZE - 1, paddle), at(y, x), at(last_y, last_x), pad(bricks, (SIZE, 6 * SIZE)) > 0
