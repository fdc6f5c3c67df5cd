"""MinAtar's games (Young and Tian 2019, arXiv 1903.03176) as Gymnasium environments.

The package's own environments can neither save their state nor be rendered without a window.
"""

from __future__ import annotations

import colorsys
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from esper.envs.base import StateTree
from esper.envs.device.minatar.game import MAX_EPISODE_STEPS, STICKY_ACTION_PROB
from esper.envs.family import Family
from esper.envs.snapshot import attributes_of, set_attributes

GAMES = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")
_PIXELS_PER_CELL = 16


class MinAtarEnv(gymnasium.Env[Any, Any]):
    """One game with its minimal actions. Observations are bool [10, 10, channels], one channel per kind of object.

    With `sticky_action_prob` the last action is repeated; with `difficulty_ramping` the game becomes faster.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self,
        game: str,
        *,
        sticky_action_prob: float = STICKY_ACTION_PROB,
        difficulty_ramping: bool = True,
        render_mode: str | None = None,
    ) -> None:
        import minatar

        self._environment = minatar.Environment(game, sticky_action_prob, difficulty_ramping)
        self._game = self._environment.env
        self._choices = self._environment.minimal_action_set()
        self.action_space = Discrete(len(self._choices))
        self.observation_space = Box(0, 1, tuple(self._environment.state_shape()), dtype=np.bool_)
        self.render_mode = render_mode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.bool_], dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self._environment.seed(int(self.np_random.integers(2**32)))
        self._environment.reset()
        return self._environment.state(), {}

    def step(self, action: int) -> tuple[NDArray[np.bool_], float, bool, bool, dict[str, Any]]:
        reward, terminated = self._environment.act(self._choices[action])
        return self._environment.state(), float(reward), bool(terminated), False, {}

    def render(self) -> NDArray[np.uint8]:
        """[160, 160, 3], a colour for each channel."""
        cells = self._environment.state()
        channels = cells.shape[2]
        picture = np.zeros((*cells.shape[:2], 3), dtype=np.uint8)
        for channel in range(channels):
            colour = colorsys.hsv_to_rgb(channel / channels, 0.7, 1.0)
            picture[cells[:, :, channel]] = np.round(np.array(colour) * 255)
        return picture.repeat(_PIXELS_PER_CELL, axis=0).repeat(_PIXELS_PER_CELL, axis=1)

    def state_dict(self) -> StateTree:
        return {"game": attributes_of(self._game), "last_action": int(self._environment.last_action)}

    def load_state_dict(self, state: StateTree) -> None:
        set_attributes(self._game, state["game"])
        self._environment.random = self._game.random  # one stream for the game and for sticky actions
        self._environment.last_action = int(state["last_action"])


class MinAtar(Family):
    """The five games, each as a `MinAtarEnv`."""

    prefixes = ("MinAtar/",)
    module = "minatar"
    extra = "minatar"

    def register(self, env: str) -> None:
        super().register(env)
        for game in GAMES:
            name = f"MinAtar/{game.title().replace('_', '')}-v1"
            gymnasium.registry.pop(name, None)  # the package's own, where a plugin has registered it
            gymnasium.register(
                name,
                entry_point=f"{__name__}:{MinAtarEnv.__name__}",
                max_episode_steps=MAX_EPISODE_STEPS,
                kwargs={"game": game},
            )


FAMILY = MinAtar()
