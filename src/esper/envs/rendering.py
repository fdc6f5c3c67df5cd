"""Rendering environments: as images, or in a window."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esper.envs.base import EnvError
from esper.envs.config import EnvConfig
from esper.envs.gym import GymnasiumVectorEnv
from esper.envs.making import adapted, makers_of, stepped_one_by_one
from esper.envs.registration import find_spec
from esper.envs.rules import BrokenRule, as_frame
from esper.envs.window import check_can_be_drawn, check_can_be_shown, drawn_offscreen, paced
from esper.settings.options import ConfigError
from esper.system.errors import describe, is_ctrl_c


class RenderedVectorEnv(GymnasiumVectorEnv):
    """A `VectorEnv` whose first environment can be rendered."""

    @property
    def render_fps(self) -> int:
        return int(self._env.metadata.get("render_fps", 30))

    def render(self) -> NDArray[np.uint8]:
        """The first environment as an image [height, width, 3].

        Raises:
            ConfigError: when it cannot be rendered on this machine.
        """
        try:
            with drawn_offscreen():
                frames: Any = self._env.render()
            return as_frame(frames[0])
        except BaseException as error:  # Renderers raise their own types: mujoco.FatalError, pygame.error, ...
            if is_ctrl_c(error):
                raise
            subenv: Any = getattr(self._env, "envs", [self._env])[0]
            name = self._env.spec.id if self._env.spec else f"<{type(subenv.unwrapped).__qualname__}>"
            why = str(error) if isinstance(error, EnvError | BrokenRule) else describe(error)
            raise ConfigError("env", name, f"cannot be drawn here: {why}") from error


def make_gymnasium_rendered(config: EnvConfig) -> RenderedVectorEnv:
    """One environment that can be rendered.

    Raises:
        ConfigError: as `make_gymnasium`, and if it cannot be rendered.
    """
    spec = find_spec(config.env)
    return _make(config, "rgb_array", lambda: check_can_be_drawn(spec))


def make_gymnasium_shown(config: EnvConfig, fps: float | None) -> RenderedVectorEnv:
    """One environment in a window, `fps` steps a second.

    Raises:
        ConfigError: as `make_gymnasium`, and if no window can be opened.
    """
    spec = find_spec(config.env)
    return _make(config, "human", lambda: check_can_be_shown(spec), paced(fps))


def _make(config: EnvConfig, mode: str, check: Callable[[], None], *wrappers: Any) -> RenderedVectorEnv:
    rendering = dataclasses.replace(config, env_kwargs={**config.env_kwargs, "render_mode": mode})

    def make() -> Any:
        check()
        try:
            return stepped_one_by_one(rendering, makers_of(rendering, 1), "sync", wrappers=wrappers)
        except TypeError as error:
            if "unexpected keyword argument 'render_mode'" not in str(error):
                raise
            raise ConfigError("env", config.env, "cannot be drawn: its constructor takes no render_mode") from error

    # Not `rendering`: the user did not give the mode.
    return adapted(RenderedVectorEnv, config, make)
