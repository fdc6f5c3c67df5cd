"""Displays, and environments in a window: whether one can be opened, and its speed."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator

from esper.settings.options import ConfigError

_FPS = 30  # if the environment specifies none


class Paced(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Limits steps to `fps` a second, by default to the environment's own rate."""

    def __init__(self, env: gymnasium.Env[Any, Any], fps: float | None) -> None:
        super().__init__(env)
        if fps is not None:
            # Environments that render with pygame wait by themselves, according to this; MuJoCo's window does not wait.
            env.unwrapped.metadata = {**env.unwrapped.metadata, "render_fps": fps}
        self._seconds = 1 / (fps or env.metadata.get("render_fps") or _FPS)
        self._due = time.monotonic()

    def step(self, action: Any) -> Any:
        result = self.env.step(action)
        self._due = max(self._due + self._seconds, time.monotonic())
        time.sleep(max(0.0, self._due - time.monotonic()))
        return result


def paced(fps: float | None) -> Callable[[gymnasium.Env[Any, Any]], Paced]:
    """The wrapper that puts an environment into `Paced`."""
    return lambda env: Paced(env, fps)


def check_can_be_shown(spec: EnvSpec) -> None:
    """Refuse an environment that cannot be rendered, and a machine without a display.

    Raises:
        ConfigError: naming what is missing.
    """
    modes = _render_modes(spec)
    if modes is not None and not {"human", "rgb_array"}.intersection(modes):
        there = ", ".join(modes) or "none"
        raise ConfigError("env", spec.id, f"cannot be shown: needs the render mode human or rgb_array, and has {there}")
    check_display(spec.id)


def check_display(env: str) -> None:
    """Refuse to show `env` on a machine without a display.

    Raises:
        ConfigError: naming what draws it without one.
    """
    if not _has_display():
        without = "esper evaluate --record draws an episode without one, as does record_gif from Python"
        raise ConfigError("env", env, f"cannot be shown: there is no display; {without}")


@contextlib.contextmanager
def drawn_offscreen() -> Iterator[None]:
    """Keep SDL from looking for a display where nothing names one: libwayland would call that an error on stderr."""
    if _names_display():
        yield
        return
    os.environ["SDL_VIDEODRIVER"] = "offscreen"
    try:
        yield
    finally:
        del os.environ["SDL_VIDEODRIVER"]


def check_can_be_drawn(spec: EnvSpec) -> None:
    """Refuse an environment that names render modes without rgb_array. Many that can render name none.

    Raises:
        ConfigError: naming those it has.
    """
    modes = _render_modes(spec)
    if modes and "rgb_array" not in modes:
        raise ConfigError(
            "env", spec.id, f"cannot be drawn: needs the render mode rgb_array, and has {', '.join(modes)}"
        )


def _render_modes(spec: EnvSpec) -> Sequence[str] | None:
    """The modes that the environment's class names; None if a function makes it."""
    creator = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
    modes: Sequence[str] | None = getattr(creator, "metadata", {}).get("render_modes")
    return modes


def _names_display() -> bool:
    """Whether anything names a display: to X11, to Wayland, or to SDL itself."""
    x11_or_sdl = os.environ.get("DISPLAY") or os.environ.get("SDL_VIDEODRIVER")
    return bool(x11_or_sdl or os.environ.get("WAYLAND_DISPLAY") or os.environ.get("XDG_RUNTIME_DIR"))


def _has_display() -> bool:
    """Checked beforehand: without a display SDL draws invisibly, and MuJoCo's window aborts the process."""
    if not _names_display():
        return False
    import pygame

    with contextlib.suppress(pygame.error):
        pygame.display.init()
        driver = pygame.display.get_driver()
        return driver != "offscreen" or os.environ.get("SDL_VIDEODRIVER") == driver
    return False
