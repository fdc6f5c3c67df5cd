"""The games of MinAtar 1.0.15 (Young and Tian 2019, arXiv 1903.03176), for N environments at once.

With the package's defaults: sticky actions, games that become harder, the minimal actions. The tests compare them step
by step with the package, on the same random numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

from esper.envs.device.minatar.asterix import Asterix
from esper.envs.device.minatar.breakout import Breakout
from esper.envs.device.minatar.freeway import Freeway
from esper.envs.device.minatar.game import Game
from esper.envs.device.minatar.seaquest import Seaquest
from esper.envs.device.minatar.space_invaders import SpaceInvaders

MINATAR: Mapping[str, type[Game]] = {
    "MinAtar/Breakout-v1": Breakout,
    "MinAtar/SpaceInvaders-v1": SpaceInvaders,
    "MinAtar/Asterix-v1": Asterix,
    "MinAtar/Freeway-v1": Freeway,
    "MinAtar/Seaquest-v1": Seaquest,
}
