"""Environments in a window: whether there can be one, and how fast it goes."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator

from esper.settings.options import ConfigError

_FPS = 30  # of an environment that does not say


class Paced(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Lets at most `fps` steps a second go by, by default as many as the environment says."""

    def __init__(self, env: gymnasium.Env[Any, Any], fps: float | None) -> None:
        super().__init__(env)
        if fps is not None:
            # Those that draw with pygame wait by themselves, for as long as this says; MuJoCo's window does not wait.
            env.unwrapped.metadata = {**env.unwrapped.metadata, "render_fps": fps}
        self._seconds = 1 / (fps or env.metadata.get("render_fps") or _FPS)
        self._due = time.monotonic()

    def step(self, action: Any) -> Any:
        result = self.env.step(action)
        self._due = max(self._due + self._seconds, time.monotonic())
        time.sleep(max(0.0, self._due - time.monotonic()))
        return result


def paced(fps: float | None) -> Callable[[gymnasium.Env[Any, Any]], Paced]:
    """What puts an environment into `Paced`."""
    return lambda env: Paced(env, fps)


def check_can_be_shown(spec: EnvSpec) -> None:
    """Refuse an environment that cannot be drawn, and a machine without a display.

    Raises:
        ConfigError: naming what is missing.
    """
    modes = _render_modes(spec)
    if modes is not None and not {"human", "rgb_array"}.intersection(modes):
        there = ", ".join(modes) or "none"
        raise ConfigError("env", spec.id, f"cannot be shown: needs the render mode human or rgb_array, and has {there}")
    if not _has_display():
        raise ConfigError(
            "env", spec.id, "cannot be shown: there is no display; esper evaluate --record draws an episode without one"
        )


def check_can_be_drawn(spec: EnvSpec) -> None:
    """Refuse an environment that names render modes, and not that of pictures. Many that can draw name none.

    Raises:
        ConfigError: naming those it has.
    """
    modes = _render_modes(spec)
    if modes and "rgb_array" not in modes:
        raise ConfigError(
            "env", spec.id, f"cannot be drawn: needs the render mode rgb_array, and has {', '.join(modes)}"
        )


def _render_modes(spec: EnvSpec) -> Sequence[str] | None:
    """Those that the environment's class names; None where it is made by a function."""
    creator = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
    modes: Sequence[str] | None = getattr(creator, "metadata", {}).get("render_modes")
    return modes


def _has_display() -> bool:
    """Asked beforehand: without one SDL draws where nobody sees it, and MuJoCo's window aborts the process."""
    import pygame

    with contextlib.suppress(pygame.error):
        pygame.display.init()
        driver = pygame.display.get_driver()
        return driver != "offscreen" or os.environ.get("SDL_VIDEODRIVER") == driver
    return False
